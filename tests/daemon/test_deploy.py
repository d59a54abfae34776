"""deploy/fazai.service and fazai.socket, as systemd reads them; the daemon with systemd's sockets, and under
what the unit restricts."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.daemon.live import PATIENCE_S
from tests.worker.restricted import NOBODY, wrapper

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("fazai.service", "fazai.socket")
FAZAI = str(Path(sys.executable).with_name("fazai"))

#: What systemd does: sockets from 3 on, and the process that they are for; argv: their numbers, the command.
_HAND_OVER = """
import os, sys
numbers = [int(word) for word in sys.argv[1].split(",")]
for place, number in enumerate(numbers, 3):
    os.dup2(number, place)
os.environ.update(LISTEN_FDS=str(len(numbers)), LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _unit(name: str) -> configparser.RawConfigParser:
    class Several(dict[str, Any]):
        """A key may stand several times."""

        def __setitem__(self, key: str, value: object) -> None:
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(dict_type=Several, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string((DEPLOY / name).read_text())
    return parser


def test_both_units_speak_of_one_user_and_the_same_sockets() -> None:
    service, sock = (_unit(name) for name in UNITS)
    assert service["Service"]["User"] == sock["Socket"]["SocketUser"] == "fazai"
    assert service["Service"]["Group"] == sock["Socket"]["SocketGroup"] == "fazai"
    assert sock["Socket"]["ListenStream"].split() == ["127.0.0.1:3120", "/run/fazai/daemon.sock"]
    assert "FAZAI_SOCKET=/run/fazai/daemon.sock" in service["Service"]["Environment"]
    assert sock["Socket"]["SocketMode"] == "0660"
    assert "u fazai " in (DEPLOY / "fazai.sysusers.conf").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        text = (DEPLOY / name).read_text().replace("/opt/fazai/bin/fazai", sys.executable)
        (tmp_path / name).write_text(text)

    def analyze(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)

    checked = analyze("verify", *(str(tmp_path / name) for name in UNITS))
    assert (checked.returncode, checked.stderr) == (0, "")
    rated = analyze("security", "--offline=true", "--threshold=14", str(tmp_path / UNITS[0]))
    assert rated.returncode == 0, rated.stdout  # exposure of at most 1.4 of 10: it has a network to serve


class _Daemon:
    """`fazai daemon` with the sockets that it is handed; `with` ends it."""

    def __init__(self, folder: Path, sockets: Sequence[socket.socket], before: Sequence[str] = ()) -> None:
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / f"notify-{time.monotonic_ns()}"
        self.notify.bind(str(address))
        address.chmod(0o666)
        self.notify.settimeout(PATIENCE_S)
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "HOME": str(folder),
            "FAZAI_STATE_DIR": str(folder / "state"),
            "FAZAI_SECRETS": str(folder / "secrets"),
            "FAZAI_SOCKET": str(folder / "not-used.sock"),
            "FAZAI_GEMMA_SOCK": str(folder / "no-worker.sock"),
            "NOTIFY_SOCKET": str(address),
        }
        with contextlib.ExitStack() as held:  # numbers that are above the places which they are copied to
            numbers = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 64) for one in sockets]
            for number in numbers:
                held.callback(os.close, number)
            self.child = self._start(numbers, before, env)

    def _start(
        self, numbers: Sequence[int], before: Sequence[str], env: dict[str, str]
    ) -> subprocess.Popen[str]:
        launch = [sys.executable, "-c", _HAND_OVER, ",".join(map(str, numbers))]
        return subprocess.Popen(
            [*launch, *before, FAZAI, "daemon"], env=env, pass_fds=numbers, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate(timeout=PATIENCE_S)
        self.notify.close()

    def told(self) -> str:
        """What it tells systemd when it is ready."""
        try:
            text = self.notify.recv(4096).decode()
        except TimeoutError:
            self.child.kill()
            raise AssertionError(self.child.communicate()[1]) from None
        assert text.startswith("READY=1")
        return text

    def end(self) -> str:
        self.child.send_signal(signal.SIGTERM)
        _, said = self.child.communicate(timeout=PATIENCE_S)
        assert self.child.returncode == 0, said
        return str(said)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the daemon's user; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="fazai-") as name:
        os.chown(name, *((NOBODY, NOBODY) if os.geteuid() == 0 else (-1, -1)))
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def _listening(folder: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "daemon.sock"))
        for one in (tcp, unix):
            one.listen(64)
        yield tcp, unix


def _asks(tcp: socket.socket, unix: socket.socket) -> None:
    port = tcp.getsockname()[1]
    transport = httpx.HTTPTransport(uds=unix.getsockname(), verify=False)
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as over_tcp,
        httpx.Client(transport=transport, base_url="http://fazai") as local,
    ):
        for client in (over_tcp, local):
            assert client.get("/ready").json()["status"] == "ready"
            assert client.get("/agents/daemon").json()["agent"]["state"] == "observation"


def test_sockets_of_systemd_stay_open_across_a_restart(folder: Path) -> None:
    with _listening(folder) as (tcp, unix):
        with _Daemon(folder, (tcp, unix)) as first:
            told = first.told()
            assert f"http://127.0.0.1:{tcp.getsockname()[1]}" in told
            assert unix.getsockname() in told
            _asks(tcp, unix)
            first.end()
        assert not (folder / "not-used.sock").exists()
        with socket.create_connection(
            tcp.getsockname(), timeout=PATIENCE_S
        ) as waiting:  # nobody serves, none refuses
            waiting.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with _Daemon(folder, (tcp, unix)) as second:
                second.told()
                assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
                _asks(tcp, unix)
                second.end()
        assert Path(unix.getsockname()).exists()  # it is systemd's


def test_a_public_socket_of_systemd_is_guarded_like_our_own(folder: Path) -> None:
    with socket.socket() as public:
        public.bind(("0.0.0.0", 0))
        public.listen(8)
        with _Daemon(folder, (public,)) as daemon:
            _, said = daemon.child.communicate(timeout=PATIENCE_S)
            assert daemon.child.returncode == 3
            assert "is a public address, and there is no TLS" in said


def _can_restrict() -> bool:
    return (
        os.geteuid() == 0
        and shutil.which("setpriv") is not None
        and subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _can_restrict(), reason="needs root, setpriv and namespaces")
def test_it_runs_as_the_unit_restricts_it(folder: Path) -> None:
    """Another user without capabilities, a file system that is read-only but for its folders, no memory that
    is writable and executable, no sockets but those of the unit."""
    families = _unit("fazai.service")["Service"]["RestrictAddressFamilies"].split()
    before = wrapper(folder, [int(getattr(socket, name)) for name in families])
    with _listening(folder) as (tcp, unix), _Daemon(folder, (tcp, unix), before) as daemon:
        daemon.told()
        status = Path(f"/proc/{daemon.child.pid}/status").read_text()
        found = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.M))
        assert set(found["Uid"].split()) == {str(NOBODY)}
        assert (int(found["CapEff"], 16), int(found["CapBnd"], 16)) == (0, 0)
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        _asks(tcp, unix)
        port = tcp.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:
            record = {"hostname": "edge-1", "timestamp": "2026-11-22T03:04:00Z"}
            assert client.post("/ingest", json=record).json()["accepted"] == 1
            assert "fazai_host" in client.get("/metrics").text
        said = daemon.end()
        assert "Traceback" not in said
        assert (folder / "state").stat().st_uid == NOBODY
