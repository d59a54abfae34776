"""Counts hits by rule and group in sliding windows. Memory is bounded, whatever is sent."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterable

from fazai.rules.values import EventRule, Firing, Hit

#: Groups of one rule that are counted at a time; of more, those that were met longest ago are forgotten.
GROUPS_MAX = 10_000
#: Groups of one rule that are known to have been acted on.
MARKS_MAX = 100_000
_TIMES_MAX = 500_000  # of one rule
_HOUR_S = 3600.0


class RuleWindows:
    """The hits of the last while, of all rules, and when each rule last acted on which group. Times are
    handed in: the same hits give the same firings."""

    def __init__(self, groups_max: int = GROUPS_MAX, marks_max: int = MARKS_MAX) -> None:
        self._groups_max, self._marks_max = groups_max, marks_max
        self._hits: dict[str, OrderedDict[str, list[float]]] = {}
        self._marks: dict[str, OrderedDict[str, float]] = {}
        self._fired: dict[str, deque[float]] = {}
        self.forgotten = 0  # groups that had to go for others
        self.held_back = 0  # firings that `per_hour` did not let through

    def restore(self, marks: Iterable[tuple[str, str, float]]) -> None:
        """Take over when each rule acted on which group before a restart, the oldest first."""
        for rule, group, time in marks:
            self._mark(rule, group, time)

    def note(self, hit: Hit, now: float) -> Firing | None:
        """Count a hit; return the firing where the rule is to act now. A hit from the future counts as one of
        now."""
        rule, group, time = hit.rule, hit.group, min(hit.time, now)
        marks = self._marks.get(rule.name)
        acted = marks.get(group) if marks is not None else None
        if time <= now - rule.within_s or (acted is not None and now - rule.throttle_s < acted):
            return None
        times = self._times(rule, group)
        insort(times, time)
        while times and times[0] <= now - rule.within_s:
            del times[0]
        if len(times) < rule.threshold:
            return None
        if not self._may_act(rule, now):
            del times[0]  # it is met again, and acts once it may
            self.held_back += 1
            return None
        del self._hits[rule.name][group]
        self._mark(rule.name, group, now)
        return Firing(rule=rule, group=group, time=now, count=len(times))

    def _times(self, rule: EventRule, group: str) -> list[float]:
        """Return the times of a group, which is the one that was met last from now on."""
        groups = self._hits.setdefault(rule.name, OrderedDict())
        times = groups.setdefault(group, [])
        groups.move_to_end(group)
        if len(groups) > min(self._groups_max, max(_TIMES_MAX // rule.threshold, 1)):
            groups.popitem(last=False)
            self.forgotten += 1
        return times

    def _may_act(self, rule: EventRule, now: float) -> bool:
        fired = self._fired.get(rule.name, deque())
        return sum(1 for time in fired if time > now - _HOUR_S) < rule.per_hour

    def _mark(self, rule: str, group: str, time: float) -> None:
        marks = self._marks.setdefault(rule, OrderedDict())
        marks[group] = max(time, marks.get(group, time))
        marks.move_to_end(group)
        if len(marks) > self._marks_max:
            marks.popitem(last=False)
        fired = self._fired.setdefault(rule, deque())
        fired.append(time)
        while fired and fired[0] <= time - _HOUR_S:
            fired.popleft()

    def forget_rules(self, names: Iterable[str]) -> None:
        """Drop what is counted for rules that are no longer there; when they acted stays known."""
        kept = set(names)
        for name in [name for name in self._hits if name not in kept]:
            del self._hits[name]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of groups that are counted, and of marks."""
        groups = sum(map(len, self._hits.values()))
        return {"groups": groups, "marks": sum(map(len, self._marks.values()))}
