"""fazai import: a playbook that changes nothing, whatever the texts of the firewall are."""

from __future__ import annotations

import os
import stat

import pytest

from fazai.lab import Fault
from tests.cli.conftest import World
from tests.opnsense.planning.test_declaring import HOSTILE


def test_what_is_imported_changes_nothing(world: World) -> None:
    firewall = world.firewall()
    for number, text in enumerate(HOSTILE):
        body = {"alias": {"name": f"a{number}", "type": "host", "content": "192.0.2.1", "description": text}}
        assert firewall.call("POST", "/api/firewall/alias/addItem", body)["result"] == "saved"
    inventory = world.inventory({"fw-01": {**world.host(), "resources": []}})
    before = world.writes()
    found = world.fazai("import", inventory, "fw-01")
    count = found.out.count("    - opnsense.")
    assert (found.code, found.err) == (0, f"fw-01: {count} items, 3 left out: see the comments\n")
    assert found.out.startswith("- name: fw-01 as it was found\n  hosts: fw-01\n  resources:\n")
    playbook = inventory.with_name("fw-01.yml")
    playbook.write_text(found.out)
    plan = world.fazai("plan", inventory, "--playbook", playbook)
    assert plan.code == 0, plan.out + plan.err
    assert "0 to change" in plan.out
    assert world.writes() == before


def test_a_file_and_a_folder(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    out = inventory.with_name("all.yml")
    assert world.fazai("import", inventory, "fw-01", "--out", out).out == ""
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    folder = inventory.with_name("parts")
    words = ("--kind", "rule", "--kind", "opnsense.gateway", "--split", folder)
    assert world.fazai("import", inventory, "fw-01", *words).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["gateway.yml", "rule.yml"]
    for part in folder.iterdir():
        assert world.fazai("plan", inventory, "--playbook", part).code in (0, 2)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--kind", "allias"), 'there is no kind "allias"'),
        (("--out", "a", "--split", "b"), "are two ways to write"),
    ],
)
def test_wrong_words(world: World, words: tuple[str, ...], text: str) -> None:
    world.firewall()
    found = world.fazai("import", world.inventory(), "fw-01", *words)
    assert found.code == 3
    assert text in found.err


def test_one_target_at_a_time(world: World) -> None:
    for name in ("fw-01", "fw-02"):
        world.firewall(name)
    inventory = world.inventory({name: world.host(name) for name in ("fw-01", "fw-02")})
    found = world.fazai("import", inventory)
    assert found.code == 3
    assert "one is imported at a time" in found.err


def test_a_firewall_that_does_not_answer(world: World) -> None:
    inventory = world.inventory({"fw-01": {**_nobody(world), "connect_timeout": 1, "retries": 0}})
    found = world.fazai("import", inventory, "fw-01")
    assert found.code == 4
    assert found.out == ""


def _nobody(world: World) -> dict[str, object]:
    world.firewall()
    return {**world.host(), "base_url": "https://127.0.0.1:1"}


def test_a_key_that_is_wrong_writes_nothing(world: World) -> None:
    world.firewall().inject(Fault(kind="unauthorized", path="*", times=0))
    inventory = world.inventory()
    out = inventory.with_name("kept.yml")
    out.write_text("kept")
    found = world.fazai("import", inventory, "fw-01", "--out", out)
    assert found.code == 1
    assert out.read_text() == "kept"


def test_what_is_no_file_is_not_replaced(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    fifo = inventory.with_name("fifo")
    os.mkfifo(fifo)
    found = world.fazai("import", inventory, "fw-01", "--out", fifo)
    assert (found.code, stat.S_ISFIFO(fifo.stat().st_mode)) == (3, True)
    assert "is no file" in found.err
    real, link = inventory.with_name("real.yml"), inventory.with_name("link.yml")
    real.write_text("")
    link.symlink_to(real)
    assert world.fazai("import", inventory, "fw-01", "--out", link).code == 0
    assert link.is_symlink()
    assert real.read_text().startswith("- name: fw-01")
    assert world.fazai("import", inventory, "fw-01", "--out", "-").out == real.read_text()


def test_a_folder_with_other_playbooks_is_refused(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    folder = inventory.with_name("parts")
    folder.mkdir()
    (folder / "alias.yml").write_text("- hosts: all\n")
    found = world.fazai("import", inventory, "fw-01", "--kind", "gateway", "--split", folder)
    assert found.code == 3
    assert "alias.yml" in found.err
