"""host.user, host.group"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fazai.model import FieldSpec, Problem, Secret, Value, Verb
from fazai.providers.hosts.folder_names import inside_question, read_names
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared import accounts
from fazai.providers.hosts.shell.answers import whole_number
from fazai.providers.hosts.shell.preconditions import Precondition, add_names
from fazai.providers.hosts.shell.questions import (
    ContentOf,
    FileAt,
    Output,
    OutputOf,
    PathState,
    Question,
    find_output,
)
from fazai.providers.hosts.shell.quoting import quote

_LIMIT: Final = 4 * 1024 * 1024
_PASSWD: Final = ContentOf("/etc/passwd", _LIMIT)
_GROUP: Final = ContentOf("/etc/group", _LIMIT)
_HASH: Final = re.compile(r"!*(\$[^:\s]+|_?[A-Za-z0-9./]{13,19})|[!*]+")
_MAXIMUM: Final = 2**32 - 2


class AccountKind(HostKind):
    """Base of host.user and host.group."""

    machine = True
    asked = True

    def removed(self, have: Have) -> dict[str, Value]:
        return {name: value for name, value in have.items() if value not in ([], "")}


class UserKind(AccountKind):
    """A user of the machine, as /etc/passwd has it."""

    name = "host.user"
    summary = "A user of the machine"
    example = "host.user: {name: app, system: true, shell: /usr/sbin/nologin, home: /var/lib/app}"
    identity = ("name",)
    options = frozenset(("append", "create_home", "move_home", "update_password", "system", "remove"))
    specs = (
        FieldSpec("name", "account", "name to log in with", required=True),
        FieldSpec("uid", "integer", "number", minimum=0, maximum=_MAXIMUM),
        FieldSpec("group", "account", "the group of its own, by name or number"),
        FieldSpec("groups", "list", "other groups; it is taken out of all that are not named"),
        FieldSpec("append", "boolean", "leave it in the groups that are not named", default=False),
        FieldSpec("home", "path", "home folder"),
        FieldSpec("create_home", "boolean", "make the home folder of a new user", default=True),
        FieldSpec("move_home", "boolean", "move the files when home changes", default=False),
        FieldSpec("shell", "path", "the program that a log-in starts"),
        FieldSpec("comment", "text", "the real name, or what it is for"),
        FieldSpec("password", "secret", "hash of the password, as /etc/shadow has it", secret=True),
        FieldSpec(
            "update_password",
            "choice",
            "on_create: leave a changed one alone",
            choices=("always", "on_create"),
        ),
        FieldSpec("system", "boolean", "a new user gets a number of the system's", default=False),
        FieldSpec("remove", "boolean", "with state: absent: the home folder, too", default=False),
        PRESENCE,
    )

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        for name in ("home", "shell", "comment"):
            if any(char in fields.get(name, "") for char in ":\n"):
                yield Problem(name, "must not hold a colon or a line end")
        if "groups" in fields:
            wrong = [name for name in fields["groups"] if not re.fullmatch(r"[A-Za-z0-9_][\w.@-]*\$?", name)]
            if wrong:
                yield Problem("groups", f'is no name of a group: "{wrong[0]}"')
            fields["groups"] = sorted(set(fields["groups"]))
        if "password" in fields and not _HASH.fullmatch(fields["password"].reveal()):
            hint = "openssl passwd -6, then password: !env NAME, or !vault"
            yield Problem("password", "must be a hash, as /etc/shadow holds it", hint)
        if "append" in fields and "groups" not in fields and not absent:
            yield Problem("append", "says nothing without groups")

    def ask(self, want: Want) -> Iterable[Question]:
        yield _PASSWD
        yield _GROUP
        if "password" in want.fields or want.absent:  # who is removed may be put back
            yield _shadow_question(want)

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        """Ask for what goes with the home folder."""
        if (home := self._home(want, answers)) is not None:
            yield FileAt(home)
            yield inside_question(home)

    def _home(self, want: Want, answers: Answers) -> str | None:
        """Return the home folder, if it is to be removed."""
        words = _read_accounts(answers[_PASSWD], 7).get(want.fields["name"])
        remove = want.absent and want.fields.get("remove")
        return words[5] if words is not None and remove and words[5].startswith("/") else None

    def rests_on(self, want: Want, answers: Answers) -> tuple[Precondition, ...]:
        home = self._home(want, answers)
        state = None if home is None else answers.get(FileAt(home))
        if home is None or not isinstance(state, PathState) or state.type not in ("missing", "directory"):
            return ()
        return (add_names(Precondition.of(home, state), answers),)

    def read(self, want: Want, answers: Answers) -> Have | None:
        name, fields = want.fields["name"], want.fields
        words = _read_accounts(answers[_PASSWD], 7).get(name)
        if words is None:
            return None
        _, _, uid, primary, comment, home, shell, *_ = words
        groups = _read_accounts(answers[_GROUP], 4)
        names = {gid: group for group, (_, _, gid, *_) in reversed(groups.items())}
        have: dict[str, Any] = {
            "uid": int(uid),
            "group": primary if fields.get("group") == primary else names.get(primary, primary),
            "groups": sorted(g for g, (_, _, _, members, *_) in groups.items() if name in members.split(",")),
            "home": home,
            "shell": shell,
            "comment": comment,
        }
        if "password" in fields or want.absent:
            have["password"] = _read_password_hash(want, answers)
        if (home_removed := self._home(want, answers)) is not None:
            have["home_holds"], _ = read_names(home_removed, answers)
        return have

    def differing(self, want: Want, have: Have) -> dict[str, Any]:
        after = HostKind.differing(self, want, have)
        if "groups" in after and want.fields.get("append"):
            after["groups"] = sorted({*have["groups"], *after["groups"]})
            if after["groups"] == have["groups"]:
                del after["groups"]
        elif "groups" in after and have["group"] in after["groups"]:
            # a user is no member of its own group: most programs leave that out, and some do not
            rest = [group for group in after["groups"] if group != have["group"]]
            if rest == [group for group in have["groups"] if group != have["group"]]:
                del after["groups"]
        if want.fields.get("update_password") == "on_create":
            after.pop("password", None)
        return after

    def is_lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        return verb is Verb.DELETE and bool(options.get("remove"))  # the files are gone

    def write(self, act: Act) -> Iterator[Block]:
        if act.verb is Verb.CREATE:
            home = not act.undone and act.options.get("create_home", True)
            fields = dict(act.after)
            if act.undone and fields.get("group") == act.identity:
                del fields["group"]  # its own group went with it
            system = bool(act.options.get("system"))
            yield Block(accounts.add_user(act.identity, fields, system=system, home=home))
        elif act.verb is Verb.DELETE:
            yield Block(accounts.delete_user(act.identity, remove=bool(act.options.get("remove"))))
        else:
            groups = act.before.get("groups", act.have.get("groups", ()))
            move = bool(act.options.get("move_home"))
            yield Block(accounts.change_user(act.identity, act.after, groups, move_home=move))


def _read_accounts(answer: object, count: int) -> dict[str, list[str]]:
    """Read the lines of passwd or group by name; the first of a name counts."""
    assert isinstance(answer, Output)
    found: dict[str, list[str]] = {}
    for line in answer.out.decode("utf-8", "surrogateescape").split("\n"):
        words = line.split(":")
        if len(words) >= count and whole_number(words[2]) is not None:
            found.setdefault(words[0], words)
    return found


def _shadow_question(want: Want) -> OutputOf:
    """Return the question for the hash of this user alone: those of others do not leave the host."""
    name = want.fields["name"]
    program = quote(f'$1 == "{name}" {{ print $2; exit }}')
    file = "$([ -e /etc/shadow ] && echo /etc/shadow || echo /etc/master.passwd)"
    return OutputOf(f'awk -F: {program} "{file}"')


def _read_password_hash(want: Want, answers: Answers) -> Secret:
    answer = find_output(answers, _shadow_question(want))
    if answer.exit:
        raise want.error("the password's hash cannot be read", "become: true")
    return Secret(answer.text.strip())


class GroupKind(AccountKind):
    """A group of the machine, as /etc/group has it."""

    name = "host.group"
    summary = "A group of the machine"
    example = "host.group: {name: app, gid: 990}"
    identity = ("name",)
    options = frozenset(("system",))
    specs = (
        FieldSpec("name", "account", "its name", required=True),
        FieldSpec("gid", "integer", "number", minimum=0, maximum=_MAXIMUM),
        FieldSpec("system", "boolean", "a new group gets a number of the system's", default=False),
        PRESENCE,
    )

    def ask(self, want: Want) -> Iterable[Question]:
        yield _GROUP

    def read(self, want: Want, answers: Answers) -> Have | None:
        words = _read_accounts(answers[_GROUP], 4).get(want.fields["name"])
        if words is None:
            return None
        _, _, gid, members, *_ = words
        return {"gid": int(gid), "members": [name for name in members.split(",") if name]}

    def write(self, act: Act) -> Iterator[Block]:
        name, fields = act.identity, act.after
        if act.verb is Verb.DELETE:
            yield Block(accounts.delete_group(name))
        elif act.verb is Verb.CREATE:
            system = bool(act.options.get("system"))
            yield Block(accounts.add_group(name, fields.get("gid"), fields.get("members", ()), system=system))
        else:
            yield Block(accounts.change_group(name, fields["gid"]))


KINDS = (UserKind(), GroupKind())
