"""Pieces of script that several kinds write with: a file replaced as a whole, attributes, the trash."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping
from itertools import islice

from fazai.errors import AccessDenied, DeviceError
from fazai.hosts.blob import Blob
from fazai.hosts.kind import Act, Block, Put, Want
from fazai.hosts.questions import PathState
from fazai.hosts.quoting import appended, encoded, quoted
from fazai.model import FieldSpec, Problem, Value

__all__ = [
    "ATTRIBUTES",
    "REPLACING",
    "attributes",
    "check_replacing",
    "in_place",
    "replaced",
    "seen_attributes",
    "set_attributes",
    "temporary",
]

_CHUNKS = 8  # of 128 KiB each in one block: that much the shell on the host holds at a time

ATTRIBUTES = (
    FieldSpec("mode", "mode", 'four octal digits in quotes: "0644"'),
    FieldSpec("owner", "account", "user name or number"),
    FieldSpec("group", "account", "group name or number"),
)
REPLACING = (
    FieldSpec("backup", "boolean", "keep the old file beside the new one, with the time in its name"),
    FieldSpec(
        "validate", "text", "a command that must succeed before the new file takes its place; %s is its path"
    ),
)


def check_replacing(fields: Mapping[str, Value]) -> Iterator[Problem]:
    """What is wrong with the options of `REPLACING`."""
    text = fields.get("validate")
    if text is None:
        return
    try:
        words = shlex.split(text)
    except ValueError:
        yield Problem("validate", "has a quote that does not end")
        return
    if not any("%s" in word for word in words):
        yield Problem("validate", "does not say where the path goes", 'validate: "sshd -t -f %s"')


def seen_attributes(want: Want, path: PathState) -> dict[str, Value]:
    """Mode, owner and group as they are; an account under the name, or number, by which it is wanted."""
    fields = want.fields
    owner, group = fields.get("owner"), fields.get("group")
    return {
        "mode": f"{path.mode:04o}",
        "owner": owner if owner == str(path.uid) else path.user,
        "group": group if group == str(path.gid) else path.group,
        "uid": path.uid,
        "gid": path.gid,
    }


def denied(want: Want) -> AccessDenied:
    return AccessDenied(
        f"{want.resource.kind} {want.resource.identity}: a folder above it may not be entered",
        where=want.resource.mark or want.resource.identity,
        hint="become: true",
    )


def unlike(want: Want, what: str, hint: str | None = None) -> DeviceError:
    """Something else stands there."""
    return DeviceError(
        f"{want.resource.kind} {want.resource.identity}: {what}",
        where=want.resource.mark or want.resource.identity,
        hint=hint,
    )


def temporary(path: str, token: str) -> str:
    """A name in the same folder, so that the rename is atomic."""
    return f"{posixpath.dirname(path)}/.fazai-{token}"


def attributes(act: Act, default_mode: str) -> dict[str, str]:
    """Mode and owner of what is made: as declared, else as it was."""
    fields = {**act.have, **act.after}
    owner = act.after.get("owner", act.have.get("uid", ""))
    group = act.after.get("group", act.have.get("gid", ""))
    return {"mode": str(fields.get("mode", default_mode)), "owner": str(owner), "group": str(group)}


def account_of(owner: str, group: str) -> str:
    """The word for `chown`; empty when nothing is to be said."""
    return quoted(f"{owner}:{group}" if group else owner) if owner or group else ""


def set_attributes(path: str, mode: str | None, owner: str, group: str) -> str:
    """Lines that set what is given. The owner first: a change of it drops set-user-id bits."""
    lines = []
    if account := account_of(owner, group):
        # who is not root may not even set the owner that is there already
        lines.append(f'[ "$(fz_own {path})" = {account} ] || chown {account} {path}')
    if mode:
        lines.append(f"chmod {mode} {path}")
    return "\n".join(lines)


def replaced(
    path: str, content: Blob, act: Act, default_mode: str, *, instead_of: Blob | None = None
) -> Iterator[Block]:
    """Blocks that put a file in place as a whole: a temporary file beside it, complete and synchronised,
    takes its name. A cut leaves the old file. `instead_of`: only if that is what is there."""
    if content.data is None:
        raise DeviceError(f"{act.identity} was too large to be kept, and cannot be put back")
    tmp = temporary(path, act.token)
    chunks = iter(appended(content.data))
    trap = b"set -e; trap '[ $? = 0 ] || rm -f \"$fz_tmp\"' EXIT\n"
    head: tuple[bytes, ...] = (trap, b'umask 077; set -C; : >"$fz_tmp"; set +C\n')
    whole = True
    while len(batch := tuple(islice(chunks, _CHUNKS))) == _CHUNKS:
        yield Block((*head, *batch), tmp)
        head, whole = (trap,), False
    script = (*head, *batch, encoded(in_place(path, act, default_mode, instead_of)))
    put = None
    if whole and not act.options.get("validate"):  # a command may look at the files before it
        wanted = attributes(act, default_mode)
        account = account_of(wanted["owner"], wanted["group"])
        put = Put(path, batch, wanted["mode"], account, _ending(path, act, instead_of))
    yield Block(script, tmp, put=put)


def in_place(path: str, act: Act, default_mode: str, instead_of: Blob | None = None) -> str:
    """The end of a block whose "$fz_tmp" is complete: it gets its attributes, and takes the file's name."""
    wanted = attributes(act, default_mode)
    lines = [set_attributes('"$fz_tmp"', wanted["mode"], wanted["owner"], wanted["group"])]
    if act.options.get("validate"):
        words = [word.split("%s") for word in shlex.split(act.options["validate"])]
        command = " ".join('"$fz_tmp"'.join(map(quoted, parts)) for parts in words)
        text = "did not succeed: nothing takes its place, the old file stays"
        said = quoted(f"validate: {act.options['validate']} {text}")
        lines.append(f"{command} >&2 || {{ fz_x=$?; printf '%s\\n' {said} >&2; exit $fz_x; }}")
    return "\n".join([*lines, 'fz_sync "$fz_tmp"', _ending(path, act, instead_of)])


def _ending(path: str, act: Act, instead_of: Blob | None) -> str:
    target = quoted(path)
    lines = []
    if act.options.get("backup"):
        lines.append(f"[ ! -f {target} ] || cp -p {target} {target}.$(date -u +%Y%m%dT%H%M%SZ)~")
    if instead_of is not None:
        lines.append(
            f"case $(fz_hash <{target}) in *{instead_of.sha256}*) ;; "
            "*) echo 'the file was changed meanwhile: run it again' >&2; exit 1;; esac"
        )
    lines += [
        f"if [ -d {target} ]; then [ -h {target} ] || {{ echo 'there is a directory' >&2; exit 1; }}",
        f"rm -f {target}; fi",  # a link to a directory: the file would be moved into it
        f'mv -f "$fz_tmp" {target}',
    ]
    return "\n".join(lines)
