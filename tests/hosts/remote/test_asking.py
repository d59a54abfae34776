"""What hosts of one run have in common is worked out once, and is what it would be for each alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from fazai.errors import Unreachable
from fazai.model import Resource, Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.planning import HostObservation, SeenFields
from fazai.providers.hosts.remote.asking import SharedMessages
from fazai.providers.hosts.remote.messages import encode_resource
from fazai.providers.hosts.remote.relay import AgentRelay, Relays, find_relay
from fazai.providers.hosts.remote.session import AgentSession
from fazai.providers.hosts.remote.values import Malformed, decode_value, encode_value
from tests.hosts.remote.relay import RelayServer

KINDS = load_host_kinds()
#: Values that Python calls equal, and that are not the same item.
ALIKE: tuple[Any, ...] = (
    {"uid": 0},
    {"uid": False},
    {"uid": 0.0},
    {"uid": -0.0},
    {"uid": ""},
    {"uid": None},
    {"uid": [0]},
    {"uid": {"$tuple": [0]}},
    {"uid": {"$secret": "0"}},
    {"uid": {"$bytes": "MA=="}},
    {"gid": 0},
)


def resource(path: str = "/etc/motd", text: str = "hello\n") -> Resource:
    fields, problems = KINDS["host.file"].normalise({"path": path, "content": text}, "present")
    assert not problems
    return Resource("host.file", path, fields)


def test_the_same_resources_are_encoded_once_and_as_always() -> None:
    shared, listed = SharedMessages(), [resource(), resource("/etc/issue", "x" * 5000)]
    found = shared.encode(listed, KINDS)
    assert found == [encode_resource(each, KINDS[each.kind].by_hash) for each in listed]
    assert shared.encode(tuple(listed), KINDS) is found
    assert shared.encode(listed[:1], KINDS) == found[:1]
    other = shared.encode([resource(), listed[1]], KINDS)
    assert other == found
    assert other is not found
    for number in range(200):  # what is no longer kept is made anew
        shared.encode([resource(text=str(number))], KINDS)
    assert shared.encode(listed, KINDS) == found


def test_items_that_are_alike_and_not_the_same_are_not_taken_for_one_another() -> None:
    shared = SharedMessages()
    for _ in range(2):
        for data in ALIKE:
            found = shared.decode(data)
            assert encode_value(found) == encode_value(decode_value(data)) == data
            assert repr(dict(found)) == repr(decode_value(data))
    assert shared.decode(dict(ALIKE[0])) is shared.decode(dict(ALIKE[0]))
    with pytest.raises(Malformed, match="no item"):
        shared.decode({"$tuple": []})
    deep: list[Any] = []
    for _ in range(5000):  # which JSON may bring where Python reads it as deep
        deep = [deep]
    with pytest.raises(Malformed, match="nested too deeply"):
        shared.decode({"content": deep})
    long = {"content": "x" * 10_000}
    assert shared.decode(long) == shared.decode(long)


def test_the_digest_is_that_of_items_which_are_not_shared() -> None:
    key = ("host.file", "/etc/motd")
    for data in ALIKE:
        plain = HostObservation({key: decode_value(data)}, {})
        assert HostObservation({key: SeenFields(decode_value(data))}, {}).digest == plain.digest


def test_many_hosts_are_asked_with_the_same_bytes() -> None:
    item = {"fields": {"mode": "0644", "owner": "root", "group": "root"}}
    empty: Mapping[str, Any] = {"root": "", "places": {}, "folders": {}, "links": {}}

    async def answer(message: Mapping[str, Any]) -> Mapping[str, Any]:
        seen = {**empty, "items": [item] * len(message["resources"])}
        return {"ok": True, "action_id": message["action_id"], "observation": seen}

    names = [f"h{number}" for number in range(50)]
    with RelayServer(dict.fromkeys(names, answer)) as server:
        address, relays = find_relay({"FAZAI_AGENTS_URL": server.url}, root=False), Relays()
        wanted = [resource(), resource("/etc/issue")]

        async def look(name: str) -> Any:
            target = Target(name, "agent", "write", {})
            way = relays.use(address)
            async with AgentSession(target, KINDS, way, name, timeout_s=10, shared=relays.shared) as session:
                return (await session.observe(wanted)).items[wanted[0].kind, wanted[0].identity]

        async def run() -> list[Any]:
            async with relays.use(address):
                return await asyncio.gather(*map(look, names))

        shared = relays.shared
        items = asyncio.run(run())
        assert all(each is items[0] for each in items)
        assert relays.shared is not shared  # nobody uses it any more
    asked = [json.dumps(frame["message"].pop("resources")) for frame in server.frames]
    assert len(asked) == 50
    assert set(asked) == {json.dumps(shared.encode(wanted, KINDS))}
    assert {frame["agent"] for frame in server.frames} == set(names)
    assert len({frame["message"]["action_id"] for frame in server.frames}) == 50


def test_a_daemon_that_falls_silent_is_given_up() -> None:
    async def run() -> None:
        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from fazai.compat.websocket import accept_value

            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = head.partition("Sec-WebSocket-Key: ")[2].split("\r\n")[0]
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept_value(key).encode() + b"\r\n\r\n"
            )
            await reader.read()
            writer.close()

        async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            address = find_relay({"FAZAI_AGENTS_URL": f"ws://127.0.0.1:{port}"}, root=False)
            async with AgentRelay(address, ping_s=0.1) as relay:
                with pytest.raises(Unreachable, match="the connection to the daemon was lost") as lost:
                    await relay.request("web", {"method": "state.observe", "action_id": "a"}, 30)
                assert lost.value.stage == "read"

    asyncio.run(run())
