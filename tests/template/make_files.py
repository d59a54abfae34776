"""Writes template_files.json: what ansible-core's template module writes for each text of template_files.yml.

    tools/ansible-core
    .ansible/bin/python tests/template/make_files.py    # needs PyYAML, which comes with it

The slow test runs the same where ansible-core is installed; the others need nothing of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


def given() -> Any:
    """The variables and the texts."""
    return yaml.safe_load((HERE / "template_files.yml").read_text())


def record(command: str, every: int = 1) -> list[dict[str, str]]:
    """What the template module of this `ansible-playbook` writes for each `every`-th text, if anything."""
    data = given()
    templates = data["templates"][::every]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, text in enumerate(templates):
            (folder / f"{number}.j2").write_bytes(text.encode())
        (folder / "none.cfg").touch()
        task = {
            "ansible.builtin.template": {
                "src": f"{folder}/{{{{ item }}}}.j2",
                "dest": f"{folder}/{{{{ item }}}}.out",
            },
            "loop": list(range(len(templates))),
            "ignore_errors": True,
        }
        play = [{"hosts": "localhost", "gather_facts": False, "vars": data["variables"], "tasks": [task]}]
        (folder / "play.json").write_text(json.dumps(play))
        done = subprocess.run(
            [
                command,
                "-i",
                "localhost,",
                "-c",
                "local",
                "-e",
                f"ansible_python_interpreter={sys.executable}",
                str(folder / "play.json"),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": name,
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": f"{name}/none.cfg",
            },
            capture_output=True,
            text=True,
            timeout=1800,
        )
        if "PLAY RECAP" not in done.stdout:
            raise SystemExit(done.stdout + done.stderr)
        found = []
        for number, text in enumerate(templates):
            written = folder / f"{number}.out"
            result = {"written": written.read_bytes().decode()} if written.exists() else {"error": "yes"}
            found.append({"template": text, **result})
    return found


if __name__ == "__main__":
    found = record(str(Path(sys.executable).with_name("ansible-playbook")))
    (HERE / "template_files.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(len(found), "templates,", sum("error" in each for each in found), "errors")
