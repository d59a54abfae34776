"""Programs that manage packages, as data: how each says what there is, and installs and removes it.

`$p` is the package's name in every command (`refresh` has none; `install`, `upgrade`, `remove` and `purge`
take several), `$v` its version, `$o` further options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from fazai.compat.language import dataclass


@dataclass(frozen=True, slots=True)
class Manager:
    """The commands of a package manager. `installed` prints a line for each package, which `entry` reads;
    `newest` prints what `$p` could become, which `candidate` reads (None: nothing newer). `pin`: `$p` at
    `$v`, also where that is older. `forms`: the ways to say a version that is installed."""

    installed: str
    entry: Callable[[str], tuple[str, str] | None]
    newest: str
    candidate: Callable[[str], str | None]
    refresh: str
    install: str
    upgrade: str
    pin: str
    remove: str
    purge: str
    lean: str = ""  # the option that leaves recommended packages away
    forms: Callable[[str], tuple[str, ...]] = lambda version: (version,)


def _entry_reader(pattern: str) -> Callable[[str], tuple[str, str] | None]:
    """Return a function that reads the name and version of a package from a line."""

    def read_entry(line: str) -> tuple[str, str] | None:
        found = re.fullmatch(pattern, line)
        return None if found is None else (found[1], found[2])

    return read_entry


def _candidate_reader(pattern: str) -> Callable[[str], str | None]:
    """Return a function that reads a version from what a program printed."""

    def read_candidate(text: str) -> str | None:
        found = re.search(pattern, text, re.MULTILINE)
        return found and found[1]

    return read_candidate


_read_words = _entry_reader(r"\s*(\S+)\s+(\S+)\s*")
_read_zypper_version = _candidate_reader(r"^Version\s*: (\S+)$")


def _read_zypper(text: str) -> str | None:
    return _read_zypper_version(text) if re.search(r"^Status\s*: out-of-date", text, re.MULTILINE) else None


def _rpm_forms(version: str) -> tuple[str, ...]:
    """Return the ways to say a version: `1.2-3.el9` is also meant by 1.2; a missing epoch is 0."""
    forms = (version, version.rpartition("-")[0])
    return forms if ":" in version else (*forms, *(f"0:{form}" for form in forms))


_RPM: Final = "rpm -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n'"
_APT: Final = (
    "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Options::=--force-confdef"
    " -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=120"
)
_DNF: Final = 'fz_dnf=$(command -v dnf || command -v yum || echo microdnf); "$fz_dnf" -q -y'
_ZYPPER: Final = "zypper --non-interactive --quiet"

MANAGERS: Final[Mapping[str, Manager]] = {
    "apt": Manager(
        installed="dpkg-query -W -f '${db:Status-Status} ${binary:Package} ${Version}\\n'",
        entry=_entry_reader(r"\s*installed\s+([^\s:]+)\S*\s+(\S+)\s*"),  # installed libc6:amd64 2.36-9
        newest="apt-cache policy -- $p",
        candidate=_candidate_reader(r"^ *Candidate: (?!\(none\)$)(\S+)$"),
        refresh="apt-get -q update",
        install=f"{_APT} install $o -- $p",
        upgrade=f"{_APT} --only-upgrade install $o -- $p",
        pin=f"{_APT} --allow-downgrades install $o -- $p=$v",
        remove=f"{_APT} remove -- $p",
        purge=f"{_APT} purge -- $p",
        lean="--no-install-recommends",
    ),
    "dnf": Manager(
        installed=_RPM,
        entry=_read_words,
        newest=f"{_DNF} check-update $p || [ $? = 100 ]",
        candidate=_candidate_reader(r"^\S+\.\w+\s+(\S+)\s+\S+\s*$"),  # name.arch  version  repository
        refresh=f"{_DNF} makecache",
        install=f"{_DNF} install $o $p",
        upgrade=f"{_DNF} upgrade $p",
        # `install` of an older version does nothing, and says that it went well
        pin=f'{_DNF} install $o "$p-$v"; case $(rpm -q --qf "%{{VERSION}}-%{{RELEASE}}\\n" $p) in'
        ' "${v#*:}"|"${v#*:}"-*) ;; *) "$fz_dnf" -q -y downgrade "$p-$v" ;; esac',
        remove=f"{_DNF} remove $p",
        purge=f"{_DNF} remove $p",
        lean="--setopt=install_weak_deps=False",
        forms=_rpm_forms,
    ),
    "zypper": Manager(
        installed=_RPM,
        entry=_read_words,
        newest=f"{_ZYPPER} --no-refresh info $p",
        candidate=_read_zypper,
        refresh=f"{_ZYPPER} refresh",
        install=f"{_ZYPPER} install $o $p",
        upgrade=f"{_ZYPPER} update $o $p",
        pin=f'{_ZYPPER} install --oldpackage $o "$p=$v"',
        remove=f"{_ZYPPER} remove $p",
        purge=f"{_ZYPPER} remove $p",
        lean="--no-recommends",
        forms=_rpm_forms,
    ),
    "apk": Manager(
        installed="apk info -v 2>/dev/null",
        entry=_entry_reader(r"(\S+)-(\d[^-\s]*-r\d+).*"),
        newest="apk version -l '<' $p",
        candidate=_candidate_reader(r"^\S+\s+<\s+(\S+)"),
        refresh="apk -q update",
        install="apk -q add $p",
        upgrade="apk -q add -u $p",
        pin='apk -q add "$p=$v"',
        remove="apk -q del $p",
        purge="apk -q del --purge $p",
    ),
    "pkg": Manager(
        installed="pkg query '%n %v'",
        entry=_read_words,
        newest="[ -z \"$(pkg version -U -R -l '<' -n $p)\" ] || pkg rquery -U %v $p",
        candidate=_candidate_reader(r"(\S+)"),
        refresh="pkg update -q",
        install="ASSUME_ALWAYS_YES=yes pkg install -q $p",
        upgrade="ASSUME_ALWAYS_YES=yes pkg upgrade -q $p",
        pin='ASSUME_ALWAYS_YES=yes pkg install -q -f "$p-$v"',
        remove="ASSUME_ALWAYS_YES=yes pkg delete -q $p",
        purge="ASSUME_ALWAYS_YES=yes pkg delete -q $p",
    ),
}

#: Lines that set `fz_pm`. apt stands first: Debian may have rpm, and nobody else has apt-get.
DETECT: Final = """fz_pm=none
for fz_c in apt-get:apt dnf:dnf yum:dnf microdnf:dnf zypper:zypper apk:apk pkg:pkg
do if [ $fz_pm = none ] && command -v ${fz_c%:*} >/dev/null 2>&1; then fz_pm=${fz_c#*:}; fi; done
"""
