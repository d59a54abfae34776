"""Entries as a file: which addresses stand in which alias, and until when.

The daemon writes it, and `fazai apply --entries FILE` declares what is in it as the variable `fazai_entries`.
Whoever reads it leaves out what is over by his own clock: no timer has to be trusted for an entry to end.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec import Struct

from fazai.errors import InputError
from fazai.rules.addresses import Address, parse_address
from fazai.timestamps import format_time, timestamp

FORMAT = "fazai-entries/1"
VARIABLE = "fazai_entries"
_ENTRIES_MAX = 100_000


class FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """An address that stands until a time."""

    address: str
    until: datetime
    why: str = ""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    aliases: dict[str, list[FileEntry]]


def render_entries(aliases: Iterable[str], entries: Iterable[tuple[str, str, float, str]]) -> bytes:
    """Return the file of these aliases, each of which is in it also where it has no entry. An entry is its
    alias, its address, the time that it stands until (seconds since the epoch) and the reason."""
    found: dict[str, list[FileEntry]] = {alias: [] for alias in sorted(aliases)}
    for alias, address, until, why in entries:
        if alias in found:
            found[alias].append(FileEntry(address, timestamp(until), why))
    for rows in found.values():
        rows.sort(key=lambda entry: _order(entry.address))
    return msgspec.json.format(msgspec.json.encode(_File(FORMAT, found)), indent=1) + b"\n"


def parse_entries(data: bytes, file: str, now: float) -> dict[str, list[str]]:
    """Return the addresses of each alias that stand at a time, in seconds since the epoch. Raises
    InputError."""
    found = _decode(data, file)
    result: dict[str, list[str]] = {}
    for alias, entries in found.aliases.items():
        if len(entries) > _ENTRIES_MAX:
            raise InputError(f"{alias} has more than {_ENTRIES_MAX} entries", where=file)
        standing: dict[Address, None] = {}
        for entry in entries:
            if entry.until.tzinfo is None:
                raise InputError(f"the time of {entry.address[:80]!r} has no zone", where=file)
            address = parse_address(entry.address)
            if address is None:
                raise InputError(f"{entry.address[:80]!r} is no address", where=file)
            if entry.until.timestamp() > now:
                standing[address] = None
        result[alias] = [str(address) for address in standing]
    return result


def read_entry_rows(data: bytes, file: str, job: str, now: float) -> list[dict[str, str]]:
    """Return the entries that stand at a time as rows for people. Raises InputError."""
    parse_entries(data, file, now)  # what is wrong with it
    return [
        {
            "job": job,
            "alias": alias,
            "address": entry.address,
            "until": format_time(entry.until.timestamp()),
            "why": entry.why,
        }
        for alias, entries in _decode(data, file).aliases.items()
        for entry in entries
        if entry.until.timestamp() > now
    ]


def _decode(data: bytes, file: str) -> _File:
    try:
        found = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"this is no file of entries: {error}", where=file) from None
    if found.format != FORMAT:
        raise InputError(f"the format is {found.format[:40]!r}, and {FORMAT} is read", where=file)
    return found


def _order(address: str) -> tuple[int, int]:
    found = ipaddress.ip_address(address)
    return found.version, int(found)
