"""Both ends notice who is gone; two machines with one name never both act; revocation ends what lives."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from fazai.store.certificates import Revocation
from tests.daemon.live import until
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import DAY
from tests.daemon.southbound.client import execute, hello
from tests.daemon.southbound.world import World


class Wire:
    """A wire between an agent and the daemon that can be cut without a word: neither end sees a close."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ear = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._ear.getsockname()[1])
        self.cut = threading.Event()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self._ear.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                if not self.cut.is_set():
                    other.sendall(data)
            if not self.cut.is_set():
                other.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        for one in (self._ear, *self._ends):
            one.close()


@contextmanager
def wire(world: World) -> Iterator[Wire]:
    made = Wire(world.port)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def quick(make_world: Callable[..., Any]) -> Iterator[World]:
    with make_world(heartbeat_s=0.5) as made:
        yield made


def test_a_black_holed_agent_is_gone_after_three_heartbeats(quick: World) -> None:
    with wire(quick) as cable:
        pair = quick.authority.issue("edge-7")
        opened = client.agent(cable.port, quick.authority.file, pair, "edge-7")
        agent = opened.__enter__()
        agent.socket.ping().wait(10)
        cable.cut.set()
        begun = time.monotonic()
        until(lambda: quick.row()["state"] == "closing")
        assert time.monotonic() - begun > 0.5
        assert quick.row()["last_error"].startswith("no heartbeat for 1.5")
        with quick.relay() as relay:
            assert relay.ask("edge-7", execute("a-1"))["code"] == "agent_offline"
        # when the wire is whole again the agent comes back by itself, and is not taken for another
        cable.cut.clear()
        with quick.agent("edge-7"):
            assert quick.row()["state"] == "observation"


def test_any_frame_is_life(quick: World) -> None:
    with quick.agent() as agent, quick.relay() as relay:
        end = time.monotonic() + 2.5
        number = 0
        while time.monotonic() < end:
            number += 1
            if number % 2:
                assert agent.socket.ping().wait(10)
            else:
                assert agent.ask({"method": "time"})["ok"] is True
            time.sleep(0.2)  # the rhythm is what is tested
        assert relay.rows()["edge-7"]["state"] == "observation"


def test_of_two_machines_with_one_name_the_second_is_refused(world: World) -> None:
    with world.agent(instance="one") as first:
        for _ in range(3):
            with world.agent(greet=False) as second:
                answer = second.greet(instance="two")
                assert (answer["ok"], answer["code"]) == (False, "conflict")
                assert "edge-7 is connected from 127.0.0.1 already, and answers there" in answer["error"]
                assert "was its state folder copied?" in answer["error"]
                assert second.closed()[1].startswith("conflict: edge-7 is connected")
        assert first.ask({"method": "time"})["ok"] is True
        until(lambda: [one for one in world.events("edge-7", "agent") if one["level"] == "error"])
        alarms = [one for one in world.events("edge-7", "agent") if one["level"] == "error"]
        assert len(alarms) == 1
        assert "a second machine with this name, at 127.0.0.1, was refused" in alarms[0]["reason"]


def test_an_agent_that_reconnects_takes_the_place_of_its_own_connection(world: World) -> None:
    with world.agent(instance="one") as old, world.agent(instance="one") as new, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        assert new.recv() == execute("a-1")
        with pytest.raises(ConnectionClosed, match="no close frame"):
            old.recv()
    assert not [one for one in world.events("edge-7", "agent") if one["level"] == "error"]


def test_an_agent_comes_back_while_its_old_connection_is_a_black_hole(world: World) -> None:
    with wire(world) as cable:
        pair = world.authority.issue("edge-7")
        opened = client.agent(cable.port, world.authority.file, pair, "edge-7", instance="one")
        opened.__enter__()
        cable.cut.set()
        with world.agent(instance="two") as agent, world.relay() as relay:  # it does not answer a ping
            relay.begin("edge-7", execute("a-1"))
            assert agent.recv() == execute("a-1")
        assert not [one for one in world.events("edge-7", "agent") if one["level"] == "error"]


def test_revocation_ends_a_living_connection_within_a_second(world: World) -> None:
    pair = world.authority.issue("edge-7")
    with (
        client.agent(world.port, world.authority.file, pair, "edge-7") as agent,
        world.agent("edge-8") as other,
        world.relay() as relay,
    ):
        relay.begin("edge-7", execute("a-1"))
        agent.recv()
        world.certificates.revoke(Revocation("edge-7", time.time(), "stolen"))
        code, reason = agent.closed()
        assert code == 1008
        assert reason.startswith("bad_certificate: the certificate of edge-7 was revoked at ")
        assert relay.recv()["code"] == "agent_lost"
        assert other.ask({"method": "time"})["ok"] is True
    with client.agent(world.port, world.authority.file, pair, "edge-7", greet=False) as agent:
        assert agent.ask(hello("edge-7"))["code"] == "bad_certificate"


def test_a_connection_ends_with_its_certificate(world: World) -> None:
    pair = world.authority.issue("edge-7", end=DAY / 86400 * 3)
    with client.agent(world.port, world.authority.file, pair, "edge-7") as agent:
        assert agent.closed() == (1008, "bad_certificate: the certificate has expired")


def test_who_says_nothing_is_cut_off(make_world: Callable[..., Any]) -> None:
    with make_world() as world:
        world.live.call(lambda: set_head(world, 0.3))
        context = client.tls(world.authority.file, None)
        with (
            socket.create_connection(("127.0.0.1", world.port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as silent,
        ):
            assert silent.recv(1) == b""
        with socket.create_connection(("127.0.0.1", world.port)) as raw:  # not even TLS
            assert raw.recv(1) == b""
        with world.agent(greet=False) as agent:
            assert agent.closed() == (1008, "timeout: no hello came in 0.3 s")
        until(lambda: not world.south.sessions)


def set_head(world: World, seconds: float) -> None:
    """Shortens the time for the first words of a connection."""
    from dataclasses import replace

    listener = world.live.daemon.agent_listener
    assert listener is not None
    listener.pace = replace(listener.pace, head_s=seconds)
