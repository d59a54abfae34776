"""The client of the daemon's relay: addresses, one connection for many, what becomes of it when that ends."""

from __future__ import annotations

import asyncio
import http
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from fazai.compat.websocket import accept_value
from fazai.errors import DeviceError, InputError, Refused, SecretError, Unreachable
from fazai.providers.hosts.remote.connection import RelayConnection
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


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the WebSocket of a client."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key")).split(": ")[1]
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
    writer.write("\r\n".join((*lines, f"Sec-WebSocket-Accept: {accept_value(key)}", "", "")).encode())
    await writer.drain()


@asynccontextmanager
async def deaf_daemon(says: bytes, *, times: int = 1, takes: int = 0) -> AsyncIterator[int]:
    """Serve on a port: open each WebSocket, take so many bytes and nothing more, and say something."""
    ends: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        await upgrade(reader, writer)
        await reader.readexactly(takes)
        cast("asyncio.Transport", writer.transport).pause_reading()
        for _ in range(times):
            writer.write(says)
            await writer.drain()
        writer.write(b"\x81\x03all")

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1]
        for writer in ends:
            cast("asyncio.Transport", writer.transport).abort()
            with suppress(OSError):
                await writer.wait_closed()


def test_a_daemon_that_says_goodbye_and_takes_nothing_is_cut_off() -> None:
    async def run() -> None:
        async with deaf_daemon(b"\x88\x02\x03\xe8", takes=1000) as port:  # a close: 1000
            address = find_relay({"FAZAI_AGENTS_URL": f"ws://127.0.0.1:{port}"}, root=False)
            async with AgentRelay(address) as relay:
                long = {**message(1), "text": "x" * (32 << 20)}
                with pytest.raises(Unreachable, match="the connection to the daemon was lost"):
                    await relay.request("web", long, 30)

    asyncio.run(run())


def test_a_daemon_that_pings_and_takes_no_answers_fills_no_memory() -> None:
    async def run() -> int:
        heard = asyncio.Event()
        async with deaf_daemon((b"\x89\x7d" + b"x" * 125) * 1000, times=200) as port:
            lost = asyncio.Event()
            made = RelayConnection(1 << 20, lambda _: heard.set(), lost.set, 60)
            await asyncio.get_running_loop().create_connection(lambda: made, "127.0.0.1", port)
            await made.open("localhost", "/southbound/relay")
            await heard.wait()
            assert made._transport is not None
            waits = made._transport.get_write_buffer_size()
            made.abort()
            await lost.wait()
            return waits

    assert asyncio.run(asyncio.wait_for(run(), 60)) < 2 << 20


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
