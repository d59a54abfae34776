"""The firewalls that are watched: those that `POST /opn/add` registered, and those of the inventory.

A registered one's key stands in `<secrets>/opnsense/<id>.json` alone; an inventory's where the inventory
says. Both become a `Target` of the provider, which checks them as it does for a run. Nothing here writes
to a firewall.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from fazai.errors import FazaiError, SecretError, Unreachable
from fazai.files import replace_file
from fazai.model import Secret, Target
from fazai.providers.opnsense.provider import OpnsenseProvider
from fazai.secrets.files import read_private
from fazai.store.daemon import FirewallRecord

if TYPE_CHECKING:
    from fazai.inventory import Inventory
    from fazai.secrets import SecretReader


@dataclass(frozen=True, slots=True)
class Firewall:
    """A firewall and how it is reached. `wrong`: the reason why it cannot even be asked."""

    id: str
    name: str
    target: Target
    source: Literal["api", "inventory"]
    tags: tuple[str, ...] = ()
    wrong: str | None = None

    @property
    def base_url(self) -> str:
        return str(self.target.options.get("base_url", ""))

    @property
    def verify_tls(self) -> bool:
        return bool(self.target.options.get("verify_tls", True))


def firewall_id(source: str, name: str) -> str:
    """Return an id that never changes for the same source and name."""
    return hashlib.sha256(f"{source}\0{name}".encode()).hexdigest()[:16]


class KeyFiles:
    """Reads and writes `<secrets>/opnsense/<id>.json`, 0600 in a folder of 0700."""

    def __init__(self, folder: Path, *, uid: int) -> None:
        self._folder = folder / "opnsense"
        self._uid = uid

    def write(self, id_: str, key: str, secret: str) -> None:
        """Write a key; it is durable when this returns. Raises SecretError where the folder is open to others
        or cannot be written."""
        path = self._folder / f"{id_}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.stat(self._folder).st_mode & 0o077:
                text = f"the folder {self._folder} is open to others"
                raise SecretError(text, hint=f"chmod 700 {self._folder}")
            replace_file(path, msgspec.json.encode({"api_key": key, "api_secret": secret}))
        except OSError as error:
            raise SecretError(f"{path} cannot be written: {error.strerror}") from None

    def read(self, id_: str) -> Mapping[str, Secret]:
        """Return the key as `api_key` and `api_secret`. Raises SecretError where the file or its folder is
        open to others, or there is no such file."""
        path = self._folder / f"{id_}.json"
        try:
            found = msgspec.json.decode(read_private(path, uid=self._uid), type=dict[str, str])
        except msgspec.DecodeError:
            raise SecretError(f"{path} holds no api_key and api_secret") from None
        return {name: Secret(text) for name, text in found.items()}

    def remove(self, id_: str) -> None:
        """Remove a key, if there is one."""
        with contextlib.suppress(OSError):
            (self._folder / f"{id_}.json").unlink()


def firewall_of_record(record: FirewallRecord, keys: KeyFiles) -> Firewall:
    """Return a registered firewall. An error of its key or options stands in `wrong`."""
    options: dict[str, Any] = {"base_url": record.base_url, "verify_tls": record.verify_tls}
    wrong = None
    try:
        options["secret"] = keys.read(record.id)
    except SecretError as error:
        wrong = _error_text(error)
    target = Target(record.name, "opnsense", "read", options)
    if wrong is None and (problems := OpnsenseProvider().check(target)):
        wrong = _error_text(problems[0])
    return Firewall(record.id, record.name, target, "api", record.tags, wrong)


def _error_text(error: FazaiError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


# -- the inventory


def firewalls_of_inventory(
    sources: Sequence[str], environ: Mapping[str, str], secrets: Path
) -> tuple[list[Firewall], list[str], tuple[str, ...]]:
    """Return the OPNsense targets of an inventory, read by fazai's own code, what is wrong with others, and
    the names of all targets. Blocks. Raises FazaiError when the inventory itself cannot be read."""
    inventory, reader = read_inventory(sources, environ, secrets)
    return *_firewall_targets(inventory, reader), tuple(inventory.hosts)


def read_inventory(
    sources: Sequence[str], environ: Mapping[str, str], secrets: Path
) -> tuple[Inventory, SecretReader]:
    """Read an inventory as a run does; return it and the reader of its secrets. Blocks. Raises FazaiError."""
    from fazai.inventory import load_inventory
    from fazai.secrets import SecretReader
    from fazai.secrets.scripts import script_runner

    reader = SecretReader(environ=environ, folder=secrets)
    run = script_runner(environ) if environ.get("FAZAI_ALLOW_SCRIPTS") == "1" else None
    return load_inventory(tuple(sources), decrypt=reader.open_file, run_script=run), reader


def _firewall_targets(inventory: Inventory, reader: SecretReader) -> tuple[list[Firewall], list[str]]:
    from fazai.playbook.problems import ProblemCollector
    from fazai.playbook.scopes import HostScopes
    from fazai.playbook.targets import TargetBuilder
    from fazai.registry import Registry
    from fazai.template import Templates

    problems = ProblemCollector()
    scopes = HostScopes(inventory, Templates(secrets=reader.read), {})
    targets = TargetBuilder(inventory, scopes, Registry().provider, reader, problems)
    found: list[Firewall] = []
    for host in inventory.hosts:
        provider = targets.provider(host)
        if provider is None or provider.name != "opnsense":
            continue
        target = targets.build(host, provider)
        if target is not None:
            target = replace(target, mode="read")
            found.append(Firewall(firewall_id("inventory", host), host, target, "inventory", target.groups))
    try:
        problems.check()
    except FazaiError as error:
        return found, [str(each) for each in getattr(error, "errors", (error,))]
    return found, []


def inventory_files(sources: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return every file that an inventory may be made of, with time and size: a cheap reason to read it
    again."""
    seen: dict[str, tuple[str, int, int]] = {}
    for source in sources:
        path = Path(source)
        folders = [path] if path.is_dir() else [path.parent / "group_vars", path.parent / "host_vars"]
        files = [path, *(file for folder in folders for file in sorted(folder.rglob("*")))]
        for file in files:
            with contextlib.suppress(OSError):
                status = file.stat()
                seen[str(file)] = (str(file), status.st_mtime_ns, status.st_size)
    return tuple(seen.values())


def resolve_lab_target(target: Target, lab: Path) -> Target:
    """Give a target of the embedded lab the address and key of `fazai lab up`; return any other as it is.
    Blocks. Raises Unreachable."""
    url = urlsplit(str(target.options.get("base_url", "")))
    if url.scheme != "lab":
        return target
    from fazai.lab import find_firewall

    found = find_firewall(lab, url.netloc)
    if found is None:
        text = f"the lab's firewall {url.netloc} is not up"
        raise Unreachable(text, where=target.name, stage="connect", hint=f"fazai lab up {url.netloc}")
    key, secret = found.key()
    options = {"base_url": found.base_url, "secret": {"api_key": Secret(key), "api_secret": Secret(secret)}}
    more = {"ca": found.ca_file} if found.ca_file else {}
    return replace(target, options={**target.options, **options, **more})
