"""Text and bytes as words of a POSIX shell."""

from __future__ import annotations

from collections.abc import Iterator

#: How much content one command line of the script carries.
CHUNK_BYTES = 128 * 1024


def quote(text: str) -> str:
    """Return the text as one word, whatever it holds. Raises ValueError for NUL, which no name and no
    argument can hold."""
    if "\0" in text:
        raise ValueError("a NUL character")
    return "'" + text.replace("'", "'\\''") + "'"


def encode_script(script: str) -> bytes:
    """Return the script's bytes; names that are no UTF-8 come back as they came."""
    return script.encode("utf-8", "surrogateescape")


def append_commands(data: bytes) -> Iterator[bytes]:
    """Iterate over commands that append the data to "$fz_tmp". `printf` is a builtin: nothing of it is a
    command line.

    Bytes stand in single quotes as they are; only a chunk that holds NUL needs escapes.
    """
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        form = b"%s"
        if b"\0" in chunk:
            form, chunk = b"%b", chunk.replace(b"\\", b"\\\\").replace(b"\0", b"\\0000")
        yield b"printf '" + form + b"' '" + chunk.replace(b"'", b"'\\''") + b'\' >>"$fz_tmp"\n'
