"""Format of telemetry on disk: chunks of records with their heads, and spans that find a host's records.

A chunk is what one commit (or the merge of several) stored: records of any hosts, compressed together, for
records of hosts resemble each other. A span is a piece of one host's history: where its records lie, and its
gauges by column, so that a chart reads no record at all.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fazai.store.daemon import GAUGES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


Damaged = zstd.ZstdError

CHUNK_BYTES = (
    128 << 10
)  # of records; what reading a single one decompresses at most, unless it is larger itself
MAX_ORDINAL = 1 << 12
#: Level 3 takes 1.5 times the CPU for a hundredth of the bytes. Matches of seven bytes at least, found by a
#: table that stays in the cache: an eighth less CPU than level 1 alone, and no more bytes.
_OPTIONS: Mapping[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.hash_log: 14,
    zstd.CompressionParameter.min_match: 7,
}
_WORTH = 4  # records: from here on compressing their heads pays
_PLAIN, _PACKED = b"p", b"z"
_WIDTH = len(GAUGES)
_HEAD = struct.Struct(f"<IqI{_WIDTH}d")
_REF = struct.Struct("<qq")


class Head(NamedTuple):
    """Head of a record: what is known without reading its body."""

    host_id: int
    time_us: int
    length: int
    gauges: tuple[float, ...]


class Row(NamedTuple):
    """One record on its way into a chunk."""

    host_id: int
    time_us: int
    gauges: tuple[float, ...]
    body: bytes


def ref_of(chunk_id: int, ordinal: int) -> int:
    """Return where a record lies, as one number."""
    return chunk_id * MAX_ORDINAL + ordinal


def split_ref(ref: int) -> tuple[int, int]:
    return divmod(ref, MAX_ORDINAL)


class Packer:
    """Not safe for several threads at once: it keeps a compressor, as making one costs more than using it."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(options=_OPTIONS)

    def squeeze(self, data: bytes) -> bytes:
        return self._compressor.compress(data, self._compressor.FLUSH_FRAME)

    def chunk(self, rows: Sequence[Row | tuple[int, int, tuple[float, ...], bytes]]) -> tuple[bytes, bytes]:
        """(heads, body)"""
        pack = _HEAD.pack
        heads = b"".join([pack(id_, time_us, len(body), *gauges) for id_, time_us, gauges, body in rows])
        heads = _PACKED + self.squeeze(heads) if len(rows) >= _WORTH else _PLAIN + heads
        return heads, self.squeeze(b"".join([row[3] for row in rows]))

    def span(self, times: array[int], refs: array[int], gauges: array[float]) -> tuple[bytes, bytes]:
        """(refs, gauges)"""
        places = b"".join([_REF.pack(time, ref) for time, ref in zip(times, refs, strict=True)])
        columns = b"".join([gauges[number::_WIDTH].tobytes() for number in range(_WIDTH)])
        return places, self.squeeze(columns)


def read_heads(heads: bytes) -> Iterator[Head]:
    data = heads[1:] if heads[:1] == _PLAIN else zstd.decompress(heads[1:])
    for host_id, time_us, length, *gauges in _HEAD.iter_unpack(data):
        yield Head(host_id, time_us, length, tuple(gauges))


def read_chunk(heads: bytes, body: bytes) -> Iterator[Row]:
    """Read the records of a chunk. Raises zstd.ZstdError when the body is damaged."""
    records = zstd.decompress(body)
    offset = 0
    for head in read_heads(heads):
        yield Row(head.host_id, head.time_us, head.gauges, records[offset : offset + head.length])
        offset += head.length


def read_record(heads: bytes, body: bytes, ordinal: int) -> tuple[Head, bytes]:
    """One record of a chunk."""
    offset = 0
    for number, head in enumerate(read_heads(heads)):
        if number == ordinal:
            return head, zstd.decompress(body)[offset : offset + head.length]
        offset += head.length
    raise IndexError(ordinal)


def read_refs(refs: bytes) -> list[tuple[int, int]]:
    """(time_us, ref), by time."""
    return list(_REF.iter_unpack(refs))


def read_gauges(data: bytes) -> list[tuple[float, ...]]:
    """The gauges of a span, row by row."""
    columns = array("d", zstd.decompress(data))
    count = len(columns) // _WIDTH
    return list(
        zip(*(columns[number * count : (number + 1) * count] for number in range(_WIDTH)), strict=True)
    )


def write_gauges(gauges: tuple[float, ...]) -> bytes:
    return array("d", gauges).tobytes()
