"""Telemetry on its way in: records go to the store, figures to the exposition, silence to the event log."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fazai.daemon.events.announcer import Announcer, row_of
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.deadman import HostChange, HostWatch, WatchRules
from fazai.daemon.ingest.hostkeys import HostKeys
from fazai.daemon.ingest.records import ParsedRecords, inflate, read_one, read_records
from fazai.daemon.metrics import Exposition
from fazai.errors import StateError
from fazai.service.prometheus import Family, Histogram, Metric
from fazai.store.daemon import AgentRecord, DaemonStore, HostRecord, NewEvent, NewSample, Nonce
from fazai.timestamps import timestamp, utc_now
from fazai.wire.base import WireError, encode
from fazai.wire.events import AgentEvent, AgentState, Level, TelemetryEvent
from fazai.wire.signature import MAX_SKEW_S, SignedHeaders, verify_signature
from fazai.wire.telemetry import IngestAnswer, IngestError, IngestPartialAnswer

_LOGGER = "fazai.daemon.ingest"
_AHEAD_US = 86_400 * 1_000_000  # by which a host's clock may be fast
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Codes that are on the page before they happen: a rate needs a beginning.
_REFUSALS = (
    *("bad_json", "bad_request", "too_large", "unsupported_media_type", "overloaded", "unavailable"),
    *("bad_signature", "bad_clock", "replayed", "unauthorized", "forbidden"),
)
_RECORDS = Metric("fazai_ingest_records_total", "counter", "Records, by what became of them.", ("result",))
_REFUSED = Metric(
    "fazai_ingest_refusals_total",
    "counter",
    "Requests that were refused as a whole, by the error's code.",
    ("code",),
)
_WAITING = Metric("fazai_ingest_waiting_bytes", "gauge", "Received and not on disk yet.")
_OVERLOADED = Metric("fazai_ingest_overloaded_total", "counter", "Requests that were told to come later.")
_IN_THREAD_BYTES = 512 << 10  # a body from this size on is read in a thread: others must not wait for it


class IngestReply(NamedTuple):
    """The answer to a client: HTTP status and body."""

    status: int
    body: bytes


_ACCEPTED = IngestReply(200, encode(IngestAnswer(accepted=1, duplicates=0)))
_DUPLICATE = IngestReply(200, encode(IngestAnswer(accepted=0, duplicates=1)))


@dataclass(frozen=True, slots=True)
class IngestRules:
    """The rules of what is accepted. `signed`: unsigned requests are refused, whoever sends them."""

    signed: bool = False
    queue_bytes: int = 64 << 20
    hosts: int = 50_000  # that are known at a time: who invents names must not fill the memory
    sweep_s: float = 2.0


class Ingest:
    """Verifies, reads and stores telemetry; used by the daemon's event loop. `keys_of(agent)` gives the valid
    keys of a host."""

    def __init__(
        self,
        store: DaemonStore,
        exposition: Exposition,
        watch: HostWatch,
        admission: Admission,
        *,
        keys_of: Callable[[str], Sequence[bytes]],
        now_us: Callable[[], int],
        rules: IngestRules,
        announcer: Announcer,
    ) -> None:
        self._store = store
        self._announcer = announcer
        self.exposition = exposition
        self._watch = watch
        self.admission = admission
        self._keys_of = keys_of
        self._now_us = now_us
        self.rules = rules
        self.seconds = Histogram(
            "fazai_ingest_seconds", "From the first byte of a body to its durable answer.", _SECONDS
        )
        self.records: Counter[str] = Counter({"accepted": 0, "duplicate": 0, "refused": 0})
        #: When a host came or went, as far as that was since the start.
        self._changed_at: dict[str, float] = {}
        self.on_record: Callable[[NewSample], object] | None = None  # is called with each new record
        self.versions: dict[str, str] = {}  # of the hosts' agents, as far as they reported since the start
        self.refusals: Counter[str] = Counter(dict.fromkeys(_REFUSALS, 0))  # of whole requests
        self._silent: dict[str, bool] = {}  # to be remembered with the next sweep
        exposition.add(self.families)

    @classmethod
    def create(
        cls, store: DaemonStore, secrets: Path, rules: IngestRules, watch: WatchRules, announcer: Announcer
    ) -> Ingest:
        """Return an Ingest with the clocks and the random numbers of this machine. Host keys lie in
        `secrets`/hosts."""
        switch = HostWatch(watch, time.monotonic)
        ingest = cls(
            store,
            Exposition(store.counts, switch.count_hosts),
            switch,
            Admission(rules.queue_bytes, random.random),
            keys_of=HostKeys(secrets / "hosts", uid=os.geteuid()).keys_of,
            now_us=lambda: time.time_ns() // 1000,
            rules=rules,
            announcer=announcer,
        )
        ingest.restore()
        return ingest

    def restore(self) -> None:
        """Take over the hosts that were known before a restart: who was silent stays so, who was not has its
        time again."""
        hosts = self._store.hosts()
        now_us = self._now_us()
        self._watch.restore(hosts, now_us)
        for record in hosts:
            if now_us - record.seen_us < self._watch.rules.ttl_s * 1e6:
                self.exposition.hosts.push(record.host, record.gauges, record.time_us, record.interval_s)
            if record.silent:
                self.exposition.hosts.silence(record.host)

    # -- a request --------------------------------------------------------------------------------------

    def verify(self, headers: SignedHeaders, path: str, body: bytes) -> Nonce:
        """Return the nonce of a signed request, whose agent is the host that signed it; `accept` uses it up.
        Raises WireError (bad_clock, bad_signature), SecretError."""
        now_us = self._now_us()
        keys = self._keys_of(headers.agent)
        if not keys:
            raise WireError("bad_signature", f"there is no key for {headers.agent[:64]!r}")
        verify_signature(headers, keys, method="POST", path=path, body=body, now_s=now_us / 1e6)
        expires_us = (int(headers.timestamp) + MAX_SKEW_S + 1) * 1_000_000
        return Nonce(headers.agent, headers.nonce, expires_us, now_us)

    async def accept(
        self,
        body: bytes,
        *,
        gzipped: bool = False,
        nonce: Nonce | None = None,
        signer: str | None = None,
    ) -> IngestReply:
        """Store what a body holds, and use up the nonce of a signed request; durable when it returns. The
        records are of the host that signed it, or of the `signer` that was proved otherwise. Raises WireError
        (replayed, …), Refusal, StateError."""
        try:
            records = await self._read(body, gzipped)
        except WireError:
            if nonce is not None:
                await self._use_nonce(nonce)
            raise
        samples, errors = records
        signer = nonce.agent if nonce is not None else signer
        if signer is not None and any(sample.host != signer for sample in samples):
            samples, errors = _refuse_some(records, lambda sample: _not_of(signer, sample))
        if self._may_be_full(len(samples)):
            samples, errors = _refuse_some(ParsedRecords(samples, errors), self._no_room(set()))
        self.records["refused"] += len(errors)
        accepted = duplicates = 0
        if samples:
            accepted = await self._store_samples(samples, nonce)
            duplicates = len(samples) - accepted
        elif nonce is not None:
            await self._use_nonce(nonce)
        return _reply_for(accepted, duplicates, errors)

    async def _read(self, body: bytes, gzipped: bool) -> ParsedRecords:
        if gzipped or len(body) >= _IN_THREAD_BYTES:
            latest_us = self._latest_us()
            return await asyncio.to_thread(
                lambda: read_records(inflate(body) if gzipped else body, latest_us)
            )
        return read_records(body, self._latest_us())

    async def _use_nonce(self, nonce: Nonce) -> None:
        """Use up the nonce of a request of which nothing is stored. Raises WireError, StateError."""
        if not await self._store.use_nonce(nonce):
            raise _replayed()

    def _latest_us(self) -> int:
        """Return the latest time that a record may have."""
        return self._now_us() + _AHEAD_US

    def accept_one(self, body: bytes, respond: Callable[[IngestReply | StateError], object]) -> bool:
        """Accept a body that is one good record, as `accept` does, and call `respond` on this loop once it is
        durable. Return False, with nothing done, where the body is anything else. Raises Refusal(overloaded),
        StateError."""
        sample = read_one(body, self._latest_us())
        if sample is None or (self._may_be_full(1) and self._store.host(sample.host) is None):
            return False
        host, size_bytes = sample.host, len(body)
        self.admission.hold(host, size_bytes)

        def done(result: list[bool] | StateError) -> None:
            self.admission.release(host, size_bytes)
            if isinstance(result, StateError):
                respond(result)
            elif result[0]:
                self.records["accepted"] += 1
                self._arrived(sample)
                respond(_ACCEPTED)
            else:
                self.records["duplicate"] += 1
                respond(_DUPLICATE)

        try:
            self._store.ingest_then((sample,), done)
        except StateError:
            self.admission.release(host, size_bytes)
            raise
        return True

    def _may_be_full(self, more: int) -> bool:
        return len(self._watch) + more > self.rules.hosts

    def _no_room(self, new: set[str]) -> Callable[[NewSample], str | None]:
        """Return a function that says of each sample whether its host is one too many; `new` is filled with
        others."""

        def reason(sample: NewSample) -> str | None:
            host = sample.host
            if host in new or self._store.host(host) is not None:
                return None
            if len(self._watch) + len(new) >= self.rules.hosts:
                return f"`hostname`: {self.rules.hosts} hosts report already, and no more are taken"
            new.add(host)
            return None

        return reason

    async def _store_samples(self, samples: Sequence[NewSample], nonce: Nonce | None) -> int:
        """Store samples, with the nonce of a signed request, and return how many were new."""
        sender = nonce.agent if nonce is not None else samples[0].host
        size_bytes = sum([len(sample.body) for sample in samples])
        self.admission.hold(sender, size_bytes)
        try:
            if nonce is None:
                verdicts: list[bool] | None = await self._store.ingest(samples)
            else:
                verdicts = await self._store.ingest_signed(samples, nonce)
        finally:
            self.admission.release(sender, size_bytes)
        if verdicts is None:
            raise _replayed()
        return self._count_stored(samples, verdicts)

    def _count_stored(self, samples: Sequence[NewSample], verdicts: Sequence[bool]) -> int:
        """Count stored samples, and return how many were new."""
        accepted = 0
        for sample, new in zip(samples, verdicts, strict=True):
            if new:
                accepted += 1
                self._arrived(sample)
        self.records["accepted"] += accepted
        self.records["duplicate"] += len(samples) - accepted
        return accepted

    def _arrived(self, sample: NewSample) -> None:
        """Show the newest record of a host, and announce a host that came or came back."""
        if self.on_record is not None:
            self.on_record(sample)
        host = sample[0]
        record = self._store.host(host)
        if record is None:  # forgotten at this moment
            return
        _, time_us, _, _, interval_s, _, _ = record
        if time_us == sample[1]:  # else an older one that was late
            self.exposition.hosts.push(host, sample[3], time_us, interval_s)
            self.versions[host] = sample[5][:64]
        change = self._watch.note_record(host, interval_s)
        if change is not None:
            self._changed_at[host] = self._now_us() / 1e6
            for level, event in _events_of_change(change):
                self._announcer.say(level, event, _LOGGER)
            self._store.publish_soon([_telemetry_event(sample)])
            if change.what == "back":
                self._silent[host] = False

    def agents(self, started: float) -> list[AgentRecord]:
        """Return the hosts that reported as agents of the registry. A state that a host was in before this
        daemon `started` is taken to begin with it, or with the host's last record where it is silent."""
        return [self._agent(host, started) for host in self._store.hosts()]

    def _agent(self, host: HostRecord, started: float) -> AgentRecord:
        seen = host.seen_us / 1e6
        silent = host.silent or self._watch.is_silent(host.host)
        since = self._changed_at.get(host.host, min(seen, started) if silent else started)
        return AgentRecord(
            host.host[:128],
            host.host,
            "http",
            "closing" if silent else "observation",
            since,
            version=self.versions.get(host.host) or None,
            last_seen=seen,
            closed_at=since if silent else None,
            last_error=f"no record for {self._now_us() / 1e6 - seen:.0f} s" if silent else None,
        )

    # -- silence ----------------------------------------------------------------------------------------

    async def sweep(self) -> list[HostChange]:
        """Announce the hosts that stopped, and remove what has expired. Raises StateError."""
        changes = self._watch.sweep()
        events: list[NewEvent] = []
        silent, self._silent = self._silent, {}
        lines = self.exposition.hosts
        lines.freshen()
        for change in changes:
            for level, event in _events_of_change(change):
                self._announcer.write_log(level, event, _LOGGER)
                events.append(row_of(event, level))
            if change.what == "silent":
                silent[change.host] = True
                self._changed_at[change.host] = self._now_us() / 1e6
                lines.silence(change.host)
            elif change.what == "expired":
                lines.expire(change.host)
            elif change.what == "forgotten":
                lines.forget(change.host)
                self.versions.pop(change.host, None)
                self._changed_at.pop(change.host, None)
                await self._store.forget_host(change.host)
        if silent:
            await self._store.mark_silent(silent)
        if events:
            await self._store.publish(events)
        return changes

    async def run(self, report: Callable[[str], object], pause: Callable[[float], Awaitable[object]]) -> None:
        """Sweep until it is cancelled; an error of the store is reported, not raised."""
        while True:
            await pause(self.rules.sweep_s)
            try:
                await self.sweep()
            except StateError as error:
                report(str(error))

    def families(self) -> Iterable[Family]:
        """Return the metrics of all requests."""
        yield self.seconds.family()
        yield _RECORDS.by_label(self.records)
        yield _REFUSED.by_label(self.refusals)
        yield _WAITING.single(self.admission.total_bytes)
        yield _OVERLOADED.single(self.admission.refused)


def _replayed() -> WireError:
    return WireError("replayed", "this request was sent before", hint="sign it anew with another nonce")


def _not_of(signer: str, sample: NewSample) -> str | None:
    """Return why a sample is not the signer's: a host's key speaks for that host alone."""
    return None if sample.host == signer else f"`hostname`: the request is signed by {signer!r}"


def _refuse_some(records: ParsedRecords, reason: Callable[[NewSample], str | None]) -> ParsedRecords:
    """Return the records with those as errors for which there is a reason."""
    good: list[NewSample] = []
    errors = list(records.errors)
    bad = {error.index for error in errors}
    places = (index for index in range(len(records.samples) + len(bad)) if index not in bad)
    for index, sample in zip(places, records.samples, strict=True):
        why = reason(sample)
        if why is None:
            good.append(sample)
        else:
            errors.append(IngestError(index=index, error=why))
    errors.sort(key=lambda error: error.index)
    return ParsedRecords(good, errors)


def _reply_for(accepted: int, duplicates: int, errors: Sequence[IngestError]) -> IngestReply:
    if not errors:
        return IngestReply(200, encode(IngestAnswer(accepted=accepted, duplicates=duplicates)))
    partial = IngestPartialAnswer(accepted=accepted, errors=tuple(errors), duplicates=duplicates)
    return IngestReply(200 if accepted or duplicates else 422, encode(partial))


def _events_of_change(change: HostChange) -> list[tuple[Level, AgentEvent]]:
    if change.what in ("expired", "forgotten"):
        return []
    state: AgentState = "closing" if change.what == "silent" else "observation"
    event = AgentEvent(
        timestamp=utc_now(),
        agent_id=change.host[:128],
        target=change.host,
        state=state,
        reason=_reason(change),
    )
    return [("warning" if change.what == "silent" else "info", event)]


def _reason(change: HostChange) -> str:
    if change.what == "first":
        return "its first record"
    if change.what == "back":
        return f"reports again after {change.for_s:.0f} s"
    expected = f", one every {change.interval_s:.0f} s was expected" if change.interval_s else ""
    return f"no record for {change.for_s:.0f} s{expected}"


def _telemetry_event(sample: NewSample) -> NewEvent:
    loads = tuple(value for value in sample.gauges[:3] if value == value)
    event = TelemetryEvent(
        hostname=sample.host,
        agent_id=sample.host[:128],
        target=sample.host,
        timestamp=timestamp(sample.time_us / 1e6),
        load=loads or None,
    )
    return row_of(event)
