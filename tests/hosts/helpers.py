"""A session on a folder under a given shell, and what is done with it in nearly every test of a kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fazai.model import Change, Diff, LookAgain, Resource, Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.local.transport import start_local_shell
from fazai.providers.hosts.remote.session import AgentSession
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.become import Become

__all__ = ["HOSTILE", "SHELLS", "Host", "converge", "look", "put_first", "resource", "shell_environ", "undo"]

SHELLS = ("dash", "bash", "busybox")

#: Names that a careless script would trip over.
HOSTILE = (
    "plain",
    "two words",
    "it's",
    'dou"ble',
    "$(touch gone)",
    "`touch gone`",
    "${HOME}",
    "-leading-dash",
    "new\nline",
    "trailing\n",
    "back\\slash",
    "*?[a]",
    "übergröße-日本",
    "semi;colon&|<>",
    "tab\there",
    "%s%n",
    "\udcff\udcfe",  # bytes that are no UTF-8
    "~",
    "#hash",
    "!bang",
)


def shell_environ(shell: str, folder: Path) -> dict[str, str]:
    """An environment in which `sh` is this shell; with busybox, its other programs as well."""
    found = shutil.which(shell)
    if found is None:
        if os.environ.get("FAZAI_NO_SKIPS"):
            pytest.fail(f"{shell} is not installed: tools/test-hosts installs it")
        pytest.skip(f"{shell} is not installed")
    programs = folder / f"{shell}-bin"
    if not programs.exists():
        programs.mkdir()
        names: tuple[str, ...] = ("sh",)
        if shell == "busybox":
            names += ("stat", "sha256sum", "readlink", "cat", "wc", "rm", "mv", "ln", "mkdir", "rmdir", "cp")
            names += (
                "chmod",
                "chown",
                "dd",
                "date",
                "sync",
                "sed",
                "grep",
                "awk",
                "head",
                "find",
                "ls",
                "sort",
                "id",
                "env",
                "test",
            )
        for name in names:
            (programs / name).symlink_to(found)
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder)}


def put_first(environ: dict[str, str], name: str, script: str) -> Path:
    """A program in place of the one of that name in this environment: lines of `sh`. Returns where it is."""
    folder = Path(environ["HOME"]) / "first"
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    if not environ["PATH"].startswith(f"{folder}:"):
        environ["PATH"] = f"{folder}:{environ['PATH']}"
    return program


def resource(kind: str, fields: Mapping[str, Any], state: str = "present", **more: Any) -> Resource:
    """A resource as the playbook makes it."""
    found = load_host_kinds()[kind]
    identity = found.identify(fields)
    assert isinstance(identity, str), identity
    canonical, problems = found.normalise(fields, state)
    assert problems == []
    state = canonical.pop("state", state) if canonical.get("state") in ("present", "absent") else state
    return Resource(kind, identity, canonical, state, **more)


@dataclass
class Host:
    """A session on the folder `root`."""

    root: Path
    session: HostSession

    @classmethod
    def local(cls, root: Path, environ: dict[str, str] | None = None) -> Host:
        target = Target("box", "local", "write", {"root": str(root)})

        def begin() -> Any:
            return start_local_shell("box", Become(), str(root), environ)

        return cls(root, HostSession(target, load_host_kinds(), begin, timeout_s=20, root=str(root)))

    async def look(self, *wanted: Resource) -> Diff:
        return await look(self.session, *wanted)

    async def converge(self, *wanted: Resource) -> tuple[Change, ...]:
        return await converge(self.session, *wanted)

    async def undo(self, changes: Sequence[Change]) -> None:
        await undo(self.session, changes)


async def look(session: HostSession | AgentSession, *wanted: Resource) -> Diff:
    return session.diff(wanted, await session.observe(wanted))


async def converge(session: HostSession | AgentSession, *wanted: Resource) -> tuple[Change, ...]:
    """Write what differs; afterwards nothing may."""
    made: list[Change] = []
    rest: Sequence[Resource] = wanted
    while rest:
        diff = await look(session, *rest)
        assert diff.errors == (), [str(error) for error in diff.errors]
        rest = diff.later
        for step in diff.steps:
            if isinstance(step, LookAgain):
                break
            assert isinstance(step, Change)
            await session.write(step)
            made.append(step)
    again = await look(session, *wanted)
    assert (again.changes, again.errors) == ((), ())
    return tuple(made)


async def undo(session: HostSession | AgentSession, changes: Sequence[Change]) -> None:
    for change in reversed(changes):
        inverse = session.inverse(change, change.ref)
        assert inverse is not None
        await session.write(inverse)
