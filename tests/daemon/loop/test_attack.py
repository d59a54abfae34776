"""Approvals beside whatever else happens at the same instant: an effect is carried out once at most, and
never after somebody said stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.loop.session import now
from fazai.errors import FazaiError
from fazai.loop.journal import ObjectiveSet
from fazai.providers.gemma.endpoint import _parse_stream_line
from fazai.store.sqlite.tokens import TokenFile
from fazai.wire.base import WireError
from fazai.wire.sessions import Budget
from tests.daemon.live import token, until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain

APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
ADMIN = Principal("boss", "admin")
DENY = "deny:\n  - name: no-fw-01\n    targets: [fw-01]\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    """For what changes nothing on the firewall."""
    with loop_world(tmp_path_factory.mktemp("attack")) as found:
        yield found


def _propose(world: LoopWorld, *more: Any) -> tuple[str, dict[str, Any]]:
    session = world.open()
    world.model.answers[:] = [APPLY, *(more or (DONE,))]
    return session, of_type(plain(world.ask(session)), "action")[0]


def _together(world: LoopWorld, session: str, shown: dict[str, Any], *others: str) -> list[Any]:
    """Approve, and do what the others say, in one turn of the daemon's loop; the answers, or the errors."""
    loop = world.daemon.services.loop
    found = loop.find(session)

    def call(what: str) -> Any:
        if what in ("approve", "reject"):
            return getattr(loop, what)(found, shown["action_id"], shown["plan_hash"], ADMIN)
        return getattr(loop, what)(found, "boss")

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*map(call, others), return_exceptions=True)

    return list(world.daemon.call(all_at_once))


def _kinds(world: LoopWorld, session: str) -> list[str]:
    return [one["entry"] for one in world.journal(session)]


@pytest.mark.parametrize(
    "calls",
    [
        ("approve", "abort"),
        ("abort", "approve"),
        ("approve", "abort", "abort"),
        ("reject", "approve", "abort"),
    ],
    ids=" ".join,
)
def test_nothing_begins_after_an_abort(shared: LoopWorld, calls: tuple[str, ...]) -> None:
    session, shown = _propose(shared)
    answers = _together(shared, session, shown, *calls)
    assert answers[calls.index("abort")] is None
    until(lambda: not shared.daemon.services.loop.find(session).running)
    kinds = _kinds(shared, session)
    assert "began" not in kinds
    assert kinds[-1] == "ended"
    assert shared.session(session)["status"] == "ended"
    assert "blocklist" not in shared.world.aliases()
    resumed = shared.client.post("/agent/resume", json={"session_id": session})
    assert (resumed.status_code, "the session is ended, and does not rest" in resumed.text) == (409, True)


def test_a_pause_at_the_same_instant_lets_it_rest_before_it_begins(shared: LoopWorld) -> None:
    session, shown = _propose(shared)
    assert _together(shared, session, shown, "approve", "pause") == [None, None]
    until(lambda: not shared.daemon.services.loop.find(session).running)
    assert "began" not in _kinds(shared, session)
    assert shared.session(session)["status"] == "paused"
    shared.client.post("/agent/abort", json={"session_id": session})


def test_of_ten_clients_that_approve_one_does(tmp_path: Path) -> None:
    with loop_world(tmp_path) as world:
        session, shown = _propose(world)
        answers = _together(world, session, shown, *["approve"] * 10)
        assert answers.count(None) == 1
        assert {str(one).splitlines()[0] for one in answers if one is not None} == {
            "the proposal no longer waits: it was decided, or the objective ended"
        }
        until(lambda: world.session(session)["status"] == "ended")
        assert _kinds(world, session).count("began") == 1
        writes = [
            p for _, p, _ in world.world.firewall.requests if "/alias/addItem" in p or "/alias/setItem" in p
        ]
        assert len(writes) == 1, (world.model.said(), world.world.firewall.requests)


def test_many_stops_at_once_leave_one_end(shared: LoopWorld) -> None:
    session = shared.open()
    shared.model.answers[:] = [DONE]
    shared.model.hold.clear()
    loop = shared.daemon.services.loop
    found = loop.find(session)
    try:
        shared.daemon.call(lambda: loop.start(found, "look", "boss"))
        until(lambda: found.state.iteration == 1)
        _together(shared, session, {}, "abort", "pause", "abort")
    finally:
        shared.model.hold.set()
    assert _kinds(shared, session)[-1] == "ended"
    assert _kinds(shared, session).count("paused") == 0
    assert found.state.why == "aborted"


def test_a_policy_that_was_edited_ends_what_was_approved_under_it(shared: LoopWorld) -> None:
    session, shown = _propose(shared)
    assert _together(shared, session, shown, "pause", "approve") == [None, None]
    policy = shared.world.folder / "policy.yml"
    policy.write_text(DENY)
    try:
        resumed = shared.client.post("/agent/resume", json={"session_id": session})
        assert resumed.json() == {"ok": True}
        until(lambda: shared.session(session)["status"] == "ended")
    finally:
        policy.write_text("rules: []\n")
    assert "began" not in _kinds(shared, session)
    assert "the policy was edited since this was approved: propose it again" in shared.model.said()
    assert "blocklist" not in shared.world.aliases()


def test_the_outcome_of_what_had_begun_is_never_silent(tmp_path: Path) -> None:
    """Aborted in mid-effect: the journal says that what began may go on."""
    with loop_world(tmp_path) as world:
        session, shown = _propose(world)
        found = world.daemon.services.loop.find(session)
        world.daemon.call(lambda: _abort_when_begun(world, session, shown))
        entries = world.journal(session)
        assert [one["entry"] for one in entries][-3:] == ["began", "observed", "ended"]
        assert "what has begun may go on, and its outcome is not known here" in entries[-2]["note"]
        assert found.state.begun is None
        until(lambda: not world.daemon.services.run_queue.busy_jobs())


async def _abort_when_begun(world: LoopWorld, session: str, shown: dict[str, Any]) -> None:
    loop = world.daemon.services.loop
    found = loop.find(session)
    await loop.approve(found, shown["action_id"], shown["plan_hash"], ADMIN)
    while found.state.begun is None:  # noqa: ASYNC110 - the loop's first turn at which it has begun
        await asyncio.sleep(0)
    with contextlib.suppress(FazaiError):
        await loop.abort(found, "boss")


def test_the_reason_of_a_refusal_is_within_a_mark(shared: LoopWorld) -> None:
    """It quotes names, which on a firewall are anybody's words."""
    policy = shared.world.folder / "policy.yml"
    policy.write_text(DENY)
    try:
        shared.model.answers[:] = [APPLY, DONE]
        session = shared.open()
        shared.ask(session)
    finally:
        policy.write_text("rules: []\n")
    told = shared.model.said()
    assert "no-fw-01 denies fw-01/opnsense.alias/blocklist" in told
    outside = re.sub(r"<data ([0-9a-f]{8})>\n.*?\n</data \1>", "", told, flags=re.DOTALL)
    assert "blocklist" not in outside
    assert shared.session(session)["tainted"] is True


def test_a_session_is_its_owners_alone(tmp_path: Path) -> None:
    """Another operator approves and rejects, as anybody who may; all else is the owner's, or an admin's."""
    names: dict[str, Any] = {"ann": "operator", "bob": "operator", "vic": "viewer"}
    tokens = {name: token(tmp_path, name, role) for name, role in names.items()}
    with loop_world(tmp_path) as world:
        ann, bob, vic = (world.daemon.client(tokens[name]) for name in names)
        with ann, bob, vic:
            session = ann.post("/agent/sessions", json={}).json()["session_id"]
            world.model.answers[:] = [{"action": "ask", "question": "Which?", "options": []}, DONE]
            ann.post("/agent/generate", json={"session_id": session, "objective": "look"})
            until(lambda: ann.get(f"/agent/sessions/{session}").json()["session"]["status"] == "waiting")
            waiting = ann.get(f"/agent/sessions/{session}").json()["session"]["waiting"]
            body = {"session_id": session, "action_id": waiting["action_id"], "text": "mine"}
            for what in ("answer", "pause", "resume", "abort", "generate"):
                sent = {"answer": body, "generate": {"session_id": session, "objective": "x"}}
                for other in (bob, vic):
                    answer = other.post(f"/agent/{what}", json=sent.get(what, {"session_id": session}))
                    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (
                        what,
                        answer.text,
                    )
            for path in ("journal", "outputs/o-1"):
                assert bob.get(f"/agent/sessions/{session}/{path}").status_code == 403
                assert vic.get(f"/agent/sessions/{session}/{path}").status_code == 403
            assert ann.post("/agent/answer", json=body).json() == {"ok": True}


@pytest.mark.parametrize("lost", ["revoked", "expired", "role"])
def test_an_objective_rests_when_its_owner_could_not_ask_for_it_any_more(tmp_path: Path, lost: str) -> None:
    """Also where somebody else approves meanwhile: nothing is carried out in the name of a lost token."""
    ann_token, boss_token = token(tmp_path, "ann", "operator"), token(tmp_path, "boss", "admin")
    file = TokenFile(tmp_path / "state")
    ann_row = next(one for one in file.tokens() if one.name == "ann")
    changes: dict[str, Any] = {
        "revoked": {"revoked": time.time()},
        "expired": {"expires": time.time() - 1},
        "role": {"role": "viewer"},
    }
    with (
        loop_world(tmp_path) as world,
        world.daemon.client(ann_token) as ann,
        world.daemon.client(boss_token) as boss,
    ):
        session = ann.post("/agent/sessions", json={}).json()["session_id"]
        world.model.answers[:] = [APPLY, DONE]
        ann.post("/agent/generate", json={"session_id": session, "objective": "bring it back"})
        waiting = boss.get(f"/agent/sessions/{session}").json()["session"]["waiting"]
        file.put(replace(ann_row, **changes[lost]))
        until(lambda: ann.post("/agent/sessions", json={}).status_code in (401, 403, 429))
        body = {name: waiting[name] for name in ("action_id", "plan_hash")}
        assert boss.post("/agent/approve", json={"session_id": session, **body}).json() == {"ok": True}
        until(lambda: boss.get(f"/agent/sessions/{session}").json()["session"]["status"] == "paused")
        assert boss.post("/agent/resume", json={"session_id": session}).json() == {"ok": True}
        until(lambda: boss.get(f"/agent/sessions/{session}").json()["session"]["status"] == "paused")
        entries = boss.get(f"/agent/sessions/{session}/journal").json()["entries"]
        assert "the token ann was revoked or has expired" in entries[-1]["reason"]
        assert not [one for one in entries if one["entry"] == "began"]


def test_a_resumed_objective_gets_no_more_than_is_configured(shared: LoopWorld) -> None:
    session, shown = _propose(shared)
    assert _together(shared, session, shown, "pause") == [None]
    most = shared.daemon.services.settings.config.loop
    body = {"session_id": session, "budget": {"iterations": 10_000, "tokens": 10**9, "seconds": 10**6}}
    answer = shared.client.post("/agent/resume", json=body)
    if answer.status_code == 200:
        budget = shared.daemon.services.loop.find(session).state.budget
        assert (budget.iterations, budget.tokens) == (most.iterations, most.tokens)
        assert budget.seconds == most.seconds
    else:  # the contract refuses figures that no daemon allows
        assert answer.json()["code"] == "bad_request"
    shared.client.post("/agent/abort", json={"session_id": session})


def test_what_a_full_disk_kept_from_resting_can_be_resumed(shared: LoopWorld) -> None:
    """Its journal ends in the middle: no task carries it on, and no `paused` could be written."""
    session = shared.open()
    found = shared.daemon.services.loop.find(session)
    shared.model.answers[:] = [DONE]
    entry = ObjectiveSet(at=now(), text="look", by="boss", budget=Budget())
    shared.daemon.call(lambda: found.append(entry))
    assert (found.state.status, found.running) == ("running", False)
    assert shared.client.post("/agent/resume", json={"session_id": session}).json() == {"ok": True}
    until(lambda: shared.session(session)["status"] == "ended")


def test_an_answer_that_does_not_end_is_cut_off(shared: LoopWorld) -> None:
    """An endpoint need not keep to the tokens that it was given."""
    shared.model.answers[:] = ["x" * 400_000, DONE]
    session = shared.open()
    shared.ask(session)
    first = next(one for one in shared.journal(session) if one["entry"] == "generated")
    assert len(first["output"]) <= 200_000
    assert first["reason"] == "length"
    assert shared.session(session)["status"] == "ended"


def test_half_a_character_in_an_answer_is_no_defect(shared: LoopWorld) -> None:
    shared.model.answers[:] = ['{"action":"done","result":"a\ud800b"}']
    session = shared.open()
    shared.ask(session)
    row = shared.session(session)
    assert (row["status"], row["result"]) == ("ended", "a?b")


@pytest.mark.parametrize(("said", "counted"), [(-(10**9), 0), (10**30, 2**31), (7.9, 7)])
def test_an_endpoint_gives_no_tokens_back(said: float, counted: int) -> None:
    line = json.dumps({"usage": {"prompt_tokens": said, "completion_tokens": said}})
    piece = _parse_stream_line(f"data: {line}")
    assert piece is not None
    assert piece.usage is not None
    assert (piece.usage.prompt_tokens, piece.usage.completion_tokens) == (counted, counted)


def test_a_session_is_not_dropped_while_it_begins_and_not_begun_when_it_was_dropped(tmp_path: Path) -> None:
    with loop_world(tmp_path, loop={"sessions": 1}) as world:
        loop = world.daemon.services.loop
        found = loop.find(world.open())

        async def open_while_it_begins() -> Any:
            async with found.turn:
                return await loop.open("boss")

        with pytest.raises(Refusal, match="there are too many sessions"):
            world.daemon.call(open_while_it_begins)
        world.open()  # in place of it
        with pytest.raises(WireError, match="there is no session"):
            world.daemon.call(lambda: loop.start(found, "look", "boss"))
        assert found.journal() == []
