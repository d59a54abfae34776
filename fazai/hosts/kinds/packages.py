"""ssh.package"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final

from fazai.hosts.kind import Act, Answers, Block, Have, HostKind, Want
from fazai.hosts.packaging import DETECT, MANAGERS
from fazai.hosts.questions import Output, Question, Shell
from fazai.hosts.quoting import quoted
from fazai.hosts.writing import unlike
from fazai.model import FieldSpec, Problem, Value, Verb

__all__ = ["KINDS"]

#: No sign that a package manager takes for more than a name: apt's `-` at the end removes.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+@-]*[A-Za-z0-9_+])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~^_-]*")
_LATEST: Final = "latest"
_TIMEOUT_S: Final = 1800.0


def _case(command: str) -> str:
    """The command of the manager that the host has."""
    arms = (f"{name}) {getattr(manager, command)} ;;" for name, manager in MANAGERS.items())
    return "case $fz_pm in\n" + "\n".join(arms) + "\n*) exit 3 ;; esac"


#: The same for all packages of a host, so it is asked once.
_INSTALLED: Final = Shell(f"{DETECT}echo $fz_pm\n{_case('installed')}")


class PackageKind(HostKind):
    """A package of the system's own package manager."""

    machine: ClassVar[bool] = True

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        for name, pattern in (("name", _NAME), ("version", _VERSION)):
            if name in fields and not pattern.fullmatch(fields[name]):
                hint = "one package; loop: makes several" if name == "name" else None
                yield Problem(name, f'is no {name} of a package: "{fields[name]}"', hint)
        if fields.get("state") == _LATEST:
            if "version" in fields:
                yield Problem("version", "and state: latest are two versions of one package")
            fields["version"], fields["state"] = _LATEST, "present"

    def ask(self, want: Want) -> Iterable[Question]:
        yield _INSTALLED
        if want.fields.get("version") == _LATEST:
            yield _newest(want)

    def read(self, want: Want, answers: Answers) -> Have | None:
        answer = answers[_INSTALLED]
        assert isinstance(answer, Output)
        name, *lines = answer.out.decode("utf-8", "replace").splitlines() or ["none"]
        manager = MANAGERS.get(name)
        if manager is None:
            hint = f"fazai knows {', '.join(MANAGERS)}"
            raise unlike(want, "the host has no package manager that is known", hint)
        if answer.exit:
            raise unlike(want, f"{name} does not say what is installed: {' '.join(lines[-2:])}")
        version = dict(filter(None, map(manager.entry, lines))).get(want.fields["name"])
        if version is None:
            return None
        wanted = want.fields.get("version")
        if wanted == _LATEST:
            newest = answers[_newest(want)]
            assert isinstance(newest, Output)
            candidate = manager.candidate(newest.out.decode("utf-8", "replace"))
            return {"version": version, "newest": candidate or version}
        return {"version": wanted if wanted in manager.forms(version) else version}

    def compare(
        self, want: Want, have: Have | None
    ) -> tuple[Verb, Mapping[str, Value], Mapping[str, Value]] | None:
        """The plan names the version that "latest" is."""
        if want.absent:
            return None if have is None else (Verb.DELETE, {"version": have["version"]}, {})
        version = want.fields.get("version")
        if have is None:
            return Verb.CREATE, {}, {} if version in (None, _LATEST) else {"version": version}
        if version == _LATEST:
            version = have["newest"]
        if version in (None, have["version"]):
            return None
        return Verb.UPDATE, {"version": have["version"]}, {"version": version}

    def write(self, act: Act) -> Iterator[Block]:
        lines = ["set -e", DETECT, f"p={quoted(act.identity)} v={quoted(act.after.get('version', ''))}"]
        if act.verb is Verb.DELETE:
            command = "purge" if act.options.get("purge") else "remove"
        elif "version" not in act.after:
            command = "install"
        else:
            command = "upgrade" if act.options.get("version") == _LATEST else "pin"
        if act.verb is not Verb.DELETE and act.options.get("update_cache"):
            lines.append(_case("refresh"))
        lines.append(_options(lean=act.options.get("install_recommends") is False))
        yield Block("\n".join((*lines, _case(command))), timeout_s=_TIMEOUT_S, command=True)


def _newest(want: Want) -> Shell:
    return Shell(f"{DETECT}p={quoted(want.fields['name'])}\n{_case('newest')}")


def _options(lean: bool) -> str:
    arms = (f"{name}) o={quoted(manager.lean if lean else '')} ;;" for name, manager in MANAGERS.items())
    return "case $fz_pm in " + " ".join(arms) + " esac"


KINDS = (
    PackageKind(
        name="ssh.package",
        summary="A package of the system: apt, dnf or yum, zypper, apk, pkg",
        specs=(
            FieldSpec("name", "text", "name of the package", required=True),
            FieldSpec("version", "text", "exactly this one, older or newer"),
            FieldSpec(
                "state",
                "choice",
                "latest: the newest that the lists know, at each run",
                choices=("present", "absent", _LATEST),
            ),
            FieldSpec("update_cache", "boolean", "read the lists anew before it is installed", default=False),
            FieldSpec("install_recommends", "boolean", "what it recommends, too; else as the system is set"),
            FieldSpec("purge", "boolean", "with state: absent: its configuration, too", default=False),
        ),
        identity=("name",),
        options=frozenset(("update_cache", "install_recommends", "purge")),
        example="ssh.package: {name: curl, update_cache: true}",
    ),
)
