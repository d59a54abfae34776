"""Preconditions, compared by every shell: a path that is as it was goes on, any other is named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.local.transport import start_local_shell
from fazai.providers.hosts.shell.become import Become
from fazai.providers.hosts.shell.channel import BlockResult, BlockRunner
from fazai.providers.hosts.shell.preconditions import MOVED, Precondition, check_lines, find_moved_path
from fazai.providers.hosts.shell.questions import PathState
from tests.hosts.helpers import HOSTILE, SHELLS, shell_environ


def base(path: Path) -> Precondition:
    """Return the precondition that a look finds."""
    at = str(path)
    if not os.path.lexists(at):
        return Precondition.of(at, PathState("missing"))
    found = os.lstat(at)
    state = PathState("directory", found.st_mode & 0o7777, found.st_uid, found.st_gid)
    if path.is_symlink():
        return Precondition.of(at, replace(state, type="link", target=os.readlink(at)))
    if path.is_dir():
        return Precondition.of(at, state)
    return Precondition.of(at, replace(state, type="file", sha256=Blob.of(path.read_bytes()).sha256))


def run(shell: str, folder: Path, bases: list[Precondition]) -> tuple[BlockResult, str]:
    async def go() -> tuple[BlockResult, str]:
        channel = await start_local_shell("box", Become(), str(folder), shell_environ(shell, folder))
        talk = BlockRunner(channel, "box")
        try:
            script = f"set -e; trap 'echo ended' EXIT\n{check_lines(bases)}echo written\n"
            return await talk.run(script, timeout_s=20, form="act"), talk.nonce
        finally:
            await channel.close()

    return asyncio.run(go())


def link(path: Path, target: str) -> None:
    """Put a link in place of what is there."""
    path.unlink()
    path.symlink_to(target)


MOVES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "comes": (lambda p: None, lambda p: p.write_text("x")),
    "comes as a link to nowhere": (lambda p: None, lambda p: p.symlink_to("nowhere")),
    "goes": (lambda p: p.write_text("x"), lambda p: p.unlink()),
    "another content": (lambda p: p.write_text("x"), lambda p: p.write_text("y")),
    "another mode": (lambda p: p.write_text("x"), lambda p: p.chmod(0o600)),
    "a file becomes a link": (lambda p: p.write_text("x"), lambda p: link(p, "other")),
    "a folder's mode": (lambda p: p.mkdir(), lambda p: p.chmod(0o700)),
    "a link's target": (lambda p: p.symlink_to("a"), lambda p: link(p, "a\n")),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("move", MOVES)
def test_what_moved_on_is_named_and_ends_the_block(move: str, shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    first, then = MOVES[move]
    path = root / "it's $(x)\n*"
    first(path)
    bases = [base(root / "none"), base(path)]
    same, nonce = run(shell, tmp_path, bases)
    assert (same.exit, same.out, find_moved_path(bases, same.out, nonce)) == (0, b"written\nended\n", None)
    then(path)
    result, nonce = run(shell, tmp_path, bases)
    assert (result.exit, b"written" in result.out) == (MOVED, False)
    assert find_moved_path(bases, result.out, nonce) == str(path)


@pytest.mark.parametrize("shell", SHELLS)
def test_names_of_any_kind(shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in HOSTILE:
        (root / name).symlink_to(name)
    bases = [base(root / name) for name in HOSTILE]
    result, _ = run(shell, tmp_path, bases)
    assert (result.exit, result.out) == (0, b"written\nended\n")


def test_what_is_not_known_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    os.mkfifo(tmp_path / "fifo")
    bases = [
        Precondition(str(path), "file", 0o644),
        Precondition(str(path), "file"),
        Precondition(str(tmp_path / "fifo"), "other"),
    ]
    path.chmod(0o644)
    assert run("dash", tmp_path, bases)[0].exit == 0
    path.chmod(0o600)
    result, nonce = run("dash", tmp_path, bases)
    assert (result.exit, find_moved_path(bases, result.out, nonce)) == (MOVED, str(path))
