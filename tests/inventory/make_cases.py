"""Writes `cases/*/expected.json`: what the real ansible-core says of each case.

Run it with a Python that has ansible-core installed:

    python3 -m venv /tmp/ansible && /tmp/ansible/bin/pip install ansible-core
    /tmp/ansible/bin/python tests/inventory/make_cases.py [NAME …]

`--list` and `--graph` come from the command `ansible-inventory`; patterns are put to the class behind it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases"


def clean_environment() -> dict[str, str]:
    """No configuration of the user's may take part."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "ANSIBLE_CONFIG": "none.cfg", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}


def ansible_inventory(command: str, folder: Path, sources: list[str], *arguments: str) -> str:
    """What `ansible-inventory` prints, run in the case's folder."""
    chosen = [word for source in sources for word in ("-i", source)]
    done = subprocess.run(
        [command, *chosen, *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0 or "Failed to parse" in done.stderr:
        raise SystemExit(f"{folder.name}: {done.stderr}")
    return done.stdout


def matched(sources: list[str], patterns: list[str], limits: list[str]) -> dict[str, Any]:
    """The hosts of each pattern, as Ansible orders them; None where Ansible raises an error."""
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader([])
    found: dict[str, Any] = {"patterns": {}, "limits": {}}
    for kind, texts in (("patterns", patterns), ("limits", limits)):
        for text in texts:
            manager = InventoryManager(
                DataLoader(), sources=[os.path.abspath(s) if "," not in s else s for s in sources]
            )
            try:
                if kind == "limits":
                    manager.subset(text)
                    hosts = manager.get_hosts("all")
                else:
                    hosts = manager.get_hosts(text)
                found[kind][text] = [str(host) for host in hosts]
            except AnsibleError:
                found[kind][text] = None
    return found


def expected(folder: Path, command: str) -> dict[str, Any]:
    import yaml

    case = yaml.safe_load((folder / "case.yml").read_text())
    sources, limits = case["sources"], case.get("limits", [])
    os.chdir(folder)
    return {
        "list": json.loads(ansible_inventory(command, folder, sources, "--list")),
        "graph": ansible_inventory(command, folder, sources, "--graph"),
        "limited": {
            limit: json.loads(ansible_inventory(command, folder, sources, "--list", "--limit", limit))
            for limit in limits
        },
        **matched(sources, case.get("patterns", []), limits),
    }


def main(names: list[str]) -> None:
    command = str(Path(sys.executable).with_name("ansible-inventory"))
    for folder in sorted(path for path in CASES.iterdir() if not names or path.name in names):
        data = expected(folder, command)
        text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / "expected.json").write_text(text + "\n")
        print(folder.name)


if __name__ == "__main__":
    main(sys.argv[1:])
