"""A daemon that means ill, or fell into the wrong hands: the agent's process stays, and stays small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.errors import Refused
from fazai.agent.link.errors import LinkError
from fazai.agent.link.http import ResponseReader
from fazai.agent.messages import read_message
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon, Peer

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def connected(agent: Agent, daemon: Daemon) -> Peer:
    """A daemon's end of a connection that has said hello."""
    agent.configure(f"wss://localhost:{daemon.port}", more="reconcile: {mode: yes}\n")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    return peer


@pytest.mark.parametrize("size", [b"-6", b"+5", b"0x5", b"1_0", b"", b"5 5", b"fffffffff", b"1" * 2000])
def test_the_size_of_a_chunk_is_hexadecimal_digits_and_nothing_else(size: bytes) -> None:
    with pytest.raises(LinkError) as caught:
        ResponseReader().feed(CHUNKED + b"6\r\nabcdef\r\n" + size + b"\r\nx")
    assert caught.value.message == "the answer's chunks are malformed"


def test_an_answer_may_arrive_in_any_pieces() -> None:
    raw = CHUNKED + b"6;x=y\r\nabcdef\r\nB\r\n ghi\r\njkl\r\n\r\n0\r\n\r\nrest"
    for cut in range(1, len(raw) - 4):
        reader = ResponseReader()
        found = reader.feed(raw[:cut]) or reader.feed(raw[cut:])
        assert found is not None, cut
        assert (found.body, found.rest) == (b"abcdef ghi\r\njkl\r\n", b"rest")


def test_many_small_chunks_are_read_once_each_and_bounded() -> None:
    reader = ResponseReader(200_000)
    reader.feed(CHUNKED)

    def feed_for_ever() -> None:
        while reader.feed(b"1\r\na\r\n" * 1000) is None:
            assert len(reader._buffer) < 8

    with pytest.raises(LinkError) as caught:
        feed_for_ever()
    assert caught.value.message == "the answer is over 200000 bytes"
    with pytest.raises(LinkError, match="the answer is over 2097152 bytes"):
        ResponseReader().feed(CHUNKED + b"200001\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        {"contract": "1.\N{SUPERSCRIPT TWO}"},
        {"contract": "1." + "9" * 5000},
        {"contract": {"a": 1}},
        {"policy": {"heartbeat_ms": 2**62}},
        {"policy": {"heartbeat_ms": 2**62, "timeouts": {"exec": 2**62, "diff": 2**62}, "max_output": 2**62}},
    ],
    ids=["digit", "digits", "object", "heartbeat", "timeouts"],
)
def test_numbers_of_hello_that_nobody_can_keep_end_nothing(
    agent: Agent, daemon: Daemon, answer: dict[str, Any]
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.receive()
    policy = {"timeouts": {}, "max_payload": 65_536, **answer.get("policy", {})}
    peer.send({"ok": True, "contract": "1.1", **answer, "policy": policy})
    found = peer.ask(method="file.diff", action_id="d-1", path="/etc/motd", want="")
    assert found["ok"]
    assert agent.stop() == 0


@pytest.mark.parametrize("depth", [120, 500, 900, 100_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_json_that_is_nested_too_deeply_is_refused(
    connected: Peer, depth: int, brackets: tuple[str, str]
) -> None:
    step = '{"write":' + brackets[0] * depth + "1" + brackets[1] * depth + "}"
    head = '{"method":"state.apply","action_id":"a-1","session":"s","timeout":1000,"step":'
    if len(head + step) < 65_000:
        connected.send(head + step + "}")
        answer = connected.receive()
        assert (answer["code"], answer["error"]) == ("bad_json", "the JSON is nested too deeply")
    else:
        with pytest.raises(Refused, match="the JSON is nested too deeply"):
            read_message((head + step + "}").encode())
    assert connected.exec("a-2", "/bin/echo", "well")["stdout"] == "well\n"


def test_more_values_than_there_is_memory_for_are_refused_before_they_are_made() -> None:
    with pytest.raises(Refused) as caught:
        read_message(b'{"method":"x","a":[' + b"[]," * 3_000_000 + b"[]]}", limit_bytes=1 << 26)
    assert caught.value.message == "the message has more than 2000000 values"
    text = json.dumps({"method": "x", "a": 'a,"[{\\' * 1_000_000}).encode()
    assert len(read_message(text, limit_bytes=1 << 26)["a"]) == 6_000_000


def test_a_daemon_that_reads_nothing_does_not_fill_the_memory(connected: Peer, agent: Agent) -> None:
    before = _memory_kib(agent.process.pid)
    sock = connected._socket
    sock.settimeout(5.0)

    def ask_for_ever() -> None:
        while True:  # each four bytes ask for an answer of a hundred
            sock.sendall(b"\x81\x02{}" * 8192)

    with connected._lock, pytest.raises(OSError, match="timed out"):
        ask_for_ever()
    assert _memory_kib(agent.process.pid) - before < 40_000
    assert agent.process.poll() is None


def test_a_long_reason_is_cut(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.receive()
    peer.send({"ok": False, "code": "c" * 50_000, "error": "e" * 900_000})
    said = agent.wait_said("the daemon refused this agent")
    assert max(map(len, said.splitlines())) < 700


def _memory_kib(number: int) -> int:
    text = Path(f"/proc/{number}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
