"""Firewalls of the lab inside the caller's asyncio loop: one listening port on loopback each."""

from __future__ import annotations

import asyncio
import fcntl
import os
import uuid as uuids
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from fazai.errors import LockHeld, StateError, UsageError
from fazai.lab.access import USER_ITEMS, make_api_key
from fazai.lab.actions.common import boot_daemons
from fazai.lab.box import Box
from fazai.lab.engine.config import FirewallConfig, Item, State
from fazai.lab.engine.names import INTERFACES
from fazai.lab.engine.schema import Catalogue, load_release, read_json
from fazai.lab.engine.verbs import blank_item
from fazai.lab.models.alias import make_tables
from fazai.lab.models.rules import RULES
from fazai.lab.server.http import LabConnection
from fazai.lab.server.site import FirewallSite
from fazai.lab.server.wire import LabReply, LabRequest
from fazai.lab.settings import Fault, LabSettings

if TYPE_CHECKING:
    from fazai.lab.server.tls import LabAuthority

T = TypeVar("T")

BOOTED = ("alias", "filter", "group", "routes", "routing", "unbound", "vip", "vlan", "cron", "syslog")

KINDS: Mapping[str, str] = {
    "alias": "Firewall.Alias.aliases.alias",
    "category": "Firewall.Category.categories.category",
    "rule": "Firewall.Filter.rules.rule",
    "source_nat": "Firewall.Filter.snatrules.rule",
    "host": "Unbound.hosts.host",
    "route": "Routes.route",
}


class LabFirewall:
    """One firewall of the lab, as its users see it."""

    def __init__(
        self,
        name: str,
        site: FirewallSite,
        api_key: str,
        api_secret: str,
        ca_pem: str | None,
        listener: _LoopbackPort,
    ) -> None:
        self.name = name
        self.api_key = api_key
        self.api_secret = api_secret
        self.ca_pem = ca_pem
        self.box = site.box  # the insides: what is stored (`config`) and what runs (`running`)
        self.settings = site.box.settings
        self.requests = site.requests  # the last ones: method, target, status (0: the connection was cut)
        self.counters = site.counters  # requests, writes, reconfigures, connections since the start
        self._loop = asyncio.get_running_loop()
        self._site = site
        self._listener = listener

    @property
    def base_url(self) -> str:
        scheme = "https" if self._site.secure else "http"
        return f"{scheme}://127.0.0.1:{self._listener.port}"

    @property
    def locked_out(self) -> bool:
        """True while a lockout keeps new connections away."""
        return self._site.locked is not None

    def _run_in_loop(self, work: Callable[[], T]) -> T:
        """Do something in the loop that owns the firewall, from whatever thread."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            return work()

        async def later() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(later(), self._loop).result()

    def inject(self, fault: Fault) -> None:
        """Arm a fault beside those that are armed already."""
        self._run_in_loop(lambda: self._site.faults.inject(fault))

    def clear_faults(self) -> None:
        """Disarm all faults; a lockout ends, and so does a delay."""

        def clear() -> None:
            self._site.faults.clear()
            if self._site.locked is not None:
                self._site.unlock()

        self._run_in_loop(clear)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the API as root at the console: without the network, its faults and its locks.

        Returns the decoded answer. `path` starts with `/api/`.
        """
        token = b64encode(f"{self.api_key}:{self.api_secret}".encode()).decode()
        headers = {"authorization": f"Basic {token}"}
        data = b""
        if method == "POST":
            headers["content-type"] = "application/json"
            data = msgspec.json.encode(body or {})
        reply = self._run_in_loop(lambda: self._site.handle(LabRequest(method, path, headers, data)))
        return msgspec.json.decode(reply.body) if reply.body else None

    def handle(self, request: LabRequest) -> LabReply:
        """Answer a request without the network; in the loop that owns the firewall."""
        return self._site.handle(request)

    def seed(self, kind: str, items: Iterable[Mapping[str, str]]) -> list[str]:
        """Store many items at once, without validation and as one history entry; their uuids.

        Kinds: alias, category, rule, source_nat, host, route. An item may bring its own "uuid".
        """
        if kind not in KINDS:
            raise UsageError(f"the lab cannot seed {kind!r}", hint=f"kinds: {', '.join(KINDS)}")
        return self._run_in_loop(lambda: _seed_items(self.box, KINDS[kind], items))


def _seed_items(box: Box, path: str, items: Iterable[Mapping[str, str]]) -> list[str]:
    model = box.catalogue.items[path]
    start = blank_item(box, model)
    edit = box.config.edit()
    made = []
    for item in items:
        uuid = item.get("uuid") or str(uuids.uuid4())
        edit.put(path, uuid, {**start, **{key: value for key, value in item.items() if key != "uuid"}})
        made.append(uuid)
    edit.commit("seeded", "root@127.0.0.1", box.clock())
    return made


class _LoopbackPort:
    """The listening socket of one firewall; it can be closed and opened again on the same port."""

    def __init__(self, site: FirewallSite, authority: Callable[[], LabAuthority]) -> None:
        self._site = site
        self._authority = authority
        self._server: asyncio.Server | None = None
        self._tls: Any = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def open(self, port: int = 0) -> None:
        tls = self._site.box.settings.tls
        if tls is not None and self._tls is None:
            from fazai.lab.server.tls import lab_server_context

            self._tls = lab_server_context(self._authority(), tls)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: LabConnection(self._site),
            "127.0.0.1",
            port,
            ssl=self._tls,
            backlog=512,
            reuse_address=True,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._site.on_lock = self._on_lock

    def _on_lock(self, refused: bool) -> None:
        if refused and self._server is not None:
            self._server.close()
            self._server = None
        elif not refused and self._server is None:
            self._task = asyncio.get_running_loop().create_task(self.open(self.port))

    async def close(self) -> None:
        if self._task is not None:
            await self._task
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._site.connections):
            connection.abort()
        await asyncio.sleep(0)


class Lab:
    """Many firewalls in one process. `folder` keeps state and keys; without it nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._firewalls: dict[str, LabFirewall] = {}
        self._starting = asyncio.Lock()
        self._held: list[int] = []  # lock files of the folders that are ours as long as we run
        self._ca: LabAuthority | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def start(self, name: str, settings: LabSettings | None = None, port: int = 0) -> LabFirewall:
        """Start a firewall, or return the running one of that name.

        Raises UsageError for a name that cannot be a folder's, StateError when the folder cannot be used,
        LockHeld when another process serves it.
        """
        if (
            not name
            or not all(letter.isalnum() or letter in "-_." for letter in name)
            or name.startswith(".")
        ):
            raise UsageError(
                f"{name!r} cannot name a firewall of the lab", hint="letters, digits, '-', '_' and '.'"
            )
        async with self._starting:
            if name not in self._firewalls:
                self._firewalls[name] = await self._start(name, settings or LabSettings(), port)
            return self._firewalls[name]

    async def _start(self, name: str, settings: LabSettings, port: int) -> LabFirewall:
        folder = None if self._folder is None else self._folder / name
        if folder is not None:
            self._held.append(_lock_firewall_folder(folder, name))
        catalogue = load_release(settings.release)
        key, secret, line = _read_or_make_key(folder)
        state = start_state(catalogue, line, legacy_rules=settings.has_legacy_rules)
        config = FirewallConfig(state, settings.history, folder)
        box = Box(name, catalogue, settings, config)
        box.schedule = lambda delay_s, action: asyncio.get_running_loop().call_later(delay_s, action).cancel
        pem = None if settings.tls is None else self._authority().pem
        site = FirewallSite(box)
        boot_services(box)
        listener = _LoopbackPort(site, self._authority)
        await listener.open(port)
        return LabFirewall(name, site, key, secret, pem, listener)

    def _authority(self) -> LabAuthority:
        if self._ca is None:
            from fazai.lab.server.tls import LabAuthority

            self._ca = LabAuthority.create() if self._folder is None else LabAuthority.kept_in(self._folder)
        return self._ca

    async def close(self) -> None:
        """Stop all firewalls; what was answered is kept in the folder."""
        for firewall in self._firewalls.values():
            await firewall._listener.close()
            firewall.box.config.close()
        self._firewalls.clear()
        while self._held:
            os.close(self._held.pop())


def start_state(catalogue: Catalogue, key_line: str, *, legacy_rules: bool = False) -> State:
    """Return the state of a new firewall: three interfaces, one gateway, two rules, one user.

    Root holds the API key whose line is given. `legacy_rules`: the factory's rules are no items of the API.
    """
    state: dict[str, dict[str, Item]] = {}
    for path, items in read_json("start.json").items():
        if path == RULES and legacy_rules:
            items = {}
        blank = {"descr": "", "lock": "0"} if path == INTERFACES else {}
        if path in catalogue.items:
            blank = catalogue.items[path].blank()
        state[path] = {uuid: {**blank, **item} for uuid, item in items.items()}
    root = next(uuid for uuid, user in state[USER_ITEMS].items() if user["name"] == "root")
    state[USER_ITEMS][root] = {**state[USER_ITEMS][root], "apikeys": key_line}
    return state


def boot_services(box: Box) -> None:
    """Run what is stored, as after a reboot; the services of a new firewall run nothing."""
    if box.config.history:
        for service in BOOTED:
            box.apply(service)
        box.running.tables = make_tables(box)
        if box.config.settings("Unbound").get("general.enabled", "1") == "1":
            box.running.services["unbound"] = "running"
        boot_daemons(box)


def _lock_firewall_folder(folder: Path, name: str) -> int:
    """Lock the folder: two processes must not keep the state of one firewall.

    Raises LockHeld, StateError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"the lab's folder {folder} cannot be used: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise LockHeld(
            f"another process serves the lab's firewall {name}",
            where=str(folder),
            hint="wait for it; `fazai lab up` keeps one up for several runs at once",
        ) from None
    return handle


class _LabKey(msgspec.Struct, frozen=True, rename={"key": "api_key", "secret": "api_secret"}):
    """The key file as an inventory takes it: `secret: !file …/key.json`."""

    key: str
    secret: str
    line: str


def _read_or_make_key(folder: Path | None) -> tuple[str, str, str]:
    """Return the API key of a firewall; it is kept with mode 0600."""
    if folder is None:
        return make_api_key()
    file = folder / "key.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if file.exists():
            found = msgspec.json.decode(file.read_bytes(), type=_LabKey)
            return found.key, found.secret, found.line
        made = _LabKey(*make_api_key())
        with open(file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            out.write(msgspec.json.encode(made))
        return made.key, made.secret, made.line
    except (OSError, msgspec.DecodeError) as error:
        raise StateError(f"the lab's key file {file} cannot be used: {error}") from error
