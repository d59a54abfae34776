"""Finding of a probe as a value; and the way in which texts of strangers get into it."""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

from fazai.errors import InputError

TEXT_CHARACTERS = 300
MOST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Finding of a probe. `ok`: it is as it should be; `why` is one sentence for people. `latency_ms` is how
    long the first answer took, None without one. `address` is the one that was asked. `facts` are plain JSON
    values; the texts among them were written by whoever answered, are bounded and hold no control
    characters."""

    probe: str
    target: str
    ok: bool
    why: str
    latency_ms: float | None = None
    address: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def clean_text(text: str | bytes, most: int = TEXT_CHARACTERS) -> str:
    """Return a stranger's text as one line that can be shown: without control characters, and cut."""
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "replace")
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * most])
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[:most]}…"


def describe_failure(error: BaseException) -> str:
    """Return why nothing came back, as a part of a sentence."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return clean_text((error.reason or str(error)).replace("_", " ").lower())
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return clean_text(text)


class Stopwatch:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    def read_ms(self) -> float:
        """Return the milliseconds since it was made."""
        return round((time.perf_counter() - self._began_s) * 1000, 3)


def check_port(port: int) -> int:
    """Return the port. Raises InputError where there is no such port."""
    if not 1 <= port <= 65535:
        raise InputError(f"{port} is no port", hint="1 to 65535")
    return port


def check_timeout(timeout_s: float) -> float:
    """Return the time limit. Raises InputError for one that is none."""
    if not 0 < timeout_s <= MOST_TIMEOUT_S:
        raise InputError(f"a probe takes from above 0 to {MOST_TIMEOUT_S:g} s", hint="--timeout 5")
    return timeout_s
