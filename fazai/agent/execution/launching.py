"""Starts one program in a child: own session, user, folder, limits, Landlock; never a shell, never PATH."""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import json
import os
import pwd
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from fazai.agent.errors import Refused
from fazai.agent.execution import landlock
from fazai.agent.execution.limits import CgroupLeaf, limit_core, limit_processes, write_file
from fazai.agent.execution.system import (
    LINUX,
    die_with_parent,
    forbid_new_privileges,
    fork_into_cgroup,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fazai.agent.config.settings import ProgramLimits, ProgramRule

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STATUS = 3  # the descriptor over which a child tells why it could not become the program


@dataclass(frozen=True)
class ProgramUser:
    """Whom a program runs as; `change` tells whether that is another one than the agent's own user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    change: bool


@dataclass(frozen=True)
class Launch:
    """All that is needed to become the program."""

    path: str
    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes]
    cwd: str
    user: ProgramUser
    write: tuple[str, ...] | None
    limits: ProgramLimits


@dataclass(frozen=True)
class StartedProgram:
    """A program that is being started: its process, and our ends of its pipes.

    `stdin` is None where it has /dev/null. Over `status` comes why it could not be started, or nothing.
    """

    pid: int
    stdin: int | None
    stdout: int
    stderr: int
    status: int


def set_up_inherited() -> None:
    """Give this process all that each program inherits from it, so that little is left to do between the fork
    and the program: what a forked Python does costs a page for each object that it looks at.

    Descriptors need no care: Python's own are closed by the kernel when a program starts.
    """
    os.chdir("/")
    os.umask(0o022)
    for (
        number
    ) in signal.valid_signals():  # what is handled becomes default by itself, what is ignored does not
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, _take_no_notice)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    limit_core()
    if LINUX:  # elsewhere it may be missing, which the program's start tells
        forbid_new_privileges()
    with contextlib.suppress(OSError):  # the kernel ends these rather than the agent where memory runs out
        write_file("/proc/self/oom_score_adj", b"500")
    while os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) < _STATUS:
        continue  # the numbers that a program's descriptors get are taken: pipes have others


def _take_no_notice(number: int, frame: object) -> None:
    return


def prepare_launch(
    rule: ProgramRule, args: Sequence[str], env: Sequence[tuple[str, str]], cwd: str
) -> Launch:
    """Find out what can be known before the fork. Raises Refused."""
    user = find_user(rule.user)
    variables = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    variables.update(env)
    try:
        argv = tuple(text.encode() for text in (rule.path, *args))
        encoded = {name.encode(): value.encode() for name, value in variables.items()}
    except UnicodeEncodeError:
        raise Refused("bad_request", "an argument or a variable holds half of a surrogate pair") from None
    if rule.write is not None and landlock.read_abi() == 0:
        raise Refused(
            "not_allowed",
            f"{rule.path}: its writing cannot be restricted: {landlock.missing_rights(0)}",
            "without `write` in the agent's configuration it runs unrestricted",
        )
    return Launch(rule.path, argv, encoded, cwd, user, rule.write, rule.limits)


def find_user(text: str | None) -> ProgramUser:
    """Find whom `user` of a program means: NAME, NAME:GROUP or UID:GID; None is the agent's own user. Raises
    Refused."""
    if text is None:
        return _find_own_user()
    name, _, group = text.partition(":")
    try:
        entry = pwd.getpwnam(name) if not name.isdigit() else _find_entry(int(name))
        uid = entry.pw_uid if entry else int(name)
        gid = entry.pw_gid if entry else 0
        if group:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Refused("not_allowed", f'there is no user "{text}" here: {error.args[0]}') from None
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if entry else (gid,)
    change = uid != os.geteuid() or gid != os.getegid()
    if change and os.geteuid() != 0:
        raise Refused("not_allowed", f"the agent does not run as root and cannot become {text}")
    return ProgramUser(
        uid, gid, groups, entry.pw_name if entry else name, entry.pw_dir if entry else "/", change
    )


@functools.lru_cache(maxsize=1)  # the agent asks before it forks, and its children know
def _find_own_user() -> ProgramUser:
    uid = os.geteuid()
    entry = _find_entry(uid)
    name, home = (entry.pw_name, entry.pw_dir) if entry else (str(uid), "/")
    return ProgramUser(uid, os.getegid(), tuple(os.getgroups()), name, home, change=False)


def _find_entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def start_program(launch: Launch, leaf: CgroupLeaf | None, *, wants_stdin: bool) -> StartedProgram:
    """Fork, and become the program in the child; what fails there is told over the status pipe.

    Raises Refused where a limit cannot be kept.
    """
    held = leaf.limit(launch.limits) if leaf is not None else (False, False)
    if launch.limits.processes is not None and launch.user.uid == 0 and not held[1]:
        raise Refused(
            "unavailable",
            f"{launch.path}: the number of root's processes cannot be limited here",
            "give it a `user`, or the agent a cgroup with the controller `pids`",
        )
    stdin = os.pipe() if wants_stdin else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
    stdout, stderr, status = os.pipe(), os.pipe(), os.pipe()
    parent = os.getpid()
    pid, joins = _fork(leaf)
    if pid == 0:
        _become_program(
            launch, leaf if joins else None, held, (stdin[0], stdout[1], stderr[1], status[1]), parent
        )
    for handle in (stdin[0], stdout[1], stderr[1], status[1]):
        os.close(handle)
    return StartedProgram(pid, stdin[1] if wants_stdin else None, stdout[0], stderr[0], status[0])


def _fork(leaf: CgroupLeaf | None) -> tuple[int, bool]:
    """Fork, into the cgroup where the kernel can; returns the process, and whether it has to enter itself."""
    if leaf is not None:
        with contextlib.suppress(OSError):
            return fork_into_cgroup(leaf.handle), False
    return os.fork(), True


def explain_failure(launch: Launch, told: str) -> Refused:
    """Return the error for what came over the status pipe."""
    stage, reason, where = json.loads(told)
    if stage == "start":
        missing = reason == os.strerror(errno.ENOENT)
        return Refused(
            "not_found" if missing else "not_allowed", f"{launch.path} cannot be started: {reason}"
        )
    if stage == "folder":
        text = f"{launch.cwd} cannot be the folder that it runs in: {where}: {reason}"
        return Refused("not_allowed", text, "links are not followed")
    place = f": {where}" if where else ""
    return Refused("internal", f"{launch.path} cannot be started: {stage}{place}: {reason}")


def _become_program(
    launch: Launch,
    leaf: CgroupLeaf | None,
    held: tuple[bool, bool],
    handles: tuple[int, int, int, int],
    parent: int,
) -> NoReturn:
    """Turn this child into the program; whatever fails is told over the status pipe. Never returns."""
    stage, where = "session", ""
    status = handles[3]
    try:
        os.setsid()
        stage = "cgroup"
        if leaf is not None:
            leaf.enter()
        stage = "descriptors"
        for number, handle in enumerate(handles):
            os.dup2(handle, number, number != _STATUS)
        status = _STATUS
        stage = "Landlock"
        ruleset = landlock.make_ruleset(launch.write) if launch.write is not None else None
        stage = "user"
        _become_user(launch.user)
        stage, where = "folder", launch.cwd
        if launch.cwd != "/":
            enter_folder(launch.cwd)
        stage, where = "privileges", ""
        if not LINUX:
            forbid_new_privileges()
        if ruleset is not None:
            landlock.restrict_self(ruleset)
        stage = "limits"
        limit_processes(launch.limits, memory_held=held[0], processes_held=held[1])
        stage = "signals"
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(127)
        stage = "start"
        os.execve(launch.path, launch.argv, launch.env)  # noqa: S606 - no shell: that is the point
    except (OSError, ValueError, MemoryError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else where
        os.write(status, json.dumps([stage, reason, name]).encode())
    finally:
        os._exit(127)


def _become_user(user: ProgramUser) -> None:
    if not user.change:
        return
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)


def enter_folder(path: str) -> None:
    """Make a folder the current one, without following a link anywhere on the way. Raises OSError, with the
    part that it is about."""
    flags = (
        os.O_DIRECTORY
        | os.O_NOFOLLOW
        | os.O_CLOEXEC
        | (os.O_PATH if LINUX else getattr(os, "O_SEARCH", os.O_RDONLY))
    )
    handle = os.open("/", flags)
    walked = ""
    for part in filter(None, path.split("/")):
        walked = f"{walked}/{part}"
        try:
            inner = os.open(part, flags, dir_fd=handle)
        except OSError as error:
            raise OSError(error.errno, error.strerror, walked) from None
        os.close(handle)
        handle = inner
    os.fchdir(handle)
    os.close(handle)
