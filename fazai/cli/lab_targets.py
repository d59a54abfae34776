"""Targets of the embedded lab: a firewall for `base_url: lab://NAME`, a folder for `root: lab://NAME`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from fazai.errors import InventoryError, StateError
from fazai.model import Secret, TargetWork, Work

if TYPE_CHECKING:
    from fazai.lab import LabAddress, LabFirewall

_LAB = "lab://"


def lab_names(works: Sequence[Work]) -> dict[str, TargetWork]:
    """Return the targets that are firewalls of the lab, by target name."""
    return {
        item.target.name: item
        for work in works
        for item in work.targets
        if str(item.target.options.get("base_url", "")).startswith(_LAB)
    }


@contextlib.asynccontextmanager
async def with_lab_firewalls(works: Sequence[Work], folder: Path) -> AsyncIterator[tuple[Work, ...]]:
    """Return the same work, with the addresses and keys of the lab's firewalls. One that `fazai lab up`
    keeps up is used; the others are started on loopback and stopped at the end. Raises InventoryError."""
    works = with_lab_folders(works, folder)
    inside = lab_names(works)
    if not inside:
        yield works
        return
    from fazai.lab import Lab, LabSettings, find_firewall

    async with contextlib.AsyncExitStack() as stack:
        lab: Lab | None = None
        options: dict[str, Mapping[str, Any]] = {}
        for name, item in inside.items():
            firewall, wanted = _parse_lab_url(item)
            found: LabAddress | LabFirewall | None = find_firewall(folder, firewall)
            if found is None:
                if lab is None:
                    lab = await stack.enter_async_context(Lab(folder))
                found = await lab.start(firewall, LabSettings.parse(wanted))
            reached = {**_lab_options(found), "lab": f"{_LAB}{folder}/{firewall}"}
            options[name] = {**item.target.options, **reached}
        yield tuple(_with_options(work, options) for work in works)


def with_lab_folders(works: Sequence[Work], folder: Path) -> tuple[Work, ...]:
    """Return the same work, with a folder in the lab's state for each host of the lab. Raises
    InventoryError, StateError."""
    options: dict[str, Mapping[str, Any]] = {}
    for item in (item for work in works for item in work.targets):
        root = str(item.target.options.get("root", ""))
        if not root.startswith(_LAB):
            continue
        name = root.removeprefix(_LAB)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
            text = f"{root!r} does not name a host of the lab"
            hint = "lab://NAME, for instance lab://host-01"
            raise InventoryError(text, where=item.target.where("root"), hint=hint)
        path = (folder / "hosts" / name).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{path} cannot be made: {error.strerror}", hint="FAZAI_LAB") from None
        options[item.target.name] = {**item.target.options, "root": str(path)}
    return tuple(_with_options(work, options) for work in works) if options else tuple(works)


def _lab_options(found: LabAddress | LabFirewall) -> dict[str, Any]:
    """Return the options by which a firewall of the lab is reached."""
    from fazai.lab import LabAddress

    if isinstance(found, LabAddress):
        (key, secret), ca = found.key(), found.ca_file
    else:
        key, secret, ca = found.api_key, found.api_secret, found.ca_pem
    options = {"base_url": found.base_url, "secret": {"api_key": Secret(key), "api_secret": Secret(secret)}}
    return {**options, "ca": ca} if ca else options


def _parse_lab_url(item: TargetWork) -> tuple[str, dict[str, str | float]]:
    """`lab://NAME?release=26.1.11` -> the firewall's name and its settings."""
    url = urlsplit(str(item.target.options["base_url"]))
    if not url.netloc or url.path not in ("", "/"):
        text = f"{url.geturl()!r} does not name a firewall of the lab"
        hint = "lab://NAME, for instance lab://fw-01"
        raise InventoryError(text, where=item.target.where("base_url"), hint=hint)
    return url.netloc, {name: _parse_lab_setting(text) for name, text in parse_qsl(url.query)}


def _parse_lab_setting(text: str) -> str | float:
    """Convert a setting of an address to a number if it is one; a release such as 26.1.11 is none."""
    if text.isascii() and text.isdigit():
        return int(text)
    return float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else text


def _with_options(work: Work, options: Mapping[str, Mapping[str, Any]]) -> Work:
    def change(item: TargetWork) -> TargetWork:
        own = options.get(item.target.name)
        return item if own is None else replace(item, target=replace(item.target, options=own))

    return replace(work, targets=tuple(map(change, work.targets)))
