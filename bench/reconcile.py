"""One firewall with 500 aliases and 1,000 rules: the first apply, then runs that have nothing to do, beside a
bare httpx script that fetches the same pages. The lab runs in this process, the contenders in their own."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from bench.measure import Sample, interleave, run
from bench.peers import fazai
from fazai.inventory import load_inventory
from fazai.lab import LabFirewall, LabSettings, LabThread
from fazai.playbook import Selection, resolve_work
from fazai.registry import Registry
from fazai.secrets import SecretReader

ALIASES, RULES = 500, 1000

BARE = """\
import json, sys, httpx
base, key, secret = sys.argv[1:4]
page = {"current": 1, "rowCount": -1, "sort": {}, "searchPhrase": ""}
with httpx.Client(base_url=base, auth=(key, secret), trust_env=False) as client:
    for path in sys.argv[4:]:
        rows = client.post("/api/" + path, json=page).json()["rows"]
        print(path, len(rows))
"""


def inventory(firewall: LabFirewall, aliases: int = ALIASES, rules: int = RULES, addresses: int = 4) -> str:
    """The firewall with its resources, as YAML (JSON is YAML)."""
    resources: list[dict[str, Any]] = [
        {
            "opnsense.alias": {
                "name": f"hosts_{n:04}",
                "type": "host",
                "content": [f"10.{n // 250}.{n % 250}.{k}" for k in range(1, addresses + 1)],
                "description": f"hosts of site {n}",
            }
        }
        for n in range(aliases)
    ]
    resources += [
        {
            "opnsense.rule": {
                "description": f"rule {n}",
                "interface": ["lan"],
                "protocol": "TCP",
                "source_net": f"hosts_{n % max(aliases, 1):04}",
                "destination_port": str(1000 + n),
                "action": "pass",
            }
        }
        for n in range(rules)
    ]
    host = {
        "provider": "opnsense",
        "mode": "write",
        "base_url": firewall.base_url,
        "secret": {"api_key": firewall.api_key, "api_secret": firewall.api_secret},
        "resources": resources,
    }
    lines = ["all:", " hosts:", "  fw-01:"]
    lines += [f"   {name}: {json.dumps(value)}" for name, value in host.items() if name != "resources"]
    lines += ["   resources:", *(f"    - {json.dumps(item)}" for item in resources)]
    return "\n".join(lines) + "\n"


def main(rounds: int = 7) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, LabThread() as lab:
        firewall = lab.start("fw-01", LabSettings())
        file = Path(folder, "inventory.yml")
        file.write_text(inventory(firewall))
        env = {**os.environ, "FAZAI_STATE_DIR": f"{folder}/state"}
        command = [fazai(), "apply", str(file)]
        first = _counted(firewall, lambda: run(command, env))
        second = _counted(firewall, lambda: run(command, env))
        entries = firewall.box.config.writes
        file.write_text(inventory(firewall, addresses=5))
        update = _counted(firewall, lambda: run(command, env))
        entries = firewall.box.config.writes - entries
        searches = [path for method, path, _ in second[1] if method == "POST" and "search" in path.lower()]
        paths = [path.removeprefix("/api/") for path in searches]
        bare = [sys.executable, "-c", BARE, firewall.base_url, firewall.api_key, firewall.api_secret, *paths]
        series = interleave(
            rounds, {"fazai apply, nothing to do": lambda: run(command, env), "bare httpx": lambda: run(bare)}
        )
        client, fetch = _client(firewall, file, paths, rounds)
    fazai_cpu, bare_cpu = series["fazai apply, nothing to do"].cpu_s, series["bare httpx"].cpu_s
    items = ALIASES + RULES
    return [
        "| run | requests | writes | activations | wall | CPU of the client | peak memory |",
        "|---|---|---|---|---|---|---|",
        _row(f"first apply, {items} items", *first),
        _row("the same again", *second),
        _row(f"another content of each of the {ALIASES} aliases", *update),
        "",
        f"The update: {entries} entries of the firewall's history.",
        f"First apply: {sum(_counts(first[1]).values()) / items:.2f} requests an item.",
        f"Nothing to do, whole processes: {fazai_cpu:.3f} s CPU, a bare httpx script that fetches the same"
        f" {len(paths)} pages {bare_cpu:.3f} s: {fazai_cpu / bare_cpu - 1:+.0%} (medians of {rounds}; fazai's"
        " also reads and checks the inventory, and records the run).",
        f"Nothing to do, the client alone: observe and diff {client * 1000:.1f} ms CPU, httpx fetching and"
        f" decoding these pages {fetch * 1000:.1f} ms: {client / fetch - 1:+.0%} (medians of {rounds * 3}).",
    ]


def _client(firewall: LabFirewall, file: Path, paths: list[str], rounds: int) -> tuple[float, float]:
    """CPU of this thread (the lab has its own): a session's observe and diff; httpx with the same pages."""
    registry = Registry()
    secrets = SecretReader(environ={})
    (work,) = resolve_work(
        load_inventory([file]),
        (),
        providers=registry.provider,
        kinds=registry.kind,
        selection=Selection(),
        extra_vars={},
        secrets=secrets,
    )
    (item,) = work.targets
    page = {"current": 1, "rowCount": -1, "sort": {}, "searchPhrase": ""}

    async def ours() -> None:
        async with registry.provider("opnsense").connect(item.target) as session:
            diff = session.diff(item.resources, await session.observe(item.resources), prune=True)
            assert diff.steps == ()
            assert diff.unchanged == len(item.resources)

    async def bare() -> None:
        auth = (firewall.api_key, firewall.api_secret)
        async with httpx.AsyncClient(base_url=firewall.base_url, auth=auth, trust_env=False) as client:
            for path in paths:
                answer = await client.post("/api/" + path, json=page)
                assert answer.json()["rows"]

    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds * 3 + 1):
        for name, go in (("ours", ours), ("bare", bare)):
            begun = time.thread_time()
            asyncio.run(go())
            if number:
                times[name].append(time.thread_time() - begun)
    return statistics.median(times["ours"]), statistics.median(times["bare"])


def _counted(firewall: LabFirewall, go: Any) -> tuple[Sample, list[tuple[str, str, int]]]:
    before = firewall.counters.copy()
    firewall.requests.clear()
    sample = go()
    del before
    return sample, list(firewall.requests)


def _counts(requests: list[tuple[str, str, int]]) -> Counter[str]:
    def kind(path: str) -> str:
        action = path.split("/")[4].lower() if path.count("/") > 3 else path
        if action.startswith(("set", "add", "del", "toggle", "move")):
            return "write"
        return "activation" if action in ("apply", "reconfigure") else "read"

    return Counter(kind(path) for _, path, _ in requests)


def _row(name: str, sample: Sample, requests: list[tuple[str, str, int]]) -> str:
    counts = _counts(requests)
    return (
        f"| {name} | {len(requests)} | {counts['write']} | {counts['activation']} | {sample.wall_s:.2f} s"
        f" | {sample.cpu_s:.2f} s | {sample.peak_bytes / 2**20:.0f} MiB |"
    )
