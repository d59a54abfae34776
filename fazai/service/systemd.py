"""Listening sockets, our own or systemd's, and messages to systemd (sd_listen_fds, sd_notify)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from fazai.errors import InputError

_FIRST_FD = 3
_STREAM = socket.SOCK_STREAM
BACKLOG = 1024


def inherited_sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Return the stream sockets, Unix or TCP, that systemd opened for us. Raises InputError for another
    kind."""
    count = environ.get("LISTEN_FDS", "0")
    if environ.get("LISTEN_PID") != str(pid) or not count.isdigit():
        return []
    found = []
    for number in range(_FIRST_FD, _FIRST_FD + int(count)):
        try:
            one = socket.socket(fileno=number)
        except OSError as error:
            raise InputError(f"it is no socket: {error.strerror}", where=f"fd {number}") from None
        if one.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) or one.type != _STREAM:
            raise InputError(
                "systemd's socket is no stream socket", where=f"fd {number}", hint="ListenStream="
            )
        os.set_inheritable(number, False)
        one.setblocking(False)
        found.append(one)
    return found


def inherited_unix_socket(environ: Mapping[str, str], pid: int) -> socket.socket | None:
    """Return the one Unix socket that systemd opened for us, if it did. Raises InputError when it is
    another."""
    if environ.get("LISTEN_PID") == str(pid) and (count := environ.get("LISTEN_FDS", "0")) not in "01":
        raise InputError(f"systemd hands over {count} sockets, one was expected", where="LISTEN_FDS")
    found = inherited_sockets(environ, pid)
    if not found:
        return None
    if found[0].family != socket.AF_UNIX:
        raise InputError(
            "systemd's socket is no Unix stream socket", hint="ListenStream=/run/fazai/gemma.sock"
        )
    return found[0]


def listen(path: Path, noun: str = "worker") -> socket.socket:
    """Return a listening socket at `path`, mode 0660. A stale file (nobody answers) is replaced; that of
    another `noun` is not. Raises InputError."""
    if len(os.fsencode(path)) > 107:
        raise InputError("a socket's path has at most 107 bytes", where=str(path))
    if not path.parent.is_dir():
        hint = "RuntimeDirectory=fazai makes it, or name another with --socket"
        raise InputError(f"there is no folder {path.parent}", where=str(path), hint=hint)
    with _lock_socket_folder(path.parent):
        _clear_stale(path, noun)
        return _bind(path)


def bind(host: str, port: int, options: str) -> list[socket.socket]:
    """Return sockets of all addresses of a host; `options` are those with which a person chooses others.
    Raises InputError."""
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, number, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, number)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            if port == 0:
                break
    except OSError as error:
        for one in made:
            one.close()
        raise InputError(
            f"it cannot listen on {host} port {port}: {error.strerror}", hint=_bind_hint(error, options)
        ) from None
    return made


def _bind_hint(error: OSError, options: str) -> str:
    """Return the next step for an address that cannot be bound."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{options.partition(' ')[0]} is a name or an address of this machine"
    if error.errno == errno.EACCES:
        return f"ports below 1024 want CAP_NET_BIND_SERVICE; choose with {options.rpartition(' ')[2]}"
    return f"is another daemon running? choose with {options}"


@contextlib.contextmanager
def _lock_socket_folder(folder: Path) -> Iterator[None]:
    """Lock the folder of a socket: of two processes that start at once, the second looks when the first one
    listens."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _bind(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)  # the file is 0660 from its first moment
    try:
        found.bind(str(path))
    except OSError as error:
        found.close()
        raise InputError(f"the socket cannot be made: {error.strerror}", where=str(path)) from None
    finally:
        os.umask(before)
    found.listen(BACKLOG)
    found.setblocking(False)
    return found


def file_identity(path: Path) -> tuple[int, int]:
    """Return which file stands there now, whatever stands there later."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def remove_socket_file(path: Path, own: tuple[int, int]) -> None:
    """Remove our socket's file; not one that another worker has put there since."""
    with contextlib.suppress(FileNotFoundError), _lock_socket_folder(path.parent):
        if file_identity(path) == own:
            path.unlink()


def _clear_stale(path: Path, noun: str) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise InputError("a file that is no socket stands there", where=str(path), hint="remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog must not hold us up
        code = probe.connect_ex(str(path))
    if code == 0 or code == errno.EAGAIN:
        raise InputError(f"another {noun} answers there", where=str(path), hint="stop it, or use --socket")
    if code != errno.ECONNREFUSED:
        raise InputError(f"the socket that stands there: {os.strerror(code)}", where=str(path))
    path.unlink(missing_ok=True)


def notify(environ: Mapping[str, str], state: str) -> None:
    """Send a state to systemd, when it asked for it; it is never an error that nobody listens."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        if out.connect_ex(address) == 0:
            with contextlib.suppress(OSError):
                out.send(state.encode())
