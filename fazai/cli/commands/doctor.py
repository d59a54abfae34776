"""fazai doctor"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fazai.cli import environment
from fazai.cli.clients import DaemonAddress, find_daemon, is_local_url
from fazai.cli.commands.worker import worker_socket
from fazai.cli.options import GEMMA_SOCKET_HELP, OUTPUT, PATH
from fazai.compat.timeouts import deadline
from fazai.config import STATE_FILE, ProcessConfig
from fazai.errors import ExitCode, FazaiError, UsageError, count_noun

if TYPE_CHECKING:
    from fazai.daemon.firewalls.registry import Firewall

_ANSWER_S = 10.0
_AT_ONCE = 16
_READ_BYTES = 64 << 20  # a state file up to this size is read through
_LEAST_FREE_BYTES = 256 << 20
_SKEW_S = 60.0
_FILES_SHOWN = 10
_TIME_ERROR = 5  # what adjtimex returns for a clock that nothing keeps right


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `skip`: there is nothing here to be looked at, which may be a choice."""

    name: str
    state: Literal["ok", "warn", "fail", "skip"]
    text: str
    hint: str | None = None


@click.command(
    "doctor",
    epilog="\b\nExamples:\n  fazai doctor\n  fazai doctor /etc/fazai/inventory.yml --output json"
    "\n\nExit code 1: something has to be mended; warnings alone are 0.",
)
@click.argument("inventory", nargs=-1, type=PATH)
@click.option("--gemma-socket", "gemma_socket", help=GEMMA_SOCKET_HELP)
@OUTPUT
def doctor_command(inventory: Sequence[str], gemma_socket: str | None, output: str) -> int:
    """Look at what fazai needs here: store, secrets, clock, daemon, worker, and each firewall of the
    inventory, else of the daemon. Nothing is changed."""
    config = environment.read_config()
    sources = tuple(inventory) or tuple(filter(None, os.environ.get("FAZAI_INVENTORY", "").split(":")))
    checks = [check_store(config.state), *check_secrets(config.secrets)]
    daemon, rows = check_daemon()
    checks += [*daemon, check_clock(rows), asyncio.run(check_worker(worker_socket(gemma_socket)))]
    checks += check_firewalls(sources, config) if sources else check_known_firewalls(rows)
    if output == "json":
        found = [dataclasses.asdict(one) for one in checks]
        click.echo(json.dumps({"format": "fazai-doctor/1", "checks": found}, indent=1, ensure_ascii=False))
    else:
        for one in checks:
            click.echo(f"{one.state:<5} {one.name}: {one.text}")
            if one.hint is not None:
                click.echo(f"      {one.hint}")
    return ExitCode.FAILED if any(one.state == "fail" for one in checks) else ExitCode.OK


def _failure(name: str, error: FazaiError) -> Check:
    return Check(name, "fail", error.message, error.hint)


# -- files


def check_store(folder: Path) -> Check:
    """Look at the state file: is it whole, private, and is there room for more?"""
    from fazai.store.factory import describe_openness
    from fazai.store.maintenance import check

    path = folder / STATE_FILE
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return Check("store", "skip", f"there is no {path} yet; the first run makes it")
        return Check("store", "fail", f"{path} cannot be looked at: {error.strerror}")
    openness = describe_openness(folder)
    if openness is not None:
        return Check("store", "fail", openness)
    room = os.statvfs(folder)
    free_bytes = room.f_bavail * room.f_frsize
    if size_bytes <= _READ_BYTES:
        try:
            problems = check(folder).problems
        except FazaiError as error:
            return _failure("store", error)
        if problems:
            hint = "fazai store check; fazai store restore FILE"
            return Check("store", "fail", f"{path} is damaged: {problems[0]}", hint)
    text = f"{path}, {size_bytes >> 20} MiB, {free_bytes >> 30} GiB free"
    if free_bytes < _LEAST_FREE_BYTES:
        return Check("store", "warn", f"{text}: soon nothing can be stored", "free space on its disk")
    return Check("store", "ok", text if size_bytes <= _READ_BYTES else f"{text}, not read through")


def check_secrets(folder: Path) -> list[Check]:
    """Look whether others can read the secrets."""
    named = os.environ.get("FAZAI_TOKEN_FILE")
    wrong = list(_wrong_mode(Path(named))) if named else []
    if not folder.exists() and not wrong:
        return [Check("secrets", "skip", f"there is no {folder}")]
    if folder.exists():
        wrong += _open_secrets(folder)
    if not wrong:
        return [Check("secrets", "ok", f"nobody else can read what is in {folder}")]
    shown = [Check("secrets", "fail", text, hint) for text, hint in wrong[:_FILES_SHOWN]]
    more = len(wrong) - len(shown)
    return [*shown, Check("secrets", "fail", f"and {count_noun(more, 'more file')}")] if more else shown


def _open_secrets(folder: Path) -> Iterator[tuple[str, str]]:
    yield from _wrong_mode(folder)
    for path in sorted(folder.rglob("*")):
        yield from _wrong_mode(path)


def _wrong_mode(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the mode or the owner of a file or folder, and what mends it."""
    try:
        found = path.lstat()
    except OSError as error:
        yield f"{path} cannot be looked at: {error.strerror}", "run it as its owner"
        return
    wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
    if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077:
        yield f"others can read {path} (mode {stat.S_IMODE(found.st_mode):04o})", f"chmod {wanted} {path}"
    if found.st_uid not in (0, os.geteuid()):
        yield f"{path} belongs to another user (uid {found.st_uid})", f"chown {os.geteuid()} {path}"


# -- processes


def check_daemon() -> tuple[list[Check], dict[str, Any] | None]:
    """Ask the daemon whether it is well, and for what it knows of the fleet."""
    import httpx

    try:
        address = find_daemon(os.environ, root=os.geteuid() == 0)
        if address is None:
            return [Check("daemon", "skip", "none runs here, and FAZAI_URL names none", "fazai daemon")], None
        with address.client(_ANSWER_S) as client:
            health = client.get("/health")
            fleet = client.get("/fleet") if health.status_code == 200 else None
    except FazaiError as error:
        return [_failure("daemon", error)], None
    except httpx.HTTPError as error:
        text = f"{address.name if address else 'it'} does not answer: {type(error).__name__}"
        return [Check("daemon", "fail", text, "journalctl -u fazai")], None
    return _judge_daemon(address, health, fleet)


def _judge_daemon(
    address: DaemonAddress, health: Any, fleet: Any
) -> tuple[list[Check], dict[str, Any] | None]:
    if fleet is None or fleet.status_code in (401, 403):
        code = health.status_code if fleet is None else fleet.status_code
        hint = "journalctl -u fazai" if fleet is None else "FAZAI_TOKEN_FILE; fazai token list"
        return [Check("daemon", "fail", f"{address.name} answers {code}", hint)], None
    try:
        said, rows = health.json(), fleet.json()
    except ValueError:
        said = rows = None
    if not isinstance(said, dict) or not isinstance(rows, dict) or not isinstance(rows.get("rows"), list):
        return [Check("daemon", "fail", f"{address.name} is no daemon of fazai")], None
    version = str(said.get("version", "?"))[:32]
    text = f"{address.name} answers, version {version}"
    local = address.socket is not None or is_local_url(address.url)
    return [Check("daemon", "ok", text)], {**rows, "local": local}


async def check_worker(path: Path) -> Check:
    """Ask the Gemma worker for its state."""
    from fazai.providers.gemma.client import GemmaClient

    if not await asyncio.to_thread(os.path.exists, path):
        text = f"there is no {path}; everything but generation works without one"
        return Check("worker", "skip", text, "fazai worker")
    try:
        async with deadline(_ANSWER_S):
            answer = await GemmaClient(path, connect_timeout_s=2.0).status(patient=False)
    except TimeoutError:
        return Check("worker", "fail", f"{path} does not answer in {_ANSWER_S:g} s")
    except FazaiError as error:
        return _failure("worker", error)
    state: Literal["ok", "warn"] = "ok" if answer.status == "running" else "warn"
    return Check("worker", state, f"{path} is {answer.status}, version {answer.version}")


def check_clock(fleet: dict[str, Any] | None) -> Check:
    """Compare the clock with a daemon's on another machine, and ask the kernel whether it is kept right."""
    if fleet is not None and not fleet["local"]:
        try:
            skew_s = time.time() - datetime.fromisoformat(fleet["time"]).timestamp()
        except (KeyError, TypeError, ValueError):
            skew_s = 0.0
        if abs(skew_s) > _SKEW_S:
            text = f"it differs by {abs(skew_s):.0f} s from the daemon's"
            return Check("clock", "fail", text, "signatures hold for 300 s: set both")
    if _is_unsynchronised():
        text = "the kernel says that nothing keeps it right"
        return Check("clock", "warn", text, "chrony, or systemd-timesyncd")
    return Check("clock", "ok", "nothing is known against it")


def _is_unsynchronised() -> bool:
    """Return whether the kernel says that no NTP client sets the clock; False where it says nothing."""
    import ctypes

    try:
        # No mode is set: it only reads.
        found = ctypes.CDLL(None).ntp_adjtime(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return False
    return int(found) == _TIME_ERROR


# -- firewalls


def check_known_firewalls(fleet: dict[str, Any] | None) -> list[Check]:
    """Return what the daemon last found out about its firewalls."""
    if fleet is None:
        text = "no inventory is named, and no daemon knows any"
        return [Check("firewalls", "skip", text, "fazai doctor INVENTORY")]
    rows = [row for row in fleet["rows"] if isinstance(row, dict) and row.get("kind") == "firewall"]
    return [_judge_row(row) for row in rows] or [Check("firewalls", "skip", "the daemon knows none")]


def _judge_row(row: dict[str, Any]) -> Check:
    name, version = f"firewall {row.get('name')}", row.get("version")
    if row.get("up") is None:
        return Check(name, "warn", "the daemon did not ask it yet")
    if not row["up"]:
        why = row.get("error") or "no reason is known"
        return Check(name, "fail", f"it does not answer the daemon: {why}")
    return Check(name, "ok", f"it answers the daemon{f', version {version}' if version else ''}")


def check_firewalls(sources: tuple[str, ...], config: ProcessConfig) -> list[Check]:
    """Read the state of each firewall of an inventory."""
    from fazai.daemon.firewalls.registry import firewalls_of_inventory

    for source in sources:
        if not os.path.exists(source):
            raise UsageError(f'there is no inventory "{source}"')
    try:
        found, wrong, _ = firewalls_of_inventory(sources, dict(os.environ), config.secrets)
    except FazaiError as error:
        return [_failure("inventory", each) for each in error.errors]
    checks = [Check("inventory", "fail", text) for text in wrong]
    return [*checks, *asyncio.run(_ask_all(found, config.lab))] or [
        Check("firewalls", "skip", "the inventory has none")
    ]


async def _ask_all(firewalls: Sequence[Firewall], lab: Path) -> list[Check]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(one: Firewall) -> Check:
        async with gate:
            return await _check_firewall(one, lab)

    return await asyncio.gather(*map(ask, firewalls))


async def _check_firewall(one: Firewall, lab: Path) -> Check:
    from fazai.daemon.firewalls.registry import resolve_lab_target
    from fazai.providers.opnsense.api.vitals import read_vitals
    from fazai.providers.opnsense.session import open_firewall_session

    name = f"firewall {one.name}"
    limits = {"timeout": _ANSWER_S, "connect_timeout": _ANSWER_S, "retries": 0}
    try:
        target = await asyncio.to_thread(resolve_lab_target, one.target, lab)
        target = replace(target, options={**target.options, **limits})
        async with deadline(3 * _ANSWER_S), open_firewall_session(target, {}) as session:
            vitals = await read_vitals(session.api)
    except TimeoutError:
        return Check(name, "fail", f"no answer within {3 * _ANSWER_S:g} s")
    except FazaiError as error:
        return _failure(name, error)
    return Check(name, "ok", f"it answers, OPNsense {vitals.version or 'of an unknown version'}")
