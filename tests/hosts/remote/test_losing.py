"""An agent that is away, cut off, started anew, or does not answer: nothing is repeated, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.state.sessions import shell_environ
from fazai.errors import Moved, NotAvailable, Unreachable, Unsure
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.remote.session import SessionLost
from fazai.providers.hosts.shell.questions import OutputOf
from tests.hosts.conftest import World
from tests.hosts.helpers import converge, look, resource, undo
from tests.hosts.remote.agent import ALL, AgentProcess, Rules
from tests.hosts.remote.relay import RelayServer
from tests.hosts.remote.test_provider import methods

Agents = Callable[..., AgentProcess]
FILES = [{"host.file": {"path": f"/{name}", "content": f"{name}\n"}} for name in "abc"]


@pytest.fixture
def root(world: World, relay: RelayServer) -> Path:
    world.hosts["web"] = {"provider": "agent"}
    return world.folder / "root"


def runs(pid: int) -> bool:
    """Whether a process is there, and not one that ended and that nobody waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_agent_that_is_away_is_unreachable(world: World, relay: RelayServer, root: Path) -> None:
    relay.agents.clear()
    found = world.fazai("apply", resources=FILES)
    assert (found.code, "no agent: there is no agent 'web'" in found.out) == (4, True), found
    assert "fazai pki list" in found.out
    assert list(root.iterdir()) == []


def test_without_a_daemon_it_is_unreachable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hosts["web"] = {"provider": "agent"}
    monkeypatch.setenv("FAZAI_AGENTS_URL", f"unix:{world.folder}/none.sock")
    found = world.fazai("apply", resources=FILES)
    assert (found.code, "no daemon to ask agents through at" in found.out) == (4, True), found
    assert "start one with: fazai daemon" in found.out


@pytest.mark.parametrize("how", ["cut", "lost"])
def test_a_connection_lost_in_a_write_is_unsure_and_the_next_run_looks(
    how: str, world: World, relay: RelayServer, root: Path
) -> None:
    getattr(relay, how).add("state.apply")
    found = world.fazai("apply", resources=FILES)
    assert found.code == 1, found
    assert "was lost" in found.out
    assert "while host.file /a and 2 more was written" in found.out
    assert methods(relay)[:2] == ["state.observe", "state.apply"]
    getattr(relay, how).clear()
    relay.frames.clear()
    again = world.fazai("apply", resources=FILES)
    assert again.code == 0, again
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c"]


def test_what_was_begun_stands_in_the_journal(world: World, relay: RelayServer, root: Path) -> None:
    relay.cut.add("state.apply")
    assert world.fazai("apply", resources=FILES[:1]).code == 1
    with closing(sqlite3.connect(world.folder / "state/fazai.sqlite3")) as database:
        rows = database.execute("select identity, status, error from actions order by started").fetchall()
    assert rows[0][:2] == ("/a", "failed")
    assert "while host.file /a was written" in rows[0][2]


def test_an_agent_started_anew_between_look_and_write_is_looked_at_again(
    agents: Agents, tmp_path: Path
) -> None:
    agent = agents()
    wanted = [resource("host.file", {"path": "/a", "content": "x\n"})]

    async def run() -> None:
        async with agent.session() as session:
            (change,) = (await look(session, *wanted)).changes
            agent.restart()
            with pytest.raises(
                SessionLost, match="has forgotten what it saw, as it was started anew: nothing was written"
            ) as lost:
                await session.write(change)
            assert await session.explains(lost.value, [])
            assert not (tmp_path / "root/a").exists()
            (again,) = await converge(session, *wanted)
            assert again.after == change.after
            assert [await session.explains(lost.value, []) for _ in range(3)] == [True, True, False]

    asyncio.run(run())


def test_the_engine_looks_again_when_the_agent_was_started_anew(
    world: World, relay: RelayServer, root: Path
) -> None:
    passed = relay.agents["web"]
    dropped: list[Any] = []

    async def forget_once(message: Any) -> Any:
        if message["method"] == "state.apply" and not dropped:
            dropped.append(message)
            return {"ok": False, "code": "not_found", "error": "no such session", "action_id": "x"}
        return await passed(message)

    relay.agents["web"] = forget_once
    found = world.fazai("apply", resources=FILES)
    assert (found.code, "RESULT 3 changed" in found.out) == (0, True), found
    assert methods(relay)[:4] == ["state.observe", "state.apply", "state.observe", "state.apply"]


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("interrupted", 1, "the agent of web: why, while host.file /a and 2 more was written"),
        ("timeout", 1, "the agent of web: why, while host.file /a and 2 more was written"),
        ("too_large", 1, "the agent of web: why, while host.file /a and 2 more was written"),
        ("something new", 1, "the agent of web: why, while host.file /a and 2 more was written"),
        ("conflict", 4, "the agent of web is busy: why"),
        ("overloaded", 4, "the agent of web is busy: why"),
        ("unknown_method", 7, "the agent of web does not reconcile"),
        ("not_allowed", 7, "the agent of web refuses: why"),
        ("bad_request", 1, "the agent of web does not understand: why"),
    ],
)
def test_refusals_of_a_write(
    code: str, exit_code: int, said: str, world: World, relay: RelayServer, root: Path
) -> None:
    """What nobody knows is unsure, and looked at by the next run; a plain no is a plain no."""
    passed = relay.agents["web"]

    async def refuse(message: Any) -> Any:
        if message["method"] == "state.apply":
            return {"ok": False, "code": code, "error": "why", "action_id": message["action_id"]}
        return await passed(message)

    relay.agents["web"] = refuse
    found = world.fazai("apply", resources=FILES)
    assert (found.code, said in found.out) == (exit_code, True), found
    assert list(root.iterdir()) == []


def test_an_agent_that_forgets_each_time_is_not_asked_for_ever(
    world: World, relay: RelayServer, root: Path
) -> None:
    passed = relay.agents["web"]

    async def forget(message: Any) -> Any:
        if message["method"] == "state.apply":
            return {"ok": False, "code": "not_found", "error": "no such session", "action_id": "x"}
        return await passed(message)

    relay.agents["web"] = forget
    found = world.fazai("apply", resources=FILES)
    assert (found.code, "has forgotten what it saw" in found.out) == (1, True), found
    assert methods(relay).count("state.apply") == 4


def test_what_an_agent_does_not_know_it_does_not_take_back(agents: Agents, tmp_path: Path) -> None:
    agent = agents()
    wanted = [resource("host.file", {"path": "/a", "content": "x\n"})]

    async def run() -> None:
        async with agent.session() as session:
            changes = await converge(session, *wanted)
            agent.restart()
            await look(session, *wanted)
            with pytest.raises(Moved, match="does not know any more what this run wrote"):
                await undo(session, changes)

    asyncio.run(run())
    assert (tmp_path / "root/a").read_text() == "x\n"


def test_sigterm_ends_what_runs_with_its_tree_and_says_so(agents: Agents, tmp_path: Path) -> None:
    agent = agents(rules=ALL)
    mark = tmp_path / "root/pid"
    script = "sh -c 'echo $$ >pid; trap : TERM; while :; do sleep 0.05; done'"
    wanted = [resource("host.command", {"shell": script, "creates": "/done", "chdir": "/"})]

    async def run() -> None:
        async with agent.session() as session:
            (change,) = (await look(session, *wanted)).changes
            writing = asyncio.ensure_future(session.write(change))
            while not (mark.exists() and mark.read_text().strip()):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
            os.kill(agent.pid, signal.SIGTERM)
            with pytest.raises(Unsure, match=r"it was ended before it was done, while host\.command"):
                await writing

    asyncio.run(run())
    assert not runs(int(mark.read_text()))
    agent.wait()


def test_what_a_handler_started_stays(agents: Agents, tmp_path: Path) -> None:
    agent = agents(rules=ALL)
    mark = tmp_path / "root/pid"
    script = "setsid sh -c 'echo $$ >pid; exec sleep 600' >/dev/null 2>&1 & while [ ! -s pid ]; do :; done"
    handler = resource("host.command", {"shell": script, "chdir": "/"}, "notified", listen=("start",))
    handler = replace(handler, state="present")

    async def run() -> None:
        async with agent.session() as session:
            session.diff([handler], await session.observe([handler]))
            await session.activate("start")

    asyncio.run(run())
    os.kill(agent.pid, signal.SIGTERM)
    agent.wait()
    pid = int(mark.read_text())
    assert runs(pid)
    os.kill(pid, signal.SIGKILL)


def test_the_environment_of_its_shells() -> None:
    found = shell_environ({"PATH": "/opt/x:/bin", "http_proxy": "p", "FAZAI_X": "1", "LD_PRELOAD": "e"})
    path = "/opt/x:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"
    assert found == {"PATH": path, "http_proxy": "p"}
    assert shell_environ({})["PATH"].startswith("/usr/local/sbin:")


def test_cancel_ends_what_runs_and_nothing_else(agents: Agents, tmp_path: Path) -> None:
    agent = agents(rules=ALL)
    mark = tmp_path / "root/pid"
    script = "echo $$ >pid; exec sleep 600"
    wanted = [resource("host.command", {"shell": script, "creates": "/done", "chdir": "/"})]
    file = [resource("host.file", {"path": "/a", "content": "x"})]

    async def run() -> None:
        async with agent.session() as other, agent.session() as session:
            (unwritten,) = (await look(other, *file)).changes
            (change,) = (await look(session, *wanted)).changes
            writing = asyncio.ensure_future(session.write(change))
            while not (mark.exists() and mark.read_text().strip()):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
            for action_id in ("of another one", agent.messages[-1]["action_id"]):
                await agent.send({"method": "cancel", "action_id": action_id})
            with pytest.raises(Unsure, match=r"it was ended before it was done, while host\.command"):
                await writing
            await other.write(unwritten)  # which was not forgotten

    asyncio.run(run())
    assert not runs(int(mark.read_text()))
    assert (tmp_path / "root/a").read_text() == "x"


def test_a_step_that_takes_too_long_is_ended_there(agents: Agents, tmp_path: Path) -> None:
    agent = agents(rules=ALL)
    mark = tmp_path / "root/pid"
    unless = ["sh", "-c", f"echo $$ >{mark}; exec sleep 600"]
    wanted = [resource("host.command", {"argv": ["true"], "unless": unless})]

    async def run() -> None:
        async with agent.session(timeout_s=1) as session:
            with pytest.raises(Unreachable, match="no answer within 1 s"):
                await session.observe(wanted)
            assert (await session.facts())["user"]  # it goes on

    asyncio.run(run())
    assert not runs(int(mark.read_text()))


def test_the_end_of_the_connection_ends_the_process(agents: Agents) -> None:
    agent = agents()
    agent.hang_up()
    agent.wait()


@pytest.mark.parametrize("writes", [False, True])
def test_a_process_that_nobody_asks_ends_and_is_not_asked_in_vain(
    writes: bool, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only looked is forgotten soon; what wrote is kept for as long as agent.yml says (`hold`)."""
    monkeypatch.setattr("fazai.agent.state.worker.IDLE_S", 0.2)
    agent = agents(rules=Rules(hold_s=1.0))
    wanted = [resource("host.file", {"path": "/a", "content": "x"})]
    begun = time.monotonic()

    async def run() -> None:
        session = agent.session()
        await session.__aenter__()
        (change,) = (await look(session, *wanted)).changes
        if writes:
            await session.write(change)
        os.waitid(os.P_PID, agent.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - nothing else runs here
        with pytest.raises(Unreachable, match="the connection to the agent was lost"):
            await session.observe(wanted)

    asyncio.run(run())
    assert time.monotonic() - begun >= (1.0 if writes else 0.2)
    agent.wait()


def test_a_fifth_controller_takes_the_place_of_one_that_only_looked(agents: Agents, tmp_path: Path) -> None:
    agent = agents()
    wanted = [resource("host.file", {"path": "/a", "content": "x\n"})]

    async def run() -> None:
        sessions = [agent.session() for _ in range(5)]
        for session in sessions:
            await session.__aenter__()
        for session in sessions[:4]:
            planned = (await look(session, *wanted)).changes[0]
        await sessions[0].write(sessions[0].diff(wanted, await sessions[0].observe(wanted)).changes[0])
        assert (await look(sessions[4], *wanted)).changes == ()  # the second one's place
        with pytest.raises(SessionLost, match="has forgotten what it saw"):
            await sessions[1].write(planned)
        for session in reversed(sessions):
            await session.__aexit__(None, None, None)

    asyncio.run(run())


def test_an_interrupted_run_cancels_what_runs_there(
    world: World, relay: RelayServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = relay.agents["web"]
    begun = []

    async def hang(message: Any) -> Any:
        if message["method"] == "state.apply":
            begun.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.5)
        return await passed(message)

    relay.agents["web"] = hang
    found = world.fazai("apply", resources=FILES)
    assert found.code == 130, found
    sent = [frame["message"] for frame in relay.frames]
    (apply,) = [message for message in sent if message["method"] == "state.apply"]
    assert [m["action_id"] for m in sent if m["method"] == "cancel"] == [apply["action_id"]]


def test_scripts_and_kinds_that_need_the_controller_are_not_for_an_agent(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents()
    wanted = [
        resource("host.file", {"path": "/a", "content": "x"}),
        resource("host.link", {"path": "/l", "target": "a"}),
    ]
    monkeypatch.setattr(type(load_host_kinds()["host.link"]), "by_agent", False)

    async def run() -> None:
        async with agent.session() as session:
            with pytest.raises(NotAvailable, match="its agent, which runs no script of others"):
                await session.ask(OutputOf("id"))
            diff = await look(session, *wanted)
            assert [change.kind for change in diff.changes] == ["host.file"]
            (error,) = diff.errors
            assert "host.link /l: it cannot be managed through the agent of its host" in error.message

    asyncio.run(run())


def test_what_the_policy_refuses_is_told_with_its_own_place(agents: Agents) -> None:
    from fazai.errors import Mark, Refused

    agent = agents(rules=Rules(mode="yes", kinds=("host.file",)))
    first = resource("host.file", {"path": "/a", "content": "x\n"})
    place = Mark("play.yml", 7, 5)
    second = replace(resource("host.directory", {"path": "/d"}), mark=place)

    async def run() -> None:
        async with agent.session() as session:
            with pytest.raises(Refused, match=r"host\.directory /d: this kind is not allowed here") as no:
                await look(session, first, second)
            assert no.value.where == place

    asyncio.run(run())


def test_the_policy_says_no_before_anything_runs(agents: Agents, tmp_path: Path) -> None:
    """Which is more than the read-only mode of the inventory: the machine's own word."""
    agent = agents(rules=Rules(mode="look"))
    wanted = [resource("host.file", {"path": "/a", "content": "x\n"})]

    async def run() -> None:
        from fazai.errors import Refused

        async with agent.session() as session:
            (change,) = (await look(session, *wanted)).changes
            with pytest.raises(
                Refused, match="the agent of box refuses: this machine may only be looked at"
            ) as no:
                await session.write(change)
            assert no.value.exit_code == 7

    asyncio.run(run())
    assert list((tmp_path / "root").iterdir()) == []
