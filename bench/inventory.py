"""`fazai inventory --list` of 10,000 hosts in 200 groups with group_vars, beside `ansible-inventory`.

    python -m bench.inventory [--ansible PATH] [--rounds 3] [--hosts 10000] [--groups 200]

Both run as whole processes, in turn, on the same file. The answers must be equal, and hold every host.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import Sample, interleave, run
from bench.peers import ansible, fazai

ROLES = ("edge", "core", "branch", "lab", "vpn")


def write_inventory(folder: Path, hosts: int, groups: int) -> Path:
    """Regions of sites, and a role for every host; two variables a host, group_vars for every group."""
    chance = random.Random(3120)
    regions = max(1, groups // 10)
    sites = max(1, groups - regions - len(ROLES))
    members: dict[str, list[str]] = {role: [] for role in ROLES}
    lines = ["all:", "  vars:", "    provider: opnsense", "    verify_tls: true", "  children:"]
    number = 0
    for region in range(regions):
        lines += [f"    region_{region:02d}:", "      children:"]
        for site in range(region, sites, regions):
            lines += [f"        site_{site:03d}:", "          hosts:"]
            for _ in range(hosts // sites + (site < hosts % sites)):
                name = f"fw-{number:05d}.example.net"
                lines += [f"            {name}:", f"              base_url: https://{name}"]
                lines += [f"              rack: r{chance.randrange(40)}"]
                members[chance.choice(ROLES)].append(name)
                number += 1
    for role, names in members.items():
        lines += [f"    {role}:", "      hosts:", *(f"        {name}:" for name in names)]
    inventory = folder / "inventory.yml"
    inventory.write_text("\n".join(lines) + "\n")
    names = ["all", *(f"region_{n:02d}" for n in range(regions)), *(f"site_{n:03d}" for n in range(sites))]
    _write_group_vars(folder / "group_vars", [*names, *ROLES])
    return inventory


def _write_group_vars(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for name in names:
        lines = [
            f"owner_of_{name}: team {name}",
            "dns_servers: [192.0.2.53, 192.0.2.54]",
            f"ntp: {{pool: {name}.ntp.example.net, iburst: yes}}",
            *(f"setting_{number}: '{name} {number}'" for number in range(8)),
        ]
        (folder / f"{name}.yml").write_text("\n".join(lines) + "\n")


def answer(sample: Sample) -> Any:
    return json.loads(sample.output[sample.output.index("{") :])


def main(rounds: int = 3, hosts: int = 10_000, groups: int = 200, peer: str | None = None) -> list[str]:
    peer = peer or ansible()
    with tempfile.TemporaryDirectory() as folder:
        path = str(write_inventory(Path(folder), hosts, groups))
        env = {**os.environ, "ANSIBLE_CONFIG": f"{folder}/none.cfg", "LC_ALL": "C.UTF-8"}
        contenders = {
            "fazai inventory --list": lambda: run([fazai(), "inventory", "-i", path, "--list"], env)
        }
        if peer:
            contenders["ansible-inventory --list"] = lambda: run([peer, "-i", path, "--list"], env)
        series = interleave(rounds, contenders)
    answers = [answer(one.samples[0]) for one in series.values()]
    if len(answers[0]["_meta"]["hostvars"]) != hosts or any(other != answers[0] for other in answers):
        raise RuntimeError("the answers differ, or do not hold every host")
    base = series["ansible-inventory --list"].wall_s if peer else None
    rows = [
        f"| {hosts} hosts, {groups} groups | wall, median | CPU | memory | of Ansible |",
        "|---|---|---|---|---|",
    ]
    for name, one in series.items():
        share = f"1/{base / one.wall_s:.0f}" if base else "-"
        memory = f"{one.peak_bytes / 2**20:.0f} MiB"
        rows.append(f"| `{name}` | {one.wall_s:.2f} s | {one.cpu_s:.2f} s | {memory} | {share} |")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ansible", metavar="PATH", help="the ansible-inventory to measure beside")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=200)
    given = parser.parse_args()
    print("\n".join(main(given.rounds, given.hosts, given.groups, given.ansible)))
