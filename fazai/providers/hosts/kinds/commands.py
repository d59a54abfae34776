"""host.command"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fazai.model import FieldSpec, Problem, Secret, Value, Verb
from fazai.providers.hosts.blob import reveal_text
from fazai.providers.hosts.kind import Act, Answers, Block, Difference, Have, HostKind, Want
from fazai.providers.hosts.shell.preconditions import Precondition
from fazai.providers.hosts.shell.questions import FileAt, OutputOf, PathState, Question, find_output
from fazai.providers.hosts.shell.quoting import quote

_GUARDS = ("creates", "removes", "unless")


class CommandKind(HostKind):
    """A command that is run where its guard says that it is needed; as a handler, when it is notified."""

    name = "host.command"
    summary = "A command, run where its guard says that it is needed, or as a handler"
    example = "host.command: {argv: [locale-gen, de_DE.UTF-8], creates: /usr/lib/locale/de_DE.utf8}"
    identity = ("argv",)
    options = frozenset(("creates", "removes", "unless", "chdir", "environment", "timeout"))
    specs = (
        FieldSpec("argv", "argv", "the program and its arguments, each as it is: no shell reads them"),
        FieldSpec("shell", "text", "instead of argv: a script for sh"),
        FieldSpec("creates", "path", "not needed when this is there"),
        FieldSpec("removes", "path", "not needed when this is not there"),
        FieldSpec(
            "unless",
            "argv",
            "not needed when this command succeeds; it is run on every look and changes nothing",
        ),
        FieldSpec("chdir", "path", "the folder in which it runs"),
        FieldSpec("environment", "map", "variables; secrets belong here, not into argv"),
        FieldSpec("timeout", "integer", "seconds that it may take; else those of the host", minimum=1),
    )
    runs = True
    programs = frozenset(("argv", "shell", "unless", "environment"))

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        argv, shell = fields.get("argv"), fields.get("shell")
        if isinstance(argv, list) and argv:
            return shlex.join(str(word) for word in argv)
        if isinstance(shell, str) and shell:
            return shell.strip()
        if argv is None and shell is None:
            misnamed = self.find_misnamed("shell", fields) or self.find_misnamed("argv", fields)
            return misnamed or Problem("argv", "is missing: what is to be run", "argv: [program, argument]")
        if isinstance(shell, Secret):
            return Problem("shell", "names the command, and cannot be a secret", "put it into environment:")
        name = "argv" if argv is not None else "shell"
        return Problem(name, "must be a list: the program and its arguments" if argv else "must be text")

    def normalise(self, fields: Mapping[str, Value], state: str) -> tuple[dict[str, Value], list[Problem]]:
        found, problems = HostKind.normalise(self, fields, state)
        if state == "present" and not problems and not any(name in found for name in _GUARDS):
            text = "would run every time: nothing says when it is needed"
            problems.append(
                Problem(None, text, "creates: PATH, removes: PATH or unless: [test…]; or a handler")
            )
        return found, problems

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        if absent:
            yield Problem(None, "a command cannot be absent", "removes: PATH says when it is done")
        if "argv" in fields and "shell" in fields:
            yield Problem("shell", "and argv are two commands")
        for name in fields.get("environment", {}):
            if not name.isidentifier() or not name.isascii():
                yield Problem("environment", f'"{name}" is no name of a variable')

    def ask(self, want: Want) -> Iterable[Question]:
        for name in ("creates", "removes"):
            if name in want.fields:
                yield FileAt(want.at(want.fields[name]))
        if "unless" in want.fields:
            yield _unless_question(want.fields, want.at)

    def read(self, want: Want, answers: Answers) -> Have | None:
        """Return no fields when nothing is to be done, None when the command is to be run."""
        done, hidden = [], False
        for name, there in (("creates", True), ("removes", False)):
            if name in want.fields:
                path = answers[FileAt(want.at(want.fields[name]))]
                assert isinstance(path, PathState)
                if path.type == "denied":
                    hidden = True
                else:
                    done.append((path.type != "missing") is there)
        if "unless" in want.fields:
            done.append(find_output(answers, _unless_question(want.fields, want.at)).exit == 0)
        if hidden and not any(done):
            raise want.denied_error()
        return {} if any(done) else None

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        if have is not None:
            return None
        name = "argv" if "argv" in want.fields else "shell"
        return Verb.RUN, {}, {name: want.fields[name]}

    def rests_on(self, want: Want, answers: Answers) -> tuple[Precondition, ...]:
        """Demand that something is there, or is not, whatever it is."""
        return tuple(
            each if each.type == "missing" else Precondition(each.path, "other")
            for each in HostKind.rests_on(self, want, answers)
        )

    def write(self, act: Act) -> Iterator[Block]:
        fields = {**act.options, **act.after}
        timeout_s = fields.get("timeout")
        yield Block(_command_script(fields, act.at), timeout_s=timeout_s, command=True)


def _unless_question(fields: Mapping[str, Value], at: Any) -> OutputOf:
    """Return the question whether `unless:` succeeds: what it prints stays on the host."""
    return OutputOf("exec >/dev/null 2>&1\n" + _command_script({**fields, "argv": fields["unless"]}, at))


def _command_script(fields: Mapping[str, Any], at: Any) -> str:
    """Return the command in its folder, with its variables. It is no part of our shell: `exit` ends only
    itself."""
    lines = [f"fz_cd {quote(at(fields['chdir']))}"] if "chdir" in fields else []
    lines.append('LC_ALL=$fz_lc; [ -n "$LC_ALL" ] || unset LC_ALL')
    for name, value in fields.get("environment", {}).items():
        lines.append(f"{name}={quote(reveal_text(value))}; export {name}")
    if "argv" in fields:
        lines.append("exec " + " ".join(map(quote, fields["argv"])))
    else:
        lines.append(fields["shell"])
    return "\n".join(lines)


KINDS = (CommandKind(),)
