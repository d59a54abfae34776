"""`fazai lab up | status | reset`: plain functions for the command line; and how a run finds a lab."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fazai.errors import LockHeld, StateError, UsageError
from fazai.files import replace_file
from fazai.lab.settings import LabSettings

if TYPE_CHECKING:
    from fazai.lab.lab import Lab

FILE = "lab.json"
PORTS = "ports.json"


class LabAddress(msgspec.Struct, frozen=True):
    """Address, release and key file of a firewall of a lab."""

    name: str
    base_url: str
    key_file: str  # 0600, {"api_key": ..., "api_secret": ...}
    release: str
    ca_file: str | None = None

    def describe(self) -> str:
        return f"{self.base_url}  release {self.release}  key {self.key_file}"

    def key(self) -> tuple[str, str]:
        """Read the API key and its secret. Raises StateError when the file cannot be read."""
        try:
            found = msgspec.json.decode(Path(self.key_file).read_bytes(), type=dict[str, str])
            return found["api_key"], found["api_secret"]
        except (OSError, msgspec.DecodeError, KeyError) as error:
            raise StateError(f"the lab's key file {self.key_file} cannot be used: {error}") from error


class _LabFile(msgspec.Struct, frozen=True):
    pid: int
    firewalls: dict[str, LabAddress]


async def serve_lab(
    folder: Path,
    names: Sequence[str],
    settings: LabSettings | Mapping[str, LabSettings],
    out: Callable[[str], None],
) -> None:
    """Serve the firewalls until SIGINT or SIGTERM.

    Writes `<folder>/lab.json` with their addresses, and tells them through `out`. A firewall gets the port it
    had the last time, when that is free. Raises LockHeld when the folder's lab is up already.
    """
    from fazai.lab.lab import Lab

    running = _read_lab_file(folder)
    if running is not None and any(
        _accepts_connections(address.base_url) for address in running.firewalls.values()
    ):
        raise LockHeld(f"the lab in {folder} is up already (process {running.pid})")
    ports = _read_ports(folder)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Lab(folder) as lab:
            found: dict[str, LabAddress] = {}
            for name in names:
                chosen = settings if isinstance(settings, LabSettings) else settings.get(name, LabSettings())
                found[name] = await _start_firewall(lab, folder, name, chosen, ports)
            _write_json(folder / PORTS, ports)
            _write_json(folder / FILE, msgspec.to_builtins(_LabFile(os.getpid(), found)))
            for address in found.values():
                out(f"{address.name}  {address.describe()}")
            await stop.wait()  # deadline: none, it serves until it is told to stop
    finally:
        (folder / FILE).unlink(missing_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _start_firewall(
    lab: Lab, folder: Path, name: str, settings: LabSettings, ports: dict[str, int]
) -> LabAddress:
    """Start a firewall on the port it had the last time, when that is free, and note the one it has now."""
    firewall = await lab.start(name, settings, _free_port(ports.get(name, 0)))
    ports[name] = int(firewall.base_url.rpartition(":")[2])
    ca_file = None if firewall.ca_pem is None else str(_write_ca(folder, firewall.ca_pem))
    return LabAddress(name, firewall.base_url, str(folder / name / "key.json"), settings.release, ca_file)


def describe_lab(folder: Path) -> list[str]:
    """Return one line for each firewall that the folder keeps, with its address if it is served."""
    running = _read_lab_file(folder)
    known = {} if running is None else running.firewalls
    served = {name: address for name, address in known.items() if _accepts_connections(address.base_url)}
    names = sorted({*_kept_names(folder), *served})
    return [f"{name}  up  {served[name].describe()}" if name in served else f"{name}  down" for name in names]


def find_firewall(folder: Path, name: str) -> LabAddress | None:
    """Return a firewall that `fazai lab up` serves from a folder; None when it does not answer."""
    running = _read_lab_file(folder)
    if running is None or name not in running.firewalls:
        return None
    address = running.firewalls[name]
    return address if _accepts_connections(address.base_url) else None


def reset_lab(folder: Path, names: Sequence[str]) -> list[str]:
    """Forget the state and the keys of firewalls (of all, when none is named); return a line for each.

    Raises LockHeld when one of them is being served, UsageError for a name that the folder does not keep.
    """
    known = _kept_names(folder)
    for name in names:
        if name not in known:
            kept = f"kept are: {', '.join(known)}" if known else f"nothing is kept in {folder}"
            raise UsageError(f"the lab keeps no firewall {name!r}", hint=kept)
    chosen = list(names) or known
    for name in chosen:
        if find_firewall(folder, name) is not None:
            raise LockHeld(f"{name} is being served from {folder}", hint="stop `fazai lab up` first")
    for name in chosen:
        shutil.rmtree(folder / name)
    if not names and (folder / "hosts").is_dir():
        chosen = [*chosen, *(f"hosts/{path.name}" for path in sorted((folder / "hosts").iterdir()))]
        shutil.rmtree(folder / "hosts")
    return [f"{name}  forgotten; it starts afresh the next time" for name in chosen]


def _kept_names(folder: Path) -> list[str]:
    """Return the names of the firewalls that have a folder of their own."""
    return sorted(entry.parent.name for entry in folder.glob("*/key.json"))


# files


def _read_lab_file(folder: Path) -> _LabFile | None:
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=_LabFile)
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "mend its owner and mode, or set FAZAI_STATE_DIR to another folder"
        raise StateError(f"{folder / FILE} cannot be read: {error.strerror}", hint=hint) from error
    except msgspec.DecodeError as error:
        raise StateError(
            f"{folder / FILE} cannot be read: {error}", hint="delete it when no lab is up"
        ) from error


def _read_ports(folder: Path) -> dict[str, int]:
    """Return the ports of the last time; the folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return msgspec.json.decode((folder / PORTS).read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}  # only a wish: without it the ports are new ones


def _write_json(file: Path, value: object) -> None:
    replace_file(file, json.dumps(value, indent=1).encode())


def _write_ca(folder: Path, pem: str) -> Path:
    file = folder / "ca-certificate.pem"
    file.write_text(pem, encoding="ascii")
    return file


# ports


def _free_port(port: int) -> int:
    """Return the port itself when nobody listens there, else 0."""
    if not port:
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _accepts_connections(base_url: str) -> bool:
    """Return whether something accepts a connection there."""
    host, _, port = base_url.rpartition("/")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False
