"""host.sysctl"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.kind import Act, Answers, Block, Difference, Have, Want
from fazai.providers.hosts.kinds.shared import filtering
from fazai.providers.hosts.kinds.shared.filtering import SharedLineKind
from fazai.providers.hosts.shell.questions import OutputOf, Question, find_output
from fazai.providers.hosts.shell.quoting import quote

_FILE: Final = "/etc/sysctl.d/99-fazai.conf"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:@*-]*")
_FILTER: Final = (
    filtering.FILTER_BEGIN
    + r"""{ l = $0; sub(/^[ \t]*-?[ \t]*/, "", l); i = index(l, "="); k = i ? substr(l, 1, i - 1) : ""
sub(/[ \t]+$/, "", k); if (k == ENVIRON["fz_key"]) put(); else out($0) }
"""
)


class SysctlKind(SharedLineKind):
    """A setting of the kernel: in a file for the next start, and now."""

    name = "host.sysctl"
    summary = "A setting of the kernel, now and after the next start"
    example = 'host.sysctl: {name: net.ipv4.ip_forward, value: "1"}'
    identity = ("name",)
    options = frozenset(("sysctl_file", "sysctl_set"))
    specs = (
        FieldSpec("name", "text", "name of the setting, as sysctl says it", required=True),
        FieldSpec("value", "text", "its value", required=True),
        FieldSpec("sysctl_file", "path", "where it is kept", default=_FILE),
        FieldSpec(
            "sysctl_set",
            "boolean",
            "set it in the running kernel, too; never in a folder (root:)",
            default=True,
        ),
        FieldSpec("state", "choice", "absent: no line in the file", choices=("present", "absent")),
    )

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        if not _NAME.fullmatch(fields["name"]):
            yield Problem("name", f'is no name of a setting: "{fields["name"]}"', "net.ipv4.ip_forward")
        if "value" in fields:
            # the kernel prints tabs where spaces were set
            fields["value"] = " ".join(fields["value"].split())
            if not fields["value"]:
                yield Problem("value", "is empty")

    def ask(self, want: Want) -> Iterable[Question]:
        yield from filtering.file_questions(_settings_path(want))
        if self._running(want):
            yield OutputOf(f"sysctl -n {quote(want.fields['name'])}")

    def _running(self, want: Want) -> bool:
        """Tell whether the kernel is meant as well. A folder (`root:`) has none."""
        on_machine = want.at("/") == "/"
        return on_machine and not want.absent and bool(want.fields.get("sysctl_set", True))

    def read(self, want: Want, answers: Answers) -> Have | None:
        name = want.fields["name"]
        content = filtering.file_content(want, _settings_path(want), answers)
        have: dict[str, Any] = {"file": want.fields.get("sysctl_file", _FILE), "value": None}
        for line in content.decode("utf-8", "replace").splitlines():
            key, equals, value = line.partition("=")
            key = key.strip().removeprefix("-").strip()  # `-name = value`: an error is no error
            if equals and key == name:
                have["value"] = " ".join(value.split())  # the last one counts
        if self._running(want):
            kernel = find_output(answers, OutputOf(f"sysctl -n {quote(name)}"))
            text = " ".join(kernel.text.split())
            if kernel.exit == filtering.NO_PROGRAM:
                hint = "install it before (procps), or sysctl_set: false writes the file alone"
                raise want.error("there is no sysctl on the host", hint)
            if kernel.exit or "permission denied" in text.lower():  # some versions fail without a status
                hint = "is the name right, and its module loaded? sysctl_set: false writes the file alone"
                raise want.error(f"the kernel does not tell its value: {text or 'sysctl failed'}", hint)
            have["running"] = text
        return have

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        """Compare file and kernel; the value that the kernel has now is part of what is taken back."""
        assert have is not None
        file, before = have["file"], {k: have[k] for k in ("value", "running") if have.get(k) is not None}
        if want.absent:
            return (Verb.DELETE, {"file": file, **before}, {}) if have["value"] is not None else None
        value = want.fields["value"]
        after = {k: value for k in ("value", "running") if k in have and have[k] != value}
        if not after:
            return None
        before = {k: v for k, v in before.items() if k in after}
        if have["value"] is None:
            return Verb.CREATE, before, {"file": file, **after}
        return Verb.UPDATE, before, after

    def touches(self, want: Want) -> tuple[str, ...]:
        return (_settings_path(want),)

    def reaches_further(self, want: Want) -> bool:
        """The kernel's settings name programs that it runs as root (kernel.core_pattern)."""
        return self._running(want)

    def write(self, act: Act) -> Iterator[Block]:
        name, running = act.identity, act.after.get("running")
        if running is not None:  # first: what the kernel refuses is in no file then
            pair = quote(f"{name}={running}")
            yield Block(f'if [ "$(uname)" = FreeBSD ]; then sysctl {pair}; else sysctl -w {pair}; fi >&2')
        path = act.at({**act.have, **act.before, **act.after}["file"])
        if act.verb is Verb.DELETE or "value" in act.after:
            line = "" if act.verb is Verb.DELETE else f"{name} = {act.after['value']}"
            command = filtering.filter_command(_FILTER, {"fz_key": name, "fz_new": line})
            yield from filtering.edit_file(path, command, act)


def _settings_path(want: Want) -> str:
    return want.at(want.fields.get("sysctl_file", _FILE))


KINDS = (SysctlKind(),)
