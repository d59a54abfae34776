"""The tables of `RuleStore`: uses of the policy's rules, entries of aliases, and marks of event rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fazai.store.rules import HOUR_S, Entry, RuleMark
from fazai.store.sqlite.writer import Statement

_CLAIM = (
    "INSERT INTO policy_uses SELECT ?, ?, ?"
    " WHERE (SELECT count(*) FROM policy_uses WHERE rule = ? AND time > ?) < ?"
)
_USES = "SELECT rule, count(*) FROM policy_uses WHERE time > ? GROUP BY rule"
_KEEP_USES_S = 30 * 86400.0  # who looks into what was done without asking finds a month of it

_PUT_ENTRY = (
    "INSERT INTO entries SELECT ?, ?, ?, ?, ?, ?, ?"
    " WHERE EXISTS (SELECT 1 FROM entries WHERE job = ? AND alias = ? AND address = ? AND until > ?)"
    " OR (SELECT count(*) FROM entries WHERE job = ? AND alias = ? AND until > ?) < ?"
    " ON CONFLICT (job, alias, address) DO UPDATE SET"
    " since = iif(until > excluded.since, since, excluded.since), until = max(until, excluded.until),"
    " rule = excluded.rule, why = excluded.why"
)
_ENTRIES = "SELECT job, alias, address, since, until, rule, why FROM entries ORDER BY job, alias, address"
_MARKS = 'SELECT rule, "group", time FROM rule_marks WHERE time >= ? ORDER BY time DESC LIMIT ?'

#: Changes rows, and returns how many.
Change = Callable[[Sequence[Statement]], Awaitable[int]]
Query = Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]


class SqliteRuleStore:
    """The tables as `RuleStore`. The daemon's one writer carries out each statement as a whole, so that what
    is counted in it cannot change meanwhile."""

    def __init__(self, change: Change, query: Query) -> None:
        self._change, self._query = change, query

    async def claim_policy_use(self, rule: str, effect: str, now: float, per_hour: int) -> bool:
        row = (rule, now, effect, rule, now - HOUR_S, per_hour)
        claimed = await self._change([(_CLAIM, row)])
        if claimed:
            await self._change([("DELETE FROM policy_uses WHERE time < ?", (now - _KEEP_USES_S,))])
        return bool(claimed)

    async def policy_uses(self, now: float) -> dict[str, int]:
        return dict(await self._query(_USES, (now - HOUR_S,)))

    async def put_entry(self, entry: Entry, most: int) -> bool:
        of_alias, now = (entry.job, entry.alias), entry.since
        row = (*entry, *of_alias, entry.address, now, *of_alias, now, most)
        return bool(await self._change([(_PUT_ENTRY, row)]))

    async def drop_expired_entries(self, now: float) -> int:
        return await self._change([("DELETE FROM entries WHERE until <= ?", (now,))])

    async def entries(self) -> list[Entry]:
        return [Entry(*row) for row in await self._query(_ENTRIES, ())]

    async def put_rule_mark(self, mark: RuleMark, keep_s: float) -> None:
        await self._change(
            [
                ("INSERT OR REPLACE INTO rule_marks VALUES (?, ?, ?)", tuple(mark)),
                ("DELETE FROM rule_marks WHERE time < ?", (mark.time - keep_s,)),
            ]
        )

    async def rule_marks(self, since: float, limit: int) -> list[RuleMark]:
        return [RuleMark(*row) for row in reversed(await self._query(_MARKS, (since, limit)))]
