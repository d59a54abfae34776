"""A run's events to the daemon, where one is configured; kept in the state folder until it has them.

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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.errors import FazaiError, InputError

if TYPE_CHECKING:
    from fazai.cli.clients import Place
    from fazai.outcome import Event, RunOutcome
    from fazai.store.base import Run

__all__ = ["Reporter", "reporter"]

_TICK_S = 0.1
_LINGER_S = 1.0  # a person waits
_LINGER_MOST_S = 600
_TIMEOUT_S = 2.0
_BATCH_BYTES = 512 * 1024
_BATCH_EVENTS = 500
_SPOOL_BYTES = 32 << 20
_OLD_FILES = 100  # that one run delivers


def reporter(
    environ: Mapping[str, str], *, root: bool, state: Path, run: Run, check: bool
) -> Reporter | None:
    """For this run, when a daemon is configured. A wrong setting is told at the run's end."""
    from fazai.cli.clients import configured

    try:
        place = configured(environ, root=root)
        linger_s = _linger_s(environ.get("FAZAI_REPORT_S"))
    except FazaiError as error:
        return Reporter(None, state, run, check, trouble=str(error))
    return Reporter(place, state, run, check, linger_s=linger_s) if place is not None else None


def _linger_s(text: str | None) -> float:
    """Raises InputError."""
    if not text:
        return _LINGER_S
    if not (text.isascii() and text.isdigit() and len(text) < 5 and int(text) <= _LINGER_MOST_S):
        raise InputError(
            f"FAZAI_REPORT_S is {text[:32]!r}", hint=f"whole seconds, 0 to {_LINGER_MOST_S}, such as 10"
        )
    return float(text)


class Reporter:
    """`trouble` is what the operator should know when the run has ended; a daemon that is away is none."""

    def __init__(
        self,
        place: Place | None,
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
            "started": _moment(run.started),
            "sources": list(run.sources)[:256],
        }
        self._check = check
        self._folder = state / "spool"
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.trouble = trouble
        self._thread: threading.Thread | None = None
        if place is not None:
            self._put("run", run.started, "", {"state": "started", "command": run.command, "check": check})
            self._thread = threading.Thread(target=self._work, name="fazai-report", daemon=True)
            self._thread.start()

    def event(self, event: Event) -> None:
        """What the store keeps: neither beginnings nor that all is as it was."""
        same = event.data.get("status") == "converged" and "was" not in event.data
        if event.type == "target" or (event.type == "outcome" and same):
            return
        self._put(event.type, event.time, event.target, event.data)

    def end(self, outcome: RunOutcome) -> None:
        """Waits for the delivery, not for long."""
        data = {
            "state": "finished",
            "command": outcome.command,
            "check": self._check,
            "exit_code": int(outcome.exit_code),
            "totals": outcome.totals(),
        }
        self._put("run", time.time(), "", data)
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(self._linger_s)

    def _put(self, type_: str, moment: float, target: str, data: Mapping[str, Any]) -> None:
        if self._place is not None:
            record = {**data, "type": type_, "timestamp": _moment(moment)}
            if target:
                record["target"] = target
            self._queue.put(record)

    # -- the thread -------------------------------------------------------------------------------------

    def _work(self) -> None:
        assert self._place is not None
        sender = _Sender(self._place, max(_TIMEOUT_S, self._linger_s))
        spool = _Spool.open(self._folder, self._head)
        sequence, ended, unsent = 0, False, 0
        batch: list[dict[str, Any]] = []
        while not ended:
            taken, ended = self._take()
            records = [{"sequence": sequence + n, "event": one} for n, one in enumerate(taken, 1)]
            sequence += len(records)
            if spool is not None:
                spool.append(records)
            if sender.open:
                batch += records
                if sender.send(self._head, batch):
                    batch = []
            unsent = sequence if not sender.open else len(batch)
            if not sender.open:
                batch = []
        self.trouble = self.trouble or sender.trouble
        if spool is not None:
            spool.close(delivered=unsent == 0)
        if sender.open:
            _deliver_old(self._folder, sender)
        sender.close()
        _prune(self._folder)

    def _take(self) -> tuple[list[dict[str, Any]], bool]:
        """What piled up; waits for the first, and a moment for more."""
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


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


class _Sender:
    """One connection to the daemon; after the first failure of a run it is not tried again."""

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self.open = True
        self.forbidden = self.refused = False
        self.trouble: str | None = None

    def send(self, head: Mapping[str, Any], records: list[dict[str, Any]]) -> bool:
        """Whether the daemon has them. False ends the sending."""
        for part in _parts(records):
            if not self._post(json.dumps({**head, "events": part}).encode("utf-8", "backslashreplace")):
                self.open = False
                return False
        return True

    def _post(self, body: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        if self._place.token:
            headers["Authorization"] = f"Bearer {self._place.token}"
        try:
            if self._connection is None:
                self._connection = _connection(self._place, self._timeout_s)
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
            self.trouble = (
                f"{self._place.name} does not take the run's events: {_reason(answer.status, text)}"
            )
        return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _reason(status: int, text: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"])[:300]
    return f"HTTP {status}"


def _parts(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Bodies that the daemon takes. An event that is too large for any is left out, but for its name."""
    part: list[dict[str, Any]] = []
    size = 0
    for one in records:
        length = len(json.dumps(one))
        if length > _BATCH_BYTES:
            one = {**one, "event": _shortened(one["event"])}
            length = len(json.dumps(one))
        if part and (size + length > _BATCH_BYTES or len(part) >= _BATCH_EVENTS):
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield part


def _shortened(event: Mapping[str, Any]) -> dict[str, Any]:
    short = {name: value for name, value in event.items() if len(json.dumps(value)) < 4096}
    for name in ("before", "after"):
        if name in event and name not in short:
            short[name] = {"…": "too long to be reported; see: fazai show"}
    return short


class _Local(http.client.HTTPConnection):
    """HTTP over the daemon's Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("fazai", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _connection(place: Place, timeout_s: float) -> http.client.HTTPConnection:
    """Raises InputError for a CA file that cannot be used."""
    if place.socket is not None:
        return _Local(place.socket, timeout_s)
    scheme, _, host = place.url.partition("://")
    if "/" in host:
        raise FazaiError("FAZAI_URL has no path", hint="https://HOST:3120")
    if scheme == "https":
        return http.client.HTTPSConnection(host, timeout=timeout_s, context=place.verify())
    return http.client.HTTPConnection(host, timeout=timeout_s)


# -- the spool: one file a run, its first line says which; locked while its run lives ----------------------


class _Spool:
    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    @classmethod
    def open(cls, folder: Path, head: Mapping[str, Any]) -> _Spool | None:
        """None where the state folder cannot be written: then what is not delivered is lost."""
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


def _deliver_old(folder: Path, sender: _Sender) -> None:
    """What earlier runs could not deliver, the oldest first; a file that the daemon refuses for good goes."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.ndjson"))[:_OLD_FILES]:
            with _unlocked(path) as free:
                if not free:
                    continue
                lines = path.read_text(errors="replace").splitlines()
                with contextlib.suppress(ValueError, IndexError):  # its last line may be half written
                    head = json.loads(lines[0])
                    records = [one for one in map(_record, lines[1:]) if one is not None]
                    if records and not sender.send(head, records):
                        if not (sender.forbidden or sender.refused):
                            return
                        sender.open = True
                        if sender.forbidden:
                            continue  # it is another's, as the daemon sees it: that run alone waits
                path.unlink(missing_ok=True)


def _record(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "sequence" in found else None


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _prune(folder: Path) -> None:
    """The oldest go when a daemon stays away for long."""
    with contextlib.suppress(OSError):
        sizes = [(path, path.stat().st_size) for path in sorted(folder.glob("*.ndjson"))]
        total = sum(size for _, size in sizes)
        for path, size in sizes:
            if total <= _SPOOL_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= size
