"""Paths that an account may not see are neither there nor missing: no resource is as wanted because of
that."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fazai.model import Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.local.transport import LocalChannel
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.become import Become
from tests.hosts.helpers import Host, resource

ALICE = 65534
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can look as somebody else")


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder host with a folder that only root may enter."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "closed").mkdir(mode=0o700)
        (root / "etc/cron.d").mkdir(parents=True)
        (root / "etc/cron.d/jobs").write_text("#fazai: job\n* * * * * root true\n")
        (root / "etc/cron.d/jobs").chmod(0o600)
        yield root


def as_alice(root: Path) -> Host:
    """A session on a folder host as a user without rights."""

    async def begin() -> LocalChannel:
        process = await asyncio.create_subprocess_exec(
            shutil.which("sh") or "sh",
            "-s",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            user=ALICE,
            group=ALICE,
            extra_groups=[],
        )
        return LocalChannel(process, "box", Become())

    target = Target("box", "local", "write", {"root": str(root)})
    return Host(root, HostSession(target, load_host_kinds(), begin, timeout_s=20, root=str(root)))


_COMMAND = {"shell": "touch /never", "chdir": "/"}
_JOB = {"name": "job", "cron_file": "jobs", "user": "root", "job": "true"}
_FOLDER, _FILE = "a folder above it may not be entered", "/etc/cron.d/jobs may not be read"
CASES: tuple[tuple[str, Mapping[str, Any], str, str], ...] = (
    ("host.command", {**_COMMAND, "creates": "/closed/x"}, "present", _FOLDER),
    ("host.command", {**_COMMAND, "removes": "/closed/x"}, "present", _FOLDER),
    ("host.command", {**_COMMAND, "creates": "/closed/x", "unless": ["false"]}, "present", _FOLDER),
    ("host.cron", _JOB, "present", _FILE),
    ("host.cron", _JOB, "absent", _FILE),
)


@pytest.mark.parametrize(("kind", "fields", "state", "said"), CASES)
def test_what_is_hidden_decides_nothing(
    kind: str, fields: Mapping[str, Any], state: str, said: str, closed: Path
) -> None:
    async def run() -> None:
        host = as_alice(closed)
        async with host.session:
            diff = await host.look(resource(kind, fields, state))
            (error,) = diff.errors
            assert (said in str(error), error.hint, diff.changes) == (True, "become: true", ())

    asyncio.run(run())


def test_jobs_in_a_folder_that_may_not_be_entered(closed: Path) -> None:
    (closed / "etc/cron.d").chmod(0o700)

    async def run() -> None:
        host = as_alice(closed)
        async with host.session:
            (error,) = (await host.look(resource("host.cron", _JOB, "absent"))).errors
            assert _FOLDER in str(error)

    asyncio.run(run())


def test_another_guard_that_holds_is_enough(closed: Path) -> None:
    fields = {**_COMMAND, "creates": "/closed/x", "unless": ["true"]}

    async def run() -> None:
        host = as_alice(closed)
        async with host.session:
            diff = await host.look(resource("host.command", fields))
            assert (diff.changes, diff.errors) == ((), ())

    asyncio.run(run())
