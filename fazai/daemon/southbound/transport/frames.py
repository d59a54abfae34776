"""Frames of clients (RFC 6455) that hold one whole text, which nearly all of a busy connection are.

The handshake, pings, texts in pieces and the close are for the protocol of `websockets`, which takes ten
times as long for a frame.
"""

from __future__ import annotations

from typing import Final, NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # it was built without its C
    from websockets.utils import apply_mask

_WHOLE_TEXT: Final = 0x81
_MASKED: Final = 0x80
_TWO, _EIGHT = 126, 127  # lengths that say how many bytes have the length
_SHORT, _MIDDLE = 126, 65536
_MASK_BYTES: Final = 4


class FrameHead(NamedTuple):
    """The place of a frame's content and of the next frame. `is_text`: it holds one whole text."""

    begin: int
    end: int
    is_text: bool


def read_head(data: bytes, place: int) -> FrameHead | None:
    """Return the head of the frame that begins at a place; None while more of it has to come."""
    left = len(data) - place
    if left < 2:
        return None
    first, length = data[place], data[place + 1]
    is_text = first == _WHOLE_TEXT and length >= _MASKED  # a client masks all, or the protocol says no
    mask_bytes = _MASK_BYTES if length >= _MASKED else 0
    length &= 0x7F
    begin = place + 2
    if length >= _TWO:
        begin += 2 if length == _TWO else 8
        if left < begin - place:
            return None
        length = int.from_bytes(data[place + 2 : begin], "big")
    begin += mask_bytes
    return FrameHead(begin, begin + length, is_text)


def read_text(data: bytes, head: FrameHead) -> bytes:
    """Return the text of a frame that has come as a whole."""
    return apply_mask(data[head.begin : head.end], data[head.begin - _MASK_BYTES : head.begin])


def write_text(text: bytes) -> bytes:
    """Return the frame of a text, as a server sends it."""
    length = len(text)
    if length < _SHORT:
        head = bytes((_WHOLE_TEXT, length))
    elif length < _MIDDLE:
        head = bytes((_WHOLE_TEXT, _TWO)) + length.to_bytes(2, "big")
    else:
        head = bytes((_WHOLE_TEXT, _EIGHT)) + length.to_bytes(8, "big")
    return head + text


class FrameSplitter:
    """Finds in what a client sends where frames begin, and takes out the texts that have come whole.

    Texts of more than `most_bytes` are for the protocol, as all other frames; it gets pieces of `piece_bytes`
    at most.
    """

    def __init__(self, *, most_bytes: int, piece_bytes: int) -> None:
        self._most_bytes, self._piece_bytes = most_bytes, piece_bytes
        self._left = 0  # bytes of the frame that the protocol reads

    def next(self, data: bytes, place: int, *, in_pieces: bool) -> tuple[int, bytes | None]:
        """Return where what comes next in the data ends, and the text that it is, or None: it is for the
        protocol. The place itself: more of it has to come. `in_pieces`: a text has begun, and goes on."""
        if not self._left:
            head = read_head(data, place)
            if head is None:
                return place, None
            if head.is_text and not in_pieces and head.end - head.begin <= self._most_bytes:
                if head.end > len(data):
                    return place, None
                return head.end, read_text(data, head)
            self._left = head.end - place
        end = min(place + min(self._left, self._piece_bytes), len(data))
        self._left -= end - place
        return end, None
