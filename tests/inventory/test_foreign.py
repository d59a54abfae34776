"""Inventories in other forms than YAML: what is wrong with INI lines, and when scripts are run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fazai.errors import Errors, FazaiError
from fazai.inventory import Inventory, files, load_inventory
from fazai.secrets.scripts import script_runner

PATH = {"PATH": os.environ["PATH"]}


def messages(folder: Path, text: str, name: str = "hosts") -> list[str]:
    """The errors of an inventory with this text, without the folder's name."""
    (folder / name).write_text(text)
    with pytest.raises(FazaiError) as caught:
        load_inventory(str(folder / name))
    errors = caught.value.errors if isinstance(caught.value, Errors) else (caught.value,)
    return [f"{error.where}: {error.message}".removeprefix(f"{folder}/") for error in errors]


def script(folder: Path, body: str, name: str = "inventory") -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


def run_of(path: str, timeout_s: float = 20.0) -> Inventory:
    return load_inventory(path, run_script=script_runner(PATH, timeout_s=timeout_s))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[web]\nh1 a b=1\n",
            "hosts.ini:2:1: behind a host stand its variables as name=value, and a word here",
        ),
        ("[web]\nh1 a='x\n", "hosts.ini:2:1: the line cannot be split into words: no closing quotation"),
        ("[web]\nh[5:1]\n", 'hosts.ini:2:1: "h[5:1]": the range [5:1] holds nothing'),
        ("[web:vars]\na=1\n", "hosts.ini:1:1: [web:vars] is for a group that no section declares"),
        ("[a:children]\nweb\n", "hosts.ini:2:1: [a:children] names web, and no section declares that group"),
        (
            "[a]\n[web:host]\n",
            "hosts.ini:2:1: [web:host] is no section: there are [web], :vars and :children",
        ),
        (
            "[a]\n[we b]\n",
            "hosts.ini:2:1: this is no section: write [group], [group:vars] or [group:children]",
        ),
        ("[a]\n[b]\n[a:children]\nb\n[b:children]\na\n", 'hosts.ini:6:1: the group "a" is above "b" already'),
        ("[web]\n[web:vars]\nalone\n", "hosts.ini:3:1: [web:vars] has one `name=value` a line"),
        ("[a]\n[a:children]\nx y\n", "hosts.ini:3:1: a section of children has one name of a group a line"),
        (
            "[web]\nh1 a={{1}}\n",
            "hosts.ini:2:1: a value looks like a literal of Python and is none: quote it",
        ),
        ("[web]\nh1 a={1:2}\n", "hosts.ini:2:1: the key 1 in a mapping is no text: quote it"),
        ("[web]\nh1 a={1,2}\n", "hosts.ini:2:1: a value is a set, which has no order"),
        ("[web]\nh1 a=1e999\n", "hosts.ini:2:1: a value is no finite number"),
        ("[web]\nh1:\n", 'hosts.ini:2:1: "h1:" is no name for a host'),
        ("# nothing\n", "hosts.ini: the inventory file is empty"),
    ],
)
def test_a_wrong_ini_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    found = messages(tmp_path, text, "hosts.ini")
    assert found[0].startswith(message)


def test_all_wrong_lines_are_named_and_no_more_than_fifty(tmp_path: Path) -> None:
    assert len(messages(tmp_path, "[web]\nh1 a\nh2 b\n[x y]\nnot read\n")) == 3
    assert len(messages(tmp_path, "[web]\n" + "h1 a\n" * 500)) == 50


def test_a_broken_yaml_file_is_not_taken_for_ini(tmp_path: Path) -> None:
    (found,) = messages(tmp_path, "all:\n  hosts:\n    h1: {a: 1\n")
    assert "section" not in found
    assert "name=value" not in found


def test_a_variable_that_is_set_twice_in_a_line_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[web]\nh1 a=1 a=2\n")
    inventory = load_inventory(str(tmp_path / "hosts"))
    assert inventory.variables("h1")["a"] == 2
    assert inventory.notes == (f"{tmp_path}/hosts:2:4: a is set twice, and the last value counts",)


def test_a_script_is_not_run_unless_asked(tmp_path: Path) -> None:
    path = script(tmp_path, f"touch {tmp_path}/ran; echo '{{}}'\n")
    with pytest.raises(FazaiError, match="scripts are not run unless it is asked for") as caught:
        load_inventory(path)
    assert "--allow-scripts" in (caught.value.hint or "")
    assert not (tmp_path / "ran").exists()


def test_what_a_script_printed_is_read_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"web": {"hosts": ["w1"]}, "_meta": {"hostvars": {"w1": {"a": 1}}}}')
    assert load_inventory(str(tmp_path / "x.json")).variables("w1")["a"] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo oh no >&2; exit 3\n", 'inventory" failed: exit code 3: oh no'),
        ("echo '['\n", "--list:"),
        ("echo '[1]'\n", "prints a JSON object of groups, and this is something else"),
        ('echo \'{"web": {"hosts": "w1"}}\'\n', 'hosts of the group "web" is no list'),
        ("echo '{\"web\": 5}'\n", 'the group "web" has neither hosts nor vars nor children'),
        ('echo \'{"web": ["a b"]}\'\n', '"a b" is no name for a host'),
        ("echo '{\"_meta\": {}}'\n", "_meta has no object hostvars in it"),
        ("head -c 20000000 /dev/zero\n", "prints more than 16777216 bytes"),
    ],
)
def test_a_script_that_says_nonsense(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FazaiError) as caught:
        run_of(script(tmp_path, body))
    assert message in str(caught.value)


def test_a_script_that_never_ends_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    path = script(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/child; wait\n")
    with pytest.raises(FazaiError, match="has not ended after 2 s"):
        run_of(path, timeout_s=2.0)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_scripts_print_is_in_the_digest(tmp_path: Path) -> None:
    path = script(tmp_path, f"cat {tmp_path}/answer\n")
    digests = set()
    for value in (1, 2, 1):
        (tmp_path / "answer").write_text(
            f'{{"web": {{"hosts": ["w1"]}}, "_meta": {{"hostvars": {{"w1": {{"a": {value}}}}}}}}}'
        )
        digests.add(run_of(path).digest)
    assert len(digests) == 2


def test_a_folder_of_everything_is_refused_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        (tmp_path / f"tool{number:03}").write_bytes(b"\x01 = no inventory\n")
    (found,) = [text for text in _errors(tmp_path) if "stopped here" in text]
    assert "50 files cannot be read as inventories" in found
    assert "tool050" in found
    assert "tool051" not in " ".join(_errors(tmp_path))
    monkeypatch.setattr(files, "_ENTRIES_MAX", 100)
    assert _errors(tmp_path) == [
        f"{tmp_path}: more than 100 files and folders: this is no folder of inventories"
        " (give the inventory a folder of its own, or name the file)"
    ]


def test_a_folder_of_other_things_is_refused_soon(tmp_path: Path) -> None:
    for number in range(502):
        (tmp_path / f"tool{number:03}").write_bytes(b"\x00\x01")
    assert _errors(tmp_path) == [
        f"{tmp_path}/tool500: stopped here: 500 files are no inventories (is this a folder of inventories?)"
    ]


def test_all_files_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BYTES_MAX", 1000)
    (tmp_path / "hosts").write_text("h1\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("a: " + "x" * 1000)
    (found,) = _errors(tmp_path)
    assert "MiB in all files together: this is no folder of inventories" in found
    assert found.startswith(f"{tmp_path}/group_vars/all.yml:")


def _errors(folder: Path) -> list[str]:
    with pytest.raises(FazaiError) as caught:
        load_inventory(str(folder))
    errors = caught.value.errors if isinstance(caught.value, Errors) else (caught.value,)
    return [str(error) for error in errors]
