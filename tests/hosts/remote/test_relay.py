"""The client of the daemon's relay: addresses, one connection for many, what becomes of it when that ends."""

from __future__ import annotations

import asyncio
import http
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from fazai.errors import DeviceError, InputError, Refused, SecretError, Unreachable
from fazai.providers.hosts.remote.relay import AgentRelay, RelayAddress, Relays, find_relay
from tests.hosts.remote.relay import RelayServer


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("unix:/run/x.sock", RelayAddress("ws://agents/southbound/relay", socket=Path("/run/x.sock"))),
        ("wss://fazai.example", RelayAddress("wss://fazai.example:3121/southbound/relay")),
        ("wss://fazai.example:443/x/relay", RelayAddress("wss://fazai.example:443/x/relay")),
        ("wss://[2001:db8::1]/", RelayAddress("wss://[2001:db8::1]:3121/southbound/relay")),
        ("ws://127.0.0.1:5", RelayAddress("ws://127.0.0.1:5/southbound/relay")),
    ],
)
def test_addresses(url: str, found: RelayAddress) -> None:
    assert find_relay({"FAZAI_AGENTS_URL": url}, root=False) == found
    assert find_relay({"FAZAI_AGENTS_URL": "wss://other"}, root=False, url=url) == found


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://fazai.example", "is no address of agents"),
        ("wss://", "is no address of agents"),
        ("wss://fazai.example:port", "is no address of agents"),
        ("wss://me:secret@fazai.example", "a daemon's address has no user and no password"),
        ("ws://fazai.example", "a token goes to ws://fazai.example in the clear"),
    ],
)
def test_what_is_no_address(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        find_relay({"FAZAI_AGENTS_URL": url}, root=False)
    assert "secret" not in str(refused.value)


def test_the_local_socket_stands_beside_the_daemons(tmp_path: Path) -> None:
    found = find_relay({"FAZAI_STATE_DIR": str(tmp_path)}, root=False)
    assert found.socket == tmp_path / "agents.sock"
    found = find_relay({"FAZAI_SOCKET": "/run/other/d.sock"}, root=False)
    assert found.socket == Path("/run/other/agents.sock")


def test_a_daemon_that_is_named_by_its_socket_is_asked_for_its_agents(tmp_path: Path) -> None:
    environ = {"FAZAI_STATE_DIR": str(tmp_path), "FAZAI_URL": "unix:/run/other/d.sock"}
    assert find_relay(environ, root=False).socket == Path("/run/other/agents.sock")
    environ["FAZAI_URL"] = "https://fazai.example.net:3120"
    assert find_relay(environ, root=False).socket == tmp_path / "agents.sock"


def message(number: int, method: str = "state.observe") -> dict[str, Any]:
    return {"method": method, "action_id": f"a{number}"}


async def echo(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"ok": True, "action_id": message["action_id"]}


def test_many_share_one_connection_which_ends_with_the_last() -> None:
    with RelayServer({"web": echo}) as server:
        address = find_relay({"FAZAI_AGENTS_URL": server.url}, root=False)
        relays = Relays()

        async def ask(number: int) -> Any:
            async with relays.use(address) as relay:
                return (await relay.request("web", message(number), 10))["action_id"]

        async def run() -> list[Any]:
            async with relays.use(address):
                return await asyncio.gather(*map(ask, range(200)))

        assert asyncio.run(run()) == [f"a{number}" for number in range(200)]
        assert server.connections == 1
        asyncio.run(run())
        assert server.connections == 2
    assert relays._shared == {}


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("agent_offline", Unreachable, "the agent cannot be asked: why"),
        ("agent_unknown", Unreachable, "no agent: why"),
        ("overloaded", Unreachable, "the agent cannot be asked: why"),
        ("agent_lost", Unreachable, "the agent was lost: why"),
        ("timeout", Unreachable, "the agent was lost: why"),
        ("unknown_method", Refused, "the agent cannot be asked for that: why"),
        ("forbidden", Refused, "the agent cannot be asked for that: why"),
        ("conflict", DeviceError, r"the daemon does not pass it on \(conflict\): why"),
        (None, DeviceError, "the daemon does not pass it on"),
    ],
)
def test_what_the_daemon_says_of_an_agent(code: Any, error: type[Exception], said: str) -> None:
    async def run() -> None:
        async with serve(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AgentRelay(RelayAddress(f"ws://127.0.0.1:{port}/southbound/relay")) as relay:
                with pytest.raises(error, match=said) as refused:
                    await relay.request("web", message(1), 10)
                if isinstance(refused.value, Unreachable):
                    sent = code in ("agent_lost", "timeout")
                    assert (refused.value.stage != "connect") is sent

    async def talk(connection: ServerConnection) -> None:
        async for _ in connection:
            await connection.send('{"no json"')
            await connection.send('{"id": 77, "answer": {}}')
            await connection.send(json.dumps({"id": 1, "error": "why", "code": code}))

    asyncio.run(run())


def test_a_connection_that_ends_fails_who_waits_and_is_made_anew() -> None:
    with RelayServer({"web": echo}) as server:
        address = find_relay({"FAZAI_AGENTS_URL": server.url}, root=False)

        async def run() -> None:
            async with AgentRelay(address) as relay:
                server.cut.add("state.apply")
                with pytest.raises(Unreachable, match="the connection to the daemon was lost") as lost:
                    await relay.request("web", message(1, "state.apply"), 10)
                assert lost.value.stage == "read"
                server.cut.clear()
                assert (await relay.request("web", message(2), 10))["action_id"] == "a2"

        asyncio.run(run())
        assert server.connections == 2


def test_who_waits_in_vain_has_it_cancelled() -> None:
    async def never(message: Mapping[str, Any]) -> Mapping[str, Any]:
        await asyncio.sleep(1)
        return {}

    with RelayServer({"web": never}) as server:
        address = find_relay({"FAZAI_AGENTS_URL": server.url}, root=False)

        async def run() -> None:
            async with AgentRelay(address) as relay:
                with pytest.raises(Unreachable, match=r"web: no answer through the daemon within 0\.2 s"):
                    await relay.request("web", message(1), 0.2)
                waiting = asyncio.ensure_future(relay.request("web", message(2), 10))
                while len(server.frames) < 3:  # noqa: ASYNC110 - another thread fills it
                    await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting

        asyncio.run(run())
    sent = [(frame["message"]["method"], frame["message"]["action_id"]) for frame in server.frames]
    assert sent == [("state.observe", "a1"), ("cancel", "a1"), ("state.observe", "a2"), ("cancel", "a2")]


def test_a_token_is_read_from_a_file_of_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t0ken\n")
    seen: list[str] = []

    def look(connection: ServerConnection, request: Request) -> Response | None:
        seen.append(request.headers["Authorization"])
        return connection.respond(http.HTTPStatus.FORBIDDEN, "forbidden: viewer, this needs operator")

    async def run() -> None:
        async with serve(lambda connection: asyncio.sleep(0), "127.0.0.1", 0, process_request=look) as server:
            port = server.sockets[0].getsockname()[1]
            environ = {"FAZAI_AGENTS_URL": f"ws://127.0.0.1:{port}", "FAZAI_TOKEN_FILE": str(file)}
            async with AgentRelay(find_relay(environ, root=False)) as relay:
                file.chmod(0o644)
                with pytest.raises(SecretError, match="others may read it"):
                    await relay.request("web", message(1), 10)
                file.chmod(0o600)
                said = "does not let us ask agents: forbidden: viewer, this needs operator"
                with pytest.raises(Refused, match=said) as refused:
                    await relay.request("web", message(1), 10)
                assert "t0ken" not in str(refused.value)

    asyncio.run(run())
    assert seen == ["Bearer t0ken"]


def test_who_does_not_speak_is_no_daemon() -> None:
    with socket.socket() as quiet:
        quiet.bind(("127.0.0.1", 0))

        async def run() -> None:
            url = f"ws://127.0.0.1:{quiet.getsockname()[1]}"
            async with AgentRelay(find_relay({"FAZAI_AGENTS_URL": url}, root=False)) as relay:
                with pytest.raises(Unreachable, match="no daemon to ask agents through at ws://") as away:
                    await relay.request("web", message(1), 10)
                assert away.value.stage == "connect"

        asyncio.run(run())
