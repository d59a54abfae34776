"""One `sh -s` on a host for a whole session: blocks of script go in, framed answers come out.

The script travels on standard input only. A block is a compound command, so the shell has all of it before it
does any of it: a connection that is cut in the middle of a block does nothing.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

from fazai.compat.language import dataclass
from fazai.compat.timeouts import deadline
from fazai.errors import FazaiError, Unreachable
from fazai.providers.hosts.shell.preconditions import CHECKING
from fazai.providers.hosts.shell.quoting import encode_script, quote
from fazai.providers.hosts.shell.script import PRELUDE
from fazai.providers.hosts.shell.walking import JUDGING, WRITING


class ByteReader(Protocol):
    """The side of a stream that bytes come from."""

    async def read(self, n: int = -1, /) -> bytes:
        """Read at most n bytes, at least one; none at the end. Raises OSError when the connection is cut."""
        ...


class ByteWriter(Protocol):
    """The side of a stream that bytes go to, as of `asyncio.StreamWriter`."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...


class ShellChannel(Protocol):
    """The three streams of a shell on a host: the seam between a session and what reaches the host.

    `ssh/` and `local/` are the transports there are (an agent has no shell for others: `remote/`). Another
    one brings a folder with the same two modules, and one name in `PROVIDERS` of
    `providers/hosts/__init__.py`:

    - `provider.py`: a `ShellProvider` with its options; `box_of`, which names the machine that is reached, so
      that two names of one take turns; and `starter`, which returns a function that starts a shell.
    - `transport.py`: that function. Within the target's timeout it connects, runs `Become.command` (a POSIX
      `sh -s`) and answers its password prompt (`become`); it raises Unreachable as long as nothing was done,
      AccessDenied, DeviceError. It can be called again while a channel is open: a second connection proves
      that one still works, and ends what the first one still runs.
    - the channel below: bytes as they were sent, both ways (no terminal, no echo, no line ends changed), and
      standard output and error apart.
    """

    @property
    def stdin(self) -> ByteWriter: ...
    @property
    def stdout(self) -> ByteReader: ...
    @property
    def stderr(self) -> ByteReader: ...
    async def refusal(self, said: str) -> FazaiError:
        """Return why the shell ended; `said` is the end of its standard error."""
        ...

    @property
    def ends_all(self) -> bool:
        """True when `close` itself reaches all that the shell runs."""
        ...

    async def close(self, *, busy: bool = False) -> None:
        """End the shell within seconds, whatever the other side does. `busy`: it still runs something, which
        is ended as far as it can be reached."""
        ...


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The exit code and output of a block; of a long output only the end is kept."""

    exit: int
    out: bytes
    err: bytes


#: Gets the output of a command as it comes: the stream's name, and bytes.
OutputListener = Callable[[str, bytes], None]
#: How a block runs. A `look` needs no subshell, and nobody wants its standard error; what an `act` says is
#: one stream, as each mark is a packet; of a `command` both streams are told apart.
BlockForm = Literal["look", "act", "command"]
_BLOCK_FORMS: Final[Mapping[BlockForm, tuple[str, str]]] = {
    "look": ("fz_m begin; {", "} 2>/dev/null; fz_m end $?"),
    "act": ("fz_m begin; (", ") 2>&1; fz_m end $?"),
    "command": ("fz_b; (", "); fz_e $?"),
}
_READ_BYTES: Final = 64 * 1024
_WRITE_BYTES: Final = 64 * 1024  # collected before they are sent
#: What is kept of what a block prints: its end. Listeners get all of it.
_KEPT_BYTES: Final = 1024 * 1024
#: What is kept of what comes before the mark of a block: greetings, or why there is no shell.
_GREETING_BYTES: Final = 16 * 1024
#: What is told of the standard error of a shell that ended: its end.
_LAST_WORDS_BYTES: Final = 2000


class ShellEnded(Exception):
    """Raised when the shell went away; `err` is what it said last."""

    def __init__(self, err: bytes) -> None:
        super().__init__("the shell ended")
        self.err = err


class BlockRunner:
    """Runs blocks of script one after the other in the shell of a channel. `root`: the folder that links of
    the host cannot lead out of."""

    def __init__(self, channel: ShellChannel, host: str, root: str = "") -> None:
        self.nonce = secrets.token_hex(16)
        self.blocks = 0
        self._channel = channel
        self._host = host
        self._root = root
        self._writes = False  # whether it knows the functions that write
        self._rest = {"stdout": bytearray(), "stderr": bytearray()}
        self._first: _Frame | None = None

    @property
    def pid(self) -> int | None:
        """The number of the shell's process on the host; None as long as it has not said so."""
        return None if self._first is None else self._first.pid

    async def run(
        self,
        script: str | Iterable[bytes],
        *,
        timeout_s: float,
        setup: str = "",
        listener: OutputListener | None = None,
        form: BlockForm = "command",
        limit: int | None = None,
    ) -> BlockResult:
        """Run one block without standard input, and wait for its end. `setup` is a line for the shell itself.
        `limit`: it cannot print more than so many bytes; without one, the end of what it prints is kept.

        Raises TimeoutError, Unreachable when the connection goes away or the answer is none, Ended when only
        the shell does.
        """
        chunks = [encode_script(script)] if isinstance(script, str) else script
        async with deadline(timeout_s):
            sender = asyncio.ensure_future(self._send(chunks, setup, form))
            try:
                return await self._receive(listener, form, limit)
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, chunks: Iterable[bytes], setup: str, form: BlockForm) -> None:
        """Send a block. What fits travels in one piece: each write is a packet, a system call here and a
        wake-up there."""
        stdin = self._channel.stdin
        prefix = quote(self._root)
        head = (
            "" if self.blocks else f"{PRELUDE}{JUDGING}fz_prefix={prefix}\nfz_n={self.nonce}\nfz_m shell $$\n"
        )
        if form != "look" and not self._writes:
            self._writes = True
            head += WRITING + CHECKING
        begin, end = _BLOCK_FORMS[form]
        self.blocks += 1
        waiting = bytearray(encode_script(f"{head}{setup}\n{{ {begin}\n"))
        for chunk in chunks:
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                stdin.write(bytes(waiting))
                waiting.clear()
                await stdin.drain()  # deadline: BlockRunner.run
        waiting += encode_script(f"\n{end}; }} </dev/null\n")
        stdin.write(bytes(waiting))
        await stdin.drain()  # deadline: BlockRunner.run

    async def _receive(
        self, listener: OutputListener | None, form: BlockForm, limit: int | None
    ) -> BlockResult:
        if form != "command":
            said, code = await self._until_end("stdout", self._channel.stdout, listener, limit)
            if code is not None:
                return BlockResult(code, said, b"")
            last, _ = await self._until_end("stderr", self._channel.stderr, None, None)
            words = b"\n".join(text for text in (last, said) if text.strip())  # nologin's are in the output
            raise ShellEnded(words[-_LAST_WORDS_BYTES:])
        (out, code), (err, err_code) = await asyncio.gather(
            self._until_end("stdout", self._channel.stdout, listener, limit),
            self._until_end("stderr", self._channel.stderr, listener, limit),
        )
        if code is None or err_code is None:
            raise ShellEnded(err[-_LAST_WORDS_BYTES:])
        return BlockResult(code, out, err)

    async def _until_end(
        self, name: str, reader: ByteReader, listener: OutputListener | None, limit: int | None
    ) -> tuple[bytes, int | None]:
        """Read what stands between the marks of the block, and its exit code; None if the stream ended
        before."""
        found = _Frame(self._rest[name], self.nonce)
        if name == "stdout" and self._first is None:
            self._first = found
        try:
            while (code := found.scan()) is None:
                if listener is not None and (fresh := found.take_fresh()):
                    listener(name, fresh)
                if limit is not None and found.size > limit:
                    raise self._nonsense_error(f"said more than the {limit} bytes that can be an answer")
                if limit is None:
                    found.trim(_KEPT_BYTES)
                more = await self._read(reader)
                if not more:
                    return bytes(found.data), None
                found.data += more
        except ValueError:
            raise self._nonsense_error("says how a step ended in a way that cannot be understood") from None
        if listener is not None and (fresh := found.take_fresh()):
            listener(name, fresh)
        return found.take_output(), code

    def _nonsense_error(self, what: str) -> Unreachable:
        hint = "does something there stand between us and its sh?"
        return Unreachable(f"{self._host} {what}", stage="answer", where=self._host, hint=hint)

    async def _read(self, reader: ByteReader) -> bytes:
        try:
            return await reader.read(_READ_BYTES)  # deadline: BlockRunner.run
        except OSError as error:
            text = f"the connection to {self._host} was cut: {error.strerror or error}"
            raise Unreachable(text, stage="read", where=self._host) from None


class _Frame:
    """The part of a stream that belongs to one block; what comes before its mark is none of our business
    (a greeting in a start-up file)."""

    def __init__(self, data: bytearray, nonce: str) -> None:
        self.data = data
        self.pid: int | None = None  # of the shell, which says it before its first block
        self._shell = re.compile(rb"\n%b shell ([0-9]{1,9})\n" % nonce.encode())
        self._begin = f"\n{nonce} begin\n".encode()
        self._end = f"\n{nonce} end ".encode()
        self._start = -1
        self._safe = self._told = 0  # up to here it is output; up to here it was handed on
        self._stop = self._after = -1

    @property
    def size(self) -> int:
        """The number of bytes of output that were read and are kept."""
        return len(self.data) - self._start if self._start >= 0 else 0

    def scan(self) -> int | None:
        """Return the exit code, once the end was read. Raises ValueError when there is none in its place."""
        data = self.data
        if self._start < 0:
            found = data.find(self._begin)
            if found < 0:
                del data[: max(0, len(data) - _GREETING_BYTES)]
                return None
            if said := self._shell.search(data, 0, found + 1):
                self.pid = int(said[1])
            self._start = self._safe = self._told = found + len(self._begin)
        self._stop = data.find(self._end, self._safe)
        if self._stop < 0:
            begun = data.rfind(b"\n", max(self._safe, len(data) - len(self._end)))  # the mark, perhaps
            self._safe = begun if begun >= 0 and self._end.startswith(data[begun:]) else len(data)
            return None
        self._safe = self._stop
        begin = self._stop + len(self._end)
        line = data.find(b"\n", begin, begin + 4)
        if line < 0 and len(data) < begin + 4:
            return None
        self._after = line + 1
        code = bytes(data[begin:line]) if line >= 0 else b""
        if not code.isdigit():
            raise ValueError("no exit code")
        return int(code)

    def trim(self, most: int) -> None:
        """Forget the beginning of an output of which more than twice as much was kept."""
        if self._start < 0 or self._safe - self._start <= 2 * most:
            return
        excess = self._safe - most - self._start
        del self.data[self._start : self._start + excess]
        self._safe -= excess
        self._told = max(self._start, self._told - excess)

    def take_fresh(self) -> bytes:
        """Return output that was not handed on yet."""
        found = bytes(self.data[self._told : self._safe])
        self._told = self._safe
        return found

    def take_output(self) -> bytes:
        """Take the block's output off the stream."""
        found = bytes(self.data[self._start : self._stop])
        del self.data[: self._after]
        return found
