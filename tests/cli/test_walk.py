"""The walk of docs/architecture.md: one alias from YAML to the wire, request by request."""

from __future__ import annotations

import re
from pathlib import Path

from fazai.yamltext import loads
from tests.cli.conftest import World

PAGE = Path(__file__).parents[2] / "docs/architecture.md"


def test_the_walk_of_an_alias_is_what_goes_over_the_wire(world: World) -> None:
    walk = PAGE.read_text().split("## One alias, from YAML to the wire and back")[1].split("\n## ")[0]
    (sample,) = re.findall(r"```yaml\n(.*?)```", walk, re.S)
    firewall = world.firewall()
    firewall.requests.clear()
    world.inventory(resources=list(loads(sample, "page") or ()))
    found = world.fazai("apply", world.folder / "inventory.yml", "--verbose")
    assert found.code == 0, found
    (line,) = re.findall(r"`(\+ alias [^`]*)`", walk)
    assert line.split() == next(row for row in found.out.splitlines() if "+ alias" in row).split()[1:]
    sent = [(method, path) for method, path, _ in firewall.requests if method == "POST"]
    told = re.findall(r"`(POST) (/api/\S+)`", walk)
    assert [(method, re.sub(r"/[0-9a-f-]{36}$", "/UUID", path)) for method, path in sent] == told
