"""Telemetry over the agent's own connection: samples are made by the bash agent's sampler, kept in a bounded
spool on the disk, and sent as `telemetry.push`, each until the daemon has it or refuses it.

The spool is a row of segments, whole lines of JSON in the order in which they were made, and the place up to
which the daemon has them. The daemon knows a record by its host and time: one that comes twice counts once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

from fazai import __version__
from fazai.agent.children import Child
from fazai.agent.link.keys import write_private
from fazai.agent.link.tls import show_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fazai.agent.children import LifePipe
    from fazai.agent.config.settings import AgentConfig, TelemetryRule
    from fazai.agent.loop import Loop, Timer
    from fazai.agent.serving import Conversation, Log

#: A sample that takes longer is given up: a check or a disk hangs.
SAMPLE_S = 60.0
SEGMENT_RECORDS = 60
#: A record is one message.
RECORD_BYTES = 900_000
BACKOFF_FIRST_S, BACKOFF_CAP_S = 5.0, 300.0
#: Refusals that pass: the record is sent again. Any other is for good.
_LATER = frozenset({"overloaded", "unavailable", "internal", "timeout", "agent_offline"})


class Spool:
    """Records that the daemon does not have yet, oldest first, in a folder."""

    def __init__(
        self, folder: str, *, limit_bytes: int, limit_age_s: float, now: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._limit_age_s = limit_age_s
        self._now = now
        #: Of all times, so that a receiver tells a gap from a start: records that gave way, were refused,
        #: were made; and the last time that one was given (milliseconds).
        self.dropped = self.refused = self.made = self.last_ms = 0
        #: Number -> records and bytes of a segment.
        self._segments: dict[int, tuple[int, int]] = {}
        #: How many records of the oldest segment the daemon has.
        self._taken = 0
        self._newest = 0
        self._first: list[bytes] = []  # the records of the oldest segment, while they are being sent
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._open()

    def __len__(self) -> int:
        return sum(count for count, _ in self._segments.values()) - self._taken

    def add(self, record: bytes) -> None:
        """Append a record; the oldest give way where there are too many. Raises OSError."""
        count, size = self._segments.get(self._newest, (SEGMENT_RECORDS, 0))
        if count >= SEGMENT_RECORDS:  # a number is not used again: the place may name an older segment
            self._newest, count, size = self._newest + 1, 0, 0
        newest = self._newest
        fd = os.open(self._path(newest), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            line = record + b"\n"
            if os.write(fd, line) != len(line):  # a full disk: half a line is none
                os.ftruncate(fd, size)
                raise OSError(28, "No space left on device")
        finally:
            os.close(fd)
        self._segments[newest] = count + 1, size + len(line)
        if newest == min(self._segments):
            self._first = []
        self._make_room()

    def first(self) -> bytes | None:
        """Return the oldest record, None where there is none."""
        self._forget_old()
        while self._segments:
            oldest = min(self._segments)
            if not self._first:
                self._first = list(self._read(oldest))
            if self._taken < len(self._first):
                return self._first[self._taken]
            self._remove(oldest)
        return None

    def take(self) -> None:
        """The daemon has the oldest record, or will never take it."""
        self._taken += 1
        oldest = min(self._segments)
        if self._taken >= self._segments[oldest][0]:
            self._remove(oldest)
        self.keep_place()

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:012d}.ndjson")

    def _open(self) -> None:
        for name in sorted(os.listdir(self._folder)):
            stem, _, kind = name.partition(".")
            if kind == "ndjson" and stem.isdigit() and len(stem) == 12:
                self._repair(int(stem))
        try:
            with open(os.path.join(self._folder, "place"), encoding="ascii") as file:
                number, taken, *counts = (int(word) for word in file.read().split())
            self.dropped, self.refused, self.made, self.last_ms = (max(count, 0) for count in counts)
        except (OSError, ValueError):
            number, taken = 0, 0
        self._newest = max([number, *self._segments])
        for old in [one for one in self._segments if one < number]:
            self._remove(old)
        if number in self._segments:
            self._taken = min(taken, self._segments[number][0])

    def _repair(self, number: int) -> None:
        """Count a segment's records; half a line at its end, which a crash leaves, is cut off."""
        path = self._path(number)
        with open(path, "rb") as file:
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
            self.dropped += 1
        if whole:
            self._segments[number] = data.count(b"\n"), whole
        else:
            os.unlink(path)

    def _read(self, number: int) -> Iterator[bytes]:
        with open(self._path(number), "rb") as file:
            for line in file:
                yield line.rstrip(b"\n")

    def _remove(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(number))
        if number == min(self._segments):
            self._taken, self._first = 0, []
        del self._segments[number]

    def keep_place(self) -> None:
        """Write down what the daemon has, and the numbers. Lost, some records are sent again."""
        with contextlib.suppress(OSError):
            counts = f"{self.dropped} {self.refused} {self.made} {self.last_ms}"
            text = f"{min(self._segments, default=self._newest + 1)} {self._taken} {counts}\n"
            write_private(os.path.join(self._folder, "place"), text.encode(), sync=False)

    def _make_room(self) -> None:
        held = sum(size for _, size in self._segments.values())
        while len(self._segments) > 1 and held > self._limit_bytes:
            held -= self._segments[min(self._segments)][1]
            self._drop_oldest()

    def _forget_old(self) -> None:
        while len(self._segments) > 1:
            oldest = min(self._segments)
            try:
                age_s = self._now() - os.stat(self._path(oldest)).st_mtime
            except OSError:
                age_s = 0.0
            if age_s <= self._limit_age_s:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = min(self._segments)
        self.dropped += self._segments[oldest][0] - self._taken
        self._remove(oldest)


class Telemetry:
    """Samples at intervals, keeps, and sends while there is a connection."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        config: AgentConfig,
        *,
        log: Log,
        random: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        assert config.telemetry is not None
        self._loop = loop
        self._life = life
        self._rule: TelemetryRule = config.telemetry
        self._config = config
        self._log = log
        self._random = random
        self._now = now
        folder = os.path.join(config.state, "spool")
        rule = self._rule
        self._spool = Spool(
            folder, limit_bytes=rule.spool_max_bytes, limit_age_s=rule.spool_max_age_s, now=now
        )
        self._started = loop.clock()
        self._delivered_at: int | None = None
        self._error: tuple[int, str] | None = None
        self._failures = 0
        self._kept: dict[str, tuple[float, Any]] = {}  # what is not looked at in each sample
        self._conversation: Conversation | None = None
        self._sending = False
        self._child: Child | None = None
        self._timers: dict[str, Timer] = {}
        self._timers["sample"] = loop.later(0, self._sample)

    def stop(self) -> None:
        """Sample and send no more; what is in the spool stays there."""
        self._conversation = None
        for timer in self._timers.values():
            timer.cancel()
        if self._child is not None:
            self._child.end()

    # -- samples ----------------------------------------------------------------------------------------

    def _sample(self) -> None:
        rule = self._rule
        spread = rule.jitter_percent / 100 * (2 * self._random() - 1)
        self._timers["sample"] = self._loop.later(max(rule.interval_s * (1 + spread), 0.05), self._sample)
        if self._child is None:
            wanted, begun = self._wanted(), self._loop.clock()
            self._child = Child(
                self._loop,
                self._life,
                lambda: {"record": run_sampler(rule, self._config, wanted)},
                lambda answer, reason: self._sampled(answer, reason, begun),
                deadline_s=SAMPLE_S,
            )

    def _wanted(self) -> tuple[str, ...]:
        """Return the parts of a record that are due; checks and failed units cost more than all others."""
        chosen = self._rule.sample or _PARTS
        now = self._loop.clock()
        every = {"checks": self._rule.checks_every_s, "failed_units": self._rule.units_every_s}
        return tuple(
            name
            for name in chosen
            if name not in every or now - self._kept.get(name, (-1e9, None))[0] >= every[name]
        )

    def _sampled(self, answer: dict[str, Any] | None, reason: str, begun: float) -> None:
        self._child = None
        try:
            record = json.loads(answer["record"]) if answer is not None and "record" in answer else None
        except ValueError:
            record = None
        if not isinstance(record, dict):
            said = reason if answer is None else str(answer.get("error", "the sampler said nothing"))
            self._fail(f"no sample: {said}")
            return
        for name in ("checks", "failed_units"):
            if name in record:
                self._kept[name] = begun, record[name]
            elif name in self._kept:
                record[name] = self._kept[name][1]
        self._spool.made += 1
        record["hostname"] = self._rule.hostname or self._config.agent_id
        record["timestamp"] = self._stamp()
        record["agent"] = self._describe(int((self._loop.clock() - begun) * 1000))
        raw = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        self._spool.keep_place()  # before the record: a number that was given is not given again
        try:
            if len(raw) <= RECORD_BYTES:
                self._spool.add(raw)
        except OSError as error:
            self._spool.dropped += 1
            self._fail(f"the spool takes no more: {error.strerror}")
        self._send()

    def _stamp(self) -> str:
        """Return the time with milliseconds, never the same twice: it is half of a record's identity."""
        stamp = int(self._now() * 1000)
        if stamp <= self._spool.last_ms < stamp + 1000:
            stamp = self._spool.last_ms + 1
        self._spool.last_ms = stamp
        return f"{show_time(stamp // 1000)[:-1]}.{stamp % 1000:03d}Z"

    def _describe(self, sample_ms: int) -> dict[str, Any]:
        """Return the record's `agent`, as the bash agent says it of itself."""
        times = os.times()
        spent_ms = int(1000 * (times.user + times.system + times.children_user + times.children_system))
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        at, text = self._error or (None, None)
        return {
            "version": __version__,
            "id": self._config.agent_id,
            "interval": self._rule.interval_s,
            "pid": os.getpid(),
            "seq": self._spool.made,
            "uptime_s": int(self._loop.clock() - self._started),
            "spool_depth": len(self._spool),
            "dropped": self._spool.dropped + self._spool.refused,
            "refused": self._spool.refused,
            "cpu_ms_total": spent_ms,
            "rss_bytes": resident,
            "sample_ms": sample_ms,
            "clock_skew_s": None,
            "last_delivery_at": self._delivered_at,
            "last_error_at": at,
            "last_error": text,
        }

    def _fail(self, text: str) -> None:
        if self._error is None or self._error[1] != text:
            self._log("warning", f"telemetry: {text}")
        self._error = int(self._now()), text

    # -- delivery ---------------------------------------------------------------------------------------

    def connected(self, conversation: Conversation) -> None:
        """Send what waits over this connection."""
        self._conversation = conversation
        self._sending = False
        self._send()

    def _send(self) -> None:
        """Send the oldest record, one at a time, so that their order stays."""
        conversation = self._conversation
        if conversation is None or self._sending or not conversation.is_open:
            return
        record = self._spool.first()
        if record is None:
            return
        payload = json.loads(record)
        self._sending = True
        request = {
            "method": "telemetry.push",
            "action_id": f"t-{payload['timestamp']}",
            "payload": payload,
            "ts": show_time(self._now()),
        }
        conversation.request(request, lambda answer: self._answered(conversation, answer))

    def _answered(self, conversation: Conversation, answer: dict[str, Any]) -> None:
        if conversation is not self._conversation:
            return
        self._sending = False
        if not answer["ok"] and answer.get("code") in _LATER:
            self._fail(f"{answer.get('code')}: {answer.get('error')}")
            wait_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * (1 << min(self._failures, 8)))
            self._failures += 1
            self._sending = True
            self._timers["send"] = self._loop.later(wait_s * (0.5 + self._random() / 2), self._again)
            return
        self._failures = 0
        if answer["ok"]:
            self._delivered_at = int(self._now())
        else:
            self._spool.refused += 1
            self._fail(f"a record was refused by the daemon: {answer.get('error')}")
        self._spool.take()
        self._send()

    def _again(self) -> None:
        self._sending = False
        self._send()


_PARTS = (
    *("processes", "netstat", "iostat", "os", "cpu", "mem", "swap", "disk", "io", "net", "sockets", "top"),
    *("uptime", "users", "failed_units", "checks"),
)


def run_sampler(rule: TelemetryRule, config: AgentConfig, wanted: tuple[str, ...]) -> str:
    """Return one record as the bash agent makes it. Runs in a child, for it waits. Raises LinkError."""
    import shutil
    import subprocess
    from importlib.resources import files

    from fazai.agent.link.errors import LinkError

    if not sys.platform.startswith("linux"):
        raise LinkError("unavailable", "telemetry is taken on Linux alone: the sampler reads its /proc")
    script = files("fazai.agent").joinpath("telemetry.sh").read_bytes()
    fd = os.memfd_create("telemetry.sh")  # the one-file agent has no file of it
    with open(fd, "wb", closefd=False) as file:
        file.write(script)
    settings = {
        "HOSTNAME": rule.hostname or config.agent_id,
        "INTERVAL_S": f"{rule.interval_s:.3f}",
        "SAMPLE": ",".join(wanted),
        "TOP_N": str(rule.top_n),
        "CHECKS_DIR": rule.checks_dir,
        "CHECK_TIMEOUT_S": f"{rule.check_timeout_s:.3f}",
        "PROC": rule.proc,
        "STATE_DIR": config.state,
    }
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
    environment.update({f"FAZAI_AGENT_{name}": value for name, value in settings.items()})
    bash = shutil.which("bash")
    if bash is None:
        raise LinkError("internal", "bash is not here, which the sampler needs")
    try:
        done = subprocess.run(
            [bash, f"/proc/self/fd/{fd}", "--print", "--readings", os.path.join(config.state, "readings")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(fd,),
            env=environment,
            cwd="/",
            timeout=SAMPLE_S - 5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LinkError("timeout", "the sampler did not end") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise LinkError("internal", said[0] if said else f"the sampler ended with {done.returncode}")
    return done.stdout.decode("utf-8", "replace")
