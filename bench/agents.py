"""Remote agents: many real ones on one daemon, beside SSH, pyinfra and Salt where those are installed.

Takes long with all, so it runs in turns as bench/hosts.py does: `python -m bench.agents MEASURE [--agents N]`
runs one turn and adds it to .bench/agents.jsonl, `python -m bench agents` makes the tables of what is there.
CPU is the operating system's account of the controller (the command and the daemon); the agents' is apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.agent_fleet import AgentFleet
from bench.measure import Sample, run
from bench.peers import fazai, pyinfra, salt
from bench.salt_peer import salt_fleet
from bench.ssh_contenders import FAZAI, contenders
from bench.ssh_hosts import SshHosts

_RESULTS = Path(__file__).parent.parent / ".bench" / "agents.jsonl"
Row = dict[str, Any]


def main() -> list[str]:
    """Return a table of the turns so far, a row a measure and contender: medians of the figures."""
    if not _RESULTS.exists():
        return ["No turn was run: `python -m bench.agents idle --agents 100`"]
    rows = [json.loads(line) for line in _RESULTS.read_text().splitlines()]
    lines = ["| measure | agents | who | turns | figures (medians) |", "|---|---|---|---|---|"]
    keys = dict.fromkeys((row["measure"], row["agents"], row["who"]) for row in rows)
    for key in keys:
        found = [row for row in rows if (row["measure"], row["agents"], row["who"]) == key]
        names = [name for name in found[-1] if name not in ("measure", "agents", "who")]
        shown = ", ".join(
            f"{name} {statistics.median(row[name] for row in found if name in row):.4g}" for name in names
        )
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {len(found)} | {shown} |")
    return lines


# -- measures ---------------------------------------------------------------------------------------------


def measure_idle(fleet: AgentFleet) -> Iterator[Row]:
    """Yield the memory of the daemon with no agent and with all, and of an agent."""
    assert fleet.daemon is not None
    before = _memory(fleet.daemon.pid)["Rss"]
    fleet.start_agents()
    after = _memory(fleet.daemon.pid)["Rss"]
    pids = fleet.agent_pids()
    some = pids[:: max(1, len(pids) // 50)]
    each = [[_memory(pid), *map(_memory, fleet.children(pid))] for pid in some]

    def median_mb(name: str) -> float:
        return statistics.median(sum(one[name] for one in processes) for processes in each) / 1e6

    yield {
        "who": "fazai",
        "daemon MB before": before / 1e6,
        "daemon MB with all": after / 1e6,
        "KB a connection": (after - before) / 1e3 / len(pids),
        "PSS MB an agent": median_mb("Pss"),  # with the process that runs its programs
        "private MB an agent": median_mb("Private_Dirty"),
        "RSS MB of its main process": statistics.median(one[0]["Rss"] for one in each) / 1e6,
    }


def measure_exec(fleet: AgentFleet, count: int = 1000) -> Iterator[Row]:
    """Yield round trips of command.exec, one after the other, all agents connected, and what one costs."""
    fleet.start_agents()
    assert fleet.daemon is not None
    begin_s = 0.0, 0.0
    from websockets.sync.client import unix_connect

    taken: list[float] = []
    with unix_connect(str(fleet.folder / "agents.sock"), "ws://fazai/southbound/relay") as relay:
        for number in range(count + 50):
            if number == 50:
                begin_s = fleet.agents_cpu_s(), _cpu_s(fleet.daemon.pid)
            message = {
                "method": "command.exec",
                "action_id": f"x-{os.getpid()}-{number}",
                "command": "/bin/true",
                "args": [],
                "timeout": 10_000,
            }
            agent = fleet.names[number % len(fleet.names)]
            begun = time.perf_counter()
            relay.send(json.dumps({"id": number + 1, "agent": agent, "message": message}))
            answer = json.loads(relay.recv(timeout=20))
            if not answer["answer"]["ok"] or answer["id"] != number + 1:
                raise RuntimeError(f"{agent}: {answer}")
            if number >= 50:
                taken.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(taken, n=100)
    yield {
        "who": "fazai",
        "p50 ms": cuts[49] * 1e3,
        "p99 ms": cuts[98] * 1e3,
        "max ms": max(taken) * 1e3,
        "agent CPU ms": (fleet.agents_cpu_s() - begin_s[0]) * 1e3 / count,
        "daemon CPU ms": (_cpu_s(fleet.daemon.pid) - begin_s[1]) * 1e3 / count,
    }


def measure_noop(fleet: AgentFleet, rounds: int = 5) -> Iterator[Row]:
    """Yield a run that finds everything as declared, six resources on every agent; and the same of SSH."""
    fleet.start_agents()
    apply = _apply_of(fleet)
    yield _with_daemon(fleet, "fazai, agents, first converge", apply)
    for _ in range(rounds):
        before = fleet.agents_cpu_s()
        row = _with_daemon(fleet, "fazai, agents", apply)
        row["agents CPU s"] = fleet.agents_cpu_s() - before  # who would have processors of their own
        row["controller CPU s"] = row["command CPU s"] + row["daemon CPU s"]
        yield row
    hosts = min(len(fleet.names), 100)
    for name, contender in _over_ssh(fleet, hosts, ("fazai apply",)):
        contender()
        for _ in range(rounds):
            sample = contender()
            yield _row_of(f"{name}, SSH, {hosts} hosts", sample, hosts)


def measure_converge(fleet: AgentFleet, rounds: int = 3) -> Iterator[Row]:
    """Yield first converges, in turn with those of the SSH provider and pyinfra."""
    fleet.start_agents()
    apply = _apply_of(fleet)
    with _ssh_contenders(fleet, len(fleet.names), ("fazai apply", "pyinfra")) as (servers, found):
        for number in range(rounds + 1):
            fleet.empty()
            row = _with_daemon(fleet, "fazai, agents", apply)
            if number:
                yield row
            for name, contender in found.items():
                servers.empty()
                sample = contender()
                if number:
                    yield _row_of(f"{name}, SSH", sample, len(fleet.names))


def measure_restart(fleet: AgentFleet) -> Iterator[Row]:
    """Yield how long after a kill -9 of the daemon all agents are back, and how long /health takes then."""
    fleet.start_agents()
    fleet.kill_daemon()
    begun = time.perf_counter()
    fleet.start_daemon()
    slow: list[float] = []
    back = threading.Event()

    def watch_health() -> None:
        while not back.is_set():
            asked = time.perf_counter()
            if fleet.get("/health") is None:
                raise RuntimeError("/health did not answer")
            slow.append(time.perf_counter() - asked)
            back.wait(0.02)

    watcher = threading.Thread(target=watch_health)
    watcher.start()
    try:
        while fleet.connected() < len(fleet.names):
            if time.perf_counter() - begun > 300:
                raise RuntimeError(f"{fleet.connected()} of {len(fleet.names)} are back after 300 s")
            time.sleep(0.5)
        taken = time.perf_counter() - begun
    finally:
        back.set()
        watcher.join()
    cuts = statistics.quantiles(slow, n=100)
    yield {
        "who": "fazai",
        "all back s": taken,
        "/health p50 ms": cuts[49] * 1e3,
        "/health p99 ms": cuts[98] * 1e3,
    }


def measure_salt(fleet: AgentFleet, rounds: int = 5) -> Iterator[Row]:
    """Yield a command and a file state over all agents, and over as many minions of Salt, in turn."""
    if salt() is None:
        raise RuntimeError("Salt is not installed: python -m bench --install-peers")
    fleet.start_agents()
    inventory = fleet.write_inventory([FAZAI[0], FAZAI[2]])
    ping = [fazai(), "exec", str(inventory), "all", "--", "/bin/true"]
    state = [fazai(), "apply", str(inventory), "--quiet"]
    with salt_fleet(fleet.folder / "salt", fleet.names) as minions:
        for number in range(rounds + 1):
            fleet.empty()
            for what, command, words in (
                ("ping", ping, ("test.ping",)),
                ("file state, first", state, ("state.apply", "app", f"pillar={{'level': '{number}'}}")),
                ("file state, again", state, ("state.apply", "app", f"pillar={{'level': '{number}'}}")),
            ):
                before = fleet.agents_cpu_s()
                sample = run(command, env=fleet.environment)
                ours = (fleet.agents_cpu_s() - before) / len(fleet.names)
                _, before = minions.cpu_s()
                theirs_sample = minions.command(*words)
                theirs = (minions.cpu_s()[1] - before) / len(fleet.names)
                if number:
                    yield {"who": f"fazai, {what}", "wall s": sample.wall_s, "agent CPU ms": ours * 1e3}
                    yield {
                        "who": f"Salt, {what}",
                        "wall s": theirs_sample.wall_s,
                        "agent CPU ms": theirs * 1e3,
                    }


# -- what they share --------------------------------------------------------------------------------------


def _apply_of(fleet: AgentFleet) -> Callable[[], Sample]:
    inventory = fleet.write_inventory(FAZAI)
    command = [fazai(), "apply", str(inventory), "--quiet"]
    return lambda: run(command, env=fleet.environment)


def _with_daemon(fleet: AgentFleet, who: str, contender: Callable[[], Sample]) -> Row:
    assert fleet.daemon is not None
    before = _cpu_s(fleet.daemon.pid)
    sample = contender()
    daemon = _cpu_s(fleet.daemon.pid) - before
    row = _row_of(who, sample, len(fleet.names))
    row["daemon CPU s"] = daemon
    row["controller CPU ms a host"] += daemon * 1e3 / len(fleet.names)
    return row


def _row_of(who: str, sample: Sample, hosts: int) -> Row:
    return {
        "who": who,
        "wall s": sample.wall_s,
        "command CPU s": sample.cpu_s,
        "controller CPU ms a host": sample.cpu_s * 1e3 / hosts,
        "peak MB": sample.peak_bytes / 1e6,
    }


@contextlib.contextmanager
def _ssh_contenders(
    fleet: AgentFleet, hosts: int, names: Sequence[str]
) -> Iterator[tuple[SshHosts, dict[str, Callable[[], Sample]]]]:
    folder = Path(tempfile.mkdtemp(dir=fleet.folder))
    with SshHosts(folder, hosts) as servers:
        found = contenders(servers, folder / "contenders", servers.hosts)
        yield servers, {name: found[name] for name in names if name in found}


def _over_ssh(
    fleet: AgentFleet, hosts: int, names: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Sample]]]:
    with _ssh_contenders(fleet, hosts, names) as (_, found):
        yield from found.items()


def _memory(pid: int) -> dict[str, int]:
    """Return the sizes of a process in bytes, by their names in smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:13]) / os.sysconf("SC_CLK_TCK")


MEASURES: dict[str, Callable[[AgentFleet], Iterator[Row]]] = {
    "idle": measure_idle,
    "exec": measure_exec,
    "noop": measure_noop,
    "converge": measure_converge,
    "restart": measure_restart,
    "salt": measure_salt,
}


def _turn() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.agents", description="One turn of a measure.")
    parser.add_argument("measure", choices=sorted(MEASURES))
    parser.add_argument("--agents", type=int, default=100)
    options = parser.parse_args()
    if options.measure == "converge" and pyinfra() is None:
        print("pyinfra is not installed: python -m bench --install-peers", file=sys.stderr)
    _RESULTS.parent.mkdir(exist_ok=True)
    reconciles = options.measure in ("noop", "converge", "salt")
    with (
        tempfile.TemporaryDirectory() as folder,
        AgentFleet(Path(folder), options.agents, reconciles=reconciles) as fleet,
    ):
        for row in MEASURES[options.measure](fleet):
            whole = {"measure": options.measure, "agents": options.agents, **row}
            print(json.dumps(whole), flush=True)
            with _RESULTS.open("a") as out:
                out.write(json.dumps(whole) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_turn())
