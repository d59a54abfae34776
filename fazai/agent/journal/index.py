"""An index of where the newest record of each action lies, in about 35 bytes an action.

An agent keeps ids for a day, and Python's own dictionaries take eight times as much. An action is a slot in
arrays; a hash table of slot numbers, with open addressing, finds it by 64 bits of its id's digest. Who needs
to be sure that it is the same id reads the record.
"""

from __future__ import annotations

import hashlib
from array import array

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE, RUNNING, DONE, CUT, FOLDED = 0, 1, 2, 4, 8


def key_of(action_id: str) -> int:
    """Return the 64 bits by which an action is found."""
    return int.from_bytes(hashlib.blake2b(action_id.encode(), digest_size=8).digest(), "big")


class Index:
    """Actions in the order in which they were added. Slot numbers hold until the next `add`."""

    def __init__(self) -> None:
        self._set_up()

    def _set_up(self) -> None:
        self.key = array("Q")
        self.segment = array("I")
        self.offset = array("I")
        self.length = array("I")
        #: Seconds since the epoch at which the daemon said that it has the outcome; 0: it has not.
        self.acked = array("I")
        #: RUNNING or DONE; with CUT where its texts are cut, FOLDED where its record says that it is acked.
        self.state = bytearray()
        self._table = array("I", bytes(4 * 64))  # slot + 1, or 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def slots(self) -> Iterator[int]:
        """Return the slots of all actions, oldest first."""
        return (slot for slot, state in enumerate(self.state) if state)

    def find(self, key: int) -> int | None:
        """Return an action's slot."""
        mask = len(self._table) - 1
        place = key & mask
        while (slot := self._table[place] - 1) >= 0:
            if self.key[slot] == key and self.state[slot]:
                return slot
            place = (place + 1) & mask
        return None

    def add(self, key: int) -> int:
        """Add an action that is not there and return its slot."""
        if (len(self.key) + 1) * 3 > len(self._table) * 2:
            self._rebuild()
        slot = len(self.key)
        self.key.append(key)
        for column in (self.segment, self.offset, self.length, self.acked):
            column.append(0)
        self.state.append(RUNNING)
        self._live += 1
        self._enter(slot)
        return slot

    def forget(self, slot: int) -> None:
        """Remove an action; its place is used again once many have gone."""
        self.state[slot] = GONE
        self._live -= 1

    def place(self, slot: int, segment: int, offset: int, length: int) -> None:
        """Say where an action's record lies."""
        self.segment[slot], self.offset[slot], self.length[slot] = segment, offset, length

    def _enter(self, slot: int) -> None:
        mask = len(self._table) - 1
        place = self.key[slot] & mask
        while self._table[place]:
            place = (place + 1) & mask
        self._table[place] = slot + 1

    def _rebuild(self) -> None:
        """Leave out what has gone, with room for as many again."""
        kept = list(self.slots())
        for name in ("key", "segment", "offset", "length", "acked"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, (column[slot] for slot in kept)))
        self.state = bytearray(self.state[slot] for slot in kept)
        size = 64
        while size * 2 < (len(kept) + 1) * 6:
            size *= 2
        self._table = array("I", bytes(4 * size))
        for slot in range(len(kept)):
            self._enter(slot)
