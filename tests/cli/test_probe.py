"""`fazai probe` against servers on loopback: what is printed, and how it ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.cli.main import main
from tests.probes.servers import answer_http, in_a_thread, serve_dns, serve_tcp


@pytest.fixture
def servers() -> Iterator[tuple[int, int]]:
    """The ports of a web server and of a DNS server."""
    web = answer_http(b"HTTP/1.1 200 OK\r\nServer: \x1b[2Jx\r\nContent-Length: 2\r\n\r\nhi")
    named = serve_dns(lambda name, type_: ["192.0.2.1"])
    with in_a_thread(serve_tcp(web)) as http, in_a_thread(named) as (dns, _):
        yield http, dns


def test_several_targets_at_once(servers: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    web, dns = servers
    assert main(["probe", "tcp", "127.0.0.1", f"127.0.0.1:{web}", str(web)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"ok    tcp   127.0.0.1:{web}: it is open (127.0.0.1, ") for line in lines)
    assert main(["probe", "dns", "a.example", "b.example", "a", "--server", f"127.0.0.1:{dns}"]) == 0
    assert "ok    dns   b.example A: 192.0.2.1 (127.0.0.1, " in capsys.readouterr().out


def test_one_target_shows_its_facts(servers: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "http", f"http://127.0.0.1:{servers[0]}/"]) == 0
    said = capsys.readouterr().out
    assert "      status          200\n" in said
    assert "      server          [2Jx\n" in said


def test_a_finding_is_exit_1_and_json_has_everything(
    servers: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        closed = held.getsockname()[1]
        words = ["probe", "tcp", f"127.0.0.1:{closed}", f"127.0.0.1:{servers[0]}", "--output", "json"]
        assert main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "fazai-probe/1"
    assert [one["ok"] for one in found["probes"]] == [False, True]
    assert found["probes"][0]["why"].startswith("it is not open: ")
    assert main(["probe", "http", f"http://127.0.0.1:{servers[0]}/", "--status", "404"]) == 1
    assert "it answers 200, not 404" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("tcp web-01", "'web-01' has no port"),
        ("tcp 127.0.0.1 0", "0 is no port"),
        ("http ftp://x/", "is no URL of a web server"),
        ("dns a.example --server dns.example", "'dns.example' is no address of a DNS server"),
        ("dnsbl 10.0.0.1", "'10.0.0.1' is no public address"),
        ("ping a..b", "'a..b' is no host"),
        ("tls x --ca none.pem", 'there is no CA file "none.pem"'),
    ],
)
def test_nonsense_is_bad_input(
    words: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["probe", *words.split()]) == 3
    assert text in capsys.readouterr().err


def test_what_can_be_asked_is_asked_beside_what_cannot(
    servers: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "tcp", "a..b", "127.0.0.1", str(servers[0])]) == 3
    said = capsys.readouterr()
    assert "127.0.0.1" in said.out
    assert "'a..b' is no host" in said.err
