"""Decides a session anew from its journal alone, and says where that differs (requirement B13).

Nothing is asked and nothing is done: what the model wrote, what was observed and what people said stands in
the journal. What follows from it has to come out again: the turns and their hashes, the action that was read,
what is stuck, over a budget, rejected, allowed, approved; and the state at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from fazai.loop import prompt
from fazai.loop.effects import Effect
from fazai.loop.journal import (
    Answered,
    AnyEntry,
    Approved,
    Asked,
    Began,
    Decided,
    Ended,
    Entry,
    Generated,
    ObjectiveSet,
    Observed,
    Paused,
    Proposed,
    Question,
    Rejected,
    Resumed,
    SessionState,
    Verdict,
    fold,
    seal,
)
from fazai.loop.progress import is_repetition, stuck_reason
from fazai.loop.proposals import read_proposal
from fazai.wire.sessions import SessionRow
from fazai.wire.tools import dotless_name

#: Says what a policy decides on an effect, at a time, where no rule was used before: the verdict, why, by
#: which rule. `bool`: the context is tainted.
Decide = Callable[[Effect, bool, float], tuple[Verdict, str, str]]
_SLACK_S = 5.0  # between a look at the clock and the entry that says what came of it


class Replayed(NamedTuple):
    """An entry, decided anew: what differs, and what could not be looked at."""

    number: int
    entry: Entry | None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON, the entry excepted."""
        tag = str(self.entry.__struct_config__.tag) if self.entry is not None else "end"
        return {"entry": tag, "differences": list(self.differences), "notes": list(self.notes)}


def replay_journal(
    entries: Sequence[AnyEntry],
    decide: Decide | None = None,
    generation: str | None = None,
    *,
    tainted: bool = False,
) -> list[Replayed]:
    """Decide every entry anew. `decide` is the present policy, and `generation` its mark: an effect that was
    judged by another one is said to be so. `tainted`: what others wrote began the session."""
    replay = _Replay(decide, generation, tainted)
    return [replay.check(number, entry) for number, entry in enumerate(entries)]


def compare_end(entries: Sequence[AnyEntry], row: SessionRow) -> list[Replayed]:
    """Compare the state that follows from the journal with the one that the daemon has."""
    state = fold(list(entries))
    used, waiting = row.usage, row.waiting
    there = {
        "status": row.status,
        "objective": row.objective or "",
        "why": row.why or "",
        "result": row.result,
        "tainted": row.tainted,
        "waiting": waiting and (waiting.action_id, waiting.kind, waiting.plan_hash or ""),
        "iterations": used.iterations if used is not None else 0,
        "tokens": used.tokens if used is not None else 0,
        "bytes": used.bytes if used is not None else 0,
    }
    ours = {
        "status": state.status,
        "objective": state.objective,
        "why": state.why,
        "result": state.result,
        "tainted": state.tainted,
        "waiting": state.waiting and (state.waiting.action_id, state.waiting.kind, state.waiting.plan_hash),
        "iterations": state.spent.iterations,
        "tokens": state.spent.tokens,
        "bytes": state.spent.bytes,
    }
    found = tuple(
        f"{name}: the journal says {ours[name]!r}, the daemon {there[name]!r}"
        for name in ours
        if ours[name] != there[name]
    )
    return [Replayed(len(entries), None, found)]


@dataclass(slots=True)
class _Replay:
    """A replay as far as it has come."""

    decide: Decide | None
    generation: str | None
    tainted: bool
    state: SessionState = field(default_factory=SessionState)
    last: AnyEntry | None = None
    since_asked: list[AnyEntry] = field(default_factory=list)
    generated: Generated | None = None  # from which no action was read yet
    by_model: bool = True  # whose the latest proposal is
    chain: str = ""
    notes: list[str] = field(default_factory=list)

    def check(self, number: int, entry: AnyEntry) -> Replayed:
        """Compare an entry with what follows from those before it, and follow it."""
        self.notes = []
        found = [*self._check_place(entry), *_CHECKS[type(entry)](self, entry)]
        if seal(entry, self.chain).chain != entry.chain:
            found.append("it is not as it was written, or one before it is missing")
        self.chain = entry.chain
        self.state.follow(entry)
        self.since_asked = [] if isinstance(entry, Asked) else [*self.since_asked, entry]
        self.last = entry
        return Replayed(number, entry, tuple(found), tuple(self.notes))

    def _check_place(self, entry: AnyEntry) -> Iterator[str]:
        """Yield what an entry may not come after."""
        last = self.last
        if isinstance(last, Generated) and not isinstance(entry, Proposed):
            yield "no action was read from the answer before it"
        goes_on = isinstance(last, Proposed) and not isinstance(entry, Paused | Ended)
        if goes_on and (why := stuck_reason(self.state)) is not None:
            yield f"it goes on, and is stuck: {why}"
        if self.state.status not in _STATUSES[type(entry)]:
            yield f"the session is {self.state.status} here"

    # -- an entry each: yields what differs

    def objective(self, entry: ObjectiveSet) -> Iterator[str]:
        self.generated = None
        yield from ()

    def asked(self, entry: Asked) -> Iterator[str]:
        state = self.state
        expected = state.iteration + (0 if state.iteration > state.spent.iterations else 1)
        if entry.iteration != expected:
            yield f"it is iteration {expected}, not {entry.iteration}"
        if (over := state.spent.over(state.budget, state.spent.since or 0.0)) is not None:
            yield f"it goes on, and {over}"
        if state.ready is not None or state.begun is not None:
            yield "an effect that was approved is not carried out"
        noted = bool(entry.fresh and _read_facts(state, entry.turn)[1])
        if entry.taints != noted:
            yield f"{'notes' if noted else 'no notes'} of others stand in the turn"
        told = _first_turn(state, entry) if entry.fresh else prompt.next_turn(self.since_asked)
        if entry.turn != told:
            yield f"the turn would be {told[:200]!r}"
        before = "" if entry.fresh else state.prompt_hash
        if entry.prompt_hash != prompt.chain_hash(before, entry.turn):
            yield "the hash of the conversation is another one"

    def generated_answer(self, entry: Generated) -> Iterator[str]:
        if not isinstance(self.last, Asked):
            yield "the model was not asked"
        if entry.iteration != self.state.iteration:
            yield f"it is iteration {self.state.iteration}, not {entry.iteration}"
        self.generated = entry

    def proposed(self, entry: Proposed) -> Iterator[str]:
        if entry.action_id in self.state.proposals:
            yield "the id of the action was used before"
        self.by_model = self.generated is not None
        if self.generated is None:  # another assistant proposed it
            if not isinstance(self.last, ObjectiveSet):
                yield "nothing was written from which it could be read"
            return
        reading = read_proposal(self.generated.output)
        self.generated = None
        built = msgspec.json.decode(msgspec.json.encode(reading.action))  # as a journal has it
        read = (built, reading.problem, reading.ignored, self.state.iteration)
        action = msgspec.json.decode(msgspec.json.encode(entry.action))
        if read != (action, entry.problem, entry.ignored, entry.iteration):
            what = reading.problem or msgspec.json.encode(built).decode()
            yield f"the answer reads: {what[:200]}"

    def decided(self, entry: Decided) -> Iterator[str]:
        yield from self._check_action(entry.action_id)
        effect = entry.effect
        if effect is None:
            if entry.verdict != "run":
                yield f"{entry.verdict}: there is no effect to decide on"
            return
        yield from _check_effect(self.state.action or {}, effect, by_model=self.by_model)
        if entry.policy != effect.policy:
            yield "it was judged by another policy than it says"
        verdict = self._judge(entry, effect)
        if verdict is not None and verdict != (entry.verdict, entry.reason, entry.rule):
            yield f"it is now: {verdict[0]}, {verdict[1]}"

    def _judge(self, entry: Decided, effect: Effect) -> tuple[Verdict, str, str] | None:
        """Return what is decided on an effect; None where that cannot be said."""
        rejected = self.state.rejections.get(effect.substance)
        if rejected is not None:
            return "refuse", f"{rejected.by} rejected it, and nothing has changed since", ""
        if not self.by_model:
            return "ask", "a person decides", ""
        if self.decide is None or effect.policy != self.generation:
            self.notes.append("the policy has changed since, or is not here")
            return None
        found = self.decide(effect, self.tainted or self.state.tainted, entry.at)
        if (entry.verdict, found[0]) == ("ask", "allow") and entry.rule == found[2]:
            self.notes.append(f"how often the rule {entry.rule} was used before stands in no journal")
            return None
        return found

    def approved(self, entry: Approved) -> Iterator[str]:
        last = self.last
        allowed = isinstance(last, Decided) and last.verdict == "allow" and last.action_id == entry.action_id
        if allowed:
            assert isinstance(last, Decided)
            if entry.by != f"policy:{last.rule}":
                yield f"policy:{last.rule} allowed it, not {entry.by}"
        else:
            yield from self._check_waiting(entry.action_id, "approval")
        yield from self._check_hash(entry.action_id, entry.plan_hash)
        effect = self.state.effects.get(entry.action_id)
        if effect is not None and entry.at > effect.expires + _SLACK_S:
            yield "what was shown had expired"

    def rejected(self, entry: Rejected) -> Iterator[str]:
        yield from self._check_waiting(entry.action_id, "approval")
        yield from self._check_hash(entry.action_id, entry.plan_hash)
        effect = self.state.effects.get(entry.action_id)
        if effect is not None and effect.substance != entry.substance:
            yield "what was rejected is something else"

    def began(self, entry: Began) -> Iterator[str]:
        if self.state.ready != entry.action_id:
            yield "nobody approved it"
        effect = self.state.effects.get(entry.action_id)
        if effect is not None and entry.at > effect.expires + _SLACK_S:
            yield "the approval had expired"

    def observed(self, entry: Observed) -> Iterator[str]:
        if entry.action_id not in self.state.proposals:
            yield "there is no such action"
        if entry.repeated != is_repetition(self.state, entry.digest):
            yield "it was seen before" if not entry.repeated else "it was not seen before"
        if bool(entry.mark) != entry.taints:
            yield "what others wrote stands within a mark, and nothing else"
        last = self.last
        if isinstance(last, Decided) and last.verdict == "refuse" and entry.note != last.reason:
            yield f"it was refused: {last.reason}"
        done = isinstance(last, Decided) or self.state.begun == entry.action_id
        if not done and self.state.ready != entry.action_id:
            yield "nothing was carried out that could be observed"

    def question(self, entry: Question) -> Iterator[str]:
        yield from self._check_action(entry.action_id)
        action = self.state.action or {}
        asked = (action.get("question"), tuple(action.get("options") or ()))
        if action.get("action") != "ask" or asked != (entry.question, entry.options):
            yield "the model asked something else"

    def answered(self, entry: Answered) -> Iterator[str]:
        yield from self._check_waiting(entry.action_id, "answer")

    def changed_pace(self, entry: Paused | Resumed) -> Iterator[str]:
        self.generated = None
        yield from ()

    def ended(self, entry: Ended) -> Iterator[str]:
        state = self.state
        if entry.reason == "stuck" and stuck_reason(state) != entry.note:
            yield f"it is not stuck for that: {stuck_reason(state)}"
        if entry.reason == "budget" and state.spent.over(state.budget, entry.at) != entry.note:
            yield f"its budget: {state.spent.over(state.budget, entry.at) or 'is not used up'}"
        if entry.reason == "done" and self.by_model:
            action = state.action or {}
            if action.get("action") != "done" or action.get("result") != entry.result:
                yield "the model did not end it so"

    # -- parts

    def _check_action(self, action_id: str) -> Iterator[str]:
        if self.state.action is None or action_id != self.state.action_id:
            yield "it is not the action that was proposed last"

    def _check_waiting(self, action_id: str, kind: str) -> Iterator[str]:
        waiting = self.state.waiting
        if waiting is None or (waiting.action_id, waiting.kind) != (action_id, kind):
            yield "nothing of that id waited"

    def _check_hash(self, action_id: str, plan_hash: str) -> Iterator[str]:
        effect = self.state.effects.get(action_id)
        if effect is None or effect.digest != plan_hash:
            yield "the hash is not that of the effect"


_CHECKS: dict[type[Entry], Callable[[_Replay, Any], Iterator[str]]] = {
    ObjectiveSet: _Replay.objective,
    Asked: _Replay.asked,
    Generated: _Replay.generated_answer,
    Proposed: _Replay.proposed,
    Decided: _Replay.decided,
    Approved: _Replay.approved,
    Rejected: _Replay.rejected,
    Began: _Replay.began,
    Observed: _Replay.observed,
    Question: _Replay.question,
    Answered: _Replay.answered,
    Paused: _Replay.changed_pace,
    Resumed: _Replay.changed_pace,
    Ended: _Replay.ended,
}
#: In which status of the session an entry may come. Somebody may decide while it is paused, too.
_STATUSES: dict[type[Entry], tuple[str, ...]] = {
    ObjectiveSet: ("idle", "ended"),
    **dict.fromkeys((Asked, Generated, Proposed, Decided, Began, Question), ("running",)),
    Observed: ("running", "paused"),
    **dict.fromkeys((Approved, Rejected, Answered), ("running", "waiting", "paused")),
    Paused: ("running", "waiting"),
    Resumed: ("paused", "running"),  # a full disk kept `paused` from being written
    Ended: ("running", "waiting", "paused"),
}


def _check_effect(action: dict[str, Any], effect: Effect, *, by_model: bool) -> Iterator[str]:
    """Yield where an effect is not that of its action."""
    if not by_model:
        return
    first = effect.changes[0] if effect.changes else None
    match action.get("action"):
        case "shell":
            argv = first.after.get("argv") if first is not None else None
            same = first is not None and argv == list(action.get("argv") or ())
            if not same or first is None or first.target != action.get("target"):
                yield "the effect is not the program that was proposed"
        case "tool_spec":
            if first is None or first.identity != action.get("name"):
                yield "the effect is not the tool that was proposed"
        case "use_tool":
            names = ("shell", dotless_name(str(action.get("name"))))  # a tool of one's own runs a program
            if dotless_name(effect.tool) not in names:
                yield "the effect is of another tool"
        case _:
            yield "the action has no effect"


def _first_turn(state: SessionState, entry: Asked) -> str:
    """Return the first turn of a conversation that the state leads to. What stands in no entry, the word on
    the fleet and the notes, is taken from the turn itself."""
    facts, notes, mark = _read_facts(state, entry.turn)
    if state.iteration:
        return prompt.condensed_turn(state, facts, notes, mark, entry.room)
    return prompt.opening_turn(state, facts, notes, mark)


def _read_facts(state: SessionState, turn: str) -> tuple[str, str, str]:
    """Return the facts, the notes and the mark that a first turn has."""
    rest = turn.removeprefix(prompt.opening_turn(state, "", "", "").rstrip("\n"))
    facts = notes = mark = ""
    begin = "\nThe fleet: "
    if rest.startswith(begin):
        facts = rest[len(begin) :].split("\n", 1)[0]
        rest = rest[len(begin) + len(facts) :]
    begin = "\nNotes that may help:\n<data "
    if rest.startswith(begin):
        mark, _, body = rest[len(begin) :].partition(">\n")
        notes = body.partition(f"\n</data {mark}>")[0]
    return facts, notes, mark
