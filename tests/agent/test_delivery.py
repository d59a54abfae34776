"""Every way in which a server fails: nothing is lost, nothing is stored twice, nobody is hammered."""

from __future__ import annotations

import gzip
import json
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import pytest

from fazai import __version__
from tests.agent.conftest import SCRIPT, Agent, tool_folder
from tests.agent.receiver import (
    WAIT_S,
    Behaviour,
    Exchange,
    Receiver,
    half_answer,
    half_headers,
    refuse_with,
    reset,
    store_then_cut,
)

KEY = "correct horse battery staple"
OTHER = "another horse, another staple"


def whole(receiver: Receiver, *, killed: int = 0) -> None:
    """No record is missing: the samples are numbered from 1 without a gap, over all processes. Who was killed
    may have taken one that he could not store any more: its number stays free."""
    numbers = sorted(number for found in receiver.sequences().values() for number in found)
    assert len(numbers) == len(set(numbers))
    missing = set(range(1, numbers[-1] + 1)) - set(numbers)
    assert len(missing) <= killed, numbers


def test_samples_arrive_one_by_one(delivering: Agent, receiver: Receiver) -> None:
    process = delivering.start(STOP_TIMEOUT_S="30")
    receiver.wait_for_records(5)
    assert delivering.stop(process) < 30  # it does not wait for the end of its time
    whole(receiver)
    assert receiver.duplicates == 0
    status = delivering.status()
    assert status["state"] == "stopped"
    assert (status["spool_depth"], status["dropped"], status["failures"]) == ("0", "0", "0")
    assert abs(int(status["last_delivery_at"]) - time.time()) < 60
    request = receiver.requests[0]
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["user-agent"] == f"fazai-telemetry/{__version__}"


def test_once_delivers_and_says_so(delivering: Agent, receiver: Receiver) -> None:
    delivering.run("--once")
    delivering.run("--once", "--splay", "0")
    assert len(receiver.store) == 2
    assert delivering.status()["state"] == "stopped"


def test_once_without_a_server_spools_and_exits_1(agent: Agent) -> None:
    agent.run("--once", code=1)
    time_of_retry = int((agent.state / "backoff").read_text().split()[0])
    assert time_of_retry >= time.time() - 2
    assert agent.status()["spool_depth"] == "1"
    assert "no delivery" in agent.status()["last_error"]


FAILURES: dict[str, Behaviour] = {
    "500": refuse_with(500),
    "500 without a body": refuse_with(500, b""),
    "503": refuse_with(503, Retry_After="0"),
    "404": refuse_with(404),
    "403": refuse_with(403),
    "redirect": refuse_with(302, b"", Location="http://127.0.0.1:9/"),
    "a captive portal": refuse_with(200, b"<html>please log in</html>"),
    "no content": refuse_with(204, b""),
    "half answer": half_answer,
    "half headers": half_headers,
    "reset": reset,
    "answer lost": store_then_cut,
}


#: One after the other; one by one they are left to the slow run.
SEVERAL = tuple(name for name in FAILURES if name != "answer lost")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(SEVERAL, id="several"),
        pytest.param(("answer lost",) * 3, id="answer lost"),
        *(pytest.param((name,) * 3, id=name, marks=pytest.mark.slow) for name in SEVERAL),
    ],
)
def test_after_a_failure_everything_arrives(
    names: tuple[str, ...], delivering: Agent, receiver: Receiver
) -> None:
    receiver.script = [FAILURES[name] for name in names]
    process = delivering.start()
    receiver.wait(lambda r: not r.script, "the failures")
    receiver.wait_for_records(5)
    delivering.stop(process)
    whole(receiver)
    assert receiver.sequences()[process.pid][-1] >= 5
    status = delivering.status()
    assert status["dropped"] == "0"
    assert status["failures"] == "0"
    assert status["last_error"] != ""
    assert (receiver.duplicates > 0) == ("answer lost" in names)


def test_a_server_that_is_away_gets_all_of_it_later_in_batches(agent: Agent) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        agent.settings["SERVER"] = f"http://127.0.0.1:{bound.getsockname()[1]}"
        process = agent.start(BATCH_RECORDS="4", BACKOFF_MAX_S="0.3")
        agent.wait_for_status(lambda s: int(s["spool_depth"]) >= 12, "twelve records in the spool")
        with Receiver().serve(bound) as receiver:
            receiver.wait_for_records(12)
            agent.stop(process)
            whole(receiver)
            assert receiver.duplicates == 0
            assert max(len(request.records) for request in receiver.requests) == 4
    assert "Failed to connect" in agent.log() or "refused" in agent.log()


def test_a_hanging_server_stops_neither_samples_nor_the_end(delivering: Agent, receiver: Receiver) -> None:
    receiver.script = [Exchange.hang]
    process = delivering.start(REQUEST_TIMEOUT_S="0.6")
    receiver.wait(lambda r: len(r.requests) >= 1, "the request that hangs")
    begun = receiver.requests[0].at_s
    receiver.wait_for_records(6)
    delivering.stop(process)
    whole(receiver)
    assert receiver.requests[1].at_s - begun >= 0.5
    stamps = sorted(time for _, time in receiver.store)
    gaps_s = [(b - a).total_seconds() for a, b in pairwise(stamps)]
    assert max(gaps_s) < 0.5  # the samples went on while the request hung


def test_the_end_is_bounded_while_a_request_hangs(delivering: Agent, receiver: Receiver) -> None:
    receiver.script = [Exchange.hang] * 9
    process = delivering.start(STOP_TIMEOUT_S="0.3")
    receiver.wait(lambda r: len(r.requests) >= 1, "the request that hangs")
    assert delivering.stop(process) < 3
    assert int(delivering.status()["spool_depth"]) >= 1
    assert list(delivering.spool.glob("s-*")) != []


@pytest.mark.parametrize("form", ["seconds", pytest.param("date", marks=pytest.mark.slow)])
def test_retry_after_is_kept(form: str, delivering: Agent, receiver: Receiver) -> None:
    def busy(exchange: Exchange) -> None:
        asked = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
        exchange.reply(429, b'{"ok":false,"error":"busy","code":"overloaded"}', Retry_After=asked)

    receiver.script = [busy]
    process = delivering.start(BATCH_RECORDS="100")
    receiver.wait(lambda r: len(r.requests) >= 3, "the third request")
    delivering.stop(process)
    first, second = receiver.requests[:2]
    assert second.at_s - first.at_s >= 0.95
    assert len(receiver.requests[2].records) > 3  # what came in the meantime is one request
    whole(receiver)
    assert "busy" in delivering.log()


def test_retry_after_holds_across_a_restart(delivering: Agent, receiver: Receiver) -> None:
    receiver.script = [
        refuse_with(429, b'{"ok":false,"error":"busy","code":"overloaded"}', Retry_After="600")
    ]
    delivering.run("--once", code=1)
    delivering.run("--once", code=1)
    assert len(receiver.requests) == 1
    assert delivering.status()["spool_depth"] == "2"


def test_a_too_large_batch_is_divided(agent: Agent, receiver: Receiver) -> None:
    fill(agent, 7)
    agent.settings["SERVER"] = receiver.url

    def small(exchange: Exchange) -> None:
        if len(exchange.request_seen.records) > 2:
            exchange.reply(413, b'{"ok":false,"error":"too large","code":"too_large"}')
        else:
            exchange.accept()

    receiver.script = [small] * 40
    agent.run("--once")
    assert len(receiver.store) == 8
    order = [
        sample.time for request in receiver.requests for sample in request.records if len(request.records) < 3
    ]
    assert order == sorted(order)
    assert agent.status()["dropped"] == "0"


def test_a_single_record_that_is_too_large_is_given_up(delivering: Agent, receiver: Receiver) -> None:
    receiver.script = [refuse_with(413, b'{"ok":false,"error":"too large","code":"too_large"}')]
    delivering.run("--once")
    assert receiver.store == {}
    status = delivering.status()
    assert (status["dropped"], status["refused"], status["spool_depth"]) == ("1", "1", "0")


@pytest.mark.parametrize("status", [400, 422])
def test_one_bad_record_takes_no_other_with_it(status: int, agent: Agent, receiver: Receiver) -> None:
    """A server that refuses the whole batch for one record in it."""
    fill(agent, 8)
    agent.settings["SERVER"] = receiver.url
    bad = sorted(stamp for stamp in stamps(agent))[3]

    def strict(exchange: Exchange) -> None:
        if any(sample.fields["timestamp"] == bad for sample in exchange.request_seen.records):
            exchange.reply(status, b'{"ok":false,"error":"one is bad","code":"bad_request"}')
        else:
            exchange.accept()

    receiver.script = [strict] * 40
    agent.run("--once")
    assert {s.fields["timestamp"] for s in receiver.store.values()} >= set(stamps(agent, receiver)) - {bad}
    assert len(receiver.store) == 8
    assert (agent.status()["dropped"], agent.status()["refused"]) == ("1", "1")


@pytest.mark.parametrize("bad", [1, 3])
def test_a_partial_answer_ends_the_batch(bad: int, agent: Agent, receiver: Receiver) -> None:
    fill(agent, 3)
    agent.settings["SERVER"] = receiver.url
    refused = set(sorted(stamps(agent))[:bad])
    receiver.refuses = lambda sample: sample.fields["timestamp"] in refused
    agent.run("--once")
    assert len(receiver.store) == 4 - bad
    assert agent.status()["refused"] == str(bad)
    assert len(receiver.requests) == 2  # nothing was repeated or divided


def test_a_server_without_gzip(delivering: Agent, receiver: Receiver) -> None:
    receiver.script = [refuse_with(415, b'{"ok":false,"error":"no gzip","code":"unsupported"}')]
    receiver.keys = (KEY.encode(),)
    delivering.run("--once", KEY=KEY)
    assert len(receiver.store) == 1
    assert "content-encoding" not in receiver.requests[1].headers


def test_signatures_fit_and_nonces_differ(delivering: Agent, receiver: Receiver) -> None:
    receiver.keys = (KEY.encode(),)
    process = delivering.start(KEY=KEY, ID="web-1")
    receiver.wait_for_records(3)
    delivering.stop(process)
    assert len(receiver.nonces) == len(receiver.requests)
    assert {r.headers["x-fazai-agent"] for r in receiver.requests} == {"web-1"}
    assert delivering.status()["key"] == "KEY"


@pytest.mark.parametrize("length", [16, 63, 64, 65, 256])
def test_keys_of_every_length(length: int, delivering: Agent, receiver: Receiver) -> None:
    key = "".join(chr(33 + i % 94) for i in range(length)).replace("'", "x")
    receiver.keys = (key.encode(),)
    delivering.run("--once", KEY=key)
    assert len(receiver.store) == 1


def test_signed_with_openssl_alone(delivering: Agent, receiver: Receiver, tmp_path: Path) -> None:
    delivering.environment["PATH"] = tool_folder(tmp_path / "bin", without=("sha256sum", "gzip"))
    receiver.keys = (KEY.encode(),)
    delivering.run("--once", KEY=KEY)
    assert len(receiver.store) == 1
    assert "content-encoding" not in receiver.requests[0].headers


def test_the_previous_key_is_used_while_the_server_has_only_that(
    delivering: Agent, receiver: Receiver
) -> None:
    receiver.keys = (OTHER.encode(),)
    process = delivering.start(KEY=KEY, KEY_PREVIOUS=OTHER)
    receiver.wait_for_records(2)
    with receiver.changed:
        receiver.keys = (KEY.encode(),)  # the server's change comes later
    known = len(receiver.store)
    receiver.wait_for_records(known + 2)
    delivering.stop(process)
    whole(receiver)
    assert delivering.status()["key"] == "KEY"
    assert delivering.status()["dropped"] == "0"


def test_a_refused_key_is_said_and_keeps_the_spool(delivering: Agent, receiver: Receiver) -> None:
    receiver.keys = (OTHER.encode(),)
    delivering.run("--once", KEY=KEY, code=1)
    status = delivering.status()
    assert "401" in status["last_error"]
    assert "signature" in status["last_error"]
    assert status["spool_depth"] == "1"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("offset_s", [86400.0, -86400.0])
def test_a_wrong_clock_is_reported_and_not_fatal(
    offset_s: float, delivering: Agent, receiver: Receiver
) -> None:
    receiver.keys, receiver.clock_offset_s = (KEY.encode(),), offset_s
    process = delivering.start(KEY=KEY)
    receiver.wait_for_records(3)
    delivering.stop(process)
    whole(receiver)
    assert abs(int(delivering.status()["clock_skew_s"]) + offset_s) <= 2
    last = max(receiver.store.values(), key=lambda sample: sample.time)
    assert abs(last.fields["agent"]["clock_skew_s"] + offset_s) <= 2
    assert sum("bad_clock" in line for line in delivering.log().splitlines()) == 0
    assert "the clock differs" in delivering.log()


def test_a_replayed_nonce_is_tried_once_more(delivering: Agent, receiver: Receiver) -> None:
    receiver.script = [refuse_with(401, b'{"ok":false,"error":"seen","code":"replayed"}')]
    delivering.run("--once", KEY=KEY)
    assert len({r.headers["x-fazai-nonce"] for r in receiver.requests}) == 2


def test_a_bearer_token_reaches_the_server(delivering: Agent, receiver: Receiver) -> None:
    delivering.run("--once", TOKEN='to"ken\\with quotes')
    assert receiver.requests[0].headers["authorization"] == 'Bearer to"ken\\with quotes'


def test_secrets_are_on_no_command_line_and_in_no_environment(
    delivering: Agent, receiver: Receiver, tmp_path: Path
) -> None:
    """Every tool first notes all command lines and environments that it can see, of the whole machine."""
    key, token = secrets.token_hex(16), secrets.token_hex(16)  # no other process has these
    seen = tmp_path / "seen"
    seen.mkdir()
    spies = {}
    for tool in ("curl", "openssl", "sha256sum", "awk", "gzip", "mv"):
        note = f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >{seen}/{tool}.$$ 2>/dev/null"
        spies[tool] = f'{note}; exec {shutil.which(tool)} "$@"'
    for without in (("openssl",), ("sha256sum",)):
        name = "without-" + without[0]
        delivering.environment["PATH"] = tool_folder(tmp_path / name, spies, without)
        config = tmp_path / f"{name}.env"
        config.write_text(f"FAZAI_AGENT_KEY='{key}'\nFAZAI_AGENT_TOKEN={token}\n")
        config.chmod(0o600)
        receiver.keys = (key.encode(),)
        delivering.run("--once", "--config", str(config))
    assert len(receiver.store) == 2
    notes = {path.name: path.read_bytes() for path in seen.iterdir()}
    assert {name.split(".")[0] for name in notes} == set(spies)
    for name, text in notes.items():
        assert str(SCRIPT).encode() in text, name  # it did look at the agent
        assert key.encode() not in text, name
        assert token.encode() not in text, name


def test_two_agents_do_not_share_a_folder(delivering: Agent, receiver: Receiver) -> None:
    process = delivering.start()
    receiver.wait_for_records(1)
    done = delivering.run("--once", code=5)
    assert str(process.pid) in done.stderr.decode()
    delivering.stop(process)
    delivering.run("--once")


def test_a_signal_takes_a_sample_now(delivering: Agent, receiver: Receiver) -> None:

    process = delivering.start(INTERVAL_S="3600")
    receiver.wait_for_records(1)
    process.send_signal(signal.SIGUSR1)
    receiver.wait_for_records(2)
    delivering.stop(process)


def fill(agent: Agent, count: int) -> None:
    """`count` records in one closed segment, made by the agent while no server is there."""
    process = agent.start(
        SERVER="http://127.0.0.1:9", BATCH_RECORDS=str(count), BACKOFF_MIN_S="60", BACKOFF_MAX_S="60"
    )
    agent.wait_for_status(lambda s: int(s["spool_depth"]) >= 1, "the first record")
    agent.wait_for_status(lambda s: int(s["spool_depth"]) >= count, "the records")
    process.kill()
    process.wait()
    gather(agent, count)


def gather(agent: Agent, count: int) -> None:
    """Exactly `count` records as one segment, in the agent's own form."""
    lines = lines_of(agent)[:count]
    for path in agent.spool.iterdir():
        path.unlink()
    (agent.state / "backoff").unlink(missing_ok=True)
    agent.spool.joinpath(f"s-{1:012d}-{int(time.time()):010d}-{count:05d}.ndjson").write_bytes(
        b"".join(lines)
    )


def lines_of(agent: Agent) -> list[bytes]:

    found: list[bytes] = []
    for path in [*sorted(agent.spool.glob("s-*.ndjson*")), agent.spool / "current.ndjson"]:
        if path.suffix == ".tmp" or not path.exists():
            continue
        data = path.read_bytes()
        found += (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines(keepends=True)
    return found


def stamps(agent: Agent, receiver: Receiver | None = None) -> list[str]:

    if receiver is not None:
        return [sample.fields["timestamp"] for sample in receiver.store.values()]
    return [json.loads(line)["timestamp"] for line in lines_of(agent)]


_MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    " -days 2 -subj /CN=lab -addext subjectAltName=IP:127.0.0.1"
)


def test_the_certificate_is_checked_unless_said_otherwise(agent: Agent, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [*_MAKE_CERTIFICATE.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        bound = context.wrap_socket(plain, server_side=True)
        agent.settings["SERVER"] = f"https://127.0.0.1:{bound.getsockname()[1]}"
        with Receiver().serve(bound) as receiver:
            agent.run("--once", code=1)
            assert "certificate" in agent.status()["last_error"]
            assert receiver.requests == []
            (agent.state / "backoff").unlink()
            agent.run("--once", CA_FILE=str(certificate))
            assert len(receiver.store) == 2
            agent.run("--once", TLS_VERIFY="no")
            assert agent.status()["tls_verify"] == "no"
            assert len(receiver.store) == 3


def proxy_before(answer: bytes) -> tuple[socket.socket, threading.Thread, list[bytes]]:
    """A proxy for plain http that gives one answer of its own to whatever it is asked."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(WAIT_S)
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(WAIT_S)
                heard.append(connection.recv(65536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return listening, thread, heard


@pytest.fixture
def proxied(agent: Agent) -> Iterator[Callable[[bytes], list[bytes]]]:
    """Puts a proxy into the agent's environment, for a server that it alone could reach."""
    open_: list[tuple[socket.socket, threading.Thread]] = []

    def begin(answer: bytes) -> list[bytes]:
        listening, thread, heard = proxy_before(answer)
        open_.append((listening, thread))
        agent.environment["http_proxy"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        agent.settings |= {"SERVER": "http://fazai.example.net:3120", "ALLOW_HTTP": "yes"}
        return heard

    yield begin
    for listening, thread in open_:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(WAIT_S)


def test_the_last_head_counts(agent: Agent, proxied: Callable[[bytes], list[bytes]]) -> None:
    """A proxy's head, with headers of its own, stands before that of the server."""
    date = formatdate(time.time() - 7200, usegmt=True)
    text = b'{"ok":false,"error":"your clock","code":"bad_clock"}'
    heard = proxied(
        b"HTTP/1.1 103 Early Hints\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: 7\r\n\r\n"
        b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (date.encode(), len(text), text)
    )
    agent.run("--once", code=1, KEY=KEY, BACKOFF_MIN_S="60", BACKOFF_MAX_S="60")  # no second round
    assert 7190 <= int(agent.status()["clock_skew_s"]) <= 7300
    assert len(heard) == 2  # signed once more with the server's time
    stamps = [
        int(line.split()[1]) for one in heard for line in one.splitlines() if b"X-Fazai-Timestamp" in line
    ]
    assert 7000 < stamps[0] - stamps[1] < 7400


def test_a_proxy_hides_no_retry_after(agent: Agent, proxied: Callable[[bytes], list[bytes]]) -> None:
    proxied(
        b"HTTP/1.1 103 Early Hints\r\nVia: 1.1 proxy\r\n\r\n"
        b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 120\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    agent.run("--once", code=1)
    until = int((agent.state / "backoff").read_text().split()[0])
    assert until - time.time() > 100


def test_this_machine_is_reached_without_a_proxy(
    delivering: Agent, receiver: Receiver, proxied: Callable[[bytes], list[bytes]]
) -> None:
    url = delivering.settings["SERVER"]
    heard = proxied(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}')
    delivering.settings["SERVER"] = url
    del delivering.settings["ALLOW_HTTP"]
    delivering.environment["all_proxy"] = delivering.environment["http_proxy"]
    delivering.run("--once", TOKEN="not-for-a-proxy")
    assert len(receiver.store) == 1
    assert heard == []


def test_a_name_that_begins_like_loopback_is_another_host(agent: Agent) -> None:
    agent.settings["SERVER"] = "http://127.example.net:3120"
    said = agent.run("--once", code=3).stderr.decode()
    assert "plain http to another host" in said
