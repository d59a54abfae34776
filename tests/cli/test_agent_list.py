"""`fazai agents list`, and what else the command line asks the daemon's registry: agents that somebody
installed by hand."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fazai.cli.agents.registry import ask_same_place, make_token_here
from fazai.cli.clients import DaemonAddress
from fazai.cli.main import main
from fazai.errors import InputError
from fazai.files import mark_folder
from fazai.pki import Authority
from fazai.pki.reading import fingerprint_of
from fazai.store.certificates import Revocation
from tests.daemon.live import live, token, until
from tests.daemon.southbound.conftest import make_world
from tests.daemon.southbound.world import World

__all__ = ["make_world"]

Said = tuple[int, str, str]
Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))

    def run_command(*words: str) -> Said:
        capsys.readouterr()
        code = main([*map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_command


@pytest.fixture
def daemon(
    make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[World]:
    with make_world(local=tmp_path / "daemon.sock") as made:
        monkeypatch.setenv("FAZAI_URL", made.live.url)
        monkeypatch.setenv("FAZAI_AGENTS_URL", f"unix:{made.socket}")
        yield made


def names(found: Said) -> list[str]:
    assert found[0] == 0, found
    return [row["agent_id"] for row in json.loads(found[1])]


def test_all_agents_that_the_daemon_knows(daemon: World, run: Run) -> None:
    empty = run("agents", "list")
    assert empty == (0, "", "no agent has connected yet\n")
    with daemon.agent("edge-1"), daemon.agent("edge-2"):
        with daemon.agent("db-1"):
            pass
        until(lambda: daemon.row("db-1")["state"] == "closing")
        code, table, _ = run("agents", "list")
        assert code == 0
        head, db, first, _ = table.splitlines()
        assert " ".join(head.split()) == "agent state since version last seen latency last outcome"
        assert (db.split()[:2], first.split()[:2]) == (["db-1", "closing"], ["edge-1", "observation"])
        assert str(daemon.row("db-1")["last_error"]) in db
        as_json = ("agents", "list", "--output", "json")
        rows = json.loads(run(*as_json)[1])
        assert [(row["agent_id"], row["connected"]) for row in rows] == [
            ("db-1", False),
            ("edge-1", True),
            ("edge-2", True),
        ]
        assert set(daemon.row("edge-1")) <= set(rows[1])  # as the daemon says them, and whether it is there
        assert names(run(*as_json, "edge-*", "!edge-1")) == ["edge-2"]
        assert names(run(*as_json, "--state", "away")) == ["db-1"]
        both = ("--state", "observation", "--state", "closing")
        assert names(run(*as_json, *both)) == [
            "db-1",
            "edge-1",
            "edge-2",
        ]
        assert names(run(*as_json, "db-1", "--state", "connected")) == []
        assert "daemon" in names(run(*as_json, "--all"))
        code, _, said = run("agents", "list", "edge-11")
        assert code == 3
        assert "no agent is called 'edge-11'" in said
        assert 'did you mean "edge-1"?' in said


def test_agents_that_were_removed_are_listed_on_demand(daemon: World, run: Run) -> None:
    as_json = ("agents", "list", "--output", "json")
    with daemon.agent("edge-1"), daemon.agent("edge-2"):
        daemon.certificates.revoke(Revocation("edge-2", time.time(), "sold"))
        until(lambda: names(run(*as_json)) == ["edge-1"])
        assert {"edge-1", "edge-2", "daemon"} <= set(names(run(*as_json, "--all")))
        assert names(run(*as_json, "--state", "removed")) == ["edge-2"]
        assert "edge-2" not in names(run(*as_json, "--state", "away", "--all"))
        _, line = run("agents", "list", "--state", "removed")[1].splitlines()
        assert line.split()[:2] == ["edge-2", "removed"]
        assert "the certificate of edge-2 was revoked at " in line
        code, _, said = run("agents", "list", "edge-2")
        assert code == 3
        assert "no agent is called 'edge-2'" in said


def test_a_daemon_that_is_not_there_or_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAZAI_URL", f"unix:{tmp_path}/none.sock")
    code, _, said = run("agents", "list")
    assert code == 4
    assert "none.sock: the daemon does not answer" in said
    assert "start one with: fazai daemon; or FAZAI_URL names one" in said
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("FAZAI_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

        answering = threading.Thread(target=answer)
        answering.start()
        code, _, said = run("agents", "list")
        answering.join()
    assert code == 4
    assert "what answers there is no daemon of fazai" in said


def test_without_a_token_it_is_refused(daemon: World, run: Run, tmp_path: Path) -> None:
    token(tmp_path, "night", "viewer")  # from the first token on one is needed
    until(lambda: run("agents", "list")[0] == 7)
    assert "FAZAI_TOKEN_FILE names a file with a token of the role viewer" in run("agents", "list")[2]


def test_the_status_of_agents_that_nobody_declares(daemon: World, run: Run, tmp_path: Path) -> None:
    hosts = {"e1": {"provider": "agent", "agent_id": "edge-1"}, "edge-9": {"provider": "agent"}}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    with daemon.agent("edge-1"):
        code, table, _ = run("agents", "status", str(inventory))
        assert code == 2
        assert table.splitlines()[1].split()[:4] == ["e1", "0.2.0", "yes", "observation"]
        assert "the daemon knows no agent edge-9: it never connected" in table.splitlines()[2]
        code, text, _ = run("agents", "status", str(inventory), "e1", "--output", "json")
        row = json.loads(text)["e1"]["remote"]
        assert (code, row["well"], row["connected"], row["installed"]) == (0, True, True, None)
    until(lambda: daemon.row("edge-1")["state"] == "closing")
    code, text, _ = run("agents", "status", str(inventory), "e1", "--output", "json")
    row = json.loads(text)["e1"]["remote"]
    assert (code, row["well"], row["trouble"]) == (2, False, daemon.row("edge-1")["last_error"])
    code, _, said = run("agents", "restart", str(inventory))
    assert code == 3
    assert "agents that were installed by hand: fazai agents list" in said


def test_enrol_names_the_port_on_which_the_daemon_hears(
    daemon: World, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAZAI_URL", f"unix:{tmp_path}/daemon.sock")
    code, _, said = run("pki", "enrol", "edge-7")
    assert code == 0
    assert f":{daemon.port} --name edge-7\n" in said
    assert "3121" not in said


def test_enrol_says_where_nobody_tells_the_port(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("pki", "init", "--name", "fazai.example.net")[0] == 0
    enrol = ("pki", "enrol", "edge-7")
    command = "fazai agent enrol --daemon wss://fazai.example.net:3121 --name edge-7\n"
    said = run(*enrol)[2]
    assert command in said
    state = f"warning: no daemon runs with the state {tmp_path}/state (FAZAI_STATE_DIR)"
    assert (
        f"{state}, and no other takes the token; 3121 is the port that it has without --agents-port" in said
    )
    monkeypatch.setenv("FAZAI_URL", f"unix:{tmp_path}/daemon.sock")
    said = run(*enrol)[2]
    assert command in said
    assert "the daemon does not answer: " in said
    with live(tmp_path, socket=tmp_path / "daemon.sock"):  # it was started before there was a CA
        said = run(*enrol)[2]
    assert command in said
    assert "the daemon that runs here hears no agents: restart it, now that there is a CA" in said


@pytest.mark.parametrize("other", ["state", "secrets"])
def test_a_token_that_the_daemon_would_not_take_is_not_made(
    daemon: World, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: str
) -> None:
    """Under another state folder than the daemon's, or with another CA."""
    monkeypatch.setenv("FAZAI_URL", f"unix:{tmp_path}/daemon.sock")
    monkeypatch.setenv("FAZAI_STATE_DIR" if other == "state" else "FAZAI_SECRETS", str(tmp_path / "mine"))
    if other == "secrets":
        assert run("pki", "init")[0] == 0
    words = {
        "state": f"the daemon has another state folder than {tmp_path}/mine: it would not take the token",
        "secrets": f"{tmp_path}/mine/pki holds ",
    }
    code, out, said = run("pki", "enrol", "edge-7")
    assert (code, out) == (3, "")
    assert words[other] in said
    assert f"{tmp_path}/daemon.sock" in said
    with pytest.raises(InputError, match="would not take the token"):  # as `host.agent` asks for one
        make_token_here("edge-7")
    assert json.loads(run("pki", "list", "--output", "json")[1])["enrolments"] == []
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    assert run("pki", "enrol", "edge-7")[0] == 0
    assert make_token_here("edge-8").startswith("fza_")


class RereadingDaemon(socketserver.ThreadingUnixStreamServer):
    """Tells the registry of a daemon that has read another CA until it was asked so many times."""

    daemon_threads = True

    def __init__(self, path: Path, state: Path, cas: list[str]) -> None:
        self.state, self.cas, self.asked = mark_folder(state), cas, 0
        super().__init__(str(path), _RegistryHandler)


class _RegistryHandler(BaseHTTPRequestHandler):
    server: RereadingDaemon

    def do_GET(self) -> None:
        cas = self.server.cas
        ca = cas[min(self.server.asked, len(cas) - 1)]
        self.server.asked += 1
        body = json.dumps({"agents": [], "port": 3121, "ca": ca, "state": self.server.state}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def rereading(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[list[str]], RereadingDaemon]]:
    assert run("pki", "init", "--name", "localhost")[0] == 0
    monkeypatch.setenv("FAZAI_URL", f"unix:{tmp_path}/daemon.sock")
    (tmp_path / "state").mkdir(exist_ok=True)
    started: list[tuple[RereadingDaemon, threading.Thread]] = []

    def start(cas: list[str]) -> RereadingDaemon:
        server = RereadingDaemon(tmp_path / "daemon.sock", tmp_path / "state", cas)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("way", ["enrol", "host.agent"])
def test_a_token_waits_until_the_daemon_has_read_the_next_ca(
    run: Run, rereading: Callable[[list[str]], RereadingDaemon], tmp_path: Path, way: str
) -> None:
    """As straight after `fazai pki ca switch`."""
    own = Authority.load(tmp_path / "secrets/pki")
    server = rereading(["0" * 64, "0" * 64, fingerprint_of(own.trusted[0])])
    if way == "enrol":
        code, out, said = run("pki", "enrol", "edge-7")
        assert (code, out[:4]) == (0, "fza_"), said
    else:
        assert make_token_here("edge-7").startswith("fza_")
    assert server.asked == 3


def test_a_daemon_that_does_not_read_the_ca_again_is_said(
    rereading: Callable[[list[str]], RereadingDaemon], tmp_path: Path
) -> None:
    own = Authority.load(tmp_path / "secrets/pki")
    server = rereading(["0" * 64])
    words = f"holds {own.mark}, which it has not read again within 0.2 s: it would not take the token"
    with pytest.raises(InputError, match=words) as failed:
        ask_same_place(DaemonAddress("http://fazai", socket=tmp_path / "daemon.sock"), own, wait_s=0.2)
    assert failed.value.hint == "see its log; or FAZAI_SECRETS as it has it"
    assert server.asked > 1
    server.state = "another"  # that of another state reads another CA
    asked = server.asked
    with pytest.raises(InputError, match=f"holds {own.mark}: it would not take the token"):
        ask_same_place(DaemonAddress("http://fazai", socket=tmp_path / "daemon.sock"), own)
    assert server.asked == asked + 1
