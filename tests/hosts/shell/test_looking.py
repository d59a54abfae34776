"""Looks under every shell: small files are read by one program, others hashed, and what
cannot be told apart is asked for once more."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from fazai.providers.hosts.shell.answers import read_answers
from fazai.providers.hosts.shell.questions import KEPT_BYTES, ContentOf, FileAt, Output, PathState, Question
from fazai.providers.hosts.shell.script import observe_script
from tests.hosts.helpers import HOSTILE, SHELLS, Host, shell_environ

NONCE = "0" * 32


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("shell", SHELLS)
def test_files_of_all_sizes_and_names(shell: str, tmp_path: Path) -> None:
    """Two blocks at most, whatever there is; with GNU's programs it is one."""
    root = tmp_path / "root"
    root.mkdir()
    contents = {
        "empty": b"",
        "headers": b"==> /etc/passwd <==\n\n==> x <==\n",
        "no newline": b"x",
        "NUL \\": b"a\0b\n",
        "small": b"s" * 8192,
        "large": b"l" * 8193,
        **{name: name.encode("utf-8", "surrogateescape") for name in HOSTILE},
        **{f"many-{number}": b"m" * 8000 for number in range(12)},  # more than is read together
    }
    for name, content in contents.items():
        (root / name).write_bytes(content)
    paths = {f"{root}/{name}": content for name, content in contents.items()}

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            answers = await host.session.ask(*(FileAt(path, True) for path in paths))
            assert host.session.shell.blocks == 1
            for path, content in paths.items():
                found = answers[FileAt(path, True)]
                assert isinstance(found, PathState)
                assert (found.type, found.size, found.sha256) == ("file", len(content), _sha256(content))
            read = [path for path in paths if ContentOf(path, KEPT_BYTES) in answers]
            assert f"{root}/small" in read
            assert f"{root}/large" not in read
            assert all(answers[ContentOf(path, KEPT_BYTES)] == Output(0, paths[path]) for path in read)
            texts = await host.session.ask(*(ContentOf(path, 8192) for path in paths))
            for path, content in paths.items():
                expected = Output(0, content) if len(content) <= 8192 else Output(1, b"")
                assert texts[ContentOf(path, 8192)] == expected
            assert host.session.shell.blocks == 2

    asyncio.run(run())


@pytest.mark.parametrize("shell", SHELLS)
def test_where_links_lead(shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    targets = {f"{root}/l{number}": name for number, name in enumerate([*HOSTILE, '" -> "', "a\\nb"])}
    for path, target in targets.items():
        os.symlink(target, path)
    (root / "-> 'x'").symlink_to("y")
    targets[f"{root}/-> 'x'"] = "y"
    (root / "file").write_text("through\n")
    (root / "to a file").symlink_to("file")

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        through = ContentOf(f"{root}/to a file", 100)
        async with host.session:
            answers = await host.session.ask(*map(FileAt, targets))
            assert host.session.shell.blocks == 1
            answers = {**answers, **await host.session.ask(through)}
            assert host.session.shell.blocks == 3  # where it leads is walked to
        for path, target in targets.items():
            found = answers[FileAt(path)]
            assert isinstance(found, PathState)
            assert (found.type, found.target) == ("link", target)
        assert answers[through] == Output(0, b"through\n")

    asyncio.run(run())


@pytest.mark.parametrize("shell", SHELLS)
def test_files_whose_size_says_nothing(shell: str, tmp_path: Path) -> None:
    """Those of the kernel are 0 bytes long, and hold something: they are read alone."""
    (tmp_path / "beside").write_text("as it is\n")
    odd, beside = "/proc/sys/kernel/ostype", f"{tmp_path}/beside"

    async def run() -> None:
        host = Host.local(tmp_path, shell_environ(shell, tmp_path))
        async with host.session:
            wanted: list[Question] = [FileAt(beside, True), ContentOf(odd, 100), FileAt(odd, True)]
            answers = await host.session.ask(*wanted)
            assert host.session.shell.blocks == 2
        assert answers[ContentOf(odd, 100)] == Output(0, b"Linux\n")
        for path, content in ((beside, b"as it is\n"), (odd, b"Linux\n")):
            found = answers[FileAt(path, True)]
            assert isinstance(found, PathState)
            assert found.sha256 == _sha256(content)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"onE", b"two"),
        (b"on", b"two"),
        (b"onee", b"two"),
        (b"one", b"tw"),
        (b"one", b"twoo"),
        (b"on", b"etwo"),  # as long together as they were
        (b"one\n==> /b <==\n", b"two"),
    ],
)
def test_files_that_change_while_they_are_read(first: bytes, second: bytes) -> None:
    """Their sizes were told before. What does not fit is no answer; what fits is what was there."""
    a, b = FileAt("/a", True), FileAt("/b", True)
    mark = f"\n{NONCE} "
    told = f"{mark}denied \n{mark}stat 0 1\n81a4 0 0 3 r/r\n81a4 0 0 3 r/r\n{mark}heads 0 1\n".encode()
    out = told + b"==> /a <==\n" + first + b"\n==> /b <==\n" + second + f"{mark}looked\n".encode()
    answers = read_answers([a, b], out, NONCE, "box")
    if len(first) != 3 or len(second) != 3:
        assert answers == {}
        return
    for question, content in ((a, first), (b, second)):
        found = answers[question]
        assert isinstance(found, PathState)
        assert found.sha256 == _sha256(content)


def test_one_program_for_paths_and_one_for_contents() -> None:
    """The script names each path once; the programs that it starts do not grow with them."""
    few, many = (
        observe_script([q for n in range(count) for q in (FileAt(f"/f{n}", True), ContentOf(f"/f{n}", 9))])
        for count in (2, 150)
    )
    assert [few.count("fz_stats"), few.count("fz_heads"), few.count("'/f0'")] == [1, 1, 1]
    assert [many.count("fz_stats"), many.count("fz_heads"), many.count("'/f149'")] == [1, 1, 1]


def test_a_file_that_goes_while_others_are_hashed_costs_one_question_more(tmp_path: Path) -> None:
    """`sha256sum` of several files prints a line less then, and none says whose it is."""
    root, programs, gone = tmp_path / "root", tmp_path / "bin", tmp_path / "gone"
    root.mkdir()
    programs.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(name.encode() * 10_000)
    (programs / "sha256sum").write_text(
        f'#!/bin/sh\n[ -e {gone} ] || {{ >{gone}; rm {root}/b; }}\nexec /usr/bin/sha256sum "$@"\n'
    )
    (programs / "sha256sum").chmod(0o755)

    async def run() -> None:
        host = Host.local(root, {"PATH": f"{programs}:/usr/bin:/bin"})
        async with host.session:
            questions = [FileAt(f"{root}/{name}", hashed=True) for name in ("a", "b")]
            answers = await host.session.ask(*questions)
            one, other = (answers[question] for question in questions)
            assert isinstance(one, PathState)
            assert isinstance(other, PathState)
            assert (one.sha256, other.type) == (_sha256(b"a" * 10_000), "missing")

    asyncio.run(run())
    assert gone.exists()
