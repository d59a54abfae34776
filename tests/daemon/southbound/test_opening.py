"""When the port is open, and that what goes wrong in it stays in it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fazai.cli.commands import daemon as command
from fazai.daemon import process
from fazai.daemon.runs.config import AgentsConfig, DaemonConfig
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.daemon.settings import DaemonSettings
from fazai.daemon.southbound.transport import listener
from fazai.daemon.southbound.transport.acceptor import check_loop
from fazai.daemon.southbound.trust import PkiTrust, open_trust
from fazai.errors import FazaiError, InputError, SecretError, UsageError
from fazai.pki import Authority as Pki
from fazai.store.certificates import Revocation
from fazai.store.factory import open_certificates
from tests.daemon.live import live, until
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import Authority
from tests.daemon.southbound.client import done, execute
from tests.daemon.southbound.world import World, agents_world


def trust_of(folder: Path) -> PkiTrust:
    (folder / "secrets").mkdir(mode=0o700, exist_ok=True)
    authority = Authority(folder / "secrets/pki")
    return PkiTrust(authority.folder, open_certificates(folder / "state"))


def test_without_an_authority_there_is_no_port(tmp_path: Path) -> None:
    store = open_certificates(tmp_path / "state")
    assert open_trust(tmp_path / "secrets/pki", lambda: store, required=False) is None
    with pytest.raises(SecretError, match=r"there is no .*pki"):
        open_trust(tmp_path / "secrets/pki", lambda: store, required=True)
    with live(tmp_path) as daemon, daemon.client() as http:
        assert daemon.daemon.agent_addresses == []
        assert http.get("/southbound/time").status_code == 200
        csr = "-----BEGIN CERTIFICATE REQUEST-----\n"
        answer = http.post("/southbound/enrol", json={"token": "x" * 20, "csr": csr})
        assert (answer.status_code, answer.json()["error"]) == (
            404,
            "this daemon has no agents (make an authority: fazai pki init)",
        )


@pytest.mark.parametrize("configured", [True, False])
def test_a_port_that_is_taken(tmp_path: Path, configured: bool) -> None:
    """It ends a daemon that was told to have it, and no other."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agents = AgentsConfig(port=taken.getsockname()[1], configured=configured)
        config = DaemonConfig(agents=agents)
        trust = trust_of(tmp_path)
        if configured:
            with (
                pytest.raises(InputError, match=r"it cannot listen on 127\.0\.0\.1 port") as refused,
                live(tmp_path, trust=trust, config=config),
            ):
                pass
            assert (
                refused.value.hint == "is another daemon running? choose with --agents-host and --agents-port"
            )
        else:
            with live(tmp_path, trust=trust, config=config) as daemon, daemon.client() as http:
                assert http.get("/health").status_code == 200
                assert "agents cannot connect: it cannot listen on 127.0.0.1" in daemon.log()


def test_another_event_loop_is_refused() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(UsageError, match="the port for agents needs uvloop, and this event loop is"):
            check_loop(loop)
    finally:
        loop.close()


def test_options_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(process, "serve", lambda settings, store, trust: seen.append((settings, trust)))
    for name in [name for name in os.environ if name.startswith("FAZAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    file = tmp_path / "daemon.yml"
    file.write_text("agents: {host: 0.0.0.0, port: 4444, heartbeat: 5s, output: 1MiB}\n")

    def run(*more: str) -> tuple[DaemonSettings, Any]:
        found = CliRunner().invoke(command.daemon_command, list(more), catch_exceptions=False)
        assert found.exit_code == 0, found.output
        settings, trust = seen.pop()
        return settings, trust

    settings, trust = run()
    assert (settings.config.agents, trust) == (AgentsConfig(), None)
    trust_of(tmp_path)
    settings, trust = run()
    assert (settings.config.agents, trust is None) == (AgentsConfig(), False)
    settings, _ = run("--agents-port", "5555")
    assert settings.config.agents == AgentsConfig(port=5555, configured=True)
    settings, _ = run("--config", str(file), "--agents-host", "::1")
    assert settings.config.agents == AgentsConfig(
        host="::1", port=4444, heartbeat_s=5.0, output_bytes=1 << 20, configured=True
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agents: {prot: 1}", "agents knows no 'prot'"),
        ("agents: {port: 70000}", "port is a number from 0 to 65535"),
        ("agents: {heartbeat: 11m}", "heartbeat is from 1s to 10m"),
        ("agents: 3121", "agents is a mapping"),
    ],
)
def test_wrong_settings_are_said(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "daemon.yml"
    file.write_text(text)
    with pytest.raises(FazaiError, match=says):
        read_daemon_config(file)


def test_a_part_of_the_port_that_fails_begins_again(tmp_path: Path) -> None:
    with agents_world(tmp_path, heartbeat_s=1.0) as world, world.live.client() as http:
        south: Any = world.south
        failed = []

        class Hostile:
            """A session in which there is a defect."""

            is_greeted = False

            def check_alive(self, *_: object) -> None:
                failed.append(1)
                south.sessions.discard(self)
                raise RuntimeError("a defect")

        world.live.call(lambda: south.sessions.add(Hostile()))
        until(lambda: failed)
        until(lambda: "a part of the port for agents ended, and begins again" in world.live.log())
        assert http.get("/health").status_code == 200
        with world.agent() as agent:
            assert agent.ask({"method": "time"})["ok"] is True
            until(lambda: "last_seen" in world.row())


def test_certificates_that_cannot_be_read_leave_everything_as_it_is(world: World) -> None:
    with world.agent() as agent, world.agent("edge-9") as stolen, world.relay() as relay:
        before = world.authority.file.read_text()
        world.authority.file.write_text("no certificate")
        until(lambda: "the certificates of agents: " in world.live.log())
        relay.begin("edge-7", execute("a-1"))
        agent.send(done(agent.recv()))
        assert relay.recv()["answer"]["ok"] is True
        world.certificates.revoke(Revocation("edge-9", time.time(), "stolen"))  # which holds all the same
        assert stolen.closed()[1].startswith("bad_certificate: the certificate of edge-9 was revoked at ")
        world.authority.file.write_text(before)
        with world.agent("edge-8"):
            assert world.row("edge-8")["state"] == "observation"


def test_what_is_no_tls_and_what_is_no_agent_disturbs_nobody(world: World) -> None:
    context = client.tls(world.authority.file, None)
    with world.agent() as agent:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x01\x00", os.urandom(300), b""):
            with socket.create_connection(("127.0.0.1", world.port)) as raw:
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    pass
        for data in (
            b"GET /southbound HTTP/1.1\r\n\r\n",
            b"GET /south",
            b"\0\0\0\0",
            b"POST / HTTP/9\r\n\r\n",
        ):
            with (
                socket.create_connection(("127.0.0.1", world.port)) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as one,
            ):
                one.sendall(data)
                one.settimeout(0.5)
                with contextlib.suppress(OSError):
                    one.recv(4096)
        assert agent.ask({"method": "time"})["ok"] is True
    assert '"level":"error"' not in world.live.log()


def test_those_who_do_not_say_hello_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_STRANGERS", 2)
    with world.agent("edge-7") as known, world.agent(greet=False), world.agent(greet=False) as late:
        with pytest.raises(InvalidStatus, match="503") as refused, world.agent("edge-8"):
            pass
        body = refused.value.response.body.decode()
        assert body.startswith("overloaded: 2 connections have not said hello yet")
        assert known.ask({"method": "time"})["ok"] is True
        assert late.ask({"method": "time"})["ok"] is True


def test_the_daemon_says_where_agents_connect(world: World) -> None:
    where = f"wss://127.0.0.1:{world.port}, {world.socket}"
    assert f"listens on {world.live.url}, {where}" in world.live.log()


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_is_a_problem_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    folder = Authority(tmp_path / "secrets/pki").folder
    authority = Pki.load(folder)
    authority.issue_listener(["localhost"], now=time.time() - 80 * 86400)  # it is time to renew it
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # nothing can be written, also by root
    trust = PkiTrust(folder, open_certificates(tmp_path / "state"))
    os.close(held)
    assert trust.problem is not None
    assert trust.problem.startswith("the certificate of the port is not renewed: ")
    assert trust.listener_context() is not None


def test_a_revocation_that_a_renewal_read_ends_connections_all_the_same(tmp_path: Path) -> None:
    trust = trust_of(tmp_path)
    store = open_certificates(tmp_path / "state")
    trust.refresh()
    store.revoke(Revocation("edge-7", time.time(), "stolen"))
    trust._note_issued()  # as each certificate that is issued does
    assert trust.refresh() is True
    assert trust.refresh() is False


def test_a_daemon_that_stops_says_so(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(agents_world(tmp_path))
        opened = world.agent("edge-7"), world.relay()
        agent, relay = (one.__enter__() for one in opened)
        stack.close()
        assert agent.closed() == (1012, "unavailable: the daemon stops; connect again")
        with pytest.raises(ConnectionClosed, match="unavailable: the daemon stops; connect again"):
            relay.recv()


def test_agents_are_remembered_over_a_restart(tmp_path: Path) -> None:
    with agents_world(tmp_path) as world, world.agent("edge-7"):
        assert world.row()["state"] == "observation"
    trust = PkiTrust(tmp_path / "secrets/pki", open_certificates(tmp_path / "state"))
    agents = AgentsConfig(port=0, socket=tmp_path / "agents.sock", configured=True)
    with live(tmp_path, trust=trust, config=DaemonConfig(agents=agents)) as again, again.client() as http:
        row = http.get("/agents/edge-7").json()["agent"]
        assert (row["state"], row["last_error"]) == ("closing", "it closed the connection")
        with client.local_relay(tmp_path / "agents.sock") as relay:
            answer = relay.ask("edge-7", execute("a-1"))
            assert answer["code"] == "agent_offline"
            assert answer["error"] == "edge-7 is not connected: it closed the connection"
    assert not (tmp_path / "agents.sock").exists()
