"""Linux hosts over SSH, six resources each, beside a bare asyncssh script, pyinfra and ansible-core.

Takes long with all contenders, so it runs in turns that may be hours apart: `python -m bench.hosts MEASURE`
runs one turn and adds it to .bench/hosts.jsonl, `python -m bench hosts` makes the tables of what is there.
A contender's times are divided by those of the bare script in the same turn.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Sample
from bench.ssh_contenders import contenders
from bench.ssh_hosts import SshHosts

BARE, LOOK, FAZAI = "bare asyncssh", "bare asyncssh, same look", "fazai apply"
_RESULTS = Path(__file__).parent.parent / ".bench" / "hosts.jsonl"


def main() -> list[str]:
    """Tables of the turns so far."""
    if not _RESULTS.exists():
        return ["No turn was run: `python -m bench.hosts noop --hosts 100`"]
    rows = [json.loads(line) for line in _RESULTS.read_text().splitlines()]
    return list(_tables(rows))


def _tables(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for measure, hosts in dict.fromkeys((row["measure"], row["hosts"]) for row in rows):
        found = [row for row in rows if (row["measure"], row["hosts"]) == (measure, hosts)]
        yield f"**{measure}, {hosts} hosts**"
        yield ""
        columns = "rounds | wall | to the bare script | CPU | CPU of sshd | peak memory | logins a host"
        yield f"| contender | {columns} |"
        yield "|---|---|---|---|---|---|---|---|"
        for name in dict.fromkeys(row["contender"] for row in found):
            yield _row(name, [row for row in found if row["contender"] == name])
        yield ""


def _row(name: str, rows: Sequence[dict[str, Any]]) -> str:
    def median(key: str) -> float:
        return float(statistics.median(row[key] for row in rows))

    floors = [row["wall_s"] / row["floor_s"] for row in rows if row["floor_s"]]
    ratio = f"{statistics.median(floors):.2f} ({min(floors):.2f} to {max(floors):.2f})" if floors else "-"
    return (
        f"| {name} | {len(rows)} | {median('wall_s'):.2f} s | {ratio} | {median('cpu_s'):.2f} s"
        f" | {median('sshd_s'):.2f} s | {median('peak_bytes') / 2**20:.0f} MiB | {median('logins'):.1f} |"
    )


# -- turns ----------------------------------------------------------------------------------------------


def turn(measure: str, hosts: int, rounds: int, only: Sequence[str], *, out: Path) -> None:
    """One turn on fresh hosts, the contenders one after the other in each round. Before a contender's run the
    hosts are empty (`converge`), or as the contender itself left one of them (`noop`)."""
    with tempfile.TemporaryDirectory(prefix="fz") as folder, SshHosts(Path(folder), hosts) as servers:
        found = contenders(servers, Path(folder, "all"), servers.hosts)
        single = contenders(servers, Path(folder, "one"), servers.hosts[:1])
        names = [BARE, *(name for name in found if name != BARE and (not only or name in only))]
        states = {
            name: _state(servers, single[FAZAI if name == LOOK else name], Path(folder, "states", name))
            for name in names
        }
        for name in names[1:]:
            _prepare(servers, None if measure == "converge" else states[name])
            if measure == "noop" and rounds > 1:
                found[name]()  # byte code, caches
        for number in range(rounds):
            floor = 0.0
            for name in names:
                _prepare(servers, None if measure == "converge" else states[name])
                sample, sshd_s, logins = _measured(servers, found[name])
                floor = sample.wall_s if name == BARE else floor
                _record(out, measure, hosts, name, number, sample, sshd_s, logins / hosts, floor)


def _state(servers: SshHosts, single: Callable[[], Sample], folder: Path) -> Path:
    """The first host's files, as the contender makes them."""
    servers.empty()
    single()
    return Path(shutil.copytree(servers.hosts[0].root, folder, symlinks=True))


def _prepare(servers: SshHosts, state: Path | None) -> None:
    servers.empty()
    if state is not None:
        for host in servers.hosts:
            shutil.copytree(state, host.root, symlinks=True, dirs_exist_ok=True)


def _measured(servers: SshHosts, go: Callable[[], Sample]) -> tuple[Sample, float, int]:
    servers.settle()
    cpu, logins = servers.cpu_s(), servers.logins()
    sample = go()
    servers.settle()
    return sample, servers.cpu_s() - cpu, servers.logins() - logins


def _record(
    out: Path,
    measure: str,
    hosts: int,
    name: str,
    number: int,
    sample: Sample,
    sshd_s: float,
    logins: float,
    floor: float,
) -> None:
    row = {
        "measure": measure,
        "hosts": hosts,
        "contender": name,
        "round": number,
        "wall_s": sample.wall_s,
        "cpu_s": sample.cpu_s,
        "sshd_s": sshd_s,
        "peak_bytes": sample.peak_bytes,
        "logins": logins,
        "floor_s": floor,
    }
    out.parent.mkdir(exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{name:18} {sample.wall_s:7.2f} s  cpu {sample.cpu_s:.2f} s  sshd {sshd_s:.2f} s", flush=True)
    said = re.findall(r"RESULT .*", sample.output)
    if said:
        print(f"{'':18} {said[-1]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.hosts")
    parser.add_argument("measure", choices=("noop", "converge"))
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="contenders beside the bare script")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    words = parser.parse_args()
    turn(words.measure, words.hosts, words.rounds, words.only, out=words.out)
    sys.exit(0)
