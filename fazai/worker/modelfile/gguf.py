"""Reads the head of a GGUF file: its metadata and what tensors there are, never a weight.

The file may be anybody's. Every count and length is held against what is left of the file before anything is
made of it, and against limits that no model needs; what llama.cpp would refuse is refused with a sentence.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn

from fazai.errors import InputError

_MAX_KEYS = 65_536
_MAX_TENSORS = 65_536
_MAX_HEAD_BYTES = 128 << 20  # read of one file; the largest vocabularies take twenty
_MAX_TEXTS = 2 << 20  # in lists: a vocabulary has some 260,000, and twice as many merges
_MAX_KEY_BYTES = 65_535
_KEPT_NUMBERS = 4096  # of a list; longer ones are passed over
_NAME_BYTES = 63
_DIMENSIONS = 4
_TEXT, _LIST = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NEWEST = 3

#: ggml's types by number: name, values of a block, bytes of a block.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}

Value = int | float | bool | str | tuple[int | float | bool, ...] | tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file: its name, its shape (the length of a row first), ggml's number of its type."""

    name: str
    shape: tuple[int, ...]
    type: int

    @property
    def values(self) -> int:
        """The number of its values."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes in the file."""
        _, block, block_bytes = TYPES[self.type]
        return self.values // block * block_bytes

    @property
    def type_name(self) -> str:
        """The name of its type, as in Q4_K."""
        return TYPES[self.type][0]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The head of a GGUF file. `metadata` has no numbers of lists that are longer than some thousands."""

    path: Path
    size_bytes: int
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]

    def text(self, key: str) -> str | None:
        """Return a text of the metadata; None where there is none."""
        found = self.metadata.get(key)
        return found if isinstance(found, str) else None

    def number(self, key: str) -> int | None:
        """Return a whole number of the metadata; None where there is none."""
        found = self.metadata.get(key)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def tensor(self, name: str) -> Tensor | None:
        """Return the tensor of this name; None where there is none."""
        return next((found for found in self.tensors if found.name == name), None)


def read_model_file(path: Path) -> ModelFile:
    """Read the head of a GGUF file. Raises InputError: what is wrong with it."""
    with _open_regular(path) as (file, size_bytes):
        reader = _Reader(path, file, size_bytes)
        version = _read_version(reader)
        n_tensors, n_keys = reader.number("q"), reader.number("q")
        if not 0 <= n_keys <= _MAX_KEYS or not 0 <= n_tensors <= _MAX_TENSORS:
            reader.refuse(f"it claims {n_keys} keys and {n_tensors} tensors")
        metadata = _read_metadata(reader, n_keys)
        tensors, ends = _read_tensors(reader, n_tensors)
        _check_data(reader, metadata, tensors, ends)
    return ModelFile(path, size_bytes, version, metadata, tensors)


@contextmanager
def _open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file that is one, without waiting for whoever would write into a pipe. Raises InputError."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(number, "rb", buffering=1 << 18) as file:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode):
                raise InputError("it is no regular file", where=str(path), hint="a GGUF file")
            yield file, found.st_size
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise InputError(f"it cannot be read: {why}", where=str(path)) from None


class _Reader:
    """Takes numbers and texts from a file, in order, and refuses what the file cannot hold."""

    def __init__(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        self._path = path
        self._file = file
        self.size_bytes = size_bytes
        self.at = 0
        self._read = 0
        self.texts = 0

    def refuse(self, why: str) -> NoReturn:
        """Say that the file is damaged. Raises InputError, always."""
        raise InputError(
            f"the file is damaged: {why}", where=str(self._path), hint="fetch it again, and compare its hash"
        )

    def take(self, n: int) -> bytes:
        """Return the next bytes."""
        self._read += n
        if n > self.size_bytes - self.at:
            self.refuse(f"at byte {self.at} it says that {n} bytes follow, of {self.size_bytes - self.at}")
        if self._read > _MAX_HEAD_BYTES:
            self.refuse(f"what stands before its weights has more than {_MAX_HEAD_BYTES >> 20} MiB")
        found = self._file.read(n)
        if len(found) != n:
            self.refuse("it became shorter while it was read")
        self.at += n
        return found

    def skip(self, n: int) -> None:
        """Pass over bytes."""
        if n > self.size_bytes - self.at:
            self.refuse(f"at byte {self.at} it says that {n} bytes follow, of {self.size_bytes - self.at}")
        self.at += n
        self._file.seek(self.at)

    def number(self, code: str) -> int:
        """Return the next number: a letter of `struct`."""
        return int(self.scalar(code))

    def scalar(self, code: str) -> int | float | bool:
        """Return the next value: a letter of `struct`."""
        found: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return found

    def text(self) -> bytes:
        """Return the next text."""
        return self.take(self.number("Q"))


def _read_version(reader: _Reader) -> int:
    magic = reader.take(4) if reader.size_bytes >= 8 else b""
    if magic != b"GGUF":
        raise InputError(
            f"it is no GGUF file: it begins with {magic!r}"
            if magic
            else "it is no GGUF file: it is too short",
            where=str(reader._path),
            hint="a model in another format is converted by llama.cpp's convert_hf_to_gguf.py",
        )
    version = reader.number("I")
    if version and not version & 0xFFFF:
        why = "its numbers are big-endian, and this machine's are not"
    elif not 2 <= version <= _NEWEST:
        why = f"it is of version {version}, and llama.cpp reads 2 and {_NEWEST}"
    else:
        return version
    raise InputError(f"the GGUF file cannot be used: {why}", where=str(reader._path))


def _read_metadata(reader: _Reader, n_keys: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for _ in range(n_keys):
        length = reader.number("Q")
        if not 0 < length <= _MAX_KEY_BYTES:
            reader.refuse(f"a key of {length} bytes")
        key = reader.take(length).decode(errors="replace")
        if key in found:
            reader.refuse(f"the key {key!r} is in it twice")
        found[key] = _read_value(reader, key)
    return found


def _read_value(reader: _Reader, key: str) -> Value:
    kind = reader.number("I")
    if kind == _TEXT:
        return reader.text().decode(errors="replace")
    if kind in _SCALARS:
        return reader.scalar(_SCALARS[kind])
    if kind != _LIST:
        reader.refuse(f"the value of {key!r} is of the unknown type {kind}")
    kind, count = reader.number("I"), reader.number("Q")
    if kind == _TEXT:
        reader.texts += count
        if reader.texts > _MAX_TEXTS:
            reader.refuse(f"its lists have more than {_MAX_TEXTS} texts: {key!r} alone {count}")
        return tuple(reader.text() for _ in range(count))
    if kind not in _SCALARS:
        reader.refuse(f"the list {key!r} has values of the unknown type {kind}")
    code = _SCALARS[kind]
    if count > _KEPT_NUMBERS:
        reader.skip(count * struct.calcsize("<" + code))
        return ()
    return tuple(reader.scalar(code) for _ in range(count))


def _read_tensors(reader: _Reader, n_tensors: int) -> tuple[tuple[Tensor, ...], list[tuple[int, int]]]:
    """Return the tensors, and where each begins and ends in the part of the weights."""
    found: dict[str, Tensor] = {}
    places: list[tuple[int, int]] = []
    for _ in range(n_tensors):
        length = reader.number("Q")
        if length > _NAME_BYTES:
            reader.refuse(f"a tensor's name of {length} bytes")
        name = reader.take(length).decode(errors="replace")
        n_dimensions = reader.number("I")
        if n_dimensions > _DIMENSIONS:
            reader.refuse(f"the tensor {name!r} has {n_dimensions} dimensions")
        shape = tuple(reader.number("q") for _ in range(n_dimensions))
        kind, offset = reader.number("I"), reader.number("Q")
        if name in found:
            reader.refuse(f"the tensor {name!r} is in it twice")
        if kind not in TYPES:
            reader.refuse(f"the tensor {name!r} is of the type {kind}, which llama.cpp does not have")
        if any(n < 0 for n in shape) or prod(shape) >= 1 << 63 or (shape[:1] or (1,))[0] % TYPES[kind][1]:
            reader.refuse(f"the tensor {name!r} has the shape {shape}, with rows of {TYPES[kind][0]}")
        found[name] = Tensor(name, shape, kind)
        places.append((offset, offset + found[name].size_bytes))
    return tuple(found.values()), places


def _check_data(
    reader: _Reader, metadata: dict[str, Value], tensors: tuple[Tensor, ...], places: list[tuple[int, int]]
) -> None:
    """Refuse tensors that do not follow each other within the file, as llama.cpp does."""
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        reader.refuse(f"general.alignment is {alignment}, and must be a power of two")
    begin, expected = -(-reader.at // alignment) * alignment, 0
    for tensor, (offset, end) in zip(tensors, places, strict=True):
        if offset != expected:
            reader.refuse(f"the tensor {tensor.name!r} is said to be at {offset}, and must be at {expected}")
        if begin + end > reader.size_bytes:
            whole = begin + max(end for _, end in places)
            reader.refuse(f"it ends after {reader.size_bytes} bytes, and its tensors need {whole}")
        expected = -(-end // alignment) * alignment
