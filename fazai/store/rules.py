"""Store of the policy's uses, of what event rules did, and of the entries that they want on firewalls."""

from __future__ import annotations

from typing import NamedTuple, Protocol

HOUR_S = 3600.0


class Entry(NamedTuple):
    """An address that stands in an alias until a time. `job` is the run by which it gets there; `rule` and
    `why` say who asked for it. Times in seconds since the epoch."""

    job: str
    alias: str
    address: str
    since: float
    until: float
    rule: str
    why: str


class RuleMark(NamedTuple):
    """The time at which an event rule last acted on a group, such as an address."""

    rule: str
    group: str
    time: float


class RuleStore(Protocol):
    """Memory of the policy and the event rules. Every call may raise StateError; what it writes is durable
    when it returns."""

    async def claim_policy_use(self, rule: str, effect: str, now: float, per_hour: int) -> bool:
        """Count a use of a rule of the policy for an effect (its digest), unless it was used `per_hour` times
        within the hour before; return whether it was counted. Of several that ask for the last use one gets
        it."""
        ...

    async def policy_uses(self, now: float) -> dict[str, int]:
        """Return how often each rule was used within the hour before."""
        ...

    async def put_entry(self, entry: Entry, most: int) -> bool:
        """Keep an entry, or let one that stands do so until the later of both times: it stands since it did.
        One that is over is as new as one that never was. False, with nothing kept, where it is new and its
        alias has `most` entries that are not over yet."""
        ...

    async def drop_expired_entries(self, now: float) -> int:
        """Drop the entries whose time is over, and return how many there were."""
        ...

    async def entries(self) -> list[Entry]:
        """Return all entries, in the order of job, alias and address."""
        ...

    async def put_rule_mark(self, mark: RuleMark, keep_s: float) -> None:
        """Remember when a rule last acted on a group, and forget marks that are older than `keep_s`."""
        ...

    async def rule_marks(self, since: float, limit: int) -> list[RuleMark]:
        """Return the marks from a time on, the latest `limit` of them, the oldest first."""
        ...
