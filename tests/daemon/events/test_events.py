"""GET /events against a running daemon: order, filters, replay, gaps, slow readers, farewell."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fazai.daemon.events.broadcaster import Broadcaster
from fazai.daemon.settings import ServerLimits
from fazai.outcome import TargetStatus
from fazai.store.daemon import NewEvent, StoreLimits
from fazai.timestamps import utc_now
from fazai.wire.events import EVENT_TYPES, GapEvent, LogEvent, OutcomeEvent, RunEvent
from tests.contract import SseFrame, decode_sse
from tests.daemon.live import PATIENCE_S, Live, live, stream, until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("daemon")) as found:
        yield found


def _log(text: str, level: str = "info", **ids: str) -> LogEvent:
    return LogEvent(timestamp=utc_now(), level=level, message=text, **ids)  # type: ignore[arg-type]


def _messages(frames: list[SseFrame]) -> list[str]:
    return [getattr(frame.event, "message", "?") for frame in frames]


def test_events_arrive_in_order_with_growing_ids(daemon: Live) -> None:
    with daemon.client() as client, stream(client) as events:
        ids = daemon.publish(*(_log(f"n{number}") for number in range(50)))
        got = events.take(50)
        assert [frame.id for frame in got] == ids == sorted(set(ids))
        assert _messages(got) == [f"n{number}" for number in range(50)]
        assert events.answer.headers["content-type"] == "text/event-stream"
        assert any(line.startswith("retry:") for line in events.lines)


def test_a_stream_begins_now_unless_asked(daemon: Live) -> None:
    before = daemon.publish(_log("old"), _log("older"))
    with daemon.client() as client:
        with stream(client) as events:
            daemon.publish(_log("new"))
            assert _messages(events.take(1)) == ["new"]
        for query, headers in ((f"?since={before[0]}", {}), ("", {"Last-Event-ID": str(before[0])})):
            with stream(client, query, **headers) as events:
                assert _messages(events.take(2)) == ["older", "new"]
        with stream(client, f"?since={before[0]}", **{"Last-Event-ID": str(before[1])}) as events:
            assert _messages(events.take(1)) == ["new"]


def test_since_a_time(daemon: Live) -> None:
    daemon.publish(_log("before the moment"))
    moment = time.time_ns() // 1000 + 1
    while time.time_ns() // 1000 <= moment + 1000:
        pass
    daemon.publish(_log("after the moment"))
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment // 1_000_000)) + f".{moment % 1_000_000:06d}Z"
    with daemon.client() as client, stream(client, f"?since_time={at}") as events:
        assert _messages(events.take(1)) == ["after the moment"]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"])
def test_since_a_time_at_the_ends_of_time(daemon: Live, at: str) -> None:
    with daemon.client() as client:
        assert client.get(f"/events?since_time={at}&follow=false").status_code == 200


FILTERS = {
    "types=outcome": ["outcome fw-01", "outcome fw-02"],
    "types=outcome,run": ["run r-1", "outcome fw-01", "outcome fw-02"],
    "target=fw-01": ["log at fw-01", "outcome fw-01"],
    "run=r-1": ["run r-1", "outcome fw-01"],
    "session=s-1": ["log of s-1"],
    "agent=a-1": ["log of a-1"],
    "level=error&types=log": ["log grave"],
    "types=log&level=warning&target=fw-01": ["log at fw-01"],
}


@pytest.mark.parametrize("query", FILTERS)
def test_filters_hold_for_replay_and_live(daemon: Live, query: str) -> None:
    def publish() -> int:
        return daemon.publish(
            RunEvent(timestamp=utc_now(), run_id="r-1", state="started"),
            _log("at fw-01", "warning", target="fw-01"),
            _log("of s-1", "debug", session_id="s-1"),
            _log("of a-1", "debug", agent_id="a-1"),
            _log("grave", "error"),
            OutcomeEvent(timestamp=utc_now(), target="fw-01", status=TargetStatus.CHANGED, run_id="r-1"),
            OutcomeEvent(timestamp=utc_now(), target="fw-02", status=TargetStatus.FAILED, run_id="r-2"),
        )[0]

    since = publish() - 1
    wanted = FILTERS[query]
    with daemon.client() as client, stream(client, f"?{query}&since={since}") as events:
        assert [_said(frame) for frame in events.take(len(wanted))] == wanted
        publish()
        assert [_said(frame) for frame in events.take(len(wanted))] == wanted


def _said(frame: SseFrame) -> str:
    event = frame.event
    if isinstance(event, OutcomeEvent):
        return f"outcome {event.target}"
    if isinstance(event, RunEvent):
        return f"run {event.run_id}"
    assert isinstance(event, LogEvent)
    return f"log {event.message}"


BAD = {
    "since=x": "`since`",
    "since=-1": "`since`",
    "level=loud": "`level`: there is no 'loud'",
    "types=nope": "`types`: there is no 'nope'",
    "types=log,outcomes": "`types`: there is no 'outcomes'",
    "types=log,": "`types`: there is no ''",
    "follow=maybe": "follow",
    "colour=red": "colour",
    "since=1&since=2": "twice",
    "since_time=yesterday": "since_time",
    "types=%ff": "",
}


@pytest.mark.parametrize("query", BAD)
def test_a_wrong_query_is_refused(daemon: Live, query: str) -> None:
    with daemon.client() as client:
        answer = client.get(f"/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_query"
    assert BAD[query] in answer.json()["error"]


def test_a_wrong_word_of_a_query_is_answered_with_those_that_there_are(daemon: Live) -> None:
    queries = ("types=outcomes", "types=zzz", "level=loud")
    with daemon.client() as client:
        near, far, level = (client.get(f"/events?{query}").json()["error"] for query in queries)
    assert near == "`types`: there is no 'outcomes' (did you mean \"outcome\"?)"
    assert far == f"`types`: there is no 'zzz' (there are: {', '.join(sorted(EVENT_TYPES))})"
    assert level == "`level`: there is no 'loud' (there are: critical, debug, error, info, warning)"


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_each_type_of_events_can_be_asked_for(daemon: Live, name: str) -> None:
    with daemon.client() as client:
        assert client.get(f"/events?types={name}&follow=false").status_code == 200


def test_a_wrong_last_event_id_is_refused(daemon: Live) -> None:
    with daemon.client() as client:
        answer = client.get("/events", headers={"Last-Event-ID": "one"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_query")


def test_head_of_a_stream_ends(daemon: Live) -> None:
    with daemon.client() as client:
        assert client.head("/events").status_code == 200


def test_a_long_replay_is_complete_and_goes_on_live(daemon: Live) -> None:
    first = daemon.publish(*(_log(f"{number} {'x' * 500}") for number in range(5000)))
    with daemon.client() as client, stream(client, f"?since={first[0] - 1}") as events:
        got = events.take(5000)
        more = daemon.publish(_log("live"))
        assert [frame.id for frame in got] == first
        assert events.next().id == more[0]


def test_trimmed_history_is_a_gap(tmp_path: Path) -> None:
    with live(tmp_path, StoreLimits(events_bytes=200_000, upkeep_s=0.05)) as daemon:
        for _ in range(8):
            daemon.publish(*(_log("x" * 1000) for _ in range(200)))
        until(lambda: daemon.services.store.event_range()[0] > 2)
        daemon.call(daemon.services.broadcaster.forget_recent)
        with daemon.client() as client, stream(client, "?since=1") as events:
            gap = events.next()
            assert isinstance(gap.event, GapEvent)
            assert (gap.event.lost_from, gap.event.reason) == (2, "trimmed")
            assert gap.id == gap.event.lost_to
            found = events.next()
            while isinstance(found.event, GapEvent):  # trimmed further meanwhile
                assert found.event.lost_from == gap.event.lost_to + 1
                gap, found = found, events.next()
                assert isinstance(gap.event, GapEvent)
            last = gap.event
            assert isinstance(last, GapEvent)
            assert found.id == last.lost_to + 1


def test_heartbeats(tmp_path: Path) -> None:
    with (
        live(tmp_path, limits=ServerLimits(heartbeat_s=0.05)) as daemon,
        daemon.client() as client,
        client.stream("GET", "/events") as answer,
    ):
        seen = 0
        for line in answer.iter_lines():
            seen += line == ": "
            if seen == 3:
                break
        assert seen == 3


def _raw(daemon: Live, size: int) -> socket.socket:
    """A reader with a small window that reads nothing by itself."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    found.connect(("127.0.0.1", daemon.port))
    found.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    found.settimeout(PATIENCE_S)
    head = b""
    while b"\n\n" not in head.partition(b": fazai")[2]:
        head += found.recv(1)
    return found


def test_a_reader_that_stalls_is_cut_off_and_misses_nothing_when_it_comes_back(tmp_path: Path) -> None:
    with live(tmp_path) as daemon:
        broadcaster, clock = daemon.services.broadcaster, [0.0]
        broadcaster.monotonic = lambda: clock[0]  # it stands still: nobody stalls, however long this takes
        with _raw(daemon, 4096) as slow:
            _stall(daemon, slow, broadcaster, clock)


def _stall(daemon: Live, slow: socket.socket, broadcaster: Broadcaster, clock: list[float]) -> None:
    ids: list[int] = []
    with daemon.client() as client, stream(client) as quick:
        for _ in range(20):
            ids += daemon.publish(*(_log("y" * 6000) for _ in range(100)))
            assert [frame.id for frame in quick.take(100)] == ids[-100:]  # nobody else suffers
    assert broadcaster.cut_off == 0

    def later() -> int:
        clock[0] += broadcaster.stall_s
        return broadcaster.cut_off

    until(later)
    assert broadcaster.cut_off == 1
    got = _frames(slow)
    gap = got[-1]
    assert isinstance(gap.event, GapEvent)
    assert gap.event.reason == "slow_reader"
    assert gap.id == got[-2].id == gap.event.lost_from - 1
    assert gap.event.lost_to in ids
    with daemon.client() as client, stream(client, **{"Last-Event-ID": str(gap.id)}) as events:
        again = events.take(ids[-1] - gap.id)
    assert [frame.id for frame in got[:-1]] + [frame.id for frame in again] == ids


def _frames(reader: socket.socket) -> list[SseFrame]:
    raw = b""
    while part := reader.recv(65536):
        raw += part
    body = b""
    rest = raw.lstrip(b"\r\n")
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return [decode_sse(frame + b"\n\n") for frame in body.split(b"\n\n") if frame.startswith(b"id:")]


def test_a_slow_reader_that_keeps_reading_gets_everything(tmp_path: Path) -> None:
    with live(tmp_path, limits=ServerLimits(recent_bytes=200_000)) as daemon, daemon.client() as client:
        with stream(client) as events:
            ids: list[int] = []
            for _ in range(20):  # far more than memory and sockets hold, before anything is read
                ids += daemon.publish(*(_log("z" * 2000) for _ in range(200)))
            assert [frame.id for frame in events.take(len(ids))] == ids
        assert daemon.services.broadcaster.cut_off == 0


def test_farewell(tmp_path: Path) -> None:
    """At once: it does not wait until what is left would be cut off."""
    limits = ServerLimits(stop_s=2 * PATIENCE_S)
    with live(tmp_path, limits=limits) as daemon, daemon.client() as client:
        with stream(client, "?types=outcome") as events:
            daemon.loop.call_soon_threadsafe(daemon.daemon.stop)
            last = events.rest()
        assert _messages(last)[-1].endswith("stops; connect again")


def test_a_stream_that_closes_is_forgotten(daemon: Live) -> None:
    broadcaster = daemon.services.broadcaster
    until(lambda: not broadcaster.streams)  # those of the tests before
    with daemon.client() as client, stream(client, "?target=nobody"):
        assert len(broadcaster.streams) == 1
    until(lambda: not broadcaster.streams)
    assert all(group for group in daemon.call(lambda: list(broadcaster._groups.values())))


def test_an_id_of_another_log_begins_anew(daemon: Live) -> None:
    first = daemon.services.store.event_range()[0]
    with daemon.client() as client, stream(client, "?since=999999999") as events:
        assert events.next().id == first


def test_http_of_a_stream(daemon: Live) -> None:
    with httpx.Client(base_url=daemon.url, trust_env=False, verify=False) as client:
        answer = client.post("/health")
        assert answer.status_code == 405
        assert answer.json()["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "GET, HEAD"


def test_events_of_an_earlier_release_get_their_time(tmp_path: Path) -> None:
    """It stored some without one."""
    with live(tmp_path, limits=ServerLimits(recent_bytes=0)) as daemon, daemon.client() as client:
        old = b'{"type":"agent","agent_id":"o-1","state":"closing"}'
        before = utc_now()
        daemon.call(lambda: daemon.services.store.publish([NewEvent("agent", old)]))
        with stream(client, "?since=0&follow=false&types=agent") as events:
            (found,) = events.rest()
        assert before <= found.event.timestamp <= utc_now()  # type: ignore[operator]
