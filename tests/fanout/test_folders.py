"""Folders that are fetched from agents: what is written here, and what is refused before anything is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import InputError
from fazai.fanout.agents import FolderListing
from fazai.fanout.folders import check_listing, merges_names
from tests.agent.files.conftest import in_child
from tests.fanout.conftest import Fleet
from tests.hosts.conftest import World


def test_a_folder_is_fetched_from_agents_once(world: World, fleet: Fleet, tmp_path: Path) -> None:
    for name in ("e1", "e2"):
        tree = world.folder / name / "tree"
        (tree / "a/empty").mkdir(parents=True)
        (tree / "one").write_bytes(b"of \0\xff" + name.encode())
        (tree / "a/two").write_text("two")
        (tree / "a/two").chmod(0o640)
        (tree / "a/link").symlink_to("/etc/passwd")
    words = ("cp", "-r", "e1,e2:/tree", f"{tmp_path}/got/", "--output", "json")
    found = world.fazai(*words)
    assert found.code == 0, found.out
    assert [each["status"] for each in found.document["targets"]] == ["changed"] * 2
    for name in ("e1", "e2"):
        got = tmp_path / "got" / name / "tree"
        assert (got / "one").read_bytes() == b"of \0\xff" + name.encode()
        assert ((got / "a/two").read_text(), (got / "a/two").stat().st_mode & 0o777) == ("two", 0o640)
        assert (got / "a/empty").is_dir()
        assert not os.path.lexists(got / "a/link")
        assert f"{name}: 1 of /tree left out, as links, what may not be read and files of more" in found.err
    again = world.fazai(*words)
    assert [each["status"] for each in again.document["targets"]] == ["converged"] * 2
    (world.folder / "e1/tree/a/two").write_text("three")
    assert [each["status"] for each in world.fazai(*words).document["targets"]] == ["changed", "converged"]
    assert (tmp_path / "got/e1/tree/a/two").read_text() == "three"


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ((["a"], ["../x"]), "'../x' is no path that is written here"),
        ((["a"], ["/etc/x"]), "'/etc/x' is no path"),
        ((["a"], ["a/./x"]), "'a/./x' is no path"),
        (([""], []), "'' is no path"),
        ((["a"], ["x\n"]), "is no path"),
        ((["a"], ["n" * 256]), "is no path"),
        ((["a"], ["\ud800"]), "is no path"),
        (([], ["a/x"]), "'a/x' stands in no folder that was listed"),
        (([], ["x", "x"]), "'x' and 'x' would be one file here"),
        ((["x"], ["x"]), "'x' and 'x' would be one file here"),
        ((["link"], ["link/x"]), "is a link here, and nothing is written through it"),
        (([], [f"{number}" for number in range(10_001)]), "more than 10000 files and folders"),
        (([], 7), "does not say what stands at /tree"),
        ((["a/b", "a"], []), "'a/b' stands in no folder that was listed before it"),
        ((["a"], ["b", "b/x"]), "'b/x' stands in no folder that was listed before it"),
        ((["/".join("d" * depth) for depth in range(1, 66)], []), "d/d/d' is more than 64 deep"),
        ((["/".join(["n" * 250] * depth) for depth in range(1, 21)], []), "would be too long a path here"),
        ((["n" * 250], [f"{'n' * 250}/{n:0250}" for n in range(9000)]), "the paths have more than 4 MiB"),
    ],
)
def test_a_listing_that_leads_elsewhere_is_refused(
    world: World, fleet: Fleet, tmp_path: Path, places: tuple[Any, Any], said: str
) -> None:
    (tmp_path / "got/tree").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got/tree/link").symlink_to(tmp_path / "elsewhere")
    fleet["e1"].list = lambda request: {"folders": places[0], "files": places[1]}  # type: ignore[method-assign]
    found = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/got", "--output", "json")
    assert found.code != 0
    assert said in found.document["targets"][0]["errors"][0]["message"]
    assert [path.name for path in (tmp_path / "got").rglob("*")] == ["tree", "link"]
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_folder_to_a_place_that_nobody_can_look_at_is_refused(
    world: World, fleet: Fleet, tmp_path: Path
) -> None:
    (world.folder / "e1/tree").mkdir()
    found = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/{'n' * 300}", "--output", "json")
    assert found.code == 1
    (said,) = found.document["targets"][0]["errors"]
    assert "nnn cannot be looked at: File name too long" in said["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_place_below_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o700)
    dest = tmp_path / "closed/got"

    def as_another() -> dict[str, Any]:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            check_listing(FolderListing(("a",), (), 0), dest)
        except InputError as error:
            return {"said": error.message}
        return {}

    answer = in_child(as_another)
    assert answer == {"said": f"{dest} cannot be looked at: Permission denied", "ended": 0}


def test_each_place_of_a_listing_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that nested many folders had each one above each looked at again."""
    folders = tuple("/".join("d" * depth) for depth in range(1, 64))
    files = tuple(f"{folder}/file" for folder in folders)
    looked: list[str] = []
    there = os.stat

    def count(path: Any, **options: Any) -> os.stat_result:
        looked.append(os.fspath(path))
        return there(path, **options)

    monkeypatch.setattr(os, "stat", count)
    monkeypatch.setattr(os, "lstat", lambda path: count(path, follow_symlinks=False))
    check_listing(FolderListing(folders, files, 0), tmp_path, is_merging=False)
    assert looked == [f"{tmp_path}/{place}" for place in (*folders, *files)]


def test_a_folder_of_too_many_bytes_is_not_fetched(world: World, fleet: Fleet, tmp_path: Path) -> None:
    answer = {"sha256": "0" * 64, "size": 47 << 20, "mode": "0644"}
    fleet["e1"].list = lambda request: {"folders": [], "files": [f"{n}" for n in range(9)]}  # type: ignore[method-assign]
    fleet["e1"].read = lambda request: answer  # type: ignore[method-assign]
    found = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/got", "--output", "json")
    assert found.code == 1
    assert "/tree has more than 256 MiB" in found.document["targets"][0]["errors"][0]["message"]
    assert not (tmp_path / "got").exists()


def test_a_folder_is_not_fetched_over_ssh_or_from_here(world: World, fleet: Fleet, tmp_path: Path) -> None:
    world.local("one")
    found = world.fazai("cp", "-r", "one:/tree", f"{tmp_path}/got", "--output", "json")
    assert found.code == 7
    assert "folders are fetched from agents alone" in found.document["targets"][0]["errors"][0]["message"]


def test_what_a_closed_folder_kept_from_others_stays_kept(world: World, fleet: Fleet, tmp_path: Path) -> None:
    """A file that anybody may read stood in a folder that its owner alone may enter."""
    (world.folder / "e1/tree/closed/a").mkdir(parents=True)
    (world.folder / "e1/tree/closed").chmod(0o700)
    (world.folder / "e1/tree/closed/a/key").write_text("secret")
    (world.folder / "e1/tree/closed/a/key").chmod(0o644)
    (tmp_path / "open").mkdir(0o755)
    umask = os.umask(0o022)
    try:
        found = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/open/got/", "--output", "json")
    finally:
        os.umask(umask)
    assert found.code == 0, found.out
    got = tmp_path / "open/got/e1/tree"
    modes = {name: (got / name).stat().st_mode & 0o777 for name in ("", "closed", "closed/a", "closed/a/key")}
    assert modes == {"": 0o700, "closed": 0o700, "closed/a": 0o700, "closed/a/key": 0o644}
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "open", got.parent)] == [0o755, 0o755]


def test_each_folder_is_made_once_and_made_again_where_it_went_away(
    world: World, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those above it, a folder cost as many calls as it is deep."""
    places = ["/".join("d" * depth) for depth in range(1, 21)]
    (world.folder / "e1/tree" / places[-1]).mkdir(parents=True)
    (world.folder / "e1/tree" / places[-1] / "file").write_text("x")
    there, made = os.mkdir, []
    got = tmp_path / "got/e1/tree"

    def count(path: Any, *options: Any) -> None:
        if Path(path).is_relative_to(got):
            made.append(str(Path(path).relative_to(got)))
        there(path, *options)

    monkeypatch.setattr(os, "mkdir", count)
    read = fleet["e1"].read

    def removing(request: Any) -> dict[str, Any]:
        if request.content:
            shutil.rmtree(got / "d/d")
        return read(request)

    found = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/got/", "--output", "json")
    assert found.code == 0, found.out
    assert made == [".", *places]
    fleet["e1"].read = removing  # type: ignore[method-assign]
    (world.folder / "e1/tree" / places[-1] / "file").write_text("y")
    failed = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/got/", "--output", "json")
    assert failed.code == 1
    assert "cannot be written: No such file" in failed.document["targets"][0]["errors"][0]["message"]
    fleet["e1"].read = read  # type: ignore[method-assign]
    assert world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/got/", "--output", "json").code == 0
    assert made == [".", *places, *places[1:]]
    assert (got / places[-1] / "file").read_text() == "y"


def test_a_name_as_long_as_a_name_may_be_is_fetched(world: World, fleet: Fleet, tmp_path: Path) -> None:
    """What is written beside it had a name of more bytes than that."""
    names = ("n" * 255, "é" * 127, "中" * 85)
    (world.folder / "e1/tree").mkdir()
    for name in names:
        (world.folder / "e1/tree" / name).write_text(name)
    found = world.fazai("cp", "-r", "e1:/tree", f"{tmp_path}/got", "--output", "json")
    assert found.code == 0, found.out
    assert {path.name: path.read_text() for path in (tmp_path / "got").iterdir()} == {
        name: name for name in names
    }


def test_names_that_one_file_system_takes_for_the_same_are_refused(tmp_path: Path) -> None:
    listing = FolderListing((), ("Readme", "readme"), 0)
    check_listing(listing, tmp_path)
    assert merges_names(tmp_path) is False
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="'Readme' and 'readme' would be one file here"):
        check_listing(listing, tmp_path, is_merging=True)
