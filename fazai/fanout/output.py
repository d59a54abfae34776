"""Output of a program on one target: bounded, without secrets, kept for the report and told as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fazai.outcome import ProgramResult

#: What is kept of each stream for the report, and what the journal and events get of both.
KEPT_BYTES: Final = 256 * 1024
TOLD_BYTES: Final = 16 * 1024
#: Secrets are looked for in so much more than is kept, so that none is cut in two at the end.
_OVERLAP_BYTES: Final = 8 * 1024
#: All that one run keeps; once it is full, little of each further target.
_RUN_BYTES: Final = 128 * 1024 * 1024
_LEAST_BYTES: Final = 4 * 1024


class OutputRoom:
    """The memory that all output of one run may take."""

    def __init__(self, limit_bytes: int = _RUN_BYTES) -> None:
        self._left = limit_bytes

    def take(self, size: int) -> int:
        """Return how many of so many bytes may be kept."""
        granted = max(_LEAST_BYTES, min(size, self._left))
        self._left -= min(size, granted)
        return granted


class OutputKeeper:
    """Collects what one program prints. `say` gets whole lines as they come, up to `TOLD_BYTES`."""

    def __init__(self, mask: Callable[[str], str], say: Callable[[str, str], None], room: OutputRoom) -> None:
        self._mask, self._say, self._room = mask, say, room
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._size = {"stdout": 0, "stderr": 0}
        self._told = {"stdout": 0, "stderr": 0}  # up to here of what is kept
        self._to_tell = TOLD_BYTES

    def hear(self, stream: str, data: bytes) -> None:
        """Take bytes that the program printed on `stdout` or `stderr`."""
        kept = self._kept[stream]
        self._size[stream] += len(data)
        kept += data[: max(0, KEPT_BYTES + _OVERLAP_BYTES - len(kept))]
        if self._to_tell > 0 and b"\n" in data:
            self._tell(stream, kept.rfind(b"\n") + 1)

    def _tell(self, stream: str, end: int) -> None:
        """Tell of what is kept up to `end`, by whole lines, so that no secret is cut in two."""
        begin, self._told[stream] = self._told[stream], max(end, self._told[stream])
        data = bytes(self._kept[stream][begin:end])
        if not data or self._to_tell <= 0:
            return
        left, self._to_tell = self._to_tell, self._to_tell - len(data)
        more = "" if self._to_tell > 0 else "… (more output is not recorded)\n"
        self._say(stream, self._mask(data.decode("utf-8", "replace"))[:left] + more)

    def result(self, exit_status: int | None) -> ProgramResult:
        """Return what the program printed, at its end."""
        for stream, kept in self._kept.items():
            self._tell(stream, len(kept))
        texts, cut = {}, False
        for stream, kept in self._kept.items():
            data = self._mask(kept.decode("utf-8", "replace")).encode("utf-8", "replace")
            if self._size[stream] > len(kept):  # the end may be a part of a secret
                data, cut = data[:-_OVERLAP_BYTES], True
            limit = self._room.take(min(KEPT_BYTES, len(data)))
            cut = cut or len(data) > limit
            texts[stream] = data[:limit].decode("utf-8", "ignore")
        return ProgramResult(exit_status, texts["stdout"], texts["stderr"], cut)
