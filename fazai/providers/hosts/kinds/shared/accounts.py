"""The programs that manage users and groups: shadow's, FreeBSD's pw, busybox's; as pieces of script.

Each function gives the lines for all three, and the host takes those of the programs that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fazai.model import Secret, Value
from fazai.providers.hosts.shell.quoting import quote

#: busybox has no program that changes a user or a group: its line is replaced, in a file that takes the old
#: one's place, under the lock that busybox's own programs heed.
_SETTING: Final = r"""fz_set() { # FILE NAME FIELD VALUE
(set -C; : >"$1+") 2>/dev/null || { echo "$1 is being changed by somebody else ($1+)" >&2; exit 1; }
trap 'rm -f "$1+"' EXIT; cp -p "$1" "$1+"
fz_n=$(fz_name=$2 fz_field=$3 fz_value=$4 awk 'BEGIN { FS = OFS = ":"; f = ENVIRON["fz_field"] }
$1 == ENVIRON["fz_name"] { $f = ENVIRON["fz_value"] } { print; n += length($0) + 1 }
END { print n >"/dev/stderr" }' 2>&1 <"$1" >"$1+") || { echo "$fz_n" >&2; exit 1; }
[ "$fz_n" = $(($(wc -c <"$1+"))) ] || { echo "no space left: $1 was not written" >&2; exit 1; }
mv -f "$1+" "$1"; trap - EXIT; }
"""


def _for_each_program(shadow: Iterable[str], bsd: Iterable[str], busybox: Iterable[str]) -> str:
    return "\n".join(
        (
            "set -e",
            "if command -v useradd >/dev/null 2>&1; then :",
            *shadow,
            "elif command -v pw >/dev/null 2>&1; then :",
            *bsd,
            "else",
            _SETTING + ":",
            *busybox,
            "fi",
        )
    )


def _option_words(fields: Mapping[str, Value], names: Mapping[str, str]) -> str:
    """Return options of a program for those fields that are set."""
    words = (f" {flag} {quote(_field_text(fields[name]))}" for name, flag in names.items() if name in fields)
    return "".join(words)


def _field_text(value: Value) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


# -- users ----------------------------------------------------------------------------------------------

#: The options of useradd and usermod, which pw has as well.
_FLAGS: Final = {"uid": "-u", "group": "-g", "groups": "-G", "home": "-d", "shell": "-s", "comment": "-c"}
_BUSYBOX: Final = {"uid": "-u", "group": "-G", "home": "-h", "shell": "-s", "comment": "-g"}
#: The place of each field in a line of /etc/passwd.
_FIELDS: Final = {"uid": 3, "comment": 5, "home": 6, "shell": 7}


def add_user(name: str, declared: Mapping[str, Value], *, system: bool, home: bool) -> str:
    """Return lines that make the user. A group that has the name already is its own, as a group that was left
    behind is."""
    fields = {k: v for k, v in declared.items() if v not in ([], "")}
    who = quote(name)
    own = "" if "group" in fields else f"$({_has_group(name)} && echo -g {who})"
    shadow = f"useradd{' -r' if system else ''} {'-m' if home else '-M'}{_option_words(fields, _FLAGS)}"
    bsd = f"pw useradd {who}{' -m' if home else ''}{_option_words(fields, _FLAGS)}"
    busybox = f"adduser -D{' -S' if system else ''}{'' if home else ' -H'}{_option_words(fields, _BUSYBOX)}"
    return _for_each_program(
        [f"{shadow} {own} {who}", *_set_password(name, fields, "shadow")],
        [bsd, *_set_password(name, fields, "bsd")],
        [
            *_own_group(name, fields, system),
            f"{busybox}{'' if 'group' in fields else f' -G {who}'} {who}",
            *(f"addgroup {who} {quote(group)}" for group in fields.get("groups", ())),
            *_set_password(name, fields, "busybox"),
        ],
    )


def _own_group(name: str, fields: Mapping[str, Value], system: bool) -> list[str]:
    if "group" in fields:
        return []
    flag = " -S" if system else ""
    return [f"{_has_group(name)} || addgroup{flag} {quote(name)}"]


def _set_password(name: str, fields: Mapping[str, Value], dialect: str) -> list[str]:
    """Return lines that set the hash of the password. `printf` is a builtin: the hash is in no list of
    processes."""
    password = fields.get("password")
    if not isinstance(password, Secret):
        return []
    if dialect == "bsd":
        return [f"printf '%s\\n' {quote(password.reveal())} | pw usermod {quote(name)} -H 0"]
    return [f"printf '%s\\n' {quote(f'{name}:{password.reveal()}')} | chpasswd -e"]


def change_user(name: str, fields: Mapping[str, Value], old_groups: Iterable[str], *, move_home: bool) -> str:
    """Return lines that set these fields; `groups` are all that the user is to be in, besides its own."""
    who = quote(name)
    move = " -m" if move_home and "home" in fields else ""
    flags = _option_words(fields, _FLAGS)
    groups = set(fields.get("groups", old_groups))
    busybox = [
        f"fz_set /etc/passwd {who} {place} {quote(_field_text(fields[field]))}"
        for field, place in _FIELDS.items()
        if field in fields
    ]
    if "group" in fields:
        number = f"$(awk -F: {quote(_group_number(fields['group']))} /etc/group)"
        busybox += [
            f'fz_g={number}; [ -n "$fz_g" ] || {{ echo unknown group >&2; exit 1; }}',
            f'fz_set /etc/passwd {who} 4 "$fz_g"',
        ]
    busybox += [f"delgroup {who} {quote(group)}" for group in sorted(set(old_groups) - groups)]
    busybox += [f"addgroup {who} {quote(group)}" for group in sorted(groups - set(old_groups))]
    return _for_each_program(
        [f"usermod{flags}{move} {who}" if flags else ":", *_set_password(name, fields, "shadow")],
        [f"pw usermod {who}{flags}{move}" if flags else ":", *_set_password(name, fields, "bsd")],
        [*busybox, *_set_password(name, fields, "busybox")],
    )


def _group_number(group: str) -> str:
    return f'$1 == "{group}" || $3 == "{group}" {{ print $3; exit }}'


def delete_user(name: str, *, remove: bool) -> str:
    who = quote(name)
    return _for_each_program(
        [f"userdel{' -r' if remove else ''} {who}"],
        [f"pw userdel {who}{' -r' if remove else ''}"],
        [f"deluser{' --remove-home' if remove else ''} {who}"],
    )


# -- groups ---------------------------------------------------------------------------------------------


def add_group(name: str, gid: int | None, members: Iterable[str], *, system: bool) -> str:
    """Return lines that make the group; `members` are those of a group that is put back."""
    who, number = quote(name), "" if gid is None else f" -g {gid}"
    people = list(members)
    listed = quote(",".join(people))
    return _for_each_program(
        [
            f"groupadd{' -r' if system else ''}{number} {who}",
            *([f"gpasswd -M {listed} {who} >&2"] if people else []),
        ],
        [f"pw groupadd {who}{number}{f' -M {listed}' if people else ''}"],
        [
            f"addgroup{' -S' if system else ''}{number} {who}",
            *(f"addgroup {quote(person)} {who}" for person in people),
        ],
    )


def change_group(name: str, gid: int) -> str:
    who = quote(name)
    return _for_each_program(
        [f"groupmod -g {gid} {who}"], [f"pw groupmod {who} -g {gid}"], [f"fz_set /etc/group {who} 3 {gid}"]
    )


def delete_group(name: str) -> str:
    """Return lines that remove the group. It may have gone with a user of that name just before."""
    who = quote(name)
    gone = f"{_has_group(name)} || exit 0"
    return f"{gone}\n" + _for_each_program([f"groupdel {who}"], [f"pw groupdel {who}"], [f"delgroup {who}"])


def _has_group(name: str) -> str:
    escaped = name.replace(".", "\\.").replace("$", "\\$")
    return f"grep -q {quote(f'^{escaped}:')} /etc/group"
