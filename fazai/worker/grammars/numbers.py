"""Ends numbers of an answer that a schema constrains, where they get too long: JSON lets them have any number
of digits, and a model that begins to repeat itself never ends one. So a number ends as soon as it can once it
is longer than any that a program reads exactly. What the schema itself forces, or needs to be longer, is left
as it is."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

#: Characters; the largest 64-bit integer has 19 digits and a sign.
MAX_NUMBER = 20
#: Digits of an exponent.
MAX_EXPONENT = 2
_NUMBER = b"0123456789.eE+-"


def number_token_bits(pieces: Sequence[bytes]) -> int:
    """Return the tokens that go on with a number, one bit a token."""
    found = bytearray((len(pieces) + 7) // 8)
    for token, piece in enumerate(pieces):
        if piece[:1] and piece[0] in _NUMBER:
            found[token >> 3] |= 1 << (token & 7)
    return int.from_bytes(found, "little")


class NumberEnds:
    """Follows the bytes of one answer. `apply` narrows a mask while a number is too long."""

    def __init__(self, pieces: Sequence[bytes], going_on: int) -> None:
        self._pieces = pieces
        self._going_on = going_on
        self._in_string = self._escaped = False
        self._length = 0  # of the number that is being written
        self._exponent = -1  # its digits; -1: it has none

    def feed(self, tokens: Iterable[int]) -> None:
        """Take over the tokens that were written."""
        for token in tokens:
            for byte in self._pieces[token]:
                self._feed_byte(byte)

    def _feed_byte(self, byte: int) -> None:
        if self._in_string:
            self._in_string = self._escaped or byte != 0x22
            self._escaped = byte == 0x5C and not self._escaped
        elif byte in _NUMBER:
            self._length += 1
            if byte in b"eE":
                self._exponent = 0
            elif self._exponent >= 0 and byte not in b"+-":
                self._exponent += 1
        else:
            self._length, self._exponent = 0, -1
            self._in_string = byte == 0x22

    @property
    def too_long(self) -> bool:
        """True while the number that is being written should end."""
        return self._length >= MAX_NUMBER or self._exponent >= MAX_EXPONENT

    def apply(self, address: int, size_bytes: int) -> None:
        """Take the tokens that go on with the number out of the mask, unless it allows no others."""
        if not self.too_long:
            return
        mask = (ctypes.c_char * size_bytes).from_address(address)
        kept = int.from_bytes(mask.raw, "little") & ~self._going_on
        if kept:
            mask.raw = kept.to_bytes(size_bytes, "little")
