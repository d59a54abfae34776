"""host.authorized_key"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared.filtering import (
    FILTER_BEGIN,
    SharedLineKind,
    edit_script,
    filter_command,
    note_made,
)
from fazai.providers.hosts.shell.questions import OutputOf, Question
from fazai.providers.hosts.shell.quoting import quote

#: A type of key, and its bytes, which begin with the length and the name of the type. What stands before are
#: options, what stands behind is a comment (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
_KEY: Final = re.compile(
    r"(?:^|(?<=\s))((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+)\s+(AAAA[A-Za-z0-9+/]+=*)(?=\s|$)"
)
_FILTER: Final = (
    FILTER_BEGIN
    + r"""BEGIN { n = split(ENVIRON["fz_keys"], keys, " "); for (i = 1; i <= n; i++) old[keys[i]] = 1 }
/^[ \t]*#/ { out($0); next }
{ hit = 0; l = $0; sub(/\r$/, "", l); n = split(l, words)
for (i = 1; i <= n; i++) if (words[i] in old) hit = 1; if (hit) put(); else out($0) }
"""
)
_NO_USER: Final = 3


class AuthorizedKeyKind(SharedLineKind):
    """Keys of a user's authorized_keys; `exclusive`: these alone."""

    name = "host.authorized_key"
    summary = "Keys with which a user may log in"
    example = (
        "host.authorized_key: {user: deploy, key: ssh-ed25519"
        " AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f deploy@example}"
    )
    identity = ("user", "key")
    options = frozenset(("exclusive",))
    specs = (
        FieldSpec("user", "account", "whose keys", required=True),
        FieldSpec("key", "text", "a public key, or several, each a line", required=True),
        FieldSpec("key_options", "text", 'what stands before each key: from="192.0.2.0/24",no-pty'),
        FieldSpec("path", "path", "the file, where sshd looks elsewhere", default=None),
        FieldSpec("exclusive", "boolean", "these keys and no others"),
        PRESENCE,
    )

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        found = HostKind.identify(self, fields)
        if isinstance(found, Problem):
            return found
        try:
            keys = _parse_keys(fields["key"])
        except ValueError as error:
            return _key_problem(error)
        if fields.get("exclusive"):
            return f"{fields['user']} (all keys)"
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        return f"{fields['user']} {_key_fingerprint(next(iter(keys)))}{more}"

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        try:
            keys = _parse_keys(fields["key"])
        except ValueError as error:
            yield _key_problem(error)
            return
        options = fields.pop("key_options", "")
        if "\n" in options:
            yield Problem("key_options", "must be one line")
        if options and any(_KEY.search(line).start() for line in keys.values()):  # type: ignore[union-attr]
            yield Problem("key_options", "and options in front of the key are two of one thing")
        if absent and fields.get("exclusive"):
            yield Problem("exclusive", "says nothing with state: absent")
        fields["key"] = "\n".join(f"{options} {line}" if options else line for line in keys.values())

    def ask(self, want: Want) -> Iterable[Question]:
        yield _keys_question(want)

    def read(self, want: Want, answers: Answers) -> Have | None:
        answer = want.output(answers, _keys_question(want))
        text = answer.out.decode("utf-8", "surrogateescape")
        if answer.exit == _NO_USER:  # may be made in this run
            return None
        if answer.exit:
            raise want.error(f"the file of keys cannot be read: {text.strip()}", "become: true")
        there = _present_keys(text)
        if not want.fields.get("exclusive"):
            wanted = _parse_keys(want.fields["key"])
            there = {line: blob for line, blob in there.items() if blob in wanted}
        if not there:
            return None
        where = {name: want.fields[name] for name in ("user", "path") if name in want.fields}
        return {**where, "key": "\n".join(there)}

    def differing(self, want: Want, have: Have) -> dict[str, Value]:
        same = sorted(have["key"].split("\n")) == sorted(want.fields["key"].split("\n"))
        return {} if same else {"key": want.fields["key"]}

    def declared(self, want: Want) -> dict[str, Value]:
        return {k: v for k, v in want.fields.items() if k in ("user", "path", "key")}

    def touches(self, want: Want) -> tuple[str, ...] | None:
        return (want.at(want.fields["path"]),) if "path" in want.fields else None

    def write(self, act: Act) -> Iterator[Block]:
        fields = {**act.have, **act.before, **act.after}
        lines = act.after.get("key", "") if act.verb is not Verb.DELETE else ""
        old = {**_present_keys(act.before.get("key", "")), **_present_keys(lines)}
        command = filter_command(_FILTER, {"fz_new": lines, "fz_keys": " ".join(dict.fromkeys(old.values()))})
        path = act.at(fields["path"]) if "path" in fields else ""
        find, made = _find_lines(fields["user"], path, act.at), act.memory.get(("made", act.undoes))
        edit = edit_script(
            '"$fz_f"', command, act.token, mode="600", owner="$fz_u", drop_empty=made is not None
        )
        noting = note_made('"$fz_f"', act.token)
        yield Block(f"{find}\n{noting}{_FOLDER.format(token=act.token)}\n{edit}")
        if made is not None:  # what was made with it goes with it
            rest = 'set -e; fz_in "${fz_f%/*}"; rmdir "./$fz_name" 2>/dev/null || :'
            yield Block(f"{find}\n[ {made} -ge ${{#fz_f}} ] || {{ {rest}; }}")


def _parse_keys(text: str) -> dict[str, str]:
    """Return the lines by the key in them. Raises ValueError for a line without."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _KEY.search(line)
        if match is None:
            raise ValueError("is no public key")
        try:
            data = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise ValueError("is cut off, or damaged") from None
        name = match[1].encode()
        if data[4 : 4 + len(name)] != name or int.from_bytes(data[:4], "big") != len(name):
            raise ValueError(f"says that it is of type {match[1]}, and is not")
        found[match[2]] = line
    if not found:
        raise ValueError("is no public key")
    return found


def _key_problem(error: ValueError) -> Problem:
    return Problem("key", str(error), 'as in a .pub file: "ssh-ed25519 AAAA… comment"')


def _present_keys(text: str) -> dict[str, str]:
    """Map the lines of a file that have a key to that key; lines of another kind are none of ours. A key may
    stand in several: sshd takes the first, with its options."""
    lines = (line.strip() for line in text.split("\n"))
    matches = ((_KEY.search(line), line) for line in lines if not line.startswith("#"))
    return {line: match[2] for match, line in matches if match is not None}


def _key_fingerprint(blob: str) -> str:
    """Return the fingerprint of a key, as ssh-keygen -l says it."""
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


#: The folder of keys, as sshd wants it: the user's, and nobody else's.
_FOLDER: Final = r"""set -e
fz_enter "$fz_f" 1 || {{ [ $? = 3 ] || fz_fail "$fz_why"
fz_in "${{fz_f%/*}}"; fz_for "${{fz_u%%:*}}"; fz_make {token} 0700 "$fz_u"; fz_in "$fz_f" 1; }}
fz_for "${{fz_u%%:*}}"
"""


def _find_lines(user: str, path: str, at: Callable[[str], str]) -> str:
    """Return lines that set `fz_f`, the file, and `fz_u`, its owner."""
    passwd, root = quote(at("/etc/passwd")), quote(at("/").rstrip("/"))
    program = f'$1 == "{user}" {{ print; exit }}'
    who = f"awk -F: {quote(program)} {passwd} 2>/dev/null"
    if at("/") == "/":
        who = f"getent passwd {quote(user)} 2>/dev/null || {who}"
    account = f'fz_p=$({who}); fz_u=$(printf %s "$fz_p" | cut -d: -f3,4)'
    if path:
        return f"{account}\nfz_f={quote(path)}"
    nobody = f"{{ echo {quote(f'there is no user {user}')} >&2; exit {_NO_USER}; }}"
    home = f'fz_h=$(printf %s "$fz_p" | cut -d: -f6)\n[ -n "$fz_h" ] || {nobody}'
    return f"{account}\n{home}\nfz_f={root}/${{fz_h#/}}/.ssh/authorized_keys"


def _keys_question(want: Want) -> OutputOf:
    path = want.at(want.fields["path"]) if "path" in want.fields else ""
    return OutputOf(f'{_find_lines(want.fields["user"], path, want.at)}\nfz_with "$fz_f" cat')


KINDS = (AuthorizedKeyKind(),)
