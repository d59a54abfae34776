"""One program run once on a host, and one file fetched from it (`fazai exec`, `fazai cp`).

Both go through the same shell as a session (`ShellConnection`). A program is an argv, quoted word by word: no
shell of the host reads into it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final

from fazai.errors import DeviceError, TimedOut, Unreachable, Unsure
from fazai.model import Target
from fazai.providers.hosts.options import read_option
from fazai.providers.hosts.provider import ShellProvider
from fazai.providers.hosts.shell.answers import read_answers
from fazai.providers.hosts.shell.channel import OutputListener
from fazai.providers.hosts.shell.connection import ShellConnection
from fazai.providers.hosts.shell.questions import FileAt, PathState, answer_bytes
from fazai.providers.hosts.shell.quoting import CHUNK_BYTES, encode_script, quote
from fazai.providers.hosts.shell.script import observe_script
from fazai.providers.hosts.shell.walking import UNSAFE_HINT, WALKING

#: So many bytes a second a host is given for a file, beside its own time for a block.
_BYTES_PER_S: Final = 256 * 1024


class HostAccess:
    """One host for one program or file: connected with the first of them, an async context manager."""

    def __init__(self, provider: ShellProvider, target: Target) -> None:
        self.timeout_s = float(read_option(target, "timeout", default=60))
        self._target = target
        self._root = str(read_option(target, "root", default="")).rstrip("/")
        start = provider.starter(target, self.timeout_s)
        self._shell = ShellConnection(target, start, timeout_s=self.timeout_s, root=self._root)

    async def __aenter__(self) -> HostAccess:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shell.close(busy=isinstance(error, asyncio.CancelledError))

    async def run_program(
        self,
        argv: Sequence[str],
        *,
        hear: OutputListener,
        timeout_s: float | None = None,
        folder: str | None = None,
        stdin: bytes | None = None,
    ) -> int:
        """Run a program, and return its exit status (128 + number for a signal). `hear` gets what it prints,
        as it comes; `folder` is where it runs. Raises Unreachable before it was sent, TimedOut when it was
        ended, Unsure when it is not known what became of it, DeviceError when there is no shell."""
        seconds = timeout_s or self.timeout_s
        place = self._root + (folder or "")
        script = b"".join(_program_script(argv, place, stdin))
        begun = asyncio.get_running_loop().time()
        try:
            result = await self._shell.run((script,), timeout_s=seconds, listener=hear, form="command")
        except Unreachable as error:
            if not self._shell.is_open:
                raise
            overdue = asyncio.get_running_loop().time() - begun >= seconds and error.stage == "answer"
            raise self._lost_error(argv, error, seconds if overdue else None) from None
        return result.exit

    def _lost_error(
        self, argv: Sequence[str], error: Unreachable, seconds: float | None
    ) -> DeviceError | Unsure:
        """Return the error of a program of which no end was seen; `seconds`: all that it was given."""
        name = argv[0]
        if seconds is None:
            text = f"{error.message}, while {name} ran: it is not known whether it came to its end"
            return Unsure(text, where=self._target.name, hint="look at the host before it is run again")
        _, _, left = error.message.partition("may go on: ")
        if left:
            text = f"{name} did not end within {seconds:g} s, and may still run there: {left}"
            return Unsure(text, where=self._target.name, hint="look at the host before it is run again")
        text = f"{name} did not end within {seconds:g} s, and was ended"
        return TimedOut(text, where=self._target.name, hint="a larger --timeout")

    async def look(self, path: str) -> PathState:
        """Return the state of a path, a file's with its hash; links are followed. Raises Unreachable,
        DeviceError."""
        question = FileAt(self._root + path, hashed=True, follow=True)
        for alone in (False, True):
            script = observe_script([question], alone=alone)
            result = await self._shell.run(script, form="look", limit=answer_bytes([question]))
            found = read_answers([question], b"\n" + result.out, self._shell.nonce, self._target.name)
            if question in found:
                state = found[question]
                assert isinstance(state, PathState)
                return state
        raise DeviceError(f"cannot tell what {path} is", where=self._target.name)

    async def fetch_file(self, path: str, size: int, sha256: str, write: Callable[[bytes], object]) -> None:
        """Read a file that was looked at, and hand its bytes to `write` as they come. Raises Unreachable,
        DeviceError where it cannot be read or is another one by now."""
        digest, got = hashlib.sha256(), 0

        def hear(stream: str, data: bytes) -> None:
            nonlocal got
            if stream == "stdout" and got <= size:
                got += len(data)
                digest.update(data)
                write(data)

        script = f"{WALKING}fz_with {quote(self._root + path)} cat"
        seconds = self.timeout_s + size / _BYTES_PER_S
        result = await self._shell.run(script, timeout_s=seconds, listener=hear, form="command")
        if result.exit:
            said = (result.err.strip() or result.out.strip()).decode("utf-8", "replace")[-500:]
            hint = UNSAFE_HINT if said.startswith("unsafe step") else None
            raise DeviceError(f"{path} cannot be read: {said}", where=self._target.name, hint=hint)
        if got != size or digest.hexdigest() != sha256:
            text = f"{path} changed while it was read"
            raise DeviceError(text, where=self._target.name, hint="run it again: it looks first")


def _program_script(argv: Sequence[str], place: str, stdin: bytes | None) -> Iterator[bytes]:
    """Iterate over the lines that run a program, which takes the shell's place; what it reads comes from a
    pipe, and stands in no file and on no command line."""
    if place:
        yield encode_script(f"fz_cd {quote(place)}\n")
    yield b'LC_ALL=$fz_lc; [ -n "$LC_ALL" ] || unset LC_ALL\n'
    if stdin is not None:
        yield b"{ :\n"
        yield from _print_commands(stdin)
        yield b"} 2>/dev/null | "
    yield encode_script("exec " + " ".join(map(quote, argv)) + "\n")


def _print_commands(data: bytes) -> Iterator[bytes]:
    """Iterate over commands that print these bytes; `printf` is a builtin."""
    for start in range(0, len(data), CHUNK_BYTES):
        chunk, form = data[start : start + CHUNK_BYTES], b"%s"
        if b"\0" in chunk:
            form, chunk = b"%b", chunk.replace(b"\\", b"\\\\").replace(b"\0", b"\\0000")
        yield b"printf '" + form + b"' '" + chunk.replace(b"'", b"'\\''") + b"'\n"
