"""How long a person waits for `fazai --help` and for `fazai validate` of a small inventory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.measure import Sample, interleave, run
from bench.peers import ansible, fazai

SMALL = """\
all:
  vars: {provider: opnsense}
  hosts:
    fw-01:
      base_url: https://fw-01.example.net
      secret: {api_key: k, api_secret: s}
      resources:
        - opnsense.alias: {name: dns_servers, type: host, content: [192.0.2.53, "{{ second }}"]}
      second: 192.0.2.54
"""


def main(rounds: int = 15) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        inventory = Path(folder, "inventory.yml")
        inventory.write_text(SMALL)
        env = {**os.environ, "FAZAI_STATE_DIR": folder}
        contenders = {
            "fazai --help": lambda: run([fazai(), "--help"], env),
            "fazai validate": lambda: run([fazai(), "validate", str(inventory)], env),
        }
        peer = ansible("ansible")
        if peer:
            contenders["ansible --version"] = lambda: run([peer, "--version"])
        series = interleave(rounds, contenders)
    base = series["ansible --version"].wall_s if peer else None
    rows = ["| command | wall, median | of ansible --version |", "|---|---|---|"]
    for name, one in series.items():
        share = f"1/{base / one.wall_s:.1f}" if base else "-"
        rows.append(f"| `{name}` | {one.wall_s:.3f} s | {share} |")
    return rows


__all__ = ["Sample", "main"]
