"""One program, and one file, on many hosts over SSH: `fazai exec` and `fazai cp` beside a loop of ssh or scp,
pyinfra and ansible-core.

Every contender is a whole process over the same hosts, in turn; a contender's times are divided by those of
the loop in the same round.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.measure import Sample, run
from bench.peers import ansible, fazai, pyinfra
from bench.ssh_contenders import ANSIBLE_CFG
from bench.ssh_hosts import SshHosts

__all__ = ["main"]

_HOSTS, _ROUNDS, _AT_ONCE = 100, 5, 50
_PROGRAM = ("uname", "-r")
_FILE_BYTES = 64 * 1024

Contenders = dict[str, Callable[[], Sample]]


def main(hosts: int = _HOSTS, rounds: int = _ROUNDS) -> list[str]:
    """Tables of both measures."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fz") as folder, SshHosts(Path(folder), hosts) as servers:
        bench = _Bench(servers, Path(folder))
        for title, contenders in (
            (f"`{' '.join(_PROGRAM)}` on {hosts} hosts", bench.programs()),
            (f"a file of {_FILE_BYTES >> 10} KiB to {hosts} hosts, new", bench.files(again=False)),
            (f"the same once more: it is there on all {hosts} hosts", bench.files(again=True)),
        ):
            lines += _table(title, _measure(servers, contenders, rounds))
    return lines


def _measure(servers: SshHosts, contenders: Contenders, rounds: int) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds + 1):  # the first one is for caches and byte code
        for name, contender in contenders.items():
            servers.settle()
            sample = contender()
            print(f"{name:28} {sample.wall_s:6.2f} s  cpu {sample.cpu_s:6.2f} s", file=sys.stderr, flush=True)
            if number:
                found[name].append(sample)
    return found


def _table(title: str, found: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    yield from (
        f"**{title}**",
        "",
        "| contender | wall, to the loop | CPU, to the loop | peak memory of a process |",
    )
    yield "|---|---|---|---|"
    loop = next(iter(found.values()))
    for name, samples in found.items():
        walls = [one.wall_s / floor.wall_s for one, floor in zip(samples, loop, strict=True)]
        cpus = [one.cpu_s / floor.cpu_s for one, floor in zip(samples, loop, strict=True)]
        peak = statistics.median(one.peak_bytes for one in samples) / 2**20
        yield f"| {name} | {_ratio(walls)} | {_ratio(cpus)} | {peak:.0f} MiB |"
    yield ""


def _ratio(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


class _Bench:
    """The command lines of all contenders over these hosts."""

    def __init__(self, servers: SshHosts, folder: Path) -> None:
        self._servers, self._folder = servers, folder
        self._source = folder / "source.bin"
        self._source.write_bytes(os.urandom(_FILE_BYTES))
        self._env = {**os.environ, "HOME": str(folder), "FAZAI_STATE_DIR": f"{folder}/state"}
        self._ssh = [
            *(
                "-o",
                f"UserKnownHostsFile={servers.known_hosts}",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "BatchMode=yes",
            ),
            *("-i", str(servers.user_key)),
        ]
        self._write_fazai()
        self._write_pyinfra()
        self._write_ansible()

    def programs(self) -> Contenders:
        """Run the program everywhere."""
        ssh = ["ssh", *self._ssh, "-p", str(self._servers.port), f"{self._servers.user}@{{}}", *_PROGRAM]
        found = {f"ssh, {_AT_ONCE} at once": self._loop(ssh)}
        found["fazai exec"] = self._run(
            fazai(), "exec", f"{self._folder}/inventory.yml", "all", "--", *_PROGRAM
        )
        if pyinfra() is not None:
            words = ("exec", "--", " ".join(_PROGRAM))
            found["pyinfra exec"] = self._run(str(pyinfra()), "-y", f"{self._folder}/hosts.py", *words)
        if ansible("ansible") is not None:
            for module in ("raw", "command"):
                found[f"ansible -m {module}"] = self._ansible("all", "-m", module, "-a", " ".join(_PROGRAM))
        return found

    def files(self, *, again: bool) -> Contenders:
        """Bring the file everywhere; `again`: where each contender has brought it already."""
        target = "{}:" + f"{self._folder}/roots/"
        scp = ["scp", "-q", *self._ssh, "-P", str(self._servers.port), str(self._source)]
        found = {f"scp, {_AT_ONCE} at once": self._loop([*scp, f"{self._servers.user}@{target}{{}}-scp"])}
        cp = ("cp", "-i", f"{self._folder}/inventory.yml", "all:", str(self._source), "/file")
        found["fazai cp"] = self._run(fazai(), *cp)
        if ansible("ansible") is not None:
            words = ("all", "-m", "copy", "-a", f"src={self._source} dest={{{{ root }}}}/ansible")
            found["ansible -m copy"] = self._ansible(*words)
        return found if again else {name: self._fresh(each) for name, each in found.items()}

    def _fresh(self, contender: Callable[[], Sample]) -> Callable[[], Sample]:
        def run_fresh() -> Sample:
            self._servers.empty()
            return contender()

        return run_fresh

    def _run(self, *command: str) -> Callable[[], Sample]:
        return lambda: run(command, self._env)

    def _ansible(self, *words: str) -> Callable[[], Sample]:
        env = {**self._env, "ANSIBLE_CONFIG": f"{self._folder}/ansible.cfg"}
        command = [str(ansible("ansible")), "-i", f"{self._folder}/ansible.json", *words]
        return lambda: run(command, env)

    def _loop(self, words: Sequence[str]) -> Callable[[], Sample]:
        """The loop that an operator writes: xargs, so many at once."""
        names = self._folder / "addresses"
        names.write_text("".join(f"{host.address}\n" for host in self._servers.hosts))
        return self._run("xargs", "-a", str(names), "-P", str(_AT_ONCE), "-I{}", *words)

    def _write_fazai(self) -> None:
        servers = self._servers
        shared = {"provider": "ssh", "port": servers.port, "user": servers.user, "agent": False}
        shared |= {"key": str(servers.user_key), "known_hosts": str(servers.known_hosts)}
        named = {host.name: {"host": host.address, "root": str(host.root)} for host in servers.hosts}
        path = self._folder / "inventory.yml"
        path.write_text(json.dumps({"all": {"vars": shared, "hosts": named}}))

    def _write_pyinfra(self) -> None:
        servers = self._servers
        data = {"ssh_user": servers.user, "ssh_port": servers.port, "ssh_key": str(servers.user_key)}
        data |= {"ssh_known_hosts_file": str(servers.known_hosts), "ssh_allow_agent": False}
        listed = [(host.address, {**data, "ssh_look_for_keys": False}) for host in servers.hosts]
        (self._folder / "hosts.py").write_text(f"all_hosts = {listed!r}\n")

    def _write_ansible(self) -> None:
        servers = self._servers
        shared = {"ansible_port": servers.port, "ansible_user": servers.user}
        shared["ansible_ssh_private_key_file"] = str(servers.user_key)
        named = {host.name: {"ansible_host": host.address, "root": str(host.root)} for host in servers.hosts}
        (self._folder / "ansible.json").write_text(json.dumps({"all": {"vars": shared, "hosts": named}}))
        python = os.path.realpath(sys.executable)
        text = ANSIBLE_CFG.format(python=python, folder=self._folder, known=servers.known_hosts)
        (self._folder / "ansible.cfg").write_text(text)
