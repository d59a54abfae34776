"""Delivers a run's events to the daemon, where one is configured; until then they stay in the state folder.

What waits for a daemon that is away stands in files, one a run, and not in the store: it must be kept where
the store cannot be opened, it is deleted by whichever run delivers it, and the ledger has the same events
anyway.

Everything here happens in a thread beside the run. It can neither fail the run nor hold it up for more than
a second (FAZAI_REPORT_S) at its end: what is not delivered by then is delivered by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fazai.apply.engine import is_routine
from fazai.cli.clients import DaemonAddress, refusal_reason
from fazai.errors import FazaiError, InputError
from fazai.outcome import EngineEvent, RunOutcome
from fazai.store.base import Run
from fazai.timestamps import timestamp

_TICK_S = 0.1
_LINGER_S = 1.0  # a person waits
_LINGER_MOST_S = 600
_TIMEOUT_S = 2.0
_BATCH_BYTES = 512 * 1024
_BATCH_EVENTS = 500
_SPOOL_BYTES = 32 << 20
_OLD_FILES = 100  # that one run delivers


def start_reporter(
    environ: Mapping[str, str], *, root: bool, state: Path, run: Run, check: bool
) -> RunReporter | None:
    """Start to report a run, when a daemon is configured. A wrong setting is told at the run's end."""
    from fazai.cli.clients import find_daemon

    try:
        place = find_daemon(environ, root=root)
        linger_s = _parse_linger_s(environ.get("FAZAI_REPORT_S"))
    except FazaiError as error:
        return RunReporter(None, state, run, check, trouble=str(error))
    if place is None:
        return None
    reporter = RunReporter(place, state, run, check, linger_s=linger_s)
    reporter.start()
    return reporter


def _parse_linger_s(text: str | None) -> float:
    """Parse FAZAI_REPORT_S. Raises InputError."""
    if not text:
        return _LINGER_S
    if not (text.isascii() and text.isdigit() and len(text) < 5 and int(text) <= _LINGER_MOST_S):
        hint = f"whole seconds, 0 to {_LINGER_MOST_S}, such as 10"
        raise InputError(f"FAZAI_REPORT_S is {text[:32]!r}", hint=hint)
    return float(text)


class RunReporter:
    """Reports one run. `trouble` is a warning for its end; a daemon that is away is none."""

    def __init__(
        self,
        place: DaemonAddress | None,
        state: Path,
        run: Run,
        check: bool,
        *,
        trouble: str | None = None,
        linger_s: float = _LINGER_S,
    ) -> None:
        self._place = place
        self._linger_s = linger_s
        self._head = {
            "run_id": run.run_id,
            "command": run.command,
            "host": run.host or "-",
            "user": run.user or "-",
            "started": _timestamp_text(run.started),
            "sources": list(run.sources)[:256],
        }
        self._check = check
        self._folder = state / "spool"
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.trouble = trouble
        self._thread: threading.Thread | None = None
        self._enqueue("run", run.started, "", {"state": "started", "command": run.command, "check": check})

    def start(self) -> None:
        """Begin to deliver events, in a thread beside the run."""
        self._thread = threading.Thread(target=self._deliver, name="fazai-report", daemon=True)
        self._thread.start()

    def event(self, event: EngineEvent) -> None:
        """Report what the store keeps of an event: neither beginnings nor that nothing changed."""
        if not is_routine(event.type, event.data):
            self._enqueue(event.type, event.time, event.target, event.data)

    def end(self, outcome: RunOutcome) -> None:
        """Report the end, and wait for the delivery, not for long."""
        data = {
            "state": "finished",
            "command": outcome.command,
            "check": self._check,
            "exit_code": int(outcome.exit_code),
            "totals": outcome.totals(),
        }
        self._enqueue("run", time.time(), "", data)
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(self._linger_s)

    def _enqueue(self, type_: str, moment: float, target: str, data: Mapping[str, Any]) -> None:
        if self._place is not None:
            record = {**data, "type": type_, "timestamp": _timestamp_text(moment)}
            if target:
                record["target"] = target
            self._queue.put(record)

    # -- the thread -------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        assert self._place is not None
        sender = _EventSender(self._place, max(_TIMEOUT_S, self._linger_s))
        spool = _EventSpool.open(self._folder, self._head)
        sequence, ended, unsent = 0, False, 0
        batch: list[dict[str, Any]] = []
        while not ended:
            taken, ended = self._take_queued()
            records = [{"sequence": sequence + n, "event": one} for n, one in enumerate(taken, 1)]
            sequence += len(records)
            if spool is not None:
                spool.append(records)
            if sender.open:
                batch += records
                if sender.send(self._head, batch):
                    batch = []
            unsent = len(batch) if sender.open else sequence
            batch = batch if sender.open else []
        self.trouble = self.trouble or sender.trouble
        if spool is not None:
            spool.close(delivered=unsent == 0)
        if sender.open:
            _deliver_spooled(self._folder, sender)
        sender.close()
        _prune_spool(self._folder)

    def _take_queued(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what piled up: waits for the first event, and a moment for more."""
        found: list[dict[str, Any]] = []
        item = self._queue.get()
        until = time.monotonic() + _TICK_S
        while item is not None:
            found.append(item)
            left = until - time.monotonic()
            try:
                item = self._queue.get(timeout=max(0.0, left))
            except queue.Empty:
                return found, False
            if left <= 0 and item is not None:
                return [*found, item], False
        return found, True


def _timestamp_text(seconds: float) -> str:
    return timestamp(seconds).isoformat(timespec="microseconds")


class _EventSender:
    """One connection to the daemon; after the first failure of a run it is not tried again."""

    def __init__(self, place: DaemonAddress, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self.open = True
        self.forbidden = self.refused = False
        self.trouble: str | None = None

    def send(self, head: Mapping[str, Any], records: list[dict[str, Any]]) -> bool:
        """Send events; False when the daemon did not take them, which ends the sending."""
        for part in _split_batches(records):
            if not self._post_body(json.dumps({**head, "events": part}).encode("utf-8", "backslashreplace")):
                self.open = False
                return False
        return True

    def _post_body(self, body: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        if self._place.token:
            headers["Authorization"] = f"Bearer {self._place.token}"
        try:
            if self._connection is None:
                self._connection = _open_connection(self._place, self._timeout_s)
            self._connection.request("POST", "/events", body, headers)
            answer = self._connection.getresponse()
            text = answer.read(64 * 1024)
        except (OSError, http.client.HTTPException, FazaiError) as error:
            if isinstance(error, FazaiError) or type(error).__name__ == "SSLCertVerificationError":
                self.trouble = f"{self._place.name}: {error}"
            return False
        if answer.status == 200:
            return True
        self.forbidden = answer.status == 403
        self.refused = answer.status in (400, 413, 422)
        if answer.status not in (429, 503):
            reason = refusal_reason(text, f"HTTP {answer.status}")[:300]
            self.trouble = f"{self._place.name} does not take the run's events: {reason}"
        return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _split_batches(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split events into bodies that the daemon takes. An event that is too large for any is shortened."""
    part: list[dict[str, Any]] = []
    size = 0
    for one in records:
        length = len(json.dumps(one))
        if length > _BATCH_BYTES:
            one = {**one, "event": _shorten_event(one["event"])}
            length = len(json.dumps(one))
        if part and (size + length > _BATCH_BYTES or len(part) >= _BATCH_EVENTS):
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield part


def _shorten_event(event: Mapping[str, Any]) -> dict[str, Any]:
    short = {name: value for name, value in event.items() if len(json.dumps(value)) < 4096}
    for name in ("before", "after"):
        if name in event and name not in short:
            short[name] = {"…": "too long to be reported; see: fazai show"}
    return short


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("fazai", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _open_connection(place: DaemonAddress, timeout_s: float) -> http.client.HTTPConnection:
    """Return a connection that is opened with the first request. Raises InputError for an unusable CA
    file."""
    if place.socket is not None:
        return _UnixConnection(place.socket, timeout_s)
    scheme, _, host = place.url.partition("://")
    if "/" in host:
        raise FazaiError("FAZAI_URL has no path", hint="https://HOST:3120")
    if scheme == "https":
        return http.client.HTTPSConnection(host, timeout=timeout_s, context=place.verify())
    return http.client.HTTPConnection(host, timeout=timeout_s)


# -- the spool: one file a run, its first line says which; locked while its run lives ----------------------


class _EventSpool:
    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    @classmethod
    def open(cls, folder: Path, head: Mapping[str, Any]) -> _EventSpool | None:
        """Open the spool of a run; None where the state folder cannot be written, and undelivered events
        are lost."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"{head['run_id']}.ndjson"
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        spool = cls(path, handle)
        spool._write(json.dumps(head) + "\n")
        return spool

    def append(self, records: list[dict[str, Any]]) -> None:
        self._write("".join(json.dumps(one) + "\n" for one in records))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk
            os.write(self._handle, text.encode("utf-8", "backslashreplace"))

    def close(self, *, delivered: bool) -> None:
        if delivered:
            self._path.unlink(missing_ok=True)
        os.close(self._handle)


def _deliver_spooled(folder: Path, sender: _EventSender) -> None:
    """Deliver what earlier runs could not, the oldest first; a file that the daemon refuses for good goes."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.ndjson"))[:_OLD_FILES]:
            with _lock_unowned(path) as free:
                if not free:
                    continue
                lines = path.read_text(errors="replace").splitlines()
                with contextlib.suppress(ValueError, IndexError):  # its last line may be half written
                    head = json.loads(lines[0])
                    records = [one for one in map(_parse_record, lines[1:]) if one is not None]
                    if records and not sender.send(head, records):
                        if not (sender.forbidden or sender.refused):
                            return
                        sender.open = True
                        if sender.forbidden:
                            continue  # it is another's, as the daemon sees it: that run alone waits
                path.unlink(missing_ok=True)


def _parse_record(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "sequence" in found else None


@contextlib.contextmanager
def _lock_unowned(path: Path) -> Iterator[bool]:
    """Take the lock of a spool; gives whether its run has ended, so that nobody else holds it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _prune_spool(folder: Path) -> None:
    """Delete the oldest spools when a daemon stays away for long."""
    with contextlib.suppress(OSError):
        sizes = [(path, path.stat().st_size) for path in sorted(folder.glob("*.ndjson"))]
        total = sum(size for _, size in sizes)
        for path, size in sizes:
            if total <= _SPOOL_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= size
