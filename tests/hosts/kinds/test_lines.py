"""host.line and host.block on files as they are: other line ends, several matches, secrets, and patterns that
could take forever."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.kinds.shared.editing import (
    InsertionPoint,
    with_block,
    with_line,
    without_block,
    without_lines,
)
from fazai.providers.hosts.kinds.shared.matching import matching_lines
from tests.hosts.conftest import World
from tests.hosts.helpers import Host, resource

END = InsertionPoint()


@pytest.mark.parametrize(
    ("before", "fields", "after"),
    [
        ("a\r\nb\r\n", {"line": "b"}, "a\r\nb\r\n"),
        ("a\r\nb\r\n", {"line": "c"}, "a\r\nb\r\nc\r\n"),
        ("a\r\nb", {"line": "c"}, "a\r\nb\nc\n"),  # half of its lines: no majority
        ("a\r\nb\r\nc", {"line": "c"}, "a\r\nb\r\nc"),
        ("a\r\nb\r\n", {"line": "B", "regexp": "^b$"}, "a\r\nB\r\n"),
        ("a\nb\r\nc\n", {"line": "B", "regexp": "^b$"}, "a\nB\r\nc\n"),  # the others stay as they are
        ("a\r\nb\r\n", {"line": "x", "insertafter": "^a$"}, "a\r\nx\r\nb\r\n"),
        ("a\r\nb\r\n", {"line": "x\r"}, "a\r\nb\r\nx\r\n"),
        ("a\nb\n", {"line": "c"}, "a\nb\nc\n"),
        ("", {"line": "c"}, "c\n"),
        ("x\nx\nx\n", {"line": "y", "regexp": "^x$"}, "x\nx\ny\n"),
        ("x\nx\ny\n", {"line": "y", "regexp": "^x$"}, "x\nx\ny\n"),
        ("y\nx\n", {"line": "y", "regexp": "^x$"}, "y\ny\n"),
        ("#Port 22\nPort 2222\n", {"line": "Port 2222", "regexp": "^#Port"}, "#Port 22\nPort 2222\n"),
    ],
)
def test_a_line(before: str, fields: Mapping[str, str], after: str, tmp_path: Path) -> None:
    """Written and read back on a host, and as wanted then."""
    path = tmp_path / "file"
    path.write_bytes(before.encode())
    wanted = resource("host.line", {"path": "/file", **fields})

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            changes = await host.converge(wanted)
            assert path.read_bytes() == after.encode()
            assert bool(changes) is (before != after)
            if changes:
                await host.undo(changes)
                assert path.read_bytes() == before.encode()

    asyncio.run(run())


def test_what_is_taken_out_of_a_file_with_crlf() -> None:
    text = "a\r\nb\r\n# BEGIN x\r\ny\r\n# END x\r\n"
    assert without_lines(text, "b", None) == text.replace("b\r\n", "")
    assert without_lines(text, None, "^a$") == text.removeprefix("a\r\n")
    assert without_block(text, "# BEGIN x", "# END x") == "a\r\nb\r\n"


def test_a_block_has_the_line_ends_of_its_file() -> None:
    text = "a\r\nb\r\n"
    put = with_block(text, "one\ntwo\n", "# BEGIN x", "# END x", END)
    assert put == "a\r\nb\r\n# BEGIN x\r\none\r\ntwo\r\n# END x\r\n"
    assert with_block(put, "one\ntwo\n", "# BEGIN x", "# END x", END) == put
    assert with_block(put, "one\r\ntwo\r\n", "# BEGIN x", "# END x", END) == put
    assert with_block("a\n", "one\r\n", "# BEGIN x", "# END x", END) == "a\n# BEGIN x\none\r\n# END x\n"


def test_what_was_put_there_is_as_wanted() -> None:
    """Whatever the file, the pattern and the place."""
    rng = random.Random(1)
    words = ("x", "y", "xx", "", "# a")
    for _ in range(2000):
        ends = rng.choice((["\n"], ["\r\n"], ["\n", "\r\n"]))
        text = "".join(rng.choice(words) + rng.choice(ends) for _ in range(rng.randrange(6)))
        text = text.rstrip("\n") if rng.random() < 0.2 else text
        regexp = rng.choice((None, "^x", "x$", "^$", "nowhere", "^#?"))
        place = rng.choice(
            (END, InsertionPoint("^x"), InsertionPoint(None, "y"), InsertionPoint(None, "BOF"))
        )
        line = rng.choice(words[:2])
        once = with_line(text, line, regexp, place)
        assert with_line(once, line, regexp, place) == once, (text, line, regexp)
        block = with_block(text, "x\n", "B", "E", place)
        assert with_block(block, "x\n", "B", "E", place) == block


# -- secrets --------------------------------------------------------------------------------------------

SECRET = "correct horse battery"


def _inventory(world: World, root: Path, line: Mapping[str, Any]) -> None:
    host = {"provider": "local", "root": str(root), "token": "@token@", "resources": [{"host.line": line}]}
    text = json.dumps({"all": {"hosts": {"box": host}}}).replace('"@token@"', "!env FZ_LINE")
    (world.folder / "inventory.yml").write_text(text)


def test_a_secret_line_that_is_found_by_a_pattern(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FZ_LINE", SECRET)
    root = world.folder / "box"
    root.mkdir()
    (root / "app.conf").write_text("a=1\npassword=old one\n")
    _inventory(world, root, {"path": "/app.conf", "regexp": "^password=", "line": "password={{ token }}"})
    for command, code in (("plan", 2), ("apply", 0), ("apply", 0)):
        found = world.fazai(command, *(["--diff"] if command == "plan" else []))
        assert found.code == code, found
        assert SECRET not in found.out + found.err
        assert "old one" not in found.out + found.err
    assert (root / "app.conf").read_text() == f"a=1\npassword={SECRET}\n"
    state = [path for path in (world.folder / "state").rglob("*") if path.is_file()]
    assert [path for path in state if SECRET.encode() in path.read_bytes()] == []


def test_a_new_file_with_a_secret_line_is_the_owners(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FZ_LINE", SECRET)
    root = world.folder / "box"
    root.mkdir()
    line = {"path": "/new.conf", "regexp": "^password=", "line": "password={{ token }}", "create": True}
    _inventory(world, root, line)
    assert world.fazai("apply").code == 0
    assert (root / "new.conf").stat().st_mode & 0o777 == 0o600


def test_a_secret_line_without_a_pattern(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FZ_LINE", SECRET)
    root = world.folder / "box"
    root.mkdir()
    _inventory(world, root, {"path": "/app.conf", "line": "password={{ token }}"})
    found = world.fazai("validate")
    assert (found.code, "line: is a secret: regexp: must say which line it is" in found.err) == (3, True), (
        found
    )


# -- patterns that could take forever ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"^\s*#?\s*PermitRootLogin", " " * 60_000),
        pytest.param(r"^(a+)+$", "a" * 40 + "!", marks=pytest.mark.slow),
        pytest.param(r"(x|xx|xxx)*y", "x" * 4000, marks=pytest.mark.slow),
        pytest.param(r".*a.*b.*c", "a" * 9000, marks=pytest.mark.slow),
    ],
)
def test_a_pattern_that_takes_too_long_on_one_host(pattern: str, line: str, tmp_path: Path) -> None:
    """It is said in a sentence; another host is done meanwhile."""
    for name in ("slow", "quick"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(line if name == "slow" else "a line\n")
    wanted = resource("host.line", {"path": "/file", "regexp": pattern, "line": "PermitRootLogin no"})

    async def run() -> None:
        slow, quick = (Host.local(tmp_path / name) for name in ("slow", "quick"))
        async with slow.session, quick.session:
            await asyncio.gather(slow.session.ask(), quick.session.ask())  # both are connected
            first = asyncio.ensure_future(slow.look(wanted))
            second = asyncio.ensure_future(quick.look(wanted))
            done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {second}
            diff = await first
        assert second.result().changes != ()
        (error,) = diff.errors
        assert "takes more than 1 s on this file, whose longest line has" in error.message
        assert isinstance(error, DeviceError)
        assert error.hint is not None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "slow"),
    [
        ({"line": "PermitRootLogin no"}, False),
        ({"line": "PermitRootLogin no", "regexp": "^#?PermitRootLogin"}, False),
        ({"line": "x", "insertafter": "EOF"}, False),
        ({"line": "x", "insertafter": r"^(a+)+$"}, True),
        ({"line": "x", "insertbefore": r"^(a+)+$"}, True),
        ({"line": "x", "regexp": r"^(a+)+$"}, True),
    ],
)
def test_only_what_may_take_long_is_read_in_another_thread(
    fields: dict[str, Any], slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes of threads for each of them on each host cost more than all that is read."""
    (tmp_path / "file").write_text("# PermitRootLogin yes\n")
    wanted = resource("host.line", {"path": "/file", **fields})
    hops: list[object] = []
    hop = asyncio.to_thread

    async def counted(work: Any, *given: Any) -> Any:
        hops.append(work)
        return await hop(work, *given)

    monkeypatch.setattr("fazai.providers.hosts.session.asyncio.to_thread", counted)

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            assert (await host.look(wanted)).changes != ()

    asyncio.run(run())
    assert len(hops) == slow


def test_long_lines_that_are_no_trouble() -> None:
    """A pattern that could take long, and does not, matches as everywhere."""
    lines = ["x" * 50_000, " " * 500 + "# PermitRootLogin yes", "é\udcff" * 9000, "a,b" * 3000]
    assert matching_lines(r"^\s*#?\s*PermitRootLogin", lines) == {1}
    assert matching_lines(r"^(?:[^,]*,){3}", lines) == {3}
    assert matching_lines("\udcff", lines) == {2}
    assert matching_lines("x", []) == frozenset()


# -- marks ------------------------------------------------------------------------------------------------


def test_what_stands_between_a_block_and_another_mark_of_an_end_stays() -> None:
    text = "1\nB\na\nE\nmine\nE\nlast\n"
    assert with_block(text, "b\n", "B", "E", END) == "1\nB\nb\nE\nmine\nE\nlast\n"
    assert without_block(text, "B", "E") == "1\nmine\nE\nlast\n"
    assert with_block("E\nB\nmine\nB\na\nE\n", "b\n", "B", "E", END) == "E\nB\nmine\nB\nb\nE\n"


@pytest.mark.parametrize("block", ["# BEGIN fazai\nx\n", "x\n# END fazai\ny", "# END fazai\r\n"])
def test_a_block_that_holds_its_own_marks_is_refused(block: str) -> None:
    """Written, it would be another block at the next look."""
    kind = load_host_kinds()["host.block"]
    _, problems = kind.normalise({"path": "/f", "block": block}, "present")
    (problem,) = problems
    assert (problem.field, "holds a line that is one of its marks" in problem.message) == ("block", True)
    other = {"path": "/f", "block": block, "marker": "# {mark} app"}
    assert kind.normalise(other, "present")[1] == []
