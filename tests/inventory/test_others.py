"""A folder of inventories holds other things, too: they are left alone, and it is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fazai.cli.main import main
from fazai.errors import FazaiError, InventoryError
from fazai.inventory import load_inventory

INVENTORY = "all: {hosts: {h1: {provider: local}}, resources: [host.file: {path: /nowhere/x, content: x}]}\n"
OTHERS = {
    "site.yml": ("- hosts: all\n  resources: []\n", "a playbook"),
    "tasks.yml": ("- copy: {dest: /x}\n", "a list of something"),
    "compose.yml": ("services: {web: {image: x}}\n", "no groups in it"),
    "package.json": ('{"name": "x", "version": "1"}\n', "no groups in it"),
    "photo": ("\x89PNG\x00\x00", "no text"),
    "id_key": ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkt\n", "a key or certificate"),
    "id_key.pub": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here\n", "a public key"),
    "plan.json": ('{"digest": "x", "format": "fazai-plan/1"}', "a saved plan"),
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "project/state"))
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.delenv("FAZAI_URL", raising=False)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/inventory.yml").write_text(INVENTORY)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_inventory_is_left_alone_and_named(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    alone = load_inventory(folder)
    (folder / name).write_text(OTHERS[name][0])
    found = load_inventory(folder)
    assert list(found.hosts) == ["h1"]
    assert found.skipped == (
        f"no inventories, and not read in {folder}: {folder / name} ({OTHERS[name][1]})",
    )
    assert found.digest == alone.digest
    with pytest.raises(
        FazaiError, match=re.escape(str(folder / name))
    ):  # named itself it is an error, as ever
        load_inventory(folder / name)


@pytest.mark.parametrize(
    "text",
    [
        "web: {host: {h2: }}\n",
        "al: {x: 1}\n",
        "web: {children: [x]}\n",
        "web:\n  h2: [\n",
        "a: 1\na: 2\n",
        "- web\n",
    ],
)
def test_what_is_written_badly_is_meant_as_an_inventory(text: str, tmp_path: Path) -> None:
    """A mistake is never passed over as something else."""
    (tmp_path / "project/b.yml").write_text(text)
    with pytest.raises(FazaiError, match=r"b\.yml"):
        load_inventory(tmp_path / "project")


def test_no_line_of_a_key_or_password_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named where something else is read, or lying in the folder of the inventory."""
    folder = tmp_path / "project"
    inventory = str(folder / "inventory.yml")
    key = tmp_path / "key"
    key.write_text(
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkt: [\nAAAA/nvqzZWY\n-----END X-----\n"
    )
    for words in (
        [str(key)],
        [inventory, "-p", str(key)],
        [inventory, "-e", f"@{key}"],
        [inventory, "-l", f"@{key}"],
    ):
        assert main(["validate", *words]) == 3
        error = capsys.readouterr().err
        assert "this is a key or a certificate (PEM)" in error
        assert "b3Bl" not in error
        assert "nvqz" not in error
    for name, text in {"vault": "hunter2\n", "key": key.read_text()}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    assert main(["validate", str(folder)]) == 0
    said = capsys.readouterr().err
    assert f"{folder}/vault (one word that others may not read, such as a password)" in said
    assert "hunter2" not in said
    assert "b3Bl" not in said


def test_a_folder_with_nothing_but_other_things_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "project/inventory.yml").write_text(OTHERS["site.yml"][0])
    with pytest.raises(InventoryError, match="there is no inventory file in the folder") as caught:
        load_inventory(tmp_path / "project")
    assert caught.value.hint == f"not read: {tmp_path}/project/inventory.yml (a playbook)"


def test_a_project_folder_with_state_and_plan_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan that is saved beside the inventory is no part of it, else it would be stale at once."""
    monkeypatch.chdir(tmp_path / "project")
    for name in ("files", "templates", "secrets"):
        Path(name).mkdir()
        Path(name, "broken.yml").write_text("{{ x }}")
    Path("site.yml").write_text(OTHERS["site.yml"][0])
    assert main(["plan", ".", "-o", "plan.json"]) == 2
    assert main(["validate", "."]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("valid: 1 target, 1 resource\n")
    note = "note: no inventories, and not read in .: "
    assert said.err.splitlines()[-1] == (
        f"{note}./plan.json (a saved plan), ./site.yml (a playbook), ./state (a state folder)"
    )
    assert main(["apply", "--plan", "plan.json", "--check"]) == 2
    assert "stale" not in capsys.readouterr().out
    assert main(["drift", ".", "--quiet"]) == 2
    assert capsys.readouterr().err == ""
