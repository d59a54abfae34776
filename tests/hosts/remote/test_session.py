"""A session through the agent's own process: the same plans and outcomes as through a shell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import DeviceError
from fazai.model import Secret
from fazai.providers.hosts.blob import Blob
from tests.hosts.helpers import look, resource
from tests.hosts.remote.agent import ALL, AgentProcess


@pytest.fixture
def agent(agents: Callable[..., AgentProcess]) -> AgentProcess:
    return agents()


def test_a_file_is_observed_and_written_through_the_agent(agent: AgentProcess) -> None:
    wanted = [resource("host.file", {"path": "/etc/app.conf", "content": "one\n", "mode": "0640"})]

    async def run() -> None:
        async with agent.session() as session:
            diff = session.diff(wanted, await session.observe(wanted))
            (change,) = diff.changes
            await session.write(change)
            assert session.diff(wanted, await session.observe(wanted)).steps == ()

    (Path(agent.config.root) / "etc").mkdir()
    asyncio.run(run())
    path = Path(agent.config.root) / "etc/app.conf"
    assert path.read_text() == "one\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [m["method"] for m in agent.messages] == [
        "state.observe",
        "state.apply",
        "state.observe",
        "state.close",
    ]


def test_long_contents_travel_when_they_are_written_and_never_twice(agent: AgentProcess) -> None:
    content = bytes(range(256)) * 20_000
    wanted = [
        resource("host.file", {"path": "/big", "content": content}),
        resource("host.file", {"path": "/secret", "content": Secret("s3cr3t\n" * 1000)}),
    ]
    root = Path(agent.config.root)

    async def run() -> None:
        async with agent.session() as session:
            diff = session.diff(wanted, await session.observe(wanted))
            assert len(json.dumps(agent.messages)) < 2000
            count = session.join(diff.changes)
            refs, error = await session.write_joined(diff.changes[:count])
            rest = diff.changes[len(refs) :]
            assert error is None
            for change in rest:
                await session.write(change)
            size = len(json.dumps(agent.messages))
            assert len(content) * 4 / 3 < size < len(content) * 4 / 3 + 20_000
            assert session.diff(wanted, await session.observe(wanted)).steps == ()
            (root / "secret").write_text("other\n" * 1000)
            (change,) = session.diff(wanted, await session.observe(wanted)).changes
            await session.write(change)
            assert (root / "secret").read_text() == "s3cr3t\n" * 1000
            inverse = session.inverse(change, change.ref)
            assert inverse is not None
            await session.write(inverse)
            assert (root / "secret").read_text() == "other\n" * 1000

    asyncio.run(run())
    assert (root / "big").read_bytes() == content


def test_another_content_than_was_asked_about_is_refused(agent: AgentProcess) -> None:
    wanted = [resource("host.file", {"path": "/a", "content": "x" * 2000})]

    async def run() -> None:
        async with agent.session() as session:
            (change,) = session.diff(wanted, await session.observe(wanted)).changes
            session._items["host.file", "/a"].want = None
            evil = replace(change, after={"content": Blob(b"y" * 2000, change.after["content"].sha256, 2000)})
            with pytest.raises(DeviceError, match="another content than was asked about"):
                await session.write(evil)

    asyncio.run(run())
    assert list(Path(agent.config.root).iterdir()) == []


def test_output_comes_with_the_answer_and_secrets_of_others_are_masked_there(
    agents: Callable[..., AgentProcess],
) -> None:
    agent = agents(rules=ALL)
    shell = "echo said; cat secret; echo also >&2; exit 3"
    wanted = [
        resource("host.file", {"path": "/secret", "content": Secret("s3cr3t-of-another")}),
        resource("host.command", {"shell": shell, "creates": "/never", "chdir": "/"}),
    ]
    heard: list[tuple[str, str]] = []

    async def run() -> None:
        async with agent.session() as session:
            session.listen(lambda stream, text: heard.append((stream, text)))
            file, command = (await look(session, *wanted)).changes
            await session.write(file)
            (command,) = (await look(session, wanted[1])).changes
            with pytest.raises(DeviceError, match=r"exit status 3: also") as failed:
                await session.write(command)
            assert "s3cr3t" not in str(failed.value)

    asyncio.run(run())
    assert "".join(text for stream, text in heard if stream == "stdout") == "said\n***"
    assert "".join(text for stream, text in heard if stream == "stderr") == "also\n"
