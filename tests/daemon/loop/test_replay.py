"""Journals of sessions of different course are decided anew: the same comes out, and whatever was altered in
one is found (requirement B13)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from fazai.cli.main import main
from fazai.daemon.http.auth import Principal
from fazai.loop.effects import Effect
from fazai.loop.journal import AnyEntry, Asked, Decided, Verdict, decode_entry, seal
from fazai.loop.replay import compare_end, replay_journal
from fazai.policy.deciding import decide
from fazai.policy.reading import digest_of
from fazai.policy.values import Policy
from fazai.store.daemon import NewEvent
from fazai.store.sessions import SessionStore
from fazai.wire.sessions import LoopSessionAnswer
from tests.daemon.live import PATIENCE_S, until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain
from tests.daemon.loop.test_budgets import long_tool

LIST: dict[str, Any] = {"action": "use_tool", "name": "fleet.list", "args": {}}
PLAN: dict[str, Any] = {"action": "use_tool", "name": "reconcile.plan", "args": {"playbook": "edge"}}
APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
ASK: dict[str, Any] = {"action": "ask", "question": "Which?", "options": ["a", "b"]}
STEPS: dict[str, Any] = {"action": "plan", "steps": ["look", "say"]}
SPEC: dict[str, Any] = {"action": "tool_spec", "name": "free_space", "argv": ["/bin/df", "{path}"]}
REMARK: dict[str, Any] = {"action": "observe", "summary": "so it is"}


def _limit(number: int) -> dict[str, Any]:
    return {**LIST, "args": {"limit": number}}


@dataclass
class Course:
    """What the model says, and what people do whenever the session waits."""

    answers: Sequence[Any]
    people: Sequence[str] = ()
    body: dict[str, Any] = field(default_factory=dict)
    again: Sequence[Any] = ()  # of a second objective in the session
    end: str = "ended"


COURSES: dict[str, Course] = {
    "done at once": Course([DONE]),
    "done with an object": Course([{"action": "done", "result": {"drift": [1, 2.5, None]}}]),
    "looks": Course([LIST, PLAN, DONE]),
    "speaks": Course([STEPS, REMARK, DONE]),
    "only speaks": Course([STEPS, REMARK, STEPS, REMARK, STEPS]),
    "the same again": Course([PLAN]),
    "no action": Course(["I will look", "still looking", "hm"]),
    "no action, then one": Course(["I will look", LIST, DONE]),
    "an unknown action": Course([{"action": "reboot"}, LIST, DONE]),
    "an unknown tool": Course([{**LIST, "name": "fleet.burn"}, DONE]),
    "wrong arguments": Course([{**APPLY, "args": {"playbook": "none"}}, DONE]),
    "two actions": Course([json.dumps(STEPS) + json.dumps(LIST), json.dumps(APPLY) * 2, DONE]),
    "over its iterations": Course([_limit(1), _limit(2), _limit(3)], body={"budget": {"iterations": 2}}),
    "over its tokens": Course([_limit(1), _limit(2), _limit(3)], body={"budget": {"tokens": 8}}),
    "over its bytes": Course([PLAN, LIST], body={"budget": {"bytes": 20}}),
    "with a history": Course([LIST, DONE], body={"history": ["it was Friday", {"who": "me"}]}),
    "rejected": Course([APPLY, DONE], ["reject"]),
    "rejected, and proposed again": Course([APPLY], ["reject"]),
    "asks": Course([ASK, LIST, DONE], ["b"]),
    "asks and is aborted": Course([ASK, DONE], ["abort"]),
    "waits": Course([APPLY, DONE], end="waiting"),
    "paused while it waits": Course([APPLY, DONE], ["pause", "resume", "reject"]),
    "decided while it is paused": Course([ASK, DONE], ["pause", "a", "resume"]),
    "a tool of its own": Course([SPEC, DONE], ["reject"]),
    "two objectives": Course([APPLY, DONE], ["reject"], again=[LIST, APPLY, DONE]),
}


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    with loop_world(tmp_path_factory.mktemp("replay")) as found:
        yield found


def _take(world: LoopWorld, course: Course) -> str:
    """Let a session take a course; returns its id."""
    session = world.open()
    world.model.answers[:] = course.answers
    events = plain(world.ask(session, **course.body))
    for word in course.people:
        _say(world, session, word, events)
    until(lambda: world.session(session)["status"] in (course.end, "waiting"))
    if course.again:
        until(lambda: world.session(session)["status"] == "ended")
        world.model.answers[:] = course.again
        world.ask(session, "and again")
    assert world.session(session)["status"] == course.end
    return session


def _say(world: LoopWorld, session: str, word: str, events: list[dict[str, Any]]) -> None:
    waiting = world.session(session).get("waiting") or {}
    if word == "reject":
        answer = world.post("reject", session, of_type(events, "action")[-1], reason="not now")
    elif word in ("abort", "pause", "resume"):
        answer = world.client.post(f"/agent/{word}", json={"session_id": session})
    else:
        body = {"session_id": session, "action_id": waiting["action_id"], "text": word}
        answer = world.client.post("/agent/answer", json=body)
    assert answer.status_code == 200, answer.text


def _entries(world: LoopWorld, session: str) -> list[AnyEntry]:
    return [decode_entry(json.dumps(one)) for one in world.journal(session)]


def _decide(effect: Effect, tainted: bool, now: float) -> tuple[Verdict, str, str]:
    """What a daemon without a policy's file decides."""
    found = decide(Policy(), effect, tainted=tainted, uses={}, now=now)
    return found.verdict, found.reason, found.rule or ""


def _differences(entries: Sequence[AnyEntry]) -> list[str]:
    found = replay_journal(entries, _decide, digest_of(b""))
    assert not any(one.notes for one in found)
    return [text for one in found for text in one.differences]


def _sealed(entries: Sequence[AnyEntry]) -> list[AnyEntry]:
    """The entries with hashes that fit, as by somebody who can write the file."""
    found: list[AnyEntry] = []
    for entry in entries:
        found.append(seal(entry, found[-1].chain if found else ""))
    return found


#: For each sort of entry, what is altered in it so that something else would have been decided.
ALTERED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "objective": lambda entry: {"text": f"{entry.text} and more"},
    "asked": lambda entry: {"turn": f"{entry.turn} Burn it."},
    "generated": lambda entry: {"output": '{"action":"commit_kb","title":"x","snippet":"y"}'},
    "proposed": lambda entry: {"action": {"action": "use_tool", "name": "reconcile.apply"}, "problem": None},
    "decided": lambda entry: (
        {"verdict": "allow", "rule": "all"} if entry.effect is not None else {"verdict": "refuse"}
    ),
    "approved": lambda entry: {"plan_hash": "0" * 64},
    "rejected": lambda entry: {"substance": "0" * 64},
    "began": lambda entry: {"action_id": "a-0"},
    "observed": lambda entry: {"action_id": "a-0"},
    "question": lambda entry: {"options": ("burn",)},
    "answered": lambda entry: {"action_id": "a-0"},
    "ended": lambda entry: (
        {"result": "all is well"}
        if entry.reason == "done"
        else {"reason": "stuck" if entry.reason != "stuck" else "budget", "note": "so"}
    ),
}


@pytest.mark.parametrize("name", COURSES)
def test_sessions_replay_the_same_and_what_is_altered_is_found(looks: LoopWorld, name: str) -> None:
    session = _take(looks, COURSES[name])
    entries = _entries(looks, session)
    row = msgspec.json.decode(
        looks.client.get(f"/agent/sessions/{session}").content, type=LoopSessionAnswer
    ).session
    assert _differences(entries) == []
    assert [one.differences for one in compare_end(entries, row)] == [()]
    for number, entry in enumerate(entries):
        for other in _altered_alone(entry):
            one = [*entries[:number], other, *entries[number + 1 :]]
            found = [each.number for each in replay_journal(one) if each.differences]
            assert number in found, (name, number, entry, other)
        if number + 1 < len(entries):
            assert _differences([*entries[:number], *entries[number + 1 :]]), (name, number)
        change = ALTERED.get(str(entry.__struct_config__.tag))
        if change is not None:  # decided anew, whatever the hashes say
            altered = msgspec.structs.replace(entry, **change(entry))
            assert _differences(_sealed([*entries[:number], altered, *entries[number + 1 :]])), (name, entry)


def _altered_alone(entry: AnyEntry) -> Iterator[AnyEntry]:
    """The entry with one field altered, for each of its fields that can be."""
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if isinstance(value, bool):
            yield msgspec.structs.replace(entry, **{name: not value})
        elif isinstance(value, int | float):
            yield msgspec.structs.replace(entry, **{name: value + 1})
        elif isinstance(value, str) and name not in ("verdict", "reason"):
            yield msgspec.structs.replace(entry, **{name: value + "x"})


def test_an_approved_session_replays(tmp_path: Any) -> None:
    with loop_world(tmp_path) as world:
        session = world.open()
        world.model.answers[:] = [APPLY, LIST, DONE]
        shown = of_type(plain(world.ask(session)), "action")[0]
        assert world.post("approve", session, shown).json() == {"ok": True}
        until(lambda: world.session(session)["status"] == "ended")
        entries = _entries(world, session)
        assert {"approved", "began"} <= {str(one.__struct_config__.tag) for one in entries}
        assert _differences(entries) == []
        for number, entry in enumerate(entries):
            change = ALTERED[str(entry.__struct_config__.tag)]
            altered = msgspec.structs.replace(entry, **change(entry))
            assert _differences(_sealed([*entries[:number], altered, *entries[number + 1 :]])), entry


def test_the_command_says_what_differs(
    looks: LoopWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = _take(looks, COURSES["rejected"])
    monkeypatch.setenv("FAZAI_URL", looks.daemon.url)
    assert main(["session", "show", session, "--replay"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("=") for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 2} entries, ="
    loop = looks.daemon.services.loop
    kept = loop.find(session)._entries
    number = next(at for at, one in enumerate(kept) if one.__struct_config__.tag == "rejected")
    entry = kept[number]
    kept[number] = msgspec.structs.replace(entry, by="somebody else")
    assert main(["session", "show", session, "--replay"]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = [line for line in lines if line.startswith("!")]
    assert wrong[0].split()[1] == str(number)
    assert "        it is not as it was written, or one before it is missing" in lines
    assert lines[-1] == f"{len(kept)} entries, {len(wrong)} that differ"
    assert main(["session", "show", session, "--replay", "--output", "json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["number"] for row in rows if row["differences"]] == [int(line.split()[1]) for line in wrong]
    kept[number] = entry


def test_a_policys_decisions_are_made_anew_where_it_is_the_same(looks: LoopWorld) -> None:
    session = _take(looks, COURSES["waits"])
    entries = _entries(looks, session)
    (number,) = (at for at, one in enumerate(entries) if isinstance(one, Decided))
    decided = entries[number]
    assert isinstance(decided, Decided)
    assert decided.effect is not None
    effect = msgspec.structs.replace(decided.effect, policy="generation 7")
    judged = msgspec.structs.replace(decided, effect=effect, policy="generation 7", rule="nights")
    journal = _sealed([*entries[:number], judged])

    def judge(asked: Effect, tainted: bool, now: float) -> tuple[Verdict, str, str]:
        assert (asked, tainted, now) == (effect, False, judged.at)
        return verdict, decided.reason, "nights"

    verdict: Verdict = "ask"
    assert replay_journal(journal, judge, "generation 7")[number][2:] == ((), ())
    verdict = "refuse"
    found = replay_journal(journal, judge, "generation 7")[number]
    assert found.differences == (f"it is now: refuse, {decided.reason}",)
    verdict = "allow"  # a cap is counted over all sessions
    found = replay_journal(journal, judge, "generation 7")[number]
    used = "how often the rule nights was used before stands in no journal"
    assert (found.differences, found.notes) == ((), (used,))
    met = replay_journal(
        journal, lambda _, tainted, now: ("ask", str(tainted), ""), "generation 7", tainted=True
    )
    assert met[number].differences == ("it is now: ask, True",)  # as a session that a rule began
    for generation in ("generation 8", None):
        found = replay_journal(journal, judge, generation)[number]
        assert (found.differences, found.notes) == ((), ("the policy has changed since, or is not here",))


class Held:
    """A store whose appends of an entry of one sort begin, and wait."""

    def __init__(self, store: SessionStore, tag: str) -> None:
        self._store = store
        self._tag = f'"entry":"{tag}"'.encode()
        self.begun = threading.Event()
        self.goes_on = asyncio.Event()

    async def append(
        self, session_id: str, seq: int, entries: Sequence[bytes], events: Sequence[NewEvent] = ()
    ) -> list[int]:
        if any(self._tag in entry for entry in entries):
            self.begun.set()
            await self.goes_on.wait()
        return await self._store.append(session_id, seq, entries, events)


@pytest.mark.parametrize("word", ["pause", "abort"])
def test_who_ends_it_while_it_ends_leaves_it_ended(looks: LoopWorld, word: str) -> None:
    """An entry that is being written is written whole, and nothing follows an end."""
    session = looks.open()
    found = looks.daemon.services.loop.find(session)
    held = looks.daemon.call(lambda: Held(found._store, "ended"))
    found._store = held
    looks.model.answers[:] = [DONE]
    with ThreadPoolExecutor(2) as threads:
        asking = threads.submit(looks.ask, session)
        assert held.begun.wait(PATIENCE_S)
        saying = threads.submit(looks.client.post, f"/agent/{word}", json={"session_id": session})
        task = found.task
        assert task is not None
        until(lambda: task.cancelling() > 0)
        looks.daemon.loop.call_soon_threadsafe(held.goes_on.set)
        assert saying.result(PATIENCE_S).status_code == 200
        asking.result(PATIENCE_S)
    entries = _entries(looks, session)
    assert [str(one.__struct_config__.tag) for one in entries][-1] == "ended"
    assert looks.session(session)["result"] == "nothing left to do"
    assert _differences(entries) == []


def test_conversations_that_begin_anew_replay(tmp_path: Any) -> None:
    """What no longer fits into the model's context is left out of the turn in the same way."""
    with loop_world(tmp_path) as world:
        world.daemon.services.tools = (*world.daemon.services.tools, long_tool)
        looks = [{**LIST, "name": "test.long", "args": {"number": number}} for number in range(20)]
        session = _take(world, Course([*looks, DONE]))
        entries = _entries(world, session)
        assert sum(isinstance(one, Asked) and one.fresh for one in entries) > 1
        assert _differences(entries) == []
        anew = max(at for at, one in enumerate(entries) if isinstance(one, Asked) and one.fresh)
        other = msgspec.structs.replace(entries[anew], room=0)
        found = _differences(_sealed([*entries[:anew], other, *entries[anew + 1 :]]))
        assert found[0].startswith("the turn would be 'Now it is your turn.")


def test_a_proposal_of_another_assistant_replays(looks: LoopWorld) -> None:
    session = _take(looks, COURSES["waits"])
    effect = next(one.effect for one in _entries(looks, session) if isinstance(one, Decided) and one.effect)
    loop = looks.daemon.services.loop
    proposal = looks.daemon.call(lambda: loop.propose(effect, Principal("assistant", "operator"), None))
    assert _differences(_entries(looks, proposal.session_id)) == []
    shown = {"action_id": proposal.action_id, "plan_hash": proposal.plan_hash}
    assert looks.post("reject", proposal.session_id, shown).json() == {"ok": True}
    entries = _entries(looks, proposal.session_id)
    assert str(entries[-1].__struct_config__.tag) == "ended"
    assert _differences(entries) == []
