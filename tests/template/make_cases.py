"""Writes cases.json: what ansible-core makes of the templates in templates.yml.

    python -m venv /tmp/ansible && /tmp/ansible/bin/pip install ansible-core==2.19.* netaddr
    ansible-galaxy collection install ansible.utils        # for ipaddr and its kin
    /tmp/ansible/bin/python tests/template/make_cases.py

It needs ansible-core; the tests do not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

HERE = Path(__file__).parent


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return value


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def main() -> None:
    init_plugin_loader([])
    given = yaml.safe_load((HERE / "templates.yml").read_text())
    templar = Templar(loader=DataLoader(), variables=trusted(given["variables"]))
    cases = []
    for text in given["templates"]:
        try:
            cases.append({"template": text, "value": plain(templar.template(trust_as_template(text)))})
        except AnsibleError as error:
            cases.append({"template": text, "error": str(error).splitlines()[0][:160]})
    for text in given["conditions"]:
        try:
            cases.append({"condition": text, "value": templar.evaluate_conditional(trust_as_template(text))})
        except AnsibleError as error:
            cases.append({"condition": text, "error": str(error).splitlines()[0][:160]})
    found = {"variables": given["variables"], "cases": cases}
    (HERE / "cases.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "cases,", sum("error" in case for case in cases), "errors")


if __name__ == "__main__":
    main()
