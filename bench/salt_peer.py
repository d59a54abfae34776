"""A Salt master and minions of its own for bench/agents.py, all on loopback and below one folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.measure import Sample, run
from bench.peers import salt

__all__ = ["SaltFleet", "salt_fleet"]

_MASTER = """\
interface: 127.0.0.1
user: {user}
auto_accept: True
worker_threads: 4
publish_port: {publish}
ret_port: {returns}
file_roots: {{base: [{folder}/srv]}}
"""
_MINION = """\
master: 127.0.0.1
master_port: {returns}
publish_port: {publish}
id: {name}
user: {user}
"""
_PLACES = """\
root_dir: {folder}
pki_dir: {folder}/pki
cachedir: {folder}/cache
sock_dir: {folder}/run
log_file: {folder}/log
"""
#: A file of every minion, the state that a minion is asked for.
_STATE = """\
{root}/{{{{ grains['id'] }}}}/etc/app.conf:
  file.managed:
    - makedirs: True
    - contents: "level {{{{ pillar.get('level', 'info') }}}}"
"""
_START_S = 240.0


class SaltFleet:
    """A master and its minions, each process by its id."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, list(names)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports = {"publish": _free_port(), "returns": _free_port()}

    def start(self) -> None:
        """Start all, and wait until every minion answers. Raises RuntimeError."""
        root = self.folder / "roots"
        (self.folder / "master" / "srv").mkdir(parents=True)
        (self.folder / "master" / "srv" / "app.sls").write_text(_STATE.format(root=root))
        self._write("master", "master", _MASTER)
        self._start("salt-master", "master")
        for name in self.names:
            (root / name).mkdir(parents=True)
            self._write(name, "minion", _MINION)
            self._start("salt-minion", name)
        until_s = time.monotonic() + _START_S
        while (answered := self.command("test.ping", expect=(0, 1)).output.count("True")) < len(self.names):
            if time.monotonic() > until_s:
                raise RuntimeError(f"{answered} of {len(self.names)} minions answer after {_START_S:.0f} s")

    def command(self, *words: str, expect: Sequence[int] = (0,)) -> Sample:
        """Run one salt command over all minions."""
        program = salt("salt")
        assert program is not None
        config = str(self.folder / "master")
        return run([program, "-c", config, "-t", "60", "--out=txt", "*", *words], expect=expect)

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU time so far of the master's processes, and of all minions'."""
        master, *minions = (_tree_cpu_s(process.pid) for process in self._processes)
        return master, sum(minions)

    def stop(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _write(self, name: str, file: str, text: str) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        places = {"folder": folder, "name": name, "user": _user(), **self._ports}
        (folder / file).write_text((text + _PLACES).format(**places))

    def _start(self, program: str, name: str) -> None:
        path = salt(program)
        assert path is not None
        with (self.folder / name / "out").open("wb") as out:
            command = [path, "-c", str(self.folder / name)]
            self._processes.append(
                subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, process_group=0)
            )


@contextlib.contextmanager
def salt_fleet(folder: Path, names: Sequence[str]) -> Iterator[SaltFleet]:
    """Run a master and minions below `folder` while the block runs."""
    fleet = SaltFleet(folder, names)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


def _tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process group, of those who ended in it as well."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == pid:
                ticks += sum(int(each) for each in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
