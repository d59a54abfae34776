"""The journal of intents and outcomes."""

from __future__ import annotations

import json
import os
from array import array

from fazai.agent.errors import Refused
from fazai.agent.journal.index import CUT, DONE, FOLDED, RUNNING, Index, key_of
from fazai.agent.journal.records import (
    CUT_TEXT,
    fit_answer,
    may_be_torn,
    pack_record,
    parse_record,
    shorten_answer,
)
from fazai.agent.journal.segments import Segments
from fazai.errors import StateError
from fazai.faults import no_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

#: How long an id is known after the daemon said that it has the outcome, at least.
KEPT_S = 24 * 3600
#: Ids that are known at once: 35 bytes of memory and some 300 of the disk each.
LIMIT_IDS = 100_000
#: Room that is kept for the shortest outcome of an action that runs.
_RESERVE = 4096
_SEGMENTS = 16
#: Acknowledgements that wait in memory for the next record.
_ACKS = 1024

_INTERRUPTED = "the agent ended while it ran; what became of it is not known (look before repeating it)"

#: What a rewrite may take from a segment, mildest first.
_DEAD, _ACKED_TEXTS, _UNREAD_TEXTS = range(3)


class Journal:
    """The journal of what the agent was asked to do, by `action_id`; one process uses a folder at a time
    (LockHeld).

    `now` returns seconds since the epoch. `limit_bytes` bounds all files together. Raises StateError where a
    record in the middle is not as it was written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        limit_bytes: int,
        now: Callable[[], float],
        *,
        limit_ids: int = LIMIT_IDS,
        fault: Callable[[str], None] = no_fault,
    ) -> None:
        if limit_bytes < _SEGMENTS * 2 * _RESERVE:
            raise StateError(f"the journal needs {_SEGMENTS * 2 * _RESERVE} bytes at least")
        self._now = now
        self._segment_bytes = limit_bytes // _SEGMENTS
        #: A segment's room is left free: rewriting one needs it.
        self._budget = limit_bytes - self._segment_bytes
        self._limit_ids = limit_ids
        try:
            self._files = Segments(os.fspath(folder), self._segment_bytes, fault)
        except OSError as error:
            raise StateError(f"the journal cannot be opened: {error.strerror}", where=str(folder)) from None
        self._index = Index()
        #: Outcomes that could not be written, and acknowledgements that were not yet.
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._acks: list[str] = []
        #: What the intents said whose outcomes are still to come.
        self._begun: dict[str, dict[str, Any]] = {}
        self._full_at: float | None = None
        self._closed = True
        #: Why the last write failed; None since one went well.
        self.trouble: str | None = None
        try:
            self._load()
            self._closed = False
        except OSError as error:
            raise StateError(f"the journal cannot be opened: {error.strerror}", where=str(folder)) from None
        finally:
            if self._closed:
                self._files.close()

    # --- what the agent asks ----------------------------------------------------------------------------

    def begin(self, action_id: str, digest: str, method: str) -> dict[str, Any] | None:
        """Record that an action is about to be carried out, and return None; or return the recorded answer.

        Raises Refused: `conflict` where the id stands for something else or still runs, `overloaded` where
        the journal is full of what must be kept, `unavailable` where it cannot be written.
        """
        slot = self._index.find(key_of(action_id))
        if slot is not None:
            return self._recorded(slot, action_id, digest)
        if self._unwritten and not self._write_outcomes():
            raise Refused("unavailable", f"the journal cannot be written: {self.trouble}")
        at = int(self._now())
        head = {"what": "intent", "id": action_id, "method": method, "digest": digest, "at": at}
        size = len(pack_record(head))
        if len(self._index) >= self._limit_ids:
            self._forget_old()
        if len(self._index) >= self._limit_ids or not self._make_room(size + 2 * _RESERVE):
            raise Refused(
                "overloaded",
                f"the journal is full: it keeps {len(self._index)} actions",
                "the daemon has to acknowledge outcomes; an id is kept for a day after that",
            )
        try:
            number, offset, length = self._append(head, None, "intent")
        except OSError as error:
            self.trouble = error.strerror or str(error)
            raise Refused("unavailable", f"the journal cannot be written: {self.trouble}") from None
        slot = self._index.add(key_of(action_id))
        self._index.place(slot, number, offset, length)
        self._begun[action_id] = head
        self.trouble = None
        return None

    def finish(self, action_id: str, answer: dict[str, Any]) -> bool:
        """Record what came of an action that was begun.

        Returns False where that could not be written: the outcome is kept in memory, `trouble` says why, and
        each later call tries again. What is longer than 3/64 of `limit_bytes` has its texts cut.
        """
        slot = self._index.find(key_of(action_id))
        if slot is None or not self._index.state[slot] & RUNNING or action_id in self._unwritten:
            raise ValueError(f"{action_id} was not begun, or is finished")
        self._unwritten[action_id] = answer
        return self._write_outcomes()

    def unacknowledged(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Return the outcomes that the daemon is not known to have, oldest first: id, method, answer."""
        index = self._index
        keys = array("Q", (index.key[slot] for slot in index.slots() if not index.acked[slot]))
        waiting = {key_of(action_id): action_id for action_id in self._unwritten}
        for key in keys:
            slot = index.find(key)
            if slot is None or index.acked[slot]:
                continue
            head, answer = self._read(slot)
            if key in waiting and waiting[key] in self._unwritten:
                yield head["id"], head["method"], self._unwritten[waiting[key]]
            elif answer is not None:
                yield head["id"], head["method"], answer

    def knows(self, action_id: str) -> bool:
        """Return whether an action was begun, and is not forgotten yet."""
        return self._index.find(key_of(action_id)) is not None

    def acknowledged(self, action_ids: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Return those of the outcomes that the daemon is known to have had: id, method, answer."""
        for action_id in action_ids:
            slot = self._index.find(key_of(action_id))
            if slot is not None and self._index.acked[slot]:
                head, answer = self._read(slot)
                answer = self._unwritten.get(action_id, answer)
                if head["id"] == action_id and answer is not None:
                    yield action_id, head["method"], answer

    def acknowledge(self, action_ids: Iterable[str]) -> None:
        """Take note that the daemon has these outcomes; it goes with the next record, or `settle`."""
        now = max(1, int(self._now()))
        self._full_at = None
        for action_id in action_ids:
            slot = self._index.find(key_of(action_id))
            if slot is None or self._index.acked[slot]:
                continue
            if action_id in self._unwritten:
                self._index.acked[slot] = now
            elif self._index.state[slot] & DONE:
                self._index.acked[slot] = now
                self._acks.append(action_id)
        if len(self._acks) >= _ACKS:
            self.settle()

    def settle(self) -> bool:
        """Write what is only in memory yet; return whether all is on the disk. For idle moments."""
        if self._unwritten and not self._write_outcomes():
            return False
        while self._acks:
            try:
                self._append({"what": "acks", "at": int(self._now())}, None, "acks")
            except OSError as error:
                self.trouble = error.strerror or str(error)
                return False
        self.trouble = None
        return True

    def close(self) -> None:
        """Write what can be written, and let go of the folder; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self.settle()
            self._files.close()

    def __len__(self) -> int:
        """Return how many ids are known."""
        return len(self._index)

    # --- reading and writing ----------------------------------------------------------------------------

    def _recorded(self, slot: int, action_id: str, digest: str) -> dict[str, Any]:
        head, answer = self._read(slot)
        if head["id"] != action_id or head["digest"] != digest:
            raise Refused("conflict", f"action {action_id} was something else", "use a new action_id")
        answer = self._unwritten.get(action_id, answer)
        if answer is None:
            raise Refused("conflict", f"action {action_id} still runs")
        return answer

    def _read(self, slot: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return an action's newest record: what is known of it, and its answer."""
        number, offset = self._index.segment[slot], self._index.offset[slot]
        try:
            head, answer = parse_record(self._files.read(number, offset, self._index.length[slot]))
        except ValueError as error:
            raise StateError(f"a record is damaged: {error}", where=self._files.path(number)) from None
        return head, None if answer is None else json.loads(answer)

    def _write_outcomes(self) -> bool:
        """Write the outcomes that are only in memory, oldest first; return whether that went well."""
        for action_id, answer in list(self._unwritten.items()):
            slot = self._index.find(key_of(action_id))
            assert slot is not None  # its intent is on the disk
            try:
                intent = self._begun.get(action_id) or self._read(slot)[0]
            except OSError as error:
                self.trouble = error.strerror or str(error)
                return False
            head = {**intent, "what": "outcome", "at": int(self._now())}
            head.pop("acks", None)
            if self._index.acked[slot]:
                head["acked"] = self._index.acked[slot]
            most = self._segment_bytes * 3 // 4 - 1024
            packed = fit_answer(answer, most)
            if not self._make_room(len(packed) + _RESERVE):
                packed = fit_answer(answer, max(_RESERVE // 2, self._budget - self._files.total - _RESERVE))
            try:
                number, offset, length = self._append(head, packed, "outcome")
            except OSError as error:
                self.trouble = error.strerror or str(error)
                return False
            self._index.place(slot, number, offset, length)
            self._index.state[slot] = DONE | (FOLDED if "acked" in head else 0)
            del self._unwritten[action_id]
            self._begun.pop(action_id, None)
            self.trouble = None
        return True

    def _append(self, head: dict[str, Any], answer: bytes | None, name: str) -> tuple[int, int, int]:
        """Write a record, and with it the acknowledgements that wait; return where it lies."""
        acks: list[str] = []
        room = self._segment_bytes // 8
        for action_id in self._acks:
            room -= len(action_id) + 3
            if room < 0:
                break
            acks.append(action_id)
        line = pack_record({**head, "acks": acks} if acks else head, answer)
        number, offset = self._files.append(line, name)
        del self._acks[: len(acks)]
        return number, offset, len(line)

    # --- when the journal is opened ---------------------------------------------------------------------

    def _load(self) -> None:
        for number in sorted(self._files.sizes):
            for place, (offset, line) in enumerate(self._files.lines(number), 1):
                try:
                    self._absorb(number, offset, line)
                except (ValueError, KeyError, TypeError) as error:
                    last = number, offset + len(line)
                    if last == self._files.end and may_be_torn(line):
                        self._files.cut(offset)  # the agent or the machine died while it was written
                        break
                    raise StateError(
                        f"a record is damaged: {error}",
                        where=f"{self._files.path(number)}:{place}",
                        hint="restore the file; without it, actions that were carried out may be done again",
                    ) from None
        for slot in self._index.slots():
            if self._index.state[slot] & RUNNING:
                action_id = self._read(slot)[0]["id"]
                self._unwritten[action_id] = {
                    "ok": False,
                    "action_id": action_id,
                    "error": _INTERRUPTED,
                    "code": "interrupted",
                }
        self._write_outcomes()
        self._make_room(0)

    def _absorb(self, number: int, offset: int, line: bytes) -> None:
        """Take a record into the index. Raises ValueError, KeyError, TypeError for what is none."""
        head, answer = parse_record(line)
        what = head["what"]
        if what == "intent" or what == "outcome":
            slot = self._index.find(key_of(head["id"]))
            if slot is None:
                slot = self._index.add(key_of(head["id"]))
            if what == "outcome" or self._index.state[slot] & RUNNING:
                self._index.place(slot, number, offset, len(line))
            if what == "outcome":
                if answer is None:
                    raise ValueError("it has no answer")
                acked = head.get("acked")
                self._index.state[slot] = DONE | (CUT if "cut" in head else 0) | (FOLDED if acked else 0)
                if acked:
                    self._index.acked[slot] = self._past(acked)
        elif what != "acks":
            raise ValueError("it is of no known sort")
        for action_id in head.get("acks", ()):
            slot = self._index.find(key_of(action_id))
            if slot is not None and self._index.state[slot] & DONE and not self._index.acked[slot]:
                self._index.acked[slot] = self._past(head["at"])

    def _past(self, moment: int) -> int:
        """Return a recorded time; now where the clock was set back since."""
        return max(1, min(moment, int(self._now())))

    # --- keeping the bounds -----------------------------------------------------------------------------

    def _make_room(self, need: int) -> bool:
        """See that so many bytes can be written; return whether they can.

        First goes what nobody needs any more, then the texts of acknowledged outcomes, then those of unread
        ones; oldest segments first.
        """
        if self._files.total + need <= self._budget:
            return True
        if self._full_at is not None and abs(self._now() - self._full_at) < 1:
            return False
        for stage in (_DEAD, _ACKED_TEXTS, _UNREAD_TEXTS):
            gains = self._gains(stage)
            for number in sorted(gains):
                if gains[number] * 16 < self._segment_bytes or number not in self._files.sizes:
                    continue
                if not self._rewrite(number, stage, gains[number]):
                    return False
                if self._files.total + need <= self._budget:
                    return True
        self._full_at = self._now()
        return False

    def _gains(self, stage: int) -> dict[int, int]:
        """Return the bytes that a rewrite would take from each segment, about."""
        index, old = self._index, self._old()
        gains = dict(self._files.sizes)
        for slot in index.slots():
            acked, length = index.acked[slot], index.length[slot]
            if acked and acked <= old:
                continue
            cut = stage == _UNREAD_TEXTS or (stage == _ACKED_TEXTS and acked)
            if cut and index.state[slot] & (DONE | CUT) == DONE:
                length = min(length, CUT_TEXT)
            gains[index.segment[slot]] -= length
        return gains

    def _old(self) -> int:
        """Return the time before which an acknowledged id may be forgotten."""
        return int(self._now()) - KEPT_S

    def _forget_old(self) -> None:
        """Rewrite the oldest segment that holds ids which may be forgotten."""
        index, old = self._index, self._old()
        numbers = {index.segment[slot] for slot in index.slots() if 0 < index.acked[slot] <= old}
        if numbers:
            self._rewrite(min(numbers), _DEAD, self._gains(_DEAD)[min(numbers)])

    def _rewrite(self, number: int, stage: int, gain: int) -> bool:
        """Write a segment anew without what can go, about so many bytes, joined with small ones before it;
        return whether that went well. Nothing is lost wherever it ends."""
        forgotten = array("Q")
        try:
            if number == self._files.open_number:
                self._files.rotate()
            numbers = self._before(number, self._files.sizes[number] - gain)
            self._files.rewrite(numbers[0], self._kept_lines(numbers, stage, forgotten))
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return False
        except ValueError as error:
            raise StateError(f"a record is damaged: {error}", where=self._files.path(number)) from None
        for key in forgotten:
            slot = self._index.find(key)
            if slot is not None:
                self._index.forget(slot)
        for offset, line in self._files.lines(numbers[0]):
            self._absorb(numbers[0], offset, line)
        try:
            self._files.sync_folder()
            self._files.remove([each for each in numbers if each > numbers[0] or not self._files.sizes[each]])
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return False
        return True

    def _before(self, number: int, kept: int) -> list[int]:
        """Return a segment, of which about so many bytes are kept, behind those that fit into one with it."""
        numbers = [number]
        for each in sorted(self._files.sizes, reverse=True):
            if each < number:
                kept += self._files.sizes[each]
                if kept > self._segment_bytes // 2:
                    break
                numbers.insert(0, each)
        return numbers

    def _kept_lines(self, numbers: list[int], stage: int, forgotten: array[int]) -> Iterator[bytes]:
        """Return what stays of segments; `forgotten` becomes the keys of what does not."""
        index, old = self._index, self._old()
        acks: list[str] = []
        for number in numbers:
            for offset, line in self._files.lines(number):
                head, answer = parse_record(line)
                acks += head.pop("acks", ())
                slot = index.find(key_of(head["id"])) if "id" in head else None
                if slot is None or (index.segment[slot], index.offset[slot]) != (number, offset):
                    continue
                acked = index.acked[slot]
                if acked and index.state[slot] & DONE:
                    if acked <= old:
                        forgotten.append(index.key[slot])
                        continue
                    head["acked"] = self._past(acked)
                over = len(line) > self._segment_bytes
                cut = stage == _UNREAD_TEXTS or (stage == _ACKED_TEXTS and acked) or over
                if answer is not None and cut and "cut" not in head and len(line) > CUT_TEXT:
                    head["cut"] = True
                    answer = shorten_answer(answer)
                yield pack_record(head, answer)
        yield from self._kept_acks(numbers, acks)

    def _kept_acks(self, numbers: list[int], acks: list[str]) -> Iterator[bytes]:
        """Return the acknowledgements that stand nowhere else."""
        index, kept = self._index, []
        for action_id in acks:
            slot = index.find(key_of(action_id))
            if slot is None or not index.acked[slot] or index.state[slot] & FOLDED:
                continue
            if index.segment[slot] not in numbers:
                kept.append((index.acked[slot], action_id))
        for acked, action_id in kept:
            yield pack_record({"what": "acks", "acks": [action_id], "at": self._past(acked)})
