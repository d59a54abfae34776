"""Pieces of script that several kinds write with: a file replaced as a whole, attributes, the trash."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping
from itertools import islice

from fazai.errors import DeviceError
from fazai.model import FieldSpec, Problem, Value
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.kind import Act, Block, FileReplacement, Want
from fazai.providers.hosts.shell.preconditions import Precondition, check_lines
from fazai.providers.hosts.shell.questions import PathState
from fazai.providers.hosts.shell.quoting import append_commands, encode_script, quote

_CHUNKS_PER_BLOCK = 8  # of 128 KiB each in one block: that much the shell on the host holds at a time

_BACKUP_NAME_BYTES = 255 - len(".20261122T131500Z.99~")  # of a name to which this can be added

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
    """Iterate over the problems of the options of `REPLACING`."""
    name = posixpath.basename(fields.get("path") or fields.get("dest") or "")
    if fields.get("backup") and len(name.encode("utf-8", "surrogateescape")) > _BACKUP_NAME_BYTES:
        said = f"makes a name longer than 255 bytes, as the file's own has more than {_BACKUP_NAME_BYTES}"
        yield Problem("backup", said)
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
    """Return mode, owner and group as they are; an account under the name, or number, by which it is
    wanted."""
    fields = want.fields
    owner, group = fields.get("owner"), fields.get("group")
    return {
        "mode": f"{path.mode:04o}",
        "owner": owner if owner == str(path.uid) else path.user,
        "group": group if group == str(path.gid) else path.group,
        "uid": path.uid,
        "gid": path.gid,
        **({"shared": True} if path.shared else {}),
    }


def temporary_path(path: str, token: str) -> str:
    """Return a name in the same folder, so that the rename is atomic."""
    return f"{posixpath.dirname(path)}/.fazai-{token}"


def attributes_to_set(act: Act, default_mode: str) -> dict[str, str]:
    """Return mode, owner and group of what is made: as declared, else as they were; empty: not to be set."""
    fields = {**act.have, **act.after}
    owner = act.after.get("owner", act.have.get("uid", ""))
    group = act.after.get("group", act.have.get("gid", ""))
    return {"mode": str(fields.get("mode", default_mode)), "owner": str(owner), "group": str(group)}


def file_left(path: str, act: Act, default_mode: str, sha256: str) -> Precondition:
    """Return the state of a file once the act is done; of an account that is said by its name the number is
    not known."""
    wanted = attributes_to_set(act, default_mode)
    uid, gid = (int(n) if n.isdigit() else None for n in (wanted["owner"], wanted["group"]))
    return Precondition(
        path, "file", int(wanted["mode"], 8) if wanted["mode"] else None, uid, gid, sha256=sha256
    )


def account_of(owner: str, group: str) -> str:
    """Return the word for `chown`; empty when there is nothing to set."""
    return quote(f"{owner}:{group}" if group else owner) if owner or group else ""


def set_attributes(path: str, mode: str | None, owner: str, group: str) -> str:
    """Return lines that set what is given. The owner first: a change of it drops set-user-id bits."""
    lines = []
    if account := account_of(owner, group):
        # who is not root may not even set the owner that is there already
        lines.append(f'[ "$(fz_own {path})" = {account} ] || chown {account} {path}')
    if mode:
        lines.append(f"chmod {mode} {path}")
    return "\n".join(lines)


def change_attributes(path: str, act: Act) -> Block:
    """Return a block that sets those attributes of a file or folder that differ."""
    fields = act.after
    mode, owner, group = (str(fields.get(name, "")) for name in ("mode", "owner", "group"))
    if mode:  # of a folder, GNU's chmod takes the set-id bits away for five digits only
        mode = f"0{mode}"
    account = account_of(owner, group) or "''"
    script = f"set -e; fz_in {quote(path)}\n{check_recipient(act)}"
    script += f"fz_change {act.token} {mode or quote('')} {account}"
    plain = f"set -e\n{set_attributes(quote(path), mode, owner, group)}"
    return Block(script, at=path, plain=plain, below=trust_below(act))


def remove_path(path: str) -> Block:
    """Return a block that removes the name; a link goes, and what it leads to stays."""
    return Block(f"set -e; fz_rm {quote(path)}", at=path, plain=f"rm -f {quote(path)}")


def remove_made_folders(path: str, act: Act) -> Iterator[Block]:
    """Iterate over blocks that remove the folders above that were made with what is undone, where nothing
    else is in them."""
    size = act.memory.get(("made", act.undoes)) if act.undone else None
    name = path.encode("utf-8", "surrogateescape")
    while size is not None and len(name := name.rpartition(b"/")[0]) >= size:
        word = quote(name.decode("utf-8", "surrogateescape"))
        yield Block(f'set -e; fz_in {word}; rmdir "./$fz_name" 2>/dev/null || :', compares=True)


def trust_below(act: Act) -> str:
    """Return "ours" where nobody else may write to a folder once the act is done, "loose" where somebody may
    (`Block.below`)."""
    fields = {**act.have, **act.after}
    owner = str(act.after.get("owner", act.have.get("uid", "0")))
    others = int(str(fields.get("mode", "0755")), 8) & 0o022
    return "loose" if others or owner not in ("0", "root") else "ours"


def check_recipient(act: Act) -> str:
    """Return a line that refuses to make something for one user in a folder of another one."""
    owner = act.after.get("owner")
    return "" if owner is None else f"fz_for {quote(str(owner))}\n"


def replace_host_file(path: str, content: Blob, act: Act, default_mode: str) -> Iterator[Block]:
    """Iterate over blocks that put a file in place as a whole: a temporary file beside it, complete and
    synchronised, takes its name. A cut leaves the old file. Raises DeviceError for a content that was not
    kept."""
    if content.data is None:
        raise DeviceError(f"{act.identity} was too large to be kept, and cannot be put back")
    tmp = temporary_path(path, act.token)
    chunks = iter(append_commands(content.data))
    opened = encode_script(f"set -e; fz_open {quote(path)} {act.token}")
    made = encode_script(f'\n{check_recipient(act)}umask 077; set -C; : >"$fz_tmp"; set +C\n')
    whole = True
    while len(batch := tuple(islice(chunks, _CHUNKS_PER_BLOCK))) == _CHUNKS_PER_BLOCK:
        yield Block((opened, made, b"fz_keep=1\n", *batch), tmp, compares=True)
        made, whole = b" '' again\n", False
    script = (opened, made, *batch, encode_script(finish_file(act, default_mode)))
    put = None
    if whole and not act.options.get("validate"):  # a command may look at the files before it
        wanted = attributes_to_set(act, default_mode)
        account = account_of(wanted["owner"], wanted["group"])
        put = FileReplacement(path, batch, wanted["mode"], account, _final_lines(act), _keeps_mode(act))
    yield Block(script, tmp, put=put, compares=True)
    if act.undoes and (backup := act.memory.get(("backup", act.undoes))):
        node, end = backup  # it holds what was put back just now
        yield Block(f"fz_unback {quote(path + end)} {node} {content.sha256}", compares=True)


def finish_file(act: Act, default_mode: str) -> str:
    """Return the end of a block behind `fz_open` whose "$fz_tmp" is complete: it gets its attributes, and
    takes the file's name."""
    wanted = attributes_to_set(act, default_mode)
    mode = None if _keeps_mode(act) else wanted["mode"]
    lines = [set_attributes('"$fz_tmp"', mode, wanted["owner"], wanted["group"])]
    if mode is None:
        lines.append(f"fz_like {wanted['mode']}")
    if act.options.get("validate"):
        words = [word.split("%s") for word in shlex.split(act.options["validate"])]
        command = " ".join('"$fz_tmp"'.join(map(quote, parts)) for parts in words)
        text = "did not succeed: nothing takes its place, the old file stays"
        said = quote(f"validate: {act.options['validate']} {text}")
        lines.append(f"{command} >&2 || {{ fz_x=$?; printf '%s\\n' {said} >&2; exit $fz_x; }}")
    lines.append('fz_sync "$fz_tmp"')
    if act.options.get("backup"):
        lines.append("fz_old")
    return "\n".join([*lines, _final_lines(act)])


def _keeps_mode(act: Act) -> bool:
    """Tell whether the readers of a file stay the same ones, which the mode alone does not say."""
    return "mode" not in act.after and "mode" in act.have


def _final_lines(act: Act) -> str:
    backup = f"fz_backup {act.token}\n" if act.options.get("backup") else ""
    return f"{check_lines(act.preconditions)}{backup}fz_take"
