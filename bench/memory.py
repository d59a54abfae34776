"""Planning 1,000 firewalls with 200 resources each: peak memory of the whole process.

The firewalls are one lab under a thousand names: what is measured is the planner, not the lab.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from bench.measure import run
from bench.peers import fazai
from fazai.lab import LabSettings, LabThread

TARGETS, RESOURCES = 1000, 200

PLAYBOOK = """\
- name: baseline
  hosts: all
  resources:
"""


def main(targets: int = TARGETS, count: int = RESOURCES) -> list[str]:
    rows = ["| plan | wall | CPU | peak memory | exit |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder, LabThread() as lab:
        firewall = lab.start("fw", LabSettings(keepalive_requests=0))
        secret = {"api_key": firewall.api_key, "api_secret": firewall.api_secret}
        variables = {"provider": "opnsense", "base_url": firewall.base_url, "secret": secret}
        for name, content in (
            ("shared by all", "[10.0.0.1, 10.0.0.2]"),
            ("a template in each", '["{{ inventory_hostname }}.example.net", 10.0.0.2]'),
        ):
            resources = [
                f"    - opnsense.alias: {{name: hosts_{n:03}, type: host, content: {content},"
                f" description: number {n}}}"
                for n in range(count)
            ]
            Path(folder, "playbook.yml").write_text(PLAYBOOK + "\n".join(resources) + "\n")
            inventory = Path(folder, "inventory.yml")
            hosts = f"    fw-[0001:{targets:04}]:\n"
            inventory.write_text(
                f"all:\n  vars: {json.dumps(variables)}\n  hosts:\n{hosts}playbooks: [playbook.yml]\n"
            )
            env = {**os.environ, "FAZAI_STATE_DIR": f"{folder}/state"}
            sample = run([fazai(), "plan", str(inventory), "--quiet"], env, expect=(2,))
            rows.append(
                f"| {targets} x {count}, {name} | {sample.wall_s:.1f} s | {sample.cpu_s:.1f} s"
                f" | {sample.peak_bytes / 2**20:.0f} MiB | {sample.exit_code} |"
            )
    return rows
