"""host.package"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.fieldtypes import canonical_value
from fazai.providers.hosts.kind import Act, Answers, Block, Difference, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared.packaging import DETECT, MANAGERS, Manager
from fazai.providers.hosts.shell.questions import OutputOf, Question, find_output
from fazai.providers.hosts.shell.quoting import quote

#: No sign that a package manager takes for more than a name: apt's `-` at the end removes.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+@-]*[A-Za-z0-9_+])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~^_-]*")
_LATEST: Final = "latest"
_INSTALLED_ANY: Final = "installed"
_ABSENT: Final = "absent"
_INSTALLS: Final = ("install", "upgrade", "pin")
_TIMEOUT_S: Final = 1800.0


def _by_manager(command: str) -> str:
    """Return lines that run a command of the manager that the host has."""
    arms = (f"{name}) {getattr(manager, command)} ;;" for name, manager in MANAGERS.items())
    return "case $fz_pm in\n" + "\n".join(arms) + "\n*) exit 3 ;; esac"


#: The same for all packages of a host, so it is asked once.
_INSTALLED: Final = OutputOf(f"{DETECT}echo $fz_pm\n{_by_manager('installed')}", 8 * 1024 * 1024)


class PackageKind(HostKind):
    """Packages of the system's own package manager; several are installed and removed by one command.

    In a change the fields are the packages, each with its version: `installed` is whichever the manager
    takes, `absent` none. Of a single package it is the field `version`.
    """

    name = "host.package"
    summary = "Packages of the system: apt, dnf or yum, zypper, apk, pkg"
    example = "host.package: {name: curl, update_cache: true}"
    identity = ("name",)
    options = frozenset(("update_cache", "install_recommends", "purge"))
    specs = (
        FieldSpec("name", "names", "the package, or a list: several by one command", required=True),
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
    )
    machine = True
    asked = True

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        value, problem = canonical_value(self.fields["name"], fields.get("name"))
        if problem is None and isinstance(value, list):
            return ", ".join(value)
        return HostKind.identify(self, fields)

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        names = _package_names(fields)
        for name in names:
            if not _NAME.fullmatch(name):
                hint = "several are a list: name: [curl, jq]" if re.search(r"[ ,]", name) else None
                yield Problem("name", f'is no name of a package: "{name}"', hint)
        if "version" in fields and not _VERSION.fullmatch(fields["version"]):
            yield Problem("version", f'is no version of a package: "{fields["version"]}"')
        elif "version" in fields and len(names) > 1:
            yield Problem("version", "is that of one package, and name: lists several", "one resource each")
        if fields.get("state") == _LATEST:
            if "version" in fields:
                yield Problem("version", "and state: latest are two versions of one package")
            fields["version"], fields["state"] = _LATEST, "present"

    def ask(self, want: Want) -> Iterable[Question]:
        yield _INSTALLED
        if want.fields.get("version") == _LATEST:
            yield from map(_newest_question, _package_names(want.fields))

    def read(self, want: Want, answers: Answers) -> Have | None:
        answer = find_output(answers, _INSTALLED)
        name, *lines = answer.text.splitlines() or ["none"]
        manager = MANAGERS.get(name)
        if manager is None:
            hint = f"fazai knows {', '.join(MANAGERS)}"
            raise want.error("the host has no package manager that is known", hint)
        if answer.exit:
            raise want.error(f"{name} does not say what is installed: {' '.join(lines[-2:])}")
        there = dict(filter(None, map(manager.entry, lines)))
        found = {
            each: _found_version(want, each, there[each], manager, answers)
            for each in _package_names(want.fields)
            if each in there
        }
        if isinstance(want.fields["name"], list):
            return {"there": found} if found else None
        return next(iter(found.values()), None)

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        """Compare; the change names the version that "latest" is."""
        if isinstance(want.fields["name"], list):
            return _compare_all(want, have["there"] if have is not None else {})
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
        lines = ["set -e", DETECT]
        jobs = list(_package_jobs(act))
        if act.options.get("update_cache") and any(command in _INSTALLS for command, _, _ in jobs):
            lines.append(_by_manager("refresh"))
        lines.append(_install_options(lean=act.options.get("install_recommends") is False))
        for command, names, version in jobs:
            lines += [f"p={quote(' '.join(names))} v={quote(version)}", _by_manager(command)]
        yield Block("\n".join(lines), timeout_s=_TIMEOUT_S, command=True)


def _package_names(fields: Mapping[str, Value]) -> list[str]:
    value = fields["name"]
    return value if isinstance(value, list) else [value]


def _found_version(want: Want, name: str, version: str, manager: Manager, answers: Answers) -> dict[str, str]:
    """Return the version that is installed, in the form in which it is wanted, and the newest if that is
    asked."""
    wanted = want.fields.get("version")
    if wanted == _LATEST:
        candidate = manager.candidate(find_output(answers, _newest_question(name)).text)
        return {"version": version, "newest": candidate or version}
    return {"version": wanted if wanted in manager.forms(version) else version}


def _compare_all(want: Want, there: Mapping[str, Mapping[str, str]]) -> Difference | None:
    """Compare several packages; the change names only those that are not as wanted."""
    if want.absent:
        return (Verb.DELETE, {name: found["version"] for name, found in there.items()}, {}) if there else None
    missing = [name for name in _package_names(want.fields) if name not in there]
    old = {
        name: found
        for name, found in there.items()
        if found.get("newest", found["version"]) != found["version"]
    }
    after = {
        **{name: found["newest"] for name, found in old.items()},
        **dict.fromkeys(missing, _INSTALLED_ANY),
    }
    if old:
        before = {name: found["version"] for name, found in old.items()}
        return Verb.UPDATE, {**before, **dict.fromkeys(missing, _ABSENT)}, after
    return (Verb.CREATE, {}, after) if missing else None


def _package_jobs(act: Act) -> Iterator[tuple[str, list[str], str]]:
    """Iterate over commands, each with its packages and their version."""
    latest = act.options.get("version") == _LATEST
    remove = "purge" if act.options.get("purge") else "remove"
    if ", " in act.identity:  # several
        gone = [name for name in act.before if act.after.get(name, _ABSENT) == _ABSENT]
        fresh = [name for name, version in act.after.items() if version == _INSTALLED_ANY]
        rest = {
            name: version for name, version in act.after.items() if version not in (_ABSENT, _INSTALLED_ANY)
        }
        if gone:
            yield remove, gone, ""
        if fresh:
            yield "install", fresh, ""
        if rest and latest:
            yield "upgrade", list(rest), ""
        elif rest:
            yield from (("pin", [name], version) for name, version in rest.items())
    elif act.verb is Verb.DELETE:
        yield remove, [act.identity], ""
    elif "version" not in act.after:
        yield "install", [act.identity], ""
    else:
        yield "upgrade" if latest else "pin", [act.identity], act.after["version"]


def _newest_question(name: str) -> OutputOf:
    return OutputOf(f"{DETECT}p={quote(name)}\n{_by_manager('newest')}")


def _install_options(lean: bool) -> str:
    arms = (f"{name}) o={quote(manager.lean if lean else '')} ;;" for name, manager in MANAGERS.items())
    return "case $fz_pm in " + " ".join(arms) + " esac"


KINDS = (PackageKind(),)
