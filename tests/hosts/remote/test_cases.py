"""The table of kinds through an agent and through a shell, side by side: the same plans, digests, files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fazai.model import Change, Diff, Resource
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.remote.session import AgentSession
from fazai.providers.hosts.session import HostSession
from tests.hosts.cases import CASES, Case
from tests.hosts.helpers import HOSTILE, Host, converge, look, resource, undo
from tests.hosts.kinds.test_kinds import place, seen
from tests.hosts.remote.agent import ALL, AgentProcess

Agents = Callable[..., AgentProcess]


def said(diff: Diff) -> list[Any]:
    """All of a plan that a person or a hash sees."""
    steps: list[Any] = []
    for step in diff.steps:
        if isinstance(step, Change):
            values = [str(step.verb), step.kind, step.identity, str(step.before), str(step.after)]
            steps.append([*values, step.ref, step.activates, step.note, str(step.mark), str(step.options)])
        else:
            steps.append(str(step))
    errors = [(type(e).__name__, e.message, str(e.where), e.hint) for e in diff.errors]
    return [steps, diff.unchanged, errors, diff.notes, diff.claims, [r.identity for r in diff.later]]


async def both_look(
    shell: HostSession, agent: AgentSession, *wanted: Resource
) -> tuple[list[Any], list[Any]]:
    """What both say of one folder, with the digest of what they saw."""
    found = []
    session: HostSession | AgentSession
    for session in (shell, agent):
        seen_there = await session.observe(wanted)
        found.append([seen_there.digest, *said(session.diff(wanted, seen_there))])
    return found[0], found[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_kind_through_an_agent_is_as_through_a_shell(case: Case, agents: Agents, tmp_path: Path) -> None:
    agent = agents(rules=ALL)
    root = tmp_path / "root"
    place(root, case.before)
    kind = load_host_kinds()[case.kind]
    identity = {name: case.make[name] for name in kind.identity if name in case.make}

    async def run() -> None:
        shell = Host.local(root).session
        async with shell, agent.session() as session:
            made = resource(case.kind, case.make)
            one, other = await both_look(shell, session, made)
            assert other == one
            changes = await converge(session, made)
            assert seen(root, case.made) == dict(case.made)
            if case.change is not None:
                altered = resource(case.kind, {**case.make, **case.change})
                one, other = await both_look(shell, session, altered)
                assert other == one
                changes = await converge(session, altered)
                assert seen(root, case.changed) == dict(case.changed)
                await undo(session, changes)
                assert (await look(session, made)).changes == ()
                assert seen(root, case.made) == dict(case.made)
            if case.absent is None:
                return
            gone = resource(case.kind, {**identity, **case.absent}, "absent")
            one, other = await both_look(shell, session, gone)
            assert other == one
            changes = await converge(session, gone)
            assert seen(root, case.removed) == dict(case.removed)
            await undo(session, changes)
            assert (await look(session, made)).changes == ()

    asyncio.run(run())
    assert sorted(path.name for path in root.rglob(".fazai-*")) == []


@pytest.mark.slow
def test_hostile_names_through_an_agent(agents: Agents, tmp_path: Path) -> None:
    """Names that are no UTF-8 as well; all that joins goes in few messages, a look is one."""
    agent, root = agents(), tmp_path / "root"
    wanted = []
    for name in HOSTILE:
        wanted.append(resource("host.directory", {"path": f"/d {name}"}))
        wanted.append(resource("host.file", {"path": f"/d {name}/{name}", "content": name + "\n\n"}))
        wanted.append(resource("host.link", {"path": f"/d {name}/l{name}", "target": name}))

    async def run() -> None:
        shell = Host.local(root).session
        async with shell, agent.session() as session:
            one, other = await both_look(shell, session, *wanted)
            assert other == one
            rest = list((await look(session, *wanted)).changes)
            while rest:
                count = session.join(rest)
                refs, error = await session.write_joined(rest[:count])
                assert (error, len(refs)) == (None, count)
                rest = rest[count:]
            before = len(agent.messages)
            assert (await look(session, *wanted)).changes == ()
            assert len(agent.messages) - before == 1
            one, other = await both_look(shell, session, *wanted)
            assert other == one
            for name in HOSTILE:
                data = (root / f"d {name}" / name).read_bytes()
                assert data == (name + "\n\n").encode("utf-8", "surrogateescape")
            gone = [
                resource("host.directory", {"path": f"/d {n}", "recurse": True}, "absent") for n in HOSTILE
            ]
            one, other = await both_look(shell, session, *gone)
            assert other == one
            assert len(await converge(session, *gone)) == len(HOSTILE)

    asyncio.run(run())
    assert list(root.iterdir()) == []
    writes = [m for m in agent.messages if m["method"] == "state.apply" and "write" in m["step"]]
    assert len(writes) <= 2 + len(HOSTILE)


def test_facts_are_those_of_a_shell(agents: Agents, tmp_path: Path) -> None:
    agent = agents()

    async def run() -> None:
        shell = Host.local(tmp_path / "root").session
        async with shell, agent.session() as session:
            one, other = dict(await shell.facts()), dict(await session.facts())
            for name in ("uptime_s", "available_mib", "disks"):
                assert one.pop(name, None).__class__ is other.pop(name, None).__class__
            assert other == one

    asyncio.run(run())
