"""`fazai cp`: files to many hosts, and from them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fazai.errors import UsageError
from fazai.fanout.copying import CopyWords, local_names, parse_copy
from tests.hosts.conftest import Result, World
from tests.hosts.helpers import HOSTILE
from tests.hosts.sshd import Sshd

PAIR = "one,web"


@pytest.fixture
def pair(world: World, server: Sshd) -> list[Path]:
    """A local host and one behind SSH: their folders."""
    return [world.local("one"), world.ssh(server, "web")]


def cp(world: World, *words: str | Path) -> Result:
    return world.fazai("cp", *words)


def statuses(found: Result) -> list[str]:
    return [each["status"] for each in found.document["targets"]]


@pytest.mark.parametrize("form", ["head", "scp"])
def test_a_file_goes_to_every_host_once(world: World, pair: list[Path], form: str) -> None:
    source = world.folder / "app.conf"
    source.write_bytes(b"listen=1\n\0\xff")
    source.chmod(0o750)
    words = (f"{PAIR}:", source, "/app.conf") if form == "head" else (source, f"{PAIR}:/app.conf")
    found = cp(world, *words, "--output", "json")
    assert (found.code, statuses(found)) == (0, ["changed", "changed"])
    for root in pair:
        there = root / "app.conf"
        assert (there.read_bytes(), there.stat().st_mode & 0o7777) == (source.read_bytes(), 0o750)
        before = there.stat()
    again = cp(world, *words, "--output", "json")
    assert (again.code, statuses(again)) == (0, ["converged", "converged"])
    assert [each["unchanged"] for each in again.document["targets"]] == [1, 1]
    after = (pair[1] / "app.conf").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)  # nothing was written
    assert "2 unchanged" in cp(world, *words).out


def test_the_mode_can_be_said_and_what_is_replaced_kept(world: World, pair: list[Path]) -> None:
    (world.folder / "new").write_text("new")
    for root in pair:
        (root / "file").write_text("old")
    found = cp(world, f"{PAIR}:", world.folder / "new", "/file", "--mode", "0600", "--backup")
    assert found.code == 0
    for root in pair:
        assert (root / "file").read_text() == "new"
        assert (root / "file").stat().st_mode & 0o777 == 0o600
        assert [path.read_text() for path in root.glob("file.*~")] == ["old"]
    wrong = cp(world, f"{PAIR}:", world.folder / "new", "/file", "--mode", "rw")
    assert wrong.code == 3
    assert "is no mode" in wrong.err


def test_a_folder_goes_with_all_that_is_in_it(world: World, pair: list[Path]) -> None:
    site = world.folder / "site"
    (site / "sub/empty").mkdir(parents=True)
    (site / "index.html").write_text("<p>")
    (site / "sub/run").write_text("#!/bin/sh")
    (site / "sub/run").chmod(0o755)
    (site / "link").symlink_to("sub/run")
    assert "is a folder" in cp(world, f"{PAIR}:", site, "/www").err
    assert cp(world, "-r", f"{PAIR}:", site, "/www").code == 0
    assert cp(world, "-r", f"{PAIR}:", f"{site}/", "/").code == 0
    for root in pair:
        for top in ("www", "site"):
            assert (root / top / "index.html").read_text() == "<p>"
            assert (root / top / "sub/run").stat().st_mode & 0o777 == 0o755
            assert (root / top / "sub/empty").is_dir()
            assert os.readlink(root / top / "link") == "sub/run"
    again = cp(world, "-r", f"{PAIR}:", site, "/www", "--output", "json")
    assert statuses(again) == ["converged", "converged"]


def test_several_files_go_into_a_folder(world: World) -> None:
    root = world.local("one")
    for name in ("a", "b"):
        (world.folder / name).write_text(name)
    found = cp(world, "one:", world.folder / "a", world.folder / "b", "/")
    assert found.code == 0
    assert [(root / name).read_text() for name in "ab"] == ["a", "b"]
    refused = cp(world, "one:", world.folder / "a", world.folder / "b", "/x")
    assert refused.code == 3
    assert "/x/ is a folder" in refused.err


def test_a_link_that_another_user_planted_is_not_followed(world: World) -> None:
    if os.getuid():
        pytest.skip("only root can make a folder that is another user's")
    root = world.local("one")
    theirs = root / "theirs"
    theirs.mkdir()
    (root / "shadow").write_text("secret")
    (theirs / "file").symlink_to("../shadow")
    os.chown(theirs, 65534, 65534)
    os.lchown(theirs / "file", 65534, 65534)
    (world.folder / "new").write_text("new")
    fetched = cp(world, "one:/theirs/file", world.folder / "got")
    assert fetched.code == 1
    assert "unsafe step" in fetched.out
    assert not (world.folder / "got").exists()
    cp(world, "one:", world.folder / "new", "/theirs/file")
    assert (root / "shadow").read_text() == "secret"


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name and name != "~"])
def test_names_that_a_careless_script_trips_over(world: World, name: str) -> None:
    root = world.local("one")
    source = world.folder / "source"
    source.write_text("x")
    assert cp(world, "one:", source, f"/{name}").code == 0
    assert [path.name for path in root.iterdir()] == [name]
    assert cp(world, f"one:/{name}", f"{world.folder}/got/").code == 0
    assert (world.folder / "got/one" / name).read_text() == "x"


def test_a_file_is_fetched_from_every_host_once(world: World, pair: list[Path]) -> None:
    data = bytes(range(256)) * 8192  # more than is read at a time
    for number, root in enumerate(pair):
        (root / "log").write_bytes(data + bytes([number]))
        (root / "log").chmod(0o640)
    words = (f"{PAIR}:/log", f"{world.folder}/got/")
    found = cp(world, *words, "--output", "json")
    assert (found.code, statuses(found)) == (0, ["changed", "changed"])
    for number, name in enumerate(("one", "web")):
        got = world.folder / "got" / name / "log"
        assert got.read_bytes() == data + bytes([number])
        assert got.stat().st_mode & 0o777 == 0o640
        assert os.listdir(got.parent) == ["log"]
    assert statuses(cp(world, *words, "--output", "json")) == ["converged", "converged"]
    (pair[0] / "log").write_bytes(b"")
    assert statuses(cp(world, *words, "--output", "json")) == ["changed", "converged"]
    assert (world.folder / "got/one/log").read_bytes() == b""


def test_fetching_writes_to_no_host(world: World) -> None:
    root = world.local("one", mode="read")
    (root / "log").write_text("x")
    found = cp(world, "one:/log", world.folder / "copy")
    assert found.code == 0
    assert (world.folder / "copy").read_text() == "x"
    assert json.loads(world.fazai_bare("show", "--output", "json").out)["actions"] == []
    assert os.listdir(root) == ["log"]


def test_what_cannot_be_fetched_is_said(world: World) -> None:
    root = world.local("one")
    (root / "folder").mkdir()
    for path, said in (("/folder", "is no file (directory)"), ("/nope", "is not there")):
        found = cp(world, f"one:{path}", world.folder / "got")
        assert found.code == 1
        assert said in found.out
    assert not (world.folder / "got").exists()
    (world.folder / "file").write_text("")
    (root / "log").write_text("x")
    found = cp(world, "one:/log", world.folder / "file/got")
    assert found.code == 1
    assert "file/got cannot be written: " in found.out


def test_too_much_is_refused(world: World) -> None:
    world.local("one")
    (world.folder / "large").touch()
    os.truncate(world.folder / "large", 256 * 1024 * 1024 + 1)  # a hole: it takes no room
    found = cp(world, "one:", world.folder / "large", "/large")
    assert found.code == 3
    assert "more than 256 MiB are to be copied" in found.err
    many = world.folder / "many"
    many.mkdir()
    for number in range(10_000):
        (many / str(number)).symlink_to("x")
    found = cp(world, "-r", "one:", many, "/many")
    assert found.code == 3
    assert "more than 10000 files" in found.err


def test_a_host_that_stops_in_the_middle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world.local("one")
    (root / "log").write_bytes(b"x" * 1000)
    programs = world.folder / "programs"
    programs.mkdir()
    (programs / "cat").write_text("#!/bin/sh\nhead -c 500\nexec sleep 300\n")
    (programs / "cat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    found = cp(world, "--timeout", "1", "one:/log", f"{world.folder}/got/")
    assert found.code == 4
    assert "one: no answer within 1" in found.out
    assert "not answered: one (unreachable)" in found.out
    assert os.listdir(world.folder / "got/one") == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = world.local("one")
    (root / "log").write_bytes(b"x" * 1000)
    programs = world.folder / "programs"
    programs.mkdir()
    (programs / "cat").write_text("#!/bin/sh\nhead -c 999\necho y\n")
    (programs / "cat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    found = cp(world, "one:/log", f"{world.folder}/got/")
    assert found.code == 1
    assert "/log changed while it was read" in found.out
    assert os.listdir(world.folder / "got/one") == []


def test_read_only_hosts_and_firewalls_are_refused(world: World) -> None:
    root = world.local("one", mode="read")
    world.local("two")
    world.hosts["fw"] = {"provider": "opnsense", "base_url": "lab://fw"}
    (world.folder / "new").write_text("new")
    for words in (("cp", "all:", world.folder / "new", "/file"), ("exec", "all", "--", "touch", "file")):
        found = world.fazai(*words)
        assert found.code == 7
        assert "one is read-only: nothing is run on it, and no file is written" in found.out
        assert "fw is a firewall: programs and files are for hosts" in found.out
        assert not (root / "file").exists()
        assert (world.folder / "two/file").exists()
    assert not (world.folder / "state/lab/fw").exists()  # the lab's firewall was not even started


def test_check_contacts_nobody(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    world.local("one", mode="read")
    (world.folder / "new").write_text("new")
    for words in (("cp", "all:", world.folder / "new", "/file"), ("exec", "all", "--", "touch", "file")):
        found = world.fazai(words[0], "--check", *words[1:])
        assert found.code == 7  # and 2 without the host that is refused
        assert world.fazai(words[0], "--check", *(str(w).replace("all", "web") for w in words[1:])).code == 2
        assert "web" in found.out
    assert server.connections == 0
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("web: a /b", CopyWords((), "web", "to hosts", ("a",), "/b")),
        ("inv.yml web: a c /b/", CopyWords(("inv.yml",), "web", "to hosts", ("a", "c"), "/b/")),
        ("a web:/b", CopyWords((), "web", "to hosts", ("a",), "/b")),
        ("inv.yml a web:&x:!y:/b", CopyWords(("inv.yml",), "web:&x:!y", "to hosts", ("a",), "/b")),
        ("2001:db8::1: a /b", CopyWords((), "2001:db8::1", "to hosts", ("a",), "/b")),
        ("web:/a:/c b", CopyWords((), "web", "from hosts", ("/a:/c",), "b")),
        ("inv.yml web:/a b/", CopyWords(("inv.yml",), "web", "from hosts", ("/a",), "b/")),
    ],
)
def test_what_the_words_mean(words: str, meant: CopyWords) -> None:
    assert parse_copy(words.split()) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "which hosts"),
        ("a b", "which hosts"),
        ("web:", "what is copied"),
        ("web: /b", "what is copied"),
        ("web: a b", "is no absolute path"),
        ("web: a /b/../c", r"must not hold"),
        ("a web:b", "names no path"),
        ("web:/a web:/b", "and no other"),
        ("web:/a b c", "and no other"),
    ],
)
def test_words_that_mean_nothing(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_copy(words.split())


def test_where_fetched_files_go(tmp_path: Path) -> None:
    assert local_names("got/", "/etc/hosts", ["a", "../b", ".."]) == {
        "a": "got/a/hosts",
        "../b": "got/.._b/hosts",
        "..": "got/_../hosts",
    }
    assert local_names("copy", "/etc/hosts", ["a"]) == {"a": "copy"}
    assert local_names(str(tmp_path), "/etc/hosts", ["a"]) == {"a": f"{tmp_path}/hosts"}
    with pytest.raises(UsageError, match="cannot all be copy"):
        local_names("copy", "/etc/hosts", ["a", "b"])
    with pytest.raises(UsageError, match="is a folder"):
        local_names("copy", "/etc/", ["a"])
    with pytest.raises(UsageError, match="slashes alone"):
        local_names("got/", "/etc/hosts", ["a/b", "a_b"])
