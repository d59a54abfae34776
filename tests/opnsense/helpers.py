"""What these tests share: resources, targets, and one pass in the engine's order of calls."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fazai.errors import Mark
from fazai.lab import LabFirewall
from fazai.model import Activate, Change, Diff, Resource, Target
from fazai.providers.opnsense.provider import PROVIDER
from fazai.providers.opnsense.session import OpnsenseSession, open_firewall_session

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def resource(
    kind: str,
    fields: Mapping[str, Any],
    *,
    state: str = "present",
    adopt: bool | None = None,
    line: int = 0,
) -> Resource:
    """A resource as the playbook hands it over; the fields must be right."""
    row = PROVIDER.kinds[kind]
    identity = row.identify(fields)
    assert isinstance(identity, str), identity
    values, problems = row.normalise(fields, state)
    assert not problems, problems
    mark = Mark("play.yml", line, 3) if line else None
    origins = (
        {name: Mark("play.yml", line + place, 7) for place, name in enumerate(fields, 1)} if line else {}
    )
    return Resource(
        kind=kind,
        identity=identity,
        fields=values,
        state=state,
        adopt=adopt,
        mark=mark,
        origins=origins,
    )


def target(firewall: LabFirewall, **options: Any) -> Target:
    """A firewall of the lab as a target in write mode."""
    secret = {"api_key": firewall.api_key, "api_secret": firewall.api_secret}
    base = {"base_url": firewall.base_url, "secret": secret}
    if firewall.ca_pem is not None:
        base["ca"] = firewall.ca_pem
    return Target("fw-01", "opnsense", "write", {**base, **options})


class FakeClock:
    """Time that passes when somebody sleeps, and chance that is always the same."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.slept: list[float] = []

    def now_s(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time_s += seconds
        await asyncio.sleep(0)

    def jitter(self) -> float:
        return 0.5


@dataclass
class Pass:
    """One apply: what was to be done, what was done, and what was left afterwards."""

    diff: Diff
    written: list[tuple[Change, str]]
    after: Diff
    digest_before: str
    digest_after: str


def session(to: Target, clock: FakeClock | None = None) -> OpnsenseSession:
    """A session; with a clock of its own when given."""
    return open_firewall_session(to, PROVIDER.kinds, clock)


async def apply_in(
    work: OpnsenseSession,
    wanted: Sequence[Resource],
    *,
    prune: bool = False,
    adopted: frozenset[str] = frozenset(),
) -> Pass:
    """Observe, diff, write, activate, observe, diff: the engine's order without its care."""
    seen = await work.observe(wanted)
    diff = work.diff(wanted, seen, prune=prune, adopted=adopted)
    before = seen.digest
    written = []
    for step in diff.steps:
        if isinstance(step, Activate):
            await work.activate(step.service)
        else:
            assert isinstance(step, Change)
            written.append((step, await work.write(step)))
    seen = await work.observe(wanted)
    taken = adopted | {ref for change, ref in written if change.adopts}
    return Pass(diff, written, work.diff(wanted, seen, prune=prune, adopted=taken), before, seen.digest)


async def apply(to: Target, wanted: Sequence[Resource], **options: Any) -> Pass:
    """`apply_in` with a session of its own."""
    async with session(to) as work:
        return await apply_in(work, wanted, **options)


async def plan(to: Target, wanted: Sequence[Resource], **options: Any) -> Diff:
    """Only observe and diff."""
    async with session(to) as work:
        return work.diff(wanted, await work.observe(wanted), **options)


async def undo(work: OpnsenseSession, done: Pass) -> None:
    """Undo what a pass wrote, backwards."""
    for change, ref in reversed(done.written):
        await work.write(work.inverse(change, ref))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    return asyncio.run(work)


def recordings() -> Path:
    """The folder of recorded exchanges; skips the test where it is not present."""
    given = os.environ.get("FAZAI_RECORDINGS")
    folder = Path(given) if given else ROOT.parent / "shared" / "opnsense"
    if not (folder / "fields.json").exists():
        pytest.skip(f"no recordings at {folder}: set FAZAI_RECORDINGS")
    return folder


def recorded(name: str) -> list[dict[str, Any]]:
    """One file of recorded exchanges."""
    found: list[dict[str, Any]] = json.loads((recordings() / name).read_text())
    return found


Start = Callable[..., LabFirewall]
