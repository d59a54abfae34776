"""Effects that another assistant asks for: a proposal and its hash, which nobody can approve by MCP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from fazai.store.sessions import ToolSpecRecord
from tests.daemon.live import Live, token, until
from tests.daemon.runs_world import World, world
from tests.daemon.tools.sdk import ERAS, over_http, over_stdio, run, texts
from tests.daemon.tools.test_mcp_stdio import environ

EDGE = {"playbook": "edge"}


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    names = {"assistant": "operator", "person": "operator", "boss": "admin", "looker": "viewer"}
    return {name: token(tmp_path, name, role) for name, role in names.items()}  # type: ignore[arg-type]


@pytest.fixture
def edge(tmp_path: Path, tokens: dict[str, str]) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def propose(daemon: Live, text: str, mode: str = "auto") -> Any:
    async def work() -> Any:
        async with over_http(daemon, text, mode) as client:
            return await client.call_tool("reconcile_apply", EDGE)

    return run(work)


def approve(daemon: Live, text: str, shown: dict[str, Any], what: str = "approve", **more: Any) -> Any:
    body = {name: shown[name] for name in ("session_id", "action_id", "plan_hash")} | more
    with daemon.client(text) as client:
        return client.post(f"/agent/{what}", json=body)


def state(daemon: Live, session: str) -> str:
    return str(daemon.services.loop.find(session).state.status)


@pytest.mark.parametrize("mode", ERAS)
def test_an_effect_is_a_proposal_and_happens_after_an_approval_of_its_hash(
    edge: World, tokens: dict[str, str], mode: str
) -> None:
    result = propose(edge.daemon, tokens["assistant"], mode)
    assert result.is_error is False
    shown = result.structured_content
    (change,) = shown["changes"]
    assert (change["target"], change["identity"], change["verb"]) == ("fw-01", "blocklist", "create")
    said, changes = texts(result)
    assert said.startswith("Nothing has been done. reconcile.apply proposes 1 change on fw-01.")
    assert shown["plan_hash"] in said
    assert json.loads(changes)[0] == change
    assert "blocklist" not in edge.aliases()
    wrong = approve(edge.daemon, tokens["person"], shown, plan_hash="a" * 64)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "plan_mismatch")
    assert approve(edge.daemon, tokens["looker"], shown).status_code == 403
    assert approve(edge.daemon, tokens["person"], shown).json() == {"ok": True}
    until(lambda: state(edge.daemon, shown["session_id"]) == "ended")
    assert "blocklist" in edge.aliases()


def test_the_token_that_proposed_does_not_approve(edge: World, tokens: dict[str, str]) -> None:
    shown = propose(edge.daemon, tokens["assistant"]).structured_content
    refused = approve(edge.daemon, tokens["assistant"], shown)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "the token that proposed it does not approve it" in refused.json()["error"]
    assert state(edge.daemon, shown["session_id"]) == "waiting"
    assert approve(edge.daemon, tokens["assistant"], shown, "reject").json() == {"ok": True}
    assert "blocklist" not in edge.aliases()


def test_a_rejection_binds_the_next_proposal(edge: World, tokens: dict[str, str]) -> None:
    shown = propose(edge.daemon, tokens["assistant"]).structured_content
    assert approve(edge.daemon, tokens["person"], shown, "reject", reason="not now").json() == {"ok": True}
    for _ in range(3):
        again = propose(edge.daemon, tokens["assistant"])
        assert again.is_error is True
        assert texts(again)[0].startswith("token:person rejected it, and nothing has changed since")
    edge.inventory([{"opnsense.alias": {"name": "blocklist", "type": "host", "content": ["192.0.2.8"]}}])
    assert propose(edge.daemon, tokens["assistant"]).is_error is False


def test_the_same_proposal_twice_is_one_question(edge: World, tokens: dict[str, str]) -> None:
    first, second = (propose(edge.daemon, tokens["assistant"]).structured_content for _ in range(2))
    assert first == second
    assert len(edge.daemon.services.loop.all()) == 1


def test_what_the_policy_denies_is_not_even_proposed(edge: World, tokens: dict[str, str]) -> None:
    """No person can allow it, as none can in the action loop; and what it allows still asks one."""
    policy = edge.folder / "policy.yml"
    policy.write_text("deny:\n  - {name: edge, reason: not from here, targets: [fw-*]}\n")
    denied = propose(edge.daemon, tokens["assistant"])
    assert denied.is_error is True
    assert texts(denied)[0].startswith("edge denies")
    assert texts(denied)[0].endswith(": not from here")
    assert edge.daemon.services.loop.all() == ()
    policy.write_text(
        "rules:\n  - {name: edge, tool: reconcile.apply, kinds: opnsense.alias, targets: [fw-01],"
        " verbs: [create], fields: [name, type, content], per_hour: 5, expires: 2099-01-01}\n"
    )
    shown = propose(edge.daemon, tokens["assistant"])
    assert shown.is_error is False, texts(shown)
    session = shown.structured_content["session_id"]
    (effect,) = edge.daemon.services.loop.find(session).state.effects.values()
    allowed = edge.daemon.call(lambda: edge.daemon.services.policy.decide(effect, tainted=False))
    assert allowed.verdict == "allow", allowed.reason
    assert state(edge.daemon, session) == "waiting"
    assert "blocklist" not in edge.aliases()


def test_a_viewer_proposes_nothing(edge: World, tokens: dict[str, str]) -> None:
    result = propose(edge.daemon, tokens["looker"])
    assert (result.is_error, texts(result)) == (True, ["token:looker is viewer, this needs operator"])
    assert edge.daemon.services.loop.all() == ()
    with edge.daemon.client(tokens["looker"]) as client:
        assert client.get("/runs").json()["runs"] == []


def test_nothing_that_is_said_by_mcp_approves(edge: World, tokens: dict[str, str], tmp_path: Path) -> None:
    """Every method of the protocol and every tool, with the hash in hand and an admin's token: nothing
    moves."""
    shown = propose(edge.daemon, tokens["assistant"]).structured_content
    given = {name: shown[name] for name in ("session_id", "action_id", "plan_hash")}
    names = (
        "approve",
        "agent_approve",
        "agent.approve",
        "session_approve",
        "reject",
        "confirm",
        "policy_set",
    )
    methods = (
        "agent/approve",
        "tools/approve",
        "completion/complete",
        "elicitation/create",
        "sampling/createMessage",
    )
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}

    async def work() -> Any:
        async with over_stdio(
            environ(tmp_path, edge.daemon.url, tokens["boss"]), tmp_path / "errors"
        ) as client:
            tools = (await client.list_tools()).tools
            for name in names:
                with pytest.raises(MCPError, match="there is no tool"):
                    await client.call_tool(name, given)
            refused = [await client.call_tool(tool.name, {**EDGE, **given}) for tool in tools]
            return tools, refused

    tools, refused = run(work)
    assert [one.is_error for one in refused] == [True] * len(tools)
    for tool in tools:
        assert not re.search(r"plan_hash|action_id|approv", json.dumps(tool.input_schema))
    with edge.daemon.client(tokens["boss"]) as client:
        for method in methods:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": given}
            answer = client.post("/mcp", json=message, headers=headers)
            assert "error" in answer.json(), answer.text
    assert state(edge.daemon, shown["session_id"]) == "waiting"
    assert "blocklist" not in edge.aliases()


def test_a_tool_of_ones_own_is_offered_and_each_use_is_a_proposal(
    edge: World, tokens: dict[str, str]
) -> None:
    record = ToolSpecRecord(
        name="disk_free",
        argv=("/bin/df", "-h", "{path}"),
        description="Free space of a disk.",
        approved_by="uid:0",
        approved=1.0,
        session_id="s-1",
    )
    edge.daemon.call(lambda: edge.daemon.services.store.sessions.put_tool_spec(record))

    async def work() -> Any:
        async with over_http(edge.daemon, tokens["assistant"]) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            return tools["disk_free"], await client.call_tool("disk_free", {"target": "fw-01", "path": "/"})

    tool, refused = run(work)
    assert tool.annotations.read_only_hint is False
    assert tool.description.endswith("It proposes: Free space of a disk.")
    assert refused.is_error is True
    assert texts(refused) == ["`target`: 'fw-01' is none of the targets (there is none)"]
