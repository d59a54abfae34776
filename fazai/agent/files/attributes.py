"""Owner, mode and extended attributes of a file that takes another one's place."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat

from fazai.agent.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Of a file that was not there.
_NEW_MODE = 0o644
_ACL = "system.posix_acl_access"
#: They speak of the content: privileges that are given to a program, and hashes of it.
_OF_CONTENT = ("security.capability", "security.ima", "security.evm")


class Wanted:
    """The mode and the owner that a request wants; None: as before."""

    def __init__(self, mode: int | None, uid: int | None, gid: int | None) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid

    def differs(self, found: os.stat_result) -> bool:
        """Return whether a file has another mode or owner."""
        return (
            self.mode not in (None, stat.S_IMODE(found.st_mode))
            or self.uid not in (None, found.st_uid)
            or self.gid not in (None, found.st_gid)
        )


def read_wanted(request: dict[str, Any]) -> Wanted:
    """Return the mode and the owner that a request names. Raises Refused."""
    return Wanted(_read_mode(request.get("mode")), *_read_owner(request.get("owner")))


def _read_mode(text: str | None) -> int | None:
    if text is None:
        return None
    mode = int(text, 8)
    if mode & 0o7000:
        raise Refused("not_allowed", f"mode {text}: set-user-id, set-group-id and sticky are not set here")
    return mode


def _read_owner(text: str | None) -> tuple[int | None, int | None]:
    """Return the numbers of `user` or `user:group`; None for what is not given."""
    if text is None:
        return None, None
    user, _, group = text.partition(":")
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Refused("not_found", f"there is no user {user} on this machine") from None
    try:
        return uid, grp.getgrnam(group).gr_gid if group else None
    except KeyError:
        raise Refused("not_found", f"there is no group {group} on this machine") from None


def keep_attributes(path: str, old: int | None, new: int, wanted: Wanted) -> None:
    """Give an open file what is wanted, and else what the old one has. Raises Refused where it cannot."""
    made = os.fstat(new)
    before = made if old is None else os.fstat(old)
    if old is not None and before.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Refused("not_allowed", f"{path} is set-user-id or set-group-id, and not replaced")
    uid = before.st_uid if wanted.uid is None else wanted.uid
    gid = before.st_gid if wanted.gid is None else wanted.gid
    if (uid, gid) != (made.st_uid, made.st_gid):
        try:
            os.fchown(new, uid, gid)
        except PermissionError:
            raise Refused(
                "not_allowed", f"the agent's user may not make {path} a file of user {uid}, group {gid}"
            ) from None
    if old is not None:
        _keep_extended(path, old, new)
    mode = wanted.mode
    if mode is None:
        mode = _NEW_MODE if old is None else stat.S_IMODE(before.st_mode)
    os.fchmod(new, mode)


def _keep_extended(path: str, old: int, new: int) -> None:
    """Copy the extended attributes, with them ACLs and the label of SELinux, where the system has them."""
    if not hasattr(os, "listxattr"):
        return
    try:
        names = set(os.listxattr(old)) - {*_OF_CONTENT}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return
        raise
    made = set(os.listxattr(new))
    for name in sorted(names):
        value = os.getxattr(old, name)
        if name in made and os.getxattr(new, name) == value:
            continue
        try:
            os.setxattr(new, name, value)
        except OSError as error:
            raise Refused(
                "not_allowed", f"{path} has the attribute {name}, which cannot be kept: {error.strerror}"
            ) from None
    if _ACL in made - names:  # the folder's default ACL
        os.removexattr(new, _ACL)
