"""A device in memory with its provider: small, but it keeps saved and running state apart as real ones do,
and everything that the engine calls does what the protocol says."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from fazai.errors import FazaiError, InputError, Refused, Rejected, Unreachable
from fazai.model import (
    Activate,
    Change,
    Diff,
    FieldSpec,
    Kind,
    Observation,
    Resource,
    Session,
    Step,
    Target,
    Verb,
)


@dataclass
class Device:
    """`saved` and `running`: identity -> fields. `before` is called before each call with its name."""

    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda call: None
    locked_out: bool = False
    shuts_out: bool = False  # an activation of something called "lockout" shuts new connections out
    sticky: frozenset[str] = frozenset()  # fields that do not stick
    ignores: frozenset[str] = frozenset()  # identities whose writes are answered as if they were done
    gate: asyncio.Event | None = None
    waiting: asyncio.Event | None = None

    async def call(self, name: str) -> None:
        self.calls.append(name)
        if self.gate is not None and name.startswith("write"):
            assert self.waiting is not None
            self.waiting.set()
            await self.gate.wait()
        self.before(name)

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if call.startswith("write")]


@dataclass(frozen=True)
class Seen:
    items: Mapping[str, Mapping[str, Any]]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.items, sort_keys=True).encode()).hexdigest()


class DeviceSession:
    def __init__(self, device: Device, target: Target) -> None:
        self.device, self.target = device, target

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.device.calls.append("close")

    async def observe(self, wanted: Sequence[Resource]) -> Observation:
        await self.device.call("observe")
        return Seen({name: dict(item) for name, item in self.device.saved.items()})

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Observation,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        assert isinstance(seen, Seen)
        changes: list[Change] = []
        refused: list[tuple[Change, FazaiError]] = []
        for resource in wanted:
            have = seen.items.get(resource.identity)
            change = _change(self.target.name, resource, have)
            if change is None:
                continue
            if resource.identity.startswith("foreign"):
                refused.append((change, Refused("not ours", where=change.where)))
            else:
                changes.append(change)
        services = {s for c in changes for s in c.activates} | pending
        steps: list[Step] = [*changes, *(Activate(self.target.name, name) for name in sorted(services))]
        return Diff(tuple(steps), len(wanted) - len(changes) - len(refused), tuple(refused))

    async def write(self, change: Change) -> str:
        await self.device.call(f"write {change.verb} {change.identity}")
        if change.identity in self.device.ignores:
            return change.identity
        if change.verb is Verb.DELETE:
            self.device.saved.pop(change.identity, None)
        else:
            sent = {k: v for k, v in change.after.items() if k not in self.device.sticky}
            self.device.saved.setdefault(change.identity, {}).update(sent)
        return change.identity

    def inverse(self, change: Change, ref: str) -> Change:
        swapped = replace(change, before=change.after, after=change.before)
        verbs = {Verb.CREATE: Verb.DELETE, Verb.DELETE: Verb.CREATE}
        return replace(swapped, verb=verbs.get(change.verb, change.verb))

    async def hold(self) -> None:
        await self.device.call("hold")

    async def activate(self, service: str) -> None:
        await self.device.call(f"activate {service}")
        self.device.running = {name: dict(item) for name, item in self.device.saved.items()}
        self.device.locked_out = self.device.shuts_out and "lockout" in self.device.running

    async def probe(self) -> None:
        await self.device.call("probe")
        if self.device.locked_out:
            raise Unreachable("no answer over a fresh connection", stage="connect", where=self.target.name)

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        await self.device.call("verify")
        return []


def _change(target: str, resource: Resource, have: Mapping[str, Any] | None) -> Change | None:
    common: dict[str, Any] = {"target": target, "kind": resource.kind, "identity": resource.identity}
    common |= {"ref": resource.identity, "activates": ("service",)}
    if resource.state == "absent":
        return None if have is None else Change(**common, verb=Verb.DELETE, before=dict(have), after={})
    if have is None:
        return Change(**common, verb=Verb.CREATE, before={}, after=resource.fields)
    differ = {k: v for k, v in resource.fields.items() if have.get(k) != v}
    if not differ:
        return None
    return Change(**common, verb=Verb.UPDATE, before={k: have.get(k) for k in differ}, after=differ)


@dataclass
class DeviceProvider:
    devices: dict[str, Device]
    name: str = "memory"
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    options: Mapping[str, FieldSpec] = field(default_factory=dict)

    def check(self, target: Target) -> list[InputError]:
        return []

    def connect(self, target: Target) -> Session:
        return DeviceSession(self.devices[target.name], target)

    def box_of(self, target: Target) -> str:
        return str(target.options.get("address", target.name))


def rejected(message: str = "no") -> Rejected:
    return Rejected(message, fields={"a": (message,)})
