"""Programs on hosts, as effects: `fazai exec` in a process of its own, through the host's provider.

A program goes where the inventory says, over SSH or through the host's agent, whose own policy decides as
well; never to a firewall, and never to the machine of the daemon. The id of its run is chosen before it is
approved: a run with an id that was used is refused, so it happens once at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.firewalls.registry import inventory_files
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.child import child_environment
from fazai.daemon.runs.config import Job
from fazai.daemon.tools.call import ToolCall
from fazai.errors import ExitCode, FazaiError, InputError
from fazai.ids import ulid
from fazai.loop.effects import Effect, EffectChange
from fazai.loop.tools import EffectTool, Observation
from fazai.store.base import Run
from fazai.timestamps import utc_now
from fazai.wire.events import ExecLogEvent

_LOOK_S, _RUN_S, _CLEAN_S, _END_S = 30.0, 300.0, 1.0, 5.0
_OUTPUT_BYTES = 4 << 20
_CHUNK_CHARS = 16_384


async def prepare_program(call: ToolCall, target: str | None, argv: Sequence[str]) -> Effect:
    """Return a program on a host as an effect; nothing is asked of the host. Raises FazaiError."""
    if target is None:
        raise InputError("`target` is missing: a program runs on a host, never on the daemon")
    if target.startswith("-") or not target.isprintable():  # else it would be an option of `fazai exec`
        raise InputError(f"{target[:64]!r} is no host")
    if not argv or not argv[0] or argv[0].startswith("-") or any("\0" in word for word in argv):
        raise InputError(f"{(argv or [''])[0][:64]!r} is no program, or a word has a NUL character")
    job, found, base = await _find_host(call, target, argv)
    if found["provider"] not in ("ssh", "agent"):
        text = f"{target} is of the provider {found['provider']}: programs run on hosts over SSH or an agent"
        raise Refusal("not_allowed", text, hint="never on a firewall, and never on the daemon's own machine")
    change = EffectChange(
        target=target,
        kind="program",
        identity=argv[0],
        verb="run",
        after={"argv": list(argv), "provider": found["provider"]},
    )
    return Effect(
        tool="shell",
        changes=(change,),
        base=base,
        inventory=job.name,
        policy=call.policy_generation,
        expires=time.time() + call.approval_ttl_s,
        free=True,
        ref=ulid(int(time.time() * 1000), os.urandom(10)),
    )


async def _find_host(call: ToolCall, target: str, argv: Sequence[str]) -> tuple[Job, dict[str, Any], str]:
    """Return the first configured playbook whose inventory has the target, what that says of it, and the
    digest of both. Raises FazaiError."""
    seen: set[tuple[str, ...]] = set()
    wrong = ""
    for job in call.services.run_queue.jobs.values():
        if job.inventory in seen:
            continue
        seen.add(job.inventory)
        base = await asyncio.to_thread(_inventory_digest, job.inventory, target)
        words = [*job.inventory, target, "--check", "--output", "json", "--", *argv]
        code, out, err = await _run_exec(call, job, words, ulid(0, os.urandom(10)), _LOOK_S)
        rows = _targets(out)
        if code == ExitCode.PENDING and len(rows) == 1 and rows[0].get("name") == target:
            return job, rows[0], f"{base}:{rows[0]['provider']}"
        wrong = wrong or err.strip().splitlines()[0][:300] if err.strip() else wrong
    raise InputError(f"no inventory of the daemon has the host {target[:64]!r}", hint=wrong or None)


def _inventory_digest(sources: Sequence[str], target: str) -> str:
    """Return the digest of an inventory's files, and of the variables beside them: where a target is, and how
    it is reached, stands there. Raises InputError."""
    found = hashlib.sha256(msgspec.json.encode([target, list(sources)]))
    for name, _, _ in inventory_files(sources):
        path = Path(name)
        if not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        found.update(f"{path}\0{hashlib.sha256(data).hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


async def _perform(call: ToolCall, effect: Effect) -> Observation:
    """Run the program on the host, and return what it printed. It looks first whether the inventory still
    says of the host what it said when this was proposed. Raises FazaiError."""
    change = effect.changes[0]
    argv = [str(word) for word in change.after["argv"]]
    job, _, base = await _find_host(call, change.target, argv)
    if base != effect.base or job.name != effect.inventory:
        text = f"nothing was run: the inventory of {change.target} was edited since this was proposed"
        raise InputError(text, hint="propose it again")
    words = [*job.inventory, change.target, "--output", "json", "--", *argv]
    code, out, err = await _run_exec(call, job, words, effect.ref, _RUN_S)
    rows = _targets(out)
    if not rows:
        return Observation(note=f"it could not be run: {err.strip()[:500] or f'exit {code}'}", failed=True)
    return await _outcome(call, rows[0])


async def _outcome(call: ToolCall, row: dict[str, Any]) -> Observation:
    found = row.get("result") or {}
    for stream in ("stdout", "stderr"):
        text = str(found.get(stream) or "")
        for at in range(0, len(text), _CHUNK_CHARS):
            chunk = text[at : at + _CHUNK_CHARS]
            await call.emit(ExecLogEvent(timestamp=utc_now(), stream=stream, chunk=chunk))
    if not found:
        errors = "; ".join(str(one.get("message")) for one in row.get("errors") or ())
        return Observation(note=f"{row['name']} is {row['status']}: {errors}", failed=True)
    status = found.get("exit_status")
    names = ("exit_status", "stdout", "stderr")
    data = {name: found[name] for name in names if found.get(name) not in ("", None)}
    return Observation(note=f"it ended with the exit status {status}", data=data, failed=status != 0)


async def _settle(call: ToolCall, effect: Effect) -> Observation:
    """Return what the ledger says of a program that had begun."""
    ledger = call.services.store.ledger
    run = await ledger.find_run(effect.ref)
    if run is None:  # its process may still come: from here on that would find its id in use
        at = time.time()
        await ledger.run_begin(
            Run(effect.ref, "exec", (), call.who.name, os.uname().nodename, os.getpid(), at)
        )
        await ledger.run_end(effect.ref, ExitCode.INTERRUPTED, {})
        return Observation(note="it was interrupted before it began", failed=True)
    if run.exit_code is None:
        note = "it was interrupted, and what became of it is not known: look before it is run again"
        return Observation(note=note, failed=True)
    note = f"it ended with fazai's exit code {run.exit_code}, while the daemon was away"
    return Observation(note=note, failed=run.exit_code != 0)


async def _no_direct_call(call: ToolCall, args: Any) -> Effect:
    raise Refusal("forbidden", "a program is proposed by the action `shell`")


#: Carries out what the action `shell`, and tools of one's own, propose.
PROGRAM = EffectTool("shell", "Runs a program on a host.", prepare=_no_direct_call, timeout_s=_RUN_S + 30)
PROGRAM = PROGRAM.carried_out_by(_perform).settled_by(_settle)


def _targets(out: bytes) -> list[dict[str, Any]]:
    try:
        return list(msgspec.json.decode(out)["targets"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return []


async def _run_exec(
    call: ToolCall, job: Job, words: Sequence[str], run_id: str, timeout_s: float
) -> tuple[int, bytes, str]:
    """Run `fazai exec` and return its exit code and output. It has a session of its own: the daemon may go.
    Raises FazaiError: it cannot be started, or takes too long."""
    environ = child_environment(job, run_id, call.services.settings, os.environ)
    line = [sys.executable, "-P", "-m", "fazai", "exec", "--color", "never", *words]
    try:
        process = await asyncio.create_subprocess_exec(  # deadline: a fork's
            *line,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise FazaiError(f"the run cannot be started: {error.strerror}") from None
    try:
        async with deadline(timeout_s):
            out, err = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError:
        await _end(process)
        raise FazaiError(f"it took more than {timeout_s:g} s, and was ended") from None
    except asyncio.CancelledError:
        await _end(process)
        raise
    return code, out, err.decode("utf-8", "replace")


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end; what is beyond the bound is dropped."""
    assert stream is not None
    found = bytearray()
    while chunk := await stream.read(65536):  # deadline: the caller's
        if len(found) < _OUTPUT_BYTES:
            found += chunk
    return bytes(found)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a run that takes too long, or that nobody waits for: asked twice it ends the program on its host,
    too (`fazai exec`, Ctrl-C twice), and then it is killed."""
    for number, wait_s in ((signal.SIGTERM, _CLEAN_S), (signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with deadline(wait_s):
                await process.wait()
            return
