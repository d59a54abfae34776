"""host.cron"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared import filtering
from fazai.providers.hosts.kinds.shared.filtering import SharedLineKind
from fazai.providers.hosts.shell.preconditions import MOVED
from fazai.providers.hosts.shell.questions import OutputOf, Question, find_output
from fazai.providers.hosts.shell.quoting import quote

_TIMES: Final = ("minute", "hour", "day", "month", "weekday")
_SPECIAL: Final = ("reboot", "yearly", "annually", "monthly", "weekly", "daily", "hourly")
_FOLDER: Final = "/etc/cron.d"
_FILE: Final = re.compile(r"[A-Za-z0-9_-]+")
_WHEN: Final = re.compile(r"[0-9A-Za-z*,/~-]+")
#: A marker of Ansible's is as good: its jobs are taken over, not doubled.
_MARKERS: Final = ("#fazai: ", "#Ansible: ")
_FILTER: Final = (
    filtering.FILTER_BEGIN
    + r"""{ mark = 0; if (index($0, "#fazai: ") == 1) mark = 8; if (index($0, "#Ansible: ") == 1) mark = 10
if (mark && substr($0, mark + 1) == ENVIRON["fz_key"]) { put(); skip = 1; next }
if (skip) { skip = 0; if (!mark) next }
out($0) }
"""
)


class CronKind(SharedLineKind):
    """A job of cron: a line below a comment that names it, in a crontab or in a file of /etc/cron.d."""

    name = "host.cron"
    summary = "A job of cron"
    example = 'host.cron: {name: backup, minute: "30", hour: "3", job: /usr/local/bin/backup, user: root}'
    identity = ("name",)
    programs = frozenset(("job",))
    specs = (
        FieldSpec("name", "text", "names the job, in a comment above its line", required=True),
        FieldSpec("job", "text", "the command line", required=True),
        *(FieldSpec(name, "text", "as in a crontab", default="*") for name in _TIMES),
        FieldSpec("special_time", "choice", "instead of the five times", choices=_SPECIAL),
        FieldSpec("user", "account", "whose job it is; whose crontab, if no cron_file is set"),
        FieldSpec("cron_file", "text", f"a file of {_FOLDER} instead of a crontab"),
        FieldSpec("disabled", "boolean", "keep the line as a comment", default=False),
        PRESENCE,
    )

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        name = HostKind.identify(self, fields)
        if isinstance(name, Problem):
            return name
        place = _place_of_job(fields)
        return f"{name} ({place})" if place else name

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        for field in ("name", "job"):
            if "\n" in fields.get(field, "") or fields.get(field, "x") != fields.get(field, "x").strip():
                yield Problem(field, "must be one line without space around it")
        if "cron_file" in fields:
            if not _FILE.fullmatch(fields["cron_file"]):
                text = f'is no name of a file that cron reads in {_FOLDER}: "{fields["cron_file"]}"'
                yield Problem("cron_file", text, "letters, digits, - and _")
            if "user" not in fields and not absent:
                yield Problem("user", "is missing: a file of cron.d names the user of each job", "user: root")
        given = [name for name in _TIMES if name in fields]
        if "special_time" in fields and given:
            yield Problem(given[0], "and special_time are two times of one job")
        for name in given:
            if not _WHEN.fullmatch(fields[name]):
                yield Problem(name, f'is no time of cron: "{fields[name]}"', 'as in: "*/5", "0-6", "mon"')
        if not absent:
            if "special_time" not in fields:  # a line of cron is whole: what is not said is any time
                fields.update({name: fields.get(name, "*") for name in _TIMES})
            fields.setdefault("disabled", False)

    def ask(self, want: Want) -> Iterable[Question]:
        if "cron_file" in want.fields:
            yield from filtering.file_questions(_cron_path(want))
        else:
            yield _crontab_question(want)

    def read(self, want: Want, answers: Answers) -> Have | None:
        if want.at("/") != "/" and "cron_file" not in want.fields:
            raise want.error("a folder (root:) has no crontab of a user", "cron_file: …")
        if "cron_file" in want.fields:
            content = filtering.file_content(want, _cron_path(want), answers)
        else:
            content = _crontab_content(want, answers)
        lines = content.decode("utf-8", "surrogateescape").split("\n")
        for marker, line in zip(lines, lines[1:]):
            if any(marker == text + want.fields["name"] for text in _MARKERS):
                where = {k: want.fields[k] for k in ("cron_file", "user") if k in want.fields}
                return {**where, **_parse_job(line, "cron_file" in want.fields)}
        return None

    def touches(self, want: Want) -> tuple[str, ...]:
        """Return the file of cron.d; a crontab of a user is read and written by its program alone."""
        cron_file = want.fields.get("cron_file")
        return (want.at(f"{_FOLDER}/{cron_file}"),) if cron_file else ()

    def write(self, act: Act) -> Iterator[Block]:
        fields = {**act.have, **act.before, **act.after}
        if act.after.get("special_time"):
            fields = {k: v for k, v in fields.items() if k not in _TIMES}
        elif any(act.after.get(name) for name in _TIMES):
            fields.pop("special_time", None)
        place = _place_of_job(fields)
        name = act.identity.removesuffix(f" ({place})")
        line = f"{_MARKERS[0]}{name}\n{_format_job(fields)}" if act.verb is not Verb.DELETE else ""
        command = filtering.filter_command(_FILTER, {"fz_key": name, "fz_new": line})
        if "cron_file" in fields:
            path = act.at(f"{_FOLDER}/{fields['cron_file']}")
            yield from filtering.edit_file(path, command, act)
        else:
            yield Block(_edit_crontab(fields.get("user"), command))

    def differing(self, want: Want, have: Have) -> dict[str, Value]:
        """Return the fields that differ; a job at a special time has no others, and the other way round."""
        names = ("special_time", *_TIMES, "job", "disabled", "user")
        wanted = {name: want.fields.get(name) for name in names}
        return {
            name: value
            for name, value in wanted.items()
            if value != have.get(name) and (value is not None or name in ("special_time", *_TIMES))
        }

    def declared(self, want: Want) -> dict[str, Value]:
        return {k: v for k, v in want.fields.items() if k != "name" and v is not False}


def _place_of_job(fields: Mapping[str, Value]) -> str:
    return f"cron.d/{fields['cron_file']}" if fields.get("cron_file") else str(fields.get("user") or "")


def _cron_path(want: Want) -> str:
    return want.at(f"{_FOLDER}/{want.fields['cron_file']}")


def _crontab_content(want: Want, answers: Answers) -> bytes:
    """Return the crontab of a user; empty when there is none. Raises DeviceError where that cannot be
    told."""
    answer = find_output(answers, _crontab_question(want))
    text = answer.text.strip()
    if answer.exit == 0:
        return answer.out
    if answer.exit == filtering.NO_PROGRAM and not want.absent:
        hint = "install cron before: host.package: {name: cron}; its name differs (cronie, busybox)"
        raise want.error("there is no crontab on the host", hint)
    none = ("no crontab", "No such file", *(("unknown",) if want.absent else ()))  # a user who is not there
    if answer.exit != filtering.NO_PROGRAM and not any(words in text for words in none):
        raise want.error(f"the crontab cannot be read: {text}", "become: true; is the user there?")
    return b""


def _crontab_question(want: Want) -> OutputOf:
    return OutputOf(f"crontab {_user_option(want.fields.get('user'))}-l")  # 127: there is no such program


def _user_option(user: str | None) -> str:
    return f"-u {quote(user)} " if user else ""


def _parse_job(line: str, with_user: bool) -> dict[str, Value]:
    """Read the fields of a line; what is no line of cron is a job that differs from every one."""
    disabled = line.startswith("#")
    rest = line.removeprefix("#")
    have: dict[str, Value] = {"disabled": disabled}
    names: tuple[str, ...] = ("special_time",) if rest.startswith("@") else _TIMES
    if with_user:
        names += ("user",)
    words = rest.removeprefix("@").split(None, len(names))
    return {**have, **dict(zip((*names, "job"), words))}


def _format_job(fields: Mapping[str, Value]) -> str:
    special = fields.get("special_time")
    times = f"@{special}" if special else " ".join(fields.get(name) or "*" for name in _TIMES)
    user = f" {fields['user']}" if "cron_file" in fields else ""
    return f"{'#' if fields.get('disabled') else ''}{times}{user} {fields['job']}"


def _edit_crontab(user: str | None, command: str) -> str:
    """Return a script that puts a crontab through a filter. Nothing is written when it is there and could not
    be read."""
    program = f"crontab {_user_option(user)}"
    return "\n".join(
        (
            "set -e",
            f"old=$({program}-l 2>/dev/null) || case $({program}-l 2>&1 || :) in",
            "*'no crontab'*|*'No such file'*) old= ;;",
            f"*) {program}-l; exit 1 ;;",
            "esac",
            f'new=$(if [ -n "$old" ]; then printf "%s\\n" "$old"; fi | {command})',
            f'[ "$old" = "$({program}-l 2>/dev/null)" ] || {{ fz_m moved the crontab; exit {MOVED}; }}',
            f'if [ -n "$new" ]; then printf "%s\\n" "$new" | {program}-; else {program}-r; fi',
        )
    )


KINDS = (CronKind(),)
