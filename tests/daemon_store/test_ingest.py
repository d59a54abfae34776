"""POST /ingest below HTTP: bodies, verdicts, signatures, shares, silence."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.daemon.events.announcer import Announcer
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.asgi import IngestRoute
from fazai.daemon.ingest.deadman import HostWatch, WatchRules
from fazai.daemon.ingest.hostkeys import HostKeys
from fazai.daemon.ingest.pipeline import Ingest, IngestRules
from fazai.daemon.ingest.records import inflate, read_records
from fazai.daemon.metrics import Exposition
from fazai.errors import SecretError
from fazai.service.log import Log
from fazai.store.daemon import GAUGES
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.wire.base import WireError
from fazai.wire.signature import sign
from fazai.wire.telemetry import MAX_INGEST_BYTES
from tests.contract import Batch, decode_telemetry
from tests.daemon_store.conftest import Clock

NOW_US = 1_795_320_000_000_000  # 2026-11-22T04:00:00Z
KEY, NEXT_KEY = b"0123456789abcdef0123", b"abcdef0123456789abcd"


class Gate:
    """Lets everybody in who has no token."""

    def renew_in_time(self) -> bool:
        return True

    async def refresh(self) -> None:
        pass

    def authorize(self, scope: Any) -> None:
        if (b"authorization", b"no") in scope["headers"]:
            raise Refusal("unauthorized", "no")


class Bench:
    """An ingest whose clocks stand still, and its route."""

    def __init__(self, store: SqliteDaemonStore, clock: Clock, *, signed: bool = False) -> None:
        self.store, self.clock, self.now_s = store, clock, 1000.0
        self.watch = HostWatch(WatchRules(), lambda: self.now_s)
        self.admission = Admission(1 << 20, lambda: 0.5)
        self.exposition = Exposition(store.counts, self.watch.count_hosts)
        self.ingest = Ingest(
            store,
            self.exposition,
            self.watch,
            self.admission,
            keys_of={"web-1": (KEY, NEXT_KEY)}.get,  # type: ignore[arg-type]
            now_us=clock,
            rules=IngestRules(signed=signed),
            announcer=Announcer(store, Log()),
        )
        self.reports: list[str] = []
        self.route = IngestRoute(self.ingest, Gate(), self.reports.append)

    def post(self, *parts: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Through the route, as an ASGI server calls it."""
        return asyncio.run(self.posting(*parts, headers=headers))

    async def posting(
        self, *parts: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        given_ = {"content-type": "application/json", **(headers or {})}
        scope = {
            "method": "POST",
            "raw_path": b"/ingest",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given_.items()],
        }
        waiting = list(parts)
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not waiting:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.route(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    def page(self) -> str:
        return self.exposition.render().decode()


@pytest.fixture
def bench(store: SqliteDaemonStore, clock: Clock) -> Bench:
    clock.now_us = NOW_US
    return Bench(store, clock)


def record(host: str = "web-1", minute: int = 0, **fields: Any) -> dict[str, Any]:
    return {"hostname": host, "timestamp": f"2026-11-22T03:{minute:02d}:00Z", **fields}


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def signed_headers(
    body: bytes, *, agent: str = "web-1", key: bytes = KEY, nonce: str = "n" * 16, at_s: int
) -> dict[str, str]:
    signature = sign(key, timestamp=str(at_s), nonce=nonce, method="POST", path="/ingest", body=body)
    return {
        "X-Fazai-Agent": agent,
        "X-Fazai-Timestamp": str(at_s),
        "X-Fazai-Nonce": nonce,
        "X-Fazai-Signature": signature,
    }


BODIES = {
    "object": (dump(record()), 200, {"ok": True, "accepted": 1, "duplicates": 0}),
    "pretty": (json.dumps(record(), indent=2).encode(), 200, {"ok": True, "accepted": 1, "duplicates": 0}),
    "array": (dump([record(), record("b"), record()]), 200, {"ok": True, "accepted": 2, "duplicates": 1}),
    "lines": (
        b"\n".join(dump(record(minute=n)) for n in range(3)) + b"\n",
        200,
        {"ok": True, "accepted": 3, "duplicates": 0},
    ),
    "same moment": (
        dump([record(), {"hostname": "web-1", "timestamp": "2026-11-22T04:00:00+01:00"}]),
        200,
        {"ok": True, "accepted": 1, "duplicates": 1},
    ),
    "empty array": (b"[]", 200, {"ok": True, "accepted": 0, "duplicates": 0}),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(bench: Bench, name: str) -> None:
    body, status, answer = BODIES[name]
    assert bench.post(body) == (status, answer)


def test_the_payload_of_existing_agents_is_kept_as_it_came(bench: Bench) -> None:
    body = (
        b'{"hostname":"web-1","timestamp":"2026-11-22T03:04:00+00:00","processes":"  PID\\n 1 systemd\\n",'
        b'"netstat":"x","iostat":"",'
        b'"os":{"hostname":"web-1","load":[0.42,0.31,0.3],"mem":{"total":8322002944,"free":1204031488}},'
        b'"more": {"of": ["what", 1.50, "we do not know"]}}'
    )
    assert bench.post(body)[0] == 200
    ((_, stored),) = asyncio.run(bench.store.records("web-1"))
    assert stored == body
    found = bench.store.host("web-1")
    assert found is not None
    gauges = dict(zip(GAUGES, found.gauges, strict=True))
    assert (gauges["load1"], gauges["memory_free_bytes"]) == (0.42, 1204031488)


def test_bad_records_have_their_index(bench: Bench) -> None:
    body = dump([record(), {"hostname": "b"}, 7, record("c", cpu={"percent": "much"}), record("d")])
    status, answer = bench.post(body)
    assert (status, answer["ok"], answer["accepted"]) == (200, False, 2)
    assert [error["index"] for error in answer["errors"]] == [1, 2, 3]
    assert "timestamp" in answer["errors"][0]["error"]
    assert "cpu.percent" in answer["errors"][2]["error"]
    assert bench.post(dump([{"hostname": "b"}]))[0] == 422
    again = bench.post(dump([record(), {"hostname": "b"}]))
    assert (again[0], again[1]["duplicates"]) == (200, 1)


def test_what_has_no_form_is_refused(bench: Bench) -> None:
    for body, code in (
        (b'{"hostname":', "bad_json"),
        (b"", "bad_json"),
        (b"7", "bad_request"),
        (b"\xff{}", "bad_json"),
    ):
        with pytest.raises(WireError) as caught:
            bench.post(body)
        assert caught.value.code == code, body


def test_gzip_and_its_cap(bench: Bench) -> None:
    headers = {"content-encoding": "gzip"}
    body = b"\n".join(dump(record(minute=n)) for n in range(3))
    assert bench.post(gzip.compress(body), headers=headers)[1]["accepted"] == 3
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"
    for bad, code in (
        (gzip.compress(b" " * (MAX_INGEST_BYTES + 1)), "too_large"),
        (gzip.compress(body)[:-9], "bad_request"),
        (b"no gzip", "bad_request"),
    ):
        with pytest.raises(WireError) as caught:
            bench.post(bad, headers=headers)
        assert caught.value.code == code


def test_media(bench: Bench) -> None:
    for number, media in enumerate(
        ("application/x-ndjson; charset=utf-8", "text/plain", "application/x-www-form-urlencoded")
    ):
        assert bench.post(dump(record(minute=number)), headers={"content-type": media})[0] == 200
    for headers in ({"content-type": "text/html"}, {"content-encoding": "br"}):
        with pytest.raises(WireError) as caught:
            bench.post(dump(record()), headers=headers)
        assert caught.value.code == "unsupported_media_type"


def test_a_body_in_parts_and_its_limit(bench: Bench) -> None:
    body = dump(record())
    assert bench.post(body[:10], body[10:50], body[50:])[1]["accepted"] == 1
    with pytest.raises(WireError) as caught:
        bench.post(b"[" + b" " * MAX_INGEST_BYTES, b"]")
    assert caught.value.code == "too_large"
    with pytest.raises(WireError) as caught:
        bench.post(b"", headers={"content-length": str(MAX_INGEST_BYTES + 1)})
    assert caught.value.code == "too_large"
    assert bench.admission.total_bytes == 0


def test_unsigned_needs_a_token_where_the_guard_says_so(bench: Bench) -> None:
    with pytest.raises(WireError) as caught:
        bench.post(dump(record()), headers={"authorization": "no"})
    assert caught.value.code == "unauthorized"


# -- signatures


def test_a_signature_is_good_once(tmp_path: Path, clock: Clock) -> None:
    clock.now_us = NOW_US
    store = SqliteDaemonStore(tmp_path, None, clock)
    bench = Bench(store, clock, signed=True)
    at_s = clock.now_us // 1_000_000
    body = dump(record())
    headers = signed_headers(body, at_s=at_s)
    assert bench.post(body, headers=headers)[1]["accepted"] == 1
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            bench.post(body, headers=headers)
        assert caught.value.code == "replayed"
        store.close()  # nor after a restart
        store = SqliteDaemonStore(tmp_path, None, clock)
        bench = Bench(store, clock, signed=True)
    rotated = signed_headers(body, key=NEXT_KEY, nonce="m" * 16, at_s=at_s)
    assert bench.post(body, headers=rotated)[1]["duplicates"] == 1
    store.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": b"another key of ours"}, "bad_signature"),
        ({"agent": "nobody"}, "bad_signature"),
        ({"at_s": 0}, "bad_clock"),
        (None, "bad_signature"),
    ],
    ids=["key", "agent", "clock", "none"],
)
def test_what_is_not_signed_well(
    store: SqliteDaemonStore, clock: Clock, change: dict[str, Any] | None, code: str
) -> None:
    bench = Bench(store, clock, signed=True)
    body = dump(record())
    given_ = {"at_s": clock.now_us // 1_000_000, **(change or {})}
    with pytest.raises(WireError) as caught:
        bench.post(body, headers=None if change is None else signed_headers(body, **given_))
    assert caught.value.code == code
    assert store.hosts() == []


def test_a_key_speaks_for_its_host_alone(bench: Bench, clock: Clock) -> None:
    body = dump([record("other"), {"hostname": "x"}, record()])
    status, answer = bench.post(body, headers=signed_headers(body, at_s=clock.now_us // 1_000_000))
    assert (status, answer["accepted"]) == (200, 1)
    assert [error["index"] for error in answer["errors"]] == [0, 1]
    assert "signed by 'web-1'" in answer["errors"][0]["error"]


def test_key_files(tmp_path: Path) -> None:
    folder = tmp_path / "hosts"
    folder.mkdir(mode=0o700)
    keys = HostKeys(folder, uid=os.geteuid())
    assert keys.keys_of("web-1") == ()
    assert keys.keys_of("../web-1") == ()
    path = folder / "web-1.key"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    assert keys.keys_of("web-1") == (KEY,)
    path.write_bytes(KEY + b"\n" + NEXT_KEY + b"\n")
    assert keys.keys_of("web-1") == (KEY, NEXT_KEY)
    for mode, text in ((0o644, KEY), (0o600, b"short"), (0o600, b"\n".join([KEY] * 3))):
        path.write_bytes(text)
        path.chmod(mode)
        with pytest.raises(SecretError) as caught:
            keys.keys_of("web-1")
        assert KEY.decode() not in str(caught.value)


# -- shares


def test_one_sender_does_not_take_the_place_of_others() -> None:
    admission = Admission(1000, lambda: 0.5)
    admission.hold("a", 490)
    with pytest.raises(Refusal) as caught:
        admission.hold("a", 900)
    assert caught.value.code == "overloaded"
    admission.hold("b", 200)
    with pytest.raises(Refusal, match="more than its share"):
        admission.hold("a", 20)  # more than half, with two of them
    admission.hold("c", 200)
    admission.release("a", 490)
    admission.release("b", 200)
    admission.release("c", 200)
    assert admission.total_bytes == 0
    admission.hold("a", 5000)  # a single large body on an idle daemon


def test_those_who_are_refused_come_back_spread() -> None:
    chance = iter([0.0, 0.25, 0.5, 0.75, 1.0])
    admission = Admission(100, lambda: next(chance))
    admission.hold("a", 100)
    waits = []
    for _ in range(5):
        with pytest.raises(Refusal) as caught:
            admission.hold("b", 10)
        waits.append(int(dict(caught.value.headers)[b"retry-after"]))
    assert waits == sorted(set(waits))
    assert waits[-1] - waits[0] >= 10


def test_a_refused_body_is_not_stored(bench: Bench) -> None:
    async def main() -> list[Any]:
        bodies = [dump(record(f"h{n % 3}", n, text="x" * 100_000)) for n in range(40)]
        return list(await asyncio.gather(*(bench.posting(body) for body in bodies), return_exceptions=True))

    answers = asyncio.run(main())
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert refused
    assert all(one.code == "overloaded" for one in refused)
    assert sum(record.records for record in bench.store.hosts()) == 40 - len(refused)
    assert bench.admission.total_bytes == 0


# -- silence


def events(bench: Bench) -> list[tuple[str, str]]:
    found = [json.loads(event.data) for event in asyncio.run(bench.store.events_after(0))]
    return [(event["state"], event["reason"]) for event in found if event["type"] == "agent"]


def test_a_host_that_stops_is_an_event_and_a_metric(bench: Bench) -> None:
    body = [record(minute=n, agent={"interval": 30}) for n in range(2)]
    bench.post(dump(body))
    assert 'fazai_host_up{host="web-1"} 1' in bench.page()
    assert 'fazai_host_report_interval_seconds{host="web-1"} 30' in bench.page()
    bench.now_s += 89
    assert asyncio.run(bench.ingest.sweep()) == []
    bench.now_s += 2
    asyncio.run(bench.ingest.sweep())
    asyncio.run(bench.ingest.sweep())
    assert events(bench) == [
        ("observation", "its first record"),
        ("closing", "no record for 91 s, one every 30 s was expected"),
    ]
    page = bench.page()
    assert 'fazai_host_up{host="web-1"} 0' in page
    assert 'fazai_hosts{state="silent"} 1.0' in page
    assert 'fazai_host_last_seen_timestamp_seconds{host="web-1"}' in page
    found = bench.store.host("web-1")
    assert found is not None
    assert found.silent
    bench.now_s += 300
    asyncio.run(bench.ingest.sweep())
    page = bench.page()
    assert "fazai_host_last_seen_timestamp_seconds" not in page  # gone with its TTL
    assert 'fazai_host_up{host="web-1"} 0' in page
    bench.post(dump(record(minute=9)))
    asyncio.run(bench.ingest.sweep())
    assert events(bench)[2:] == [("observation", "reports again after 391 s")]
    assert 'fazai_host_up{host="web-1"} 1' in bench.page()


def test_a_restart_neither_forgets_nor_repeats_silence(bench: Bench, clock: Clock) -> None:
    bench.post(dump([record("a", agent={"interval": 10}), record("b", agent={"interval": 10})]))
    bench.now_s += 31
    bench.post(dump(record("b", 1)))
    asyncio.run(bench.ingest.sweep())
    said = len(events(bench))
    again = Bench(bench.store, clock)
    again.ingest.restore()
    page = again.page()
    assert 'fazai_host_up{host="a"} 0' in page
    assert 'fazai_host_up{host="b"} 1' in page
    again.now_s += 20
    asyncio.run(again.ingest.sweep())
    assert len(events(again)) == said  # b has its time again
    again.now_s += 20
    asyncio.run(again.ingest.sweep())
    assert events(again)[said:] == [("closing", "no record for 40 s, one every 10 s was expected")]


def test_a_host_is_forgotten_in_the_end(bench: Bench) -> None:
    bench.post(dump(record()))
    bench.now_s += 31 * 86_400
    asyncio.run(bench.ingest.sweep())
    assert bench.store.hosts() == []
    assert "web-1" not in bench.page()


# -- anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "hostname": st.sampled_from(["a", "b", "", "a b", 7]),
        "timestamp": st.sampled_from(
            ["2026-11-22T03:04:00Z", "2026-11-22", "0001-01-01T00:00:00+14:00", "now", None]
        )
        | st.datetimes().map(lambda moment: moment.isoformat()),
        "os": st.fixed_dictionaries({}, optional={"load": JSON, "mem": JSON}),
        "mem": st.fixed_dictionaries({}, optional={"total": st.integers(), "free": JSON}),
        "net": JSON,
        "uptime": JSON,
        "x": JSON,
    },
)
RECORDS = st.lists(FIELDS | JSON, max_size=6)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    found = draw(RECORDS)
    form = draw(st.sampled_from(["array", "lines", "one", "noise", "cut"]))
    if form == "noise":
        return draw(st.binary(max_size=200))
    if form == "array":
        return json.dumps(found).encode()
    text = "\n".join(json.dumps(one) for one in (found if form == "lines" else found[:1])).encode()
    return text[: draw(st.integers(0, len(text)))] if form == "cut" else text


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies())
def test_any_body_is_read_as_the_contract_says(body: bytes) -> None:
    _check_body(body)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies())
def test_very_many_bodies_are_read_as_the_contract_says(body: bytes) -> None:
    _check_body(body)


def _check_body(body: bytes) -> None:
    """Never another exception, and the same verdict as the wire's own reader."""
    wanted = _read_by_contract(body)
    if isinstance(wanted, str):
        with pytest.raises(WireError) as caught:
            read_records(body)
        assert caught.value.code == wanted
        return
    found = read_records(body)
    assert [error.index for error in found.errors] == [error.index for error in wanted.errors]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [(one.host, epoch + timedelta(microseconds=one.time_us)) for one in found.samples] == [
        (one.record.hostname, one.time) for one in wanted.samples
    ]
    for one, expected in zip(found.samples, wanted.samples, strict=True):
        assert msgspec.json.decode(one.body) == expected.fields


def _read_by_contract(body: bytes) -> Batch | str:
    """What the wire's own reader says; the code of its refusal."""
    try:
        return decode_telemetry(body)
    except WireError as error:
        return error.code


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    store = SqliteDaemonStore(tmp_path_factory.mktemp("state"))
    yield Bench(store, Clock(time.time_ns() // 1000))
    store.close()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(body=bodies())
def test_every_record_is_accepted_refused_or_a_duplicate(shared: Bench, body: bytes) -> None:
    try:
        count = len(read_records(body).samples) + len(read_records(body).errors)
        status, answer = shared.post(body)
    except WireError:
        return
    assert answer["accepted"] + answer.get("duplicates", 0) + len(answer.get("errors", ())) == count
    assert status in (200, 422)
    again = shared.post(body)[1]
    assert again["accepted"] == 0  # idempotent


def test_a_body_of_very_many_gzip_members_is_refused() -> None:
    """Each one costs a copy of the rest."""
    member = gzip.compress(b" ")
    assert inflate(member * 1000) == b" " * 1000
    with pytest.raises(WireError, match="members"):
        inflate(member * 1001)
