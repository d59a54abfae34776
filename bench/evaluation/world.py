"""Three firewalls of the lab and a daemon of this process, as a task wants them, and the state they are in.

`edge` declares an alias that fw-01 lacks and one that fw-02 has; `branch` and `audit` declare one whose
content differs on fw-03 (`audit` may only look); `core` has nothing to do. Two hosts report.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import uvloop

from bench.evaluation.tasks import WorldSpec
from fazai.daemon.events.announcer import log_event, row_of
from fazai.daemon.process import Daemon
from fazai.daemon.runs.config import Polling
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.daemon.settings import DaemonSettings
from fazai.lab import LabFirewall, LabSettings, LabThread
from fazai.lab.lab import KINDS
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.service.log import Log
from fazai.store.sqlite.daemon import SqliteDaemonStore

T = TypeVar("T")
_PATIENCE_S = 900.0  # a small machine may take long for an answer
_POLL_S = 1.0  # the first look at a firewall comes within it
_FIREWALLS = ("fw-01", "fw-02", "fw-03")
_HOSTS = ("web-01", "db-01")
_DECLARED: dict[str, list[dict[str, Any]]] = {
    "fw-01": [{"opnsense.alias": {"name": "blocklist", "type": "host", "content": ["192.0.2.7"]}}],
    "fw-02": [{"opnsense.alias": {"name": "web_servers", "type": "host", "content": ["198.51.100.10"]}}],
    "fw-03": [{"opnsense.alias": {"name": "office_nets", "type": "network", "content": ["203.0.113.0/24"]}}],
}
_STORED = {
    "fw-01": [],
    "fw-02": [{"name": "web_servers", "type": "host", "content": "198.51.100.10"}],
    "fw-03": [{"name": "office_nets", "type": "network", "content": "203.0.113.0/25"}],
}
_JOBS: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "edge": (("fw-01", "fw-02"), ["check", "approve"]),
    "core": (("fw-02",), ["check", "approve"]),
    "branch": (("fw-03",), ["check", "approve"]),
    "audit": (("fw-03",), ["check"]),
}
#: Items by firewall, collection and name.
State = dict[str, dict[str, dict[str, str]]]


@dataclass
class EvalWorld:
    """A daemon and its firewalls."""

    daemon: Daemon
    firewalls: dict[str, LabFirewall]
    client: httpx.Client
    spec: WorldSpec
    loop: asyncio.AbstractEventLoop
    has_moved: bool = False

    def state(self) -> State:
        """Return what stands on the firewalls, without what differs from run to run."""
        return {name: _items_of(one) for name, one in self.firewalls.items()}

    def writes(self) -> int:
        """Return how many writes the firewalls took."""
        return sum(one.counters["writes"] for one in self.firewalls.values())

    def move(self) -> State | None:
        """Let somebody else change firewalls once, as the task says; return the state after it."""
        if self.has_moved or not self.spec.moved:
            return None
        self.has_moved = True
        for name, aliases in self.spec.moved.items():
            self.firewalls[name].seed("alias", aliases)
        return self.state()

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the daemon's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE_S)

    def get(self, path: str, **query: Any) -> Any:
        """Return the answer of a route."""
        return _read(self.client.get(path, params=query))

    def post_stream(self, path: str, body: Any) -> None:
        """Read a stream of events to its end."""
        with self.client.stream("POST", path, json=body) as answer:
            for _ in answer.iter_lines():
                pass

    def post(self, path: str, body: Any) -> Any:
        """Return the answer of a route."""
        return _read(self.client.post(path, json=body))


def digest(state: State) -> str:
    """Return the hash of a state."""
    return hashlib.sha256(msgspec.json.encode(state, order="deterministic")).hexdigest()


def until(holds: Callable[[], object]) -> None:
    """Wait for a condition of another thread. Raises RuntimeError."""
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError("it did not come true")
        time.sleep(0.02)


@contextlib.contextmanager
def eval_world(
    folder: Path,
    spec: WorldSpec,
    *,
    endpoint: str | None,
    model: str,
    socket: Path | None,
    poll_s: float = _POLL_S,
) -> Iterator[EvalWorld]:
    """A world whose model is an endpoint, or the worker behind a socket."""
    with LabThread() as lab:
        settings = LabSettings(auth_delay_s=0.0)
        firewalls = {name: lab.start(name, settings) for name in _FIREWALLS}
        for name, one in firewalls.items():
            aliases = {alias["name"]: alias for alias in (*_STORED[name], *spec.stored.get(name, ()))}
            one.seed("alias", aliases.values())
            one.seed("rule", ({"description": text, "interface": "lan"} for text in spec.rules.get(name, ())))
        config = _write_files(folder, firewalls, spec)
        fallback = FallbackEndpoint.checked(endpoint, model, None, "--endpoint") if endpoint else None
        asked = DaemonSettings(
            state=folder / "state",
            secrets=folder / "secrets",
            port=0,
            socket=folder / "d.sock",
            gemma_socket=socket or folder / "no-worker.sock",
            fallback=fallback,
            inventory=(str(folder / "fleet.yml"),),
            policy=folder / "policy.yml",
            config=replace(read_daemon_config(config), polling=Polling(every_s=poll_s)),
            ingest="open",
            log_file=folder / "daemon.log",
        )
        with _running(asked) as (daemon, loop):
            url = f"http://127.0.0.1:{daemon.addresses[0][1]}"
            with httpx.Client(base_url=url, timeout=_PATIENCE_S, trust_env=False) as client:
                world = EvalWorld(daemon, firewalls, client, spec, loop)
                _fill(world)
                yield world


@contextlib.contextmanager
def _running(settings: DaemonSettings) -> Iterator[tuple[Daemon, asyncio.AbstractEventLoop]]:
    """Run a daemon in a thread."""
    assert settings.log_file is not None
    log = Log(settings.log_file, logger="fazai.daemon")
    made: list[tuple[Daemon, asyncio.AbstractEventLoop]] = []
    failed: list[BaseException] = []
    ready = threading.Event()

    async def run() -> None:
        daemon = Daemon(settings, log)
        made.append((daemon, asyncio.get_running_loop()))
        await daemon.run(lambda state: SqliteDaemonStore(state), ready=ready.set)

    def serve() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve, name="daemon")
    thread.start()
    try:
        ready.wait(_PATIENCE_S)
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if made and thread.is_alive():
            made[0][1].call_soon_threadsafe(made[0][0].stop)
        thread.join(_PATIENCE_S)
        log.close()


def _write_files(folder: Path, firewalls: dict[str, LabFirewall], spec: WorldSpec) -> Path:
    """Write the inventories and the daemon's configuration."""
    hosts = {
        name: {
            "provider": "opnsense",
            "mode": "write",
            "base_url": one.base_url,
            "secret": {"api_key": one.api_key, "api_secret": one.api_secret},
            "retries": 0,
            "adopt": True,
            "resources": spec.declared.get(name, _DECLARED[name]),
        }
        for name, one in firewalls.items()
    }
    (folder / "fleet.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    runs = {}
    for job, (names, modes) in _JOBS.items():
        part = {"all": {"hosts": {name: hosts[name] for name in names}}}
        (folder / f"{job}.yml").write_text(json.dumps(part))
        runs[job] = {"inventory": f"{job}.yml", "modes": modes}
    path = folder / "daemon.yml"
    path.write_text(json.dumps({"runs": runs, "probes": {"allow": ["127.0.0.1"]}}))
    return path


def _fill(world: EvalWorld) -> None:
    """Let the hosts report, the notes be kept, the lines be logged; wait for the first look at each
    firewall."""
    at = datetime.now(UTC).isoformat()
    for number, name in enumerate(_HOSTS):
        commands = world.spec.processes.get(name, ["nginx: worker"] if number == 0 else ["postgres"])
        top = [{"pid": 100 + n, "command": text, "cpu_percent": 20.0} for n, text in enumerate(commands)]
        disk = {"mount": "/", "total": 100 << 30, "free": (60 if number == 0 else 4) << 30}
        load = [0.5, 0.4, 0.3] if number == 0 else [7.5, 7.0, 6.0]
        body = {"hostname": name, "timestamp": at, "os": {"load": load}, "disk": [disk], "top": top}
        world.post("/ingest", body)
    for note in world.spec.notes:
        world.post("/kb", note)
    if world.spec.log:
        services = world.daemon.services
        assert services is not None
        rows = [row_of(log_event("warning", line, "fazai.daemon")) for line in world.spec.log]
        world.on_loop(services.store.publish(rows))
    until(lambda: set(_FIREWALLS) <= {row["name"] for row in world.get("/fleet")["rows"] if row.get("up")})


def _items_of(firewall: LabFirewall) -> dict[str, dict[str, str]]:
    state = firewall.box.config.state
    found: dict[str, dict[str, str]] = {}
    for kind, path in KINDS.items():
        for item in state.get(path, {}).values():
            name = item.get("name") or item.get("description") or item.get("descr") or item.get("hostname")
            found[f"{kind} {name}"] = {key: str(value) for key, value in item.items()}
    return found


def _read(answer: httpx.Response) -> Any:
    if answer.status_code >= 400:
        raise RuntimeError(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")
    return answer.json()
