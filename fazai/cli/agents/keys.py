"""Rotation of the agents' keys, in steps of which each may be the last before a crash.

The file that the inventory names (`key: !file PATH`) is the memory: two lines in it are a change that is
going on.

1. A new key goes into the file, before the old one. (An `apply` from now on gives both to the host, whose
   agent tries both: nothing breaks.)
2. The daemon gets both.
3. The host gets both, and is restarted; it has to say that it delivered with the new one.
4. The host gets the new one alone; then the daemon; then the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli import environment
from fazai.errors import FazaiError, InputError, Refused, Unreachable, worst_exit
from fazai.model import Secret

if TYPE_CHECKING:
    from fazai.cli.agents.fleet import AgentFleet
    from fazai.providers.hosts.agent.health import AgentReport

_PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class _KeyRotation:
    """One host: the file of its key, its name at the daemon, and the keys, the new one first."""

    host: str
    file: Path
    name: str
    keys: tuple[str, str]

    def field(self, count: int) -> dict[str, Any]:
        """The resource's field with the first `count` keys."""
        return {"key": Secret("\n".join(self.keys[:count]))}


def rotate_keys(fleet: AgentFleet, timeout_s: float) -> int:
    """Give all agents of a fleet new keys; returns the exit code. Raises InputError before anything is
    changed."""
    reports = fleet.reports()
    failed: dict[str, FazaiError] = {}
    files = _find_key_files(fleet, reports, failed)
    with AgentKeyStore.find() as registry:
        turns: list[_KeyRotation] = []
        for host, (file, name) in files.items():
            try:
                turn = _begin_rotation(host, file, name)
                registry.put(turn.name, turn.keys)
                turns.append(turn)
            except FazaiError as error:
                failed[host] = error
        both = {turn.host: {**turn.field(2), **_restart_fields(reports[turn.host])} for turn in turns}
        codes = [fleet.write(both)]
        taken = _await_new_keys(fleet, turns, timeout_s, failed)
        codes.append(fleet.write({turn.host: turn.field(1) for turn in taken}))
        _retire_old_keys(fleet, taken, registry, failed)
    for host, why in failed.items():
        click.echo(f"{host}: {why}", err=True)
    return worst_exit([*codes, *(why.exit_code for why in failed.values())])


def _restart_fields(report: AgentReport | FazaiError | None) -> dict[str, Any]:
    """Return the fields that restart an agent which still reports with the previous key; none for others:
    the agent stays with a key that works."""
    if report is None or isinstance(report, FazaiError) or report.status.get("key") != "KEY_PREVIOUS":
        return {}
    pid = report.number("pid")
    return {} if pid is None else {"not_pid": pid}


def _find_key_files(
    fleet: AgentFleet, reports: Mapping[str, AgentReport | FazaiError | None], failed: dict[str, FazaiError]
) -> dict[str, tuple[Path, str]]:
    """Find the key's file and the name at the daemon of each host that can change its key."""
    found: dict[str, tuple[Path, str]] = {}
    for host, item in fleet.items.items():
        report, (resource,) = reports[host], item.resources
        key = resource.fields.get("key")
        where = resource.mark or host
        if key is None or key.source is None:
            text = "its key is in no file of its own, so it cannot be changed"
            failed[host] = InputError(text, where=where, hint="key: !file secrets/hosts/NAME.key")
        elif isinstance(report, FazaiError):
            failed[host] = report
        elif report is None or not report.status:
            text = "no agent runs there that could take a new key"
            failed[host] = FazaiError(text, where=where, hint="install it with: fazai apply")
        else:
            name = str(resource.fields.get("hostname") or report.status.get("hostname") or host)
            found[host] = Path(key.source), str(resource.fields.get("settings", {}).get("id", name))
    shared = Counter(file for file, _ in found.values())
    for host in [host for host, (file, _) in found.items() if shared[file] > 1]:
        text = f"{found[host][0]} is the key of several hosts"
        failed[host] = InputError(text, hint="one file for each host")
        del found[host]
    return found


def _begin_rotation(host: str, file: Path, name: str) -> _KeyRotation:
    """Write a new key before the old one, or continue a rotation that was begun. Raises SecretError,
    StateError."""
    from fazai.secrets.files import read_private, write_private

    lines = [line.strip() for line in read_private(file, uid=os.geteuid()).decode().splitlines()]
    keys = [line for line in lines if line]
    if len(keys) != 2:
        keys = [secrets.token_hex(32), keys[0]]
        write_private(file, f"{keys[0]}\n{keys[1]}\n".encode())
    return _KeyRotation(host, file, name, (keys[0], keys[1]))


def _await_new_keys(
    fleet: AgentFleet, turns: list[_KeyRotation], timeout_s: float, failed: dict[str, FazaiError]
) -> list[_KeyRotation]:
    """Wait for the agents to deliver with the new key; returns the hosts where they did."""
    waiting = {turn.host: turn for turn in turns}
    taken: list[_KeyRotation] = []
    until_s = time.monotonic() + timeout_s
    while waiting:
        for host, report in fleet.reports(waiting).items():
            if _uses_new_key(report):
                taken.append(waiting.pop(host))
            elif time.monotonic() > until_s:
                del waiting[host]
                failed[host] = _not_taken_error(report)
        if waiting:
            time.sleep(_PAUSE_S)
    return taken


def _uses_new_key(report: AgentReport | FazaiError | None) -> bool:
    return (
        report is not None
        and not isinstance(report, FazaiError)
        and report.status.get("key") == "KEY"
        and report.number("last_delivery_at") is not None
        and report.number("failures") == 0
    )


def _not_taken_error(report: AgentReport | FazaiError | None) -> FazaiError:
    if isinstance(report, FazaiError):
        return report
    error = report.status.get("last_error") if report is not None else None
    text = f"the new key was not taken{f': {error}' if error else ''}; the old one still holds"
    return FazaiError(text, hint="see that the agent runs and the daemon answers, then run it again")


def _retire_old_keys(
    fleet: AgentFleet, turns: list[_KeyRotation], registry: AgentKeyStore, failed: dict[str, FazaiError]
) -> None:
    """Remove the old keys from the daemon and the files of the hosts whose agents use the new ones."""
    from fazai.secrets.files import write_private

    found = fleet.reports([turn.host for turn in turns])
    for turn in turns:
        report = found[turn.host]
        if isinstance(report, FazaiError) or report is None:
            failed[turn.host] = report or FazaiError(f"{turn.host}: the agent is gone")
            continue
        try:
            registry.put(turn.name, turn.keys[:1])
            write_private(turn.file, f"{turn.keys[0]}\n".encode())
        except FazaiError as error:
            failed[turn.host] = error
            continue
        click.echo(f"{turn.host}: the new key holds, the old one is gone")


@dataclass(frozen=True, slots=True)
class AgentKeyStore:
    """The store of the daemon's agent keys: behind its API, or in its folder on this machine."""

    folder: Path
    client: Any = None  # httpx.Client
    place: str = ""

    @classmethod
    @contextlib.contextmanager
    def find(cls) -> Iterator[AgentKeyStore]:
        """Open the daemon's store at FAZAI_URL or the local socket, else the one in the folder. Raises
        InputError, SecretError."""
        from fazai.cli.clients import find_daemon

        folder = environment.read_config().secrets / "hosts"
        place = find_daemon(os.environ, root=os.geteuid() == 0)
        if place is None:
            if os.environ.get("FAZAI_SOCKET"):
                text = f"no daemon listens at {os.environ['FAZAI_SOCKET']}, which FAZAI_SOCKET names"
                hint = "start it, or unset FAZAI_SOCKET: keys then go into a folder"
                raise Unreachable(text, stage="connect", hint=hint)
            click.echo(f"no daemon is asked: the keys go into {folder}", err=True)
            yield cls(folder)
            return
        with place.client(timeout_s=20) as client:
            yield cls(folder, client, place.name)

    def put(self, name: str, keys: tuple[str, ...]) -> None:
        """Register the keys of a host. Raises StateError, Unreachable, Refused, InputError."""
        if self.client is None:
            from fazai.secrets.files import write_keys

            write_keys(self.folder, name, keys)
            return
        from urllib.parse import quote

        import httpx

        from fazai.cli.clients import refusal_reason

        try:
            answer = self.client.post(f"/agents/{quote(name, safe='')}/key", json={"keys": list(keys)})
        except httpx.HTTPError as error:
            text = f"the daemon does not answer: {error or type(error).__name__}"
            raise Unreachable(text, stage="connect", where=self.place) from None
        if answer.status_code == 200:
            return
        reason = refusal_reason(answer.content, f"status {answer.status_code}")
        hint = "the key of a host is registered by an admin" if answer.status_code in (401, 403) else None
        raise Refused(f"the daemon does not take the key of {name}: {reason}", where=self.place, hint=hint)
