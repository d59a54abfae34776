"""One program, run for what it prints: bounded in time and output, without a shell."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fazai.errors import SecretError

OUTPUT_MAX_BYTES: Final = 64 * 1024
_STDERR_KEPT_BYTES: Final = 4096
_POLL_S: Final = 0.2
_LINE_MAX: Final = 200
_KILLED_S: Final = 10.0


@dataclass(slots=True)
class _ProgramOutput:
    """The output of a program so far."""

    output: bytearray = field(default_factory=bytearray)
    complaints: bytearray = field(default_factory=bytearray)
    too_much: bool = False


def run_program(
    argv: Sequence[str],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    timeout_s: float,
    output_max_bytes: int = OUTPUT_MAX_BYTES,
    alone: bool = False,
) -> bytes:
    """Run a program and return its output. It gets no input, and keeps the terminal, so that it can ask
    for a PIN there; one that runs `alone` has a session of its own. What it started ends with it, but
    for what made itself a session, as agents do that are to stay.

    Raises SecretError: cannot be started, exit code, too slow, too much output. Arguments and output are
    in no message; of the error output it is the last line.
    """
    name = argv[0]
    process = _start_program(argv, cwd, environ, alone)
    heard = _ProgramOutput()
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with contextlib.nullcontext(False) if alone else _lend_terminal(process.pid) as lent:
            finished = _read_output(process, heard, timeout_s, output_max_bytes, lent)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of its group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.stderr.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel
            process.wait(_KILLED_S)
    if finished and process.returncode in (-signal.SIGINT, 128 + signal.SIGINT):  # Ctrl-C: for us
        raise KeyboardInterrupt
    if heard.too_much:
        raise SecretError(f'"{name}" prints more than {output_max_bytes} bytes', hint="a secret is shorter")
    if not finished:
        hint = "it may be waiting for input, which it does not get"
        raise SecretError(f'"{name}" has not ended after {timeout_s:g} s', hint=hint)
    if process.returncode != 0:
        code = process.returncode
        reason = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        raise SecretError(f'"{name}" failed: {reason}{_last_error_line(heard)}')
    return bytes(heard.output)


def _start_program(
    argv: Sequence[str], cwd: Path, environ: Mapping[str, str], alone: bool
) -> subprocess.Popen[bytes]:
    name = argv[0]
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(environ),
            start_new_session=alone,
            process_group=None if alone else 0,
        )
    except FileNotFoundError:
        if not cwd.is_dir():
            raise SecretError(f'"{name}" cannot be started: there is no folder {cwd}') from None
        hint = "install it, or name it with its path"
        raise SecretError(f'there is no program "{name}"', hint=hint) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its arguments cannot be passed on"
        raise SecretError(f'"{name}" cannot be started: {reason}') from None


@contextlib.contextmanager
def _lend_terminal(group: int) -> Iterator[bool]:
    """Give the terminal to a group of processes, where we have one and stand in its foreground: a
    program in the background is stopped when it reads there. It comes back at the end. Yields whether the
    group has it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        yield False
        return
    before = None
    try:
        with contextlib.suppress(OSError):  # no foreground, or the program has ended
            if os.tcgetpgrp(terminal) == os.getpgrp():
                before = os.getpgrp()
                os.tcsetpgrp(terminal, group)
        yield before is not None
    finally:
        if before is not None:
            old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, before)
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        os.close(terminal)


def _read_output(
    process: subprocess.Popen[bytes],
    heard: _ProgramOutput,
    timeout_s: float,
    output_max_bytes: int,
    has_terminal: bool,
) -> bool:
    """Read until the program has ended; False when it is too slow, or prints too much."""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ended = process.poll() is not None
            if has_terminal and not ended:  # it may have read before it had it, and is stopped since, or soon
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGCONT)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            ready = selector.select(0 if ended else min(left_s, _POLL_S))
            if ended and not ready:
                return True  # something that it left behind still holds the pipes
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    heard.output += data
                else:
                    heard.complaints = (heard.complaints + data)[-_STDERR_KEPT_BYTES:]
            if len(heard.output) > output_max_bytes:
                heard.too_much = True
                return False
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _last_error_line(heard: _ProgramOutput) -> str:
    """Return the last line of the error output, without anything that was also printed as the secret."""
    lines = heard.complaints.decode("utf-8", "replace").strip().splitlines()
    if not lines:
        return ""
    line = "".join(character if character.isprintable() else " " for character in lines[-1].strip())
    for word in heard.output.decode("utf-8", "replace").split():
        line = line.replace(word, "***")
    return f": {line[:_LINE_MAX]}"
