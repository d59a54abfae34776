"""The page's sessions in a real browser: a scripted model, a real daemon, a firewall of the lab."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from fazai.loop.effects import Effect, EffectChange
from fazai.loop.journal import Decided, ObjectiveSet, Proposed
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.timestamps import utc_now
from fazai.wire.events import ExecLogEvent, ObserveEvent
from fazai.wire.sessions import Budget
from tests.daemon.live import own_port, token, until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, scripted
from tests.daemon.runs_world import world
from tests.ui.browser import Browser, Page
from tests.ui.world import HOSTILE

pytestmark = pytest.mark.slow

SHOTS = Path(__file__).parents[2] / "docs" / "img"

PLAN: dict[str, Any] = {"action": "use_tool", "name": "reconcile.plan", "args": {"playbook": "edge"}}
APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
ASK: dict[str, Any] = {"action": "ask", "question": "which one?", "options": ["fw-01", "fw-02"]}
ZEROS = "\u200b" * 500
TURNED = "rm \u202etxt.exe\u2066\u00a0\u200b"  # what could not be seen, or turns the rest round
LONG = "n" * 100_000


@pytest.fixture
def loop(page: Page, tmp_path: Path) -> Iterator[LoopWorld]:
    with loop_world(tmp_path, replays=False) as found:
        yield found
        page.go("about:blank")  # its streams end before the daemon does


def open_page(loop: LoopWorld, page: Page, place: str = "#/sessions") -> Page:
    page.go(f"{loop.daemon.url}/ui{place}")
    return page


def asked(loop: LoopWorld, *answers: Any, **body: Any) -> str:
    """A session that rests after these answers of its model."""
    loop.model.answers[:] = answers
    session = loop.open()
    loop.ask(session, "bring it back", **body)
    return session


def put(loop: LoopWorld, effect: Effect, session: str | None = None, action_id: str = "a-1") -> str:
    """A session in which an effect waits, whatever a tool would have made of it."""
    opened = session or loop.open()
    found = loop.daemon.services.loop.find(opened)
    policy = loop.daemon.services.policy
    effect = msgspec.structs.replace(effect, policy=policy.generation if policy is not None else "")
    entries = (
        ObjectiveSet(at=time.time(), text=f"look {HOSTILE}", by="test", budget=Budget()),
        Proposed(
            at=time.time(), iteration=1, action_id=action_id, action={"action": "use_tool", "name": "x"}
        ),
        Decided(at=time.time(), action_id=action_id, verdict="ask", effect=effect),
    )
    loop.daemon.call(lambda: found.append(*entries))
    return opened


def effect(*changes: EffectChange, tool: str = "reconcile.apply", **more: Any) -> Effect:
    asked = {"base": "", "inventory": "edge", "policy": "", "expires": time.time() + 3600, **more}
    return Effect(tool=tool, changes=changes, **asked)  # of which policy, `put` says


def change(**more: Any) -> EffectChange:
    about = {"target": "fw-01", "kind": "opnsense.alias", "identity": "blocklist", "verb": "create"}
    return EffectChange(**{**about, **more})


def status(loop: LoopWorld, session: str) -> str:
    return str(loop.session(session)["status"])


def shown_hash(page: Page) -> str:
    page.until("document.getElementById('hash') !== null")
    return page.text("#hash")


def sure(page: Page) -> None:
    """The two steps, by keyboard."""
    page.run("document.getElementById('approve').focus()")
    page.key("Enter")
    page.until("document.activeElement.className === 'confirm'")
    page.key("Tab")
    assert page.run("document.activeElement.id") == "sure"
    page.key("Enter")


# -- an objective, from the question to the write


def test_an_objective_is_asked_approved_and_applied(loop: LoopWorld, page: Page) -> None:
    loop.model.answers[:] = [PLAN, APPLY, {"action": "done", "result": "it is back"}]
    open_page(loop, page)
    page.until("document.querySelector('#summary').textContent.startsWith('No session yet')")
    page.run("document.getElementById('objective').focus()")
    page.type("bring the blocklist back")
    page.key("Enter")
    page.until("location.hash.startsWith('#/session/')")
    session = page.run("location.hash").removeprefix("#/session/")
    plan_hash = shown_hash(page)
    assert plan_hash == loop.session(session)["waiting"]["plan_hash"]
    assert page.text("#objective-text") == "bring the blocklist back"
    assert page.texts("#proposal .change .what strong") == ["+ create", "blocklist", "fw-01"]
    assert '+content: ["192.0.2.7"]' in page.texts("#proposal .diff .come")
    assert "reconcile.apply: 1 change on 1 target" in page.texts("#proposal > p")[0]
    assert page.text("#expires").startswith("can be approved for 60 min, until ")
    page.until("document.querySelector('.step[data-type=observe]') !== null")
    page.until("document.getElementById('waiting').textContent === '1'")
    assert page.run("document.title") == "(1) fazai"
    page.run("document.getElementById('reason').focus()")
    page.type("change 4711")
    sure(page)
    page.until("document.querySelector('#facts .status').textContent === 'ended'")
    assert "blocklist" in loop.world.aliases()
    page.until(
        "document.querySelector('.step[data-type=done]:last-child')?.textContent.includes('it is back')"
    )
    page.until("document.getElementById('waiting').hidden")
    assert page.run("document.title") == "fazai"
    assert page.count("#proposal, #approve") == 0
    types = page.run("[...document.querySelectorAll('.step')].map((one) => one.dataset.type)")
    assert [one for one in types if one != "log"] == [
        "action",
        "observe",
        "action",
        "done",
        "observe",
        "done",
    ]
    page.click(".step details summary")
    page.until("document.querySelector('.step .change') !== null")
    assert page.texts(".step .change .what strong") == ["+ create", "blocklist", "fw-01"]
    assert page.text(".step details summary") == f"1 change on 1 target, hash {plan_hash[:12]}"
    approved = [one for one in loop.journal(session) if one["entry"] == "approved"]
    assert [(one["plan_hash"], one["reason"]) for one in approved] == [(plan_hash, "change 4711")]
    most = Budget()  # what the answer does not say, for it is the default
    facts = page.text("#facts")
    assert f"Iterations3 of {most.iterations}" in facts
    assert f"Tokens15 of {most.tokens:,}" in facts
    assert f" of {most.seconds} s" in facts
    assert f" of {most.bytes / 2**20:.1f} MiB" in facts


def test_a_rejection_with_its_reason_lets_nothing_happen(loop: LoopWorld, page: Page) -> None:
    session = asked(loop, APPLY, DONE)
    open_page(loop, page, f"#/session/{session}")
    shown_hash(page)
    page.run("document.getElementById('reason').focus()")
    page.type("not tonight")
    page.click("#reject")
    page.until("document.getElementById('notice').textContent.startsWith('Rejected')")
    page.until("document.querySelector('#facts .status').textContent === 'ended'")
    assert "rejected by anonymous: not tonight" in loop.model.said()
    assert "blocklist" not in loop.world.aliases()
    assert page.count("#proposal") == 0


def test_a_key_held_down_or_a_double_click_approves_nothing(loop: LoopWorld, page: Page) -> None:
    session = asked(loop, APPLY, DONE)
    open_page(loop, page, f"#/session/{session}")
    shown_hash(page)
    page.run("document.getElementById('approve').focus()")
    about = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    for again in (False, True, True, True):
        page.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=again, **about)
    page.call("Input.dispatchKeyEvent", type="keyUp", **about)
    page.until("document.getElementById('sure') !== null")
    page.run("document.getElementById('sure').focus()")
    for again in (True, True):
        page.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=again, **about)
    page.run("document.getElementById('sure').dispatchEvent(new MouseEvent('click', {detail: 2}))")
    assert page.run("document.getElementById('approve').offsetParent") is None
    page.click("#back")
    page.until("document.activeElement.id === 'approve'")
    assert page.count("#sure") == 0
    assert status(loop, session) == "waiting"
    assert [one["entry"] for one in loop.journal(session)].count("approved") == 0


def test_what_deletes_is_typed(loop: LoopWorld, page: Page) -> None:
    gone = [change(identity=name, verb="delete", before={"type": "host"}) for name in ("old", "older")]
    session = put(loop, effect(change(), *gone))
    open_page(loop, page, f"#/session/{session}")
    shown_hash(page)
    assert page.texts("#proposal .change strong.bad") == ["\u2212 delete"] * 2
    page.click("#approve")
    page.until("document.getElementById('typed') !== null")
    assert page.run("document.getElementById('sure').disabled")
    page.run("document.getElementById('typed').focus()")
    page.type("delete 3")
    assert page.run("document.getElementById('sure').disabled")
    page.run("document.getElementById('typed').select()")
    page.type("delete 2")
    page.until("!document.getElementById('sure').disabled")
    page.click("#sure")
    page.until("document.getElementById('notice').textContent === 'Approved.'")
    entries = loop.journal(session)
    assert [one["plan_hash"] for one in entries if one["entry"] == "approved"] == [
        effect_hash(loop, session),
    ]


def effect_hash(loop: LoopWorld, session: str, action_id: str = "a-1") -> str:
    return str(loop.daemon.services.loop.find(session).state.effects[action_id].digest)


# -- what is sent is what was shown


def test_a_plan_that_changes_while_it_is_shown_is_not_approved(loop: LoopWorld, page: Page) -> None:
    page.expected = ["status of 409"]
    session = put(loop, effect(change(after={"content": ["192.0.2.7"]})))
    open_page(loop, page, f"#/session/{session}")
    before = shown_hash(page)
    page.click("#approve")
    page.until("document.getElementById('sure') !== null")
    put(loop, effect(change(after={"content": ["0.0.0.0/0"]})), session)
    after = effect_hash(loop, session)
    assert after != before
    page.click("#sure")
    page.until("document.getElementById('notice').textContent.includes('plan_mismatch')")
    assert "Nothing was approved" in page.text("#notice")
    page.until("(hash) => document.getElementById('hash')?.textContent === hash", after)
    assert page.texts("#proposal .diff .come") == ['+content: ["0.0.0.0/0"]']
    assert page.count("#sure") == 0  # the new one is decided on from the beginning
    assert [one["entry"] for one in loop.journal(session)].count("approved") == 0
    assert status(loop, session) == "waiting"


def test_what_is_being_decided_on_is_not_exchanged(loop: LoopWorld, page: Page) -> None:
    session = put(loop, effect(change(after={"content": ["192.0.2.7"]})))
    open_page(loop, page, f"#/session/{session}")
    before = shown_hash(page)
    page.click("#approve")
    page.until("document.getElementById('sure') !== null")
    put(loop, effect(change(after={"content": ["0.0.0.0/0"]})), session)
    page.until("document.querySelector('#proposal .warn').textContent.startsWith('This is not what waits')")
    assert page.text("#hash") == before
    assert page.text("#sure") == f"Really approve {before[:12]}"
    page.click("#back")
    page.until("(hash) => document.getElementById('hash')?.textContent === hash", effect_hash(loop, session))


def test_what_has_expired_is_not_approved(loop: LoopWorld, page: Page) -> None:
    page.expected = ["status of 409", "status of 404"]
    session = put(loop, effect(change(), expires=time.time() - 5))
    open_page(loop, page, f"#/session/{session}")
    shown_hash(page)
    assert page.text("#expires").startswith("expired at ")
    sure(page)
    page.until("document.getElementById('notice').textContent.includes('what was shown has expired')")
    assert page.run("document.activeElement.id") == "notice"  # the keyboard goes on from there
    page.until("document.getElementById('reject') !== null")  # it can still be rejected
    assert page.count("#sure") == 0
    assert status(loop, session) == "waiting"
    open_page(loop, page, "#/session/s-none")
    page.until("document.querySelector('main').innerText.includes('does not know this session')")


def test_two_tabs_decide_once(loop: LoopWorld, page: Page, browser: Browser) -> None:
    session = asked(loop, APPLY, DONE)
    with browser.page() as other:
        other.expected = page.expected = ["status of 409"]
        for one in (page, other):
            open_page(loop, one, f"#/session/{session}")
            shown_hash(one)
            one.click("#approve")
            one.until("document.getElementById('sure') !== null")
        page.click("#sure")
        page.until("document.querySelector('#facts .status').textContent === 'ended'")
        other.until("document.querySelector('.step[data-type=log]') !== null")  # its stream says who did it
        assert f"anonymous approved {shown_hash(other)[:12]}" in other.text(".step[data-type=log]")
        other.click("#sure")
        other.until("document.getElementById('notice').textContent.includes('conflict')")
        other.until("document.querySelector('#facts .status').textContent === 'ended'")
        assert other.count("#proposal") == 0
        assert [one["entry"] for one in loop.journal(session)].count("approved") == 1
        assert loop.world.aliases().count("blocklist") == 1
        other.go("about:blank")
        assert [one for one in other.faults if "409" not in one] == []


# -- questions, pauses


def test_a_question_is_answered(loop: LoopWorld, page: Page) -> None:
    session = asked(loop, ASK, DONE)
    open_page(loop, page, f"#/session/{session}")
    page.until("document.getElementById('question') !== null")
    assert "which one?" in page.text("#question")
    assert page.texts("#question .option") == ["fw-01", "fw-02"]
    page.click("#question .option:last-child")
    assert page.run("document.getElementById('answer').value") == "fw-02"
    page.run("document.getElementById('answer').select()")
    page.type("the one in Porto")
    page.click("#send-answer")
    page.until("document.querySelector('#facts .status').textContent === 'ended'")
    answers = [one for one in loop.journal(session) if one["entry"] == "answered"]
    assert [one["text"] for one in answers] == ["the one in Porto"]
    assert "the one in Porto" in loop.model.said()


def test_a_session_rests_goes_on_and_takes_another_objective(loop: LoopWorld, page: Page) -> None:
    loop.model.hold.clear()
    loop.model.answers[:] = [DONE]
    open_page(loop, page)
    page.until("document.getElementById('objective') !== null")
    page.run("document.getElementById('objective').focus()")
    page.type("first")
    page.click("#ask")
    page.until("document.querySelector('.step[data-type=token]') !== null")  # while it writes
    page.until("document.getElementById('pause') !== null")
    page.click("#pause")
    page.until("document.querySelector('#facts .status')?.textContent === 'paused'")
    loop.model.hold.set()
    page.until("document.getElementById('resume') !== null")
    page.click("#resume")
    page.until("document.querySelector('#facts .status')?.textContent === 'ended'")
    loop.model.hold.clear()
    page.until("document.getElementById('objective') !== null")
    page.run("document.getElementById('objective').focus()")
    page.type("second")
    page.key("Enter")
    page.until("document.getElementById('objective-text').textContent === 'second'")
    page.until("document.getElementById('abort') !== null")
    page.click("#abort")
    page.until("document.querySelector('#facts').textContent.includes('aborted')")
    loop.model.hold.set()
    session = page.run("location.hash").removeprefix("#/session/")
    entries = [one["entry"] for one in loop.journal(session)]
    assert (entries.count("paused"), entries.count("resumed"), entries.count("objective")) == (1, 1, 2)


def test_the_list_says_what_waits(loop: LoopWorld, page: Page) -> None:
    open_page(loop, page)
    page.until("document.querySelector('#summary').textContent.startsWith('No session yet')")
    assert page.run("document.getElementById('waiting').hidden")
    first = asked(loop, APPLY, DONE)
    page.until("document.getElementById('waiting').textContent === '1'")  # nobody loads the page again
    second = asked(loop, ASK, DONE)
    third = asked(loop, DONE)
    page.until("document.querySelectorAll('#sessions tbody tr').length === 3")
    page.until("document.getElementById('waiting').textContent === '2'")
    rows = page.run(
        "Object.fromEntries([...document.querySelectorAll('#sessions tbody tr')]"
        ".map((row) => [row.dataset.session, [...row.cells].map((cell) => cell.textContent)]))"
    )
    assert rows[first][:5] == ["waiting", "bring it back", "1 change to approve", "anonymous", "api"]
    assert rows[second][:3] == ["waiting", "bring it back", "a question"]
    assert rows[third][:3] == ["ended", "bring it back", ""]
    assert "1 of 20 iterations, 5 tokens" in rows[third][5]
    label = page.run("document.getElementById('waiting').getAttribute('aria-label')")
    assert label == "2 wait for a person"


# -- who may what


def signed_in(page: Page, text: str, who: str) -> None:
    page.until("document.activeElement.id === 'token'")
    page.type(text)
    page.key("Enter")
    page.until("(who) => document.getElementById('who').textContent === who", who)


def test_a_viewer_sees_all_and_has_no_buttons(loop: LoopWorld, page: Page) -> None:
    session = asked(loop, APPLY, DONE)
    question = asked(loop, ASK, DONE)
    spec = put(
        loop, effect(change(kind="tool", target="fazai", after={"argv": ["/bin/df"]}), tool="tool_spec")
    )
    tokens = {name: token(loop.world.folder, name, name) for name in ("viewer", "operator", "admin")}
    until(lambda: loop.client.get("/runs").status_code == 401)
    page.expected = ["status of 401"]
    open_page(loop, page, f"#/session/{session}")
    signed_in(page, tokens["viewer"], "token:viewer (viewer)")
    shown_hash(page)
    assert page.texts("#proposal .change .what strong") == ["+ create", "blocklist", "fw-01"]
    page.until("document.querySelector('.step[data-type=action]') !== null")
    page.until("document.getElementById('waiting').textContent === '3'")
    assert page.count("main button") == 0
    open_page(loop, page, f"#/session/{question}")
    page.until("document.querySelector('#question')?.textContent.includes('which one?')")
    assert page.count("main button, main textarea") == 0
    open_page(loop, page)
    page.until("document.querySelectorAll('#sessions tbody tr').length === 3")
    assert page.count("main button, main textarea") == 0
    page.click("#leave")
    signed_in(page, tokens["operator"], "token:operator (operator)")
    open_page(loop, page, f"#/session/{question}")  # another's: an operator approves, and does not answer
    page.until("document.querySelector('#question')?.textContent.includes('or an admin, can answer')")
    assert page.count("main button") == 0
    open_page(loop, page, f"#/session/{spec}")
    page.until("document.querySelector('#proposal')?.textContent.includes('has the role admin can approve')")
    assert page.count("main button") == 0
    assistant = loop.daemon.call(lambda: loop.daemon.services.loop.open("token:operator", source="mcp"))
    open_page(loop, page, f"#/session/{put(loop, effect(change()), assistant.session_id)}")
    page.until(
        "document.querySelector('#proposal')?.textContent.includes('that proposed it does not approve')"
    )
    assert page.texts("main button") == ["Pause", "Abort", "Reject"]
    open_page(loop, page, f"#/session/{session}")
    page.until("document.getElementById('approve') !== null")
    page.click("#leave")
    signed_in(page, tokens["admin"], "token:admin (admin)")
    open_page(loop, page, f"#/session/{spec}")
    page.until("document.getElementById('approve') !== null")
    page.until("document.getElementById('abort') !== null")


# -- what devices and models say is text


def test_hostile_texts_are_text_and_nothing_is_hidden(loop: LoopWorld, page: Page) -> None:
    markup = f"<script>document.body.dataset.hacked=1</script>{HOSTILE}"
    fields = {"before": {markup: markup}, "after": {markup: [markup, TURNED], "note": "a\nb"}}
    argv = ["/bin/sh", "-c", "a b;  c", "", TURNED, HOSTILE]
    program = change(kind="program", identity="/bin/sh", verb="run", after={"argv": argv, "provider": "ssh"})
    hidden = change(identity=TURNED, target=TURNED, verb="update", **fields)
    empty = change(identity=f"a{ZEROS}b")
    session = put(
        loop, effect(change(identity=LONG), change(identity=markup, **fields), hidden, program, empty)
    )
    question = asked(loop, {"action": "ask", "question": markup + TURNED, "options": [markup]}, DONE)
    open_page(loop, page, f"#/session/{session}")
    shown_hash(page)
    names = page.texts("#proposal .identity")
    assert names[:2] == [LONG, markup]
    spelled = "rm U+202Etxt.exeU+2066U+00A0U+200B"
    assert names[2] == spelled
    assert names[4] == "aU+200B \u00d7 500b"
    assert page.texts("#proposal .on")[2] == spelled
    assert page.texts("#proposal .argv li") == [*argv[:3], "empty", spelled, HOSTILE]
    widths = page.run(
        "[...document.querySelectorAll('#proposal .argv li')]"
        ".map((one) => getComputedStyle(one).borderLeftWidth)"
    )
    assert set(widths) == {"1px"}
    order = page.run("getComputedStyle(document.querySelector('#proposal .identity')).unicodeBidi")
    assert order == "isolate-override"
    assert "+note: a\u21b5\nb" in page.texts("#proposal .diff .come")
    assert any(markup in text for text in page.texts("#proposal .diff .gone"))
    open_page(loop, page, f"#/session/{question}")
    page.until("document.getElementById('question') !== null")
    assert page.text("#question .said-text") == markup + spelled
    assert page.text("#question .option") == markup
    page.until("document.querySelector('.step[data-type=ask]') !== null")
    open_page(loop, page)
    page.until("document.querySelectorAll('#sessions tbody tr').length === 2")
    assert any(HOSTILE in text for text in page.texts("#sessions .objective"))
    assert page.count("main img, main script") == 0
    assert page.run("document.body.dataset.hacked") is None


def test_of_a_long_text_the_rest_is_shown_on_request(loop: LoopWorld, page: Page) -> None:
    remark = {"action": "observe", "summary": "x" * 9000}
    session = asked(loop, remark, DONE)
    open_page(loop, page, f"#/session/{session}")
    page.until("document.querySelector('.step[data-type=observe] button') !== null")
    assert page.text(".step[data-type=observe] button") == "5,000 characters more"
    page.click(".step[data-type=observe] button")
    assert page.text(".step[data-type=observe] .text") == "x" * 9000


# -- the stream


def test_what_an_action_showed_is_read_from_the_journal(loop: LoopWorld, page: Page) -> None:
    loop.world.inventory([{"opnsense.alias": {"name": f"a{n}", "type": "host"}} for n in range(60)])
    remark = {"action": "observe", "summary": "that is all"}
    session = asked(loop, PLAN, remark, DONE)
    open_page(loop, page, f"#/session/{session}")
    page.until("document.querySelectorAll('.step[data-type=observe]').length === 2")
    assert page.count(".step .found") == 1  # a remark is all that there is of it
    page.click(".step[data-type=observe] .found")
    page.until("document.querySelector('.step pre')?.textContent.startsWith('{\"run\":')")
    entry = next(one for one in loop.journal(session) if one["entry"] == "observed")
    assert page.text(".step pre") == entry["text"]
    page.click(".step[data-type=observe] .found")  # all of it
    page.until("document.querySelector('.step pre').textContent.endsWith('}')")
    whole = loop.client.get(f"/agent/sessions/{session}/outputs/{entry['output_id']}?limit=65536").json()
    assert page.text(".step pre") == whole["text"]
    assert len(whole["text"]) == whole["total"] > len(entry["text"])


def test_output_of_programs_is_one_text_and_steps_stay_few(loop: LoopWorld, page: Page) -> None:
    session = asked(loop, DONE)
    open_page(loop, page, f"#/session/{session}")
    page.until("document.querySelector('.step[data-type=done]') !== null")

    def output(chunk: str, stream: Literal["stdout", "stderr"] = "stdout") -> ExecLogEvent:
        return ExecLogEvent(
            timestamp=utc_now(), stream=stream, chunk=chunk, session_id=session, action_id="a-1"
        )

    loop.daemon.publish(output(f"one {HOSTILE}\n"), output("two\n"), output("wrong\n", "stderr"))
    page.until("document.querySelectorAll('.step pre').length === 2")
    assert page.texts(".step pre") == [f"one {HOSTILE}\u21b5\ntwo\u21b5\n", "wrong\u21b5\n"]
    loop.daemon.publish(*[output("x" * 10_000) for _ in range(12)])
    page.until("document.querySelector('.step:last-child pre').textContent.startsWith('20,000 characters')")
    notes = [ObserveEvent(timestamp=utc_now(), note=f"note {n}", session_id=session) for n in range(900)]
    loop.daemon.publish(*notes)
    page.until("document.querySelector('.step:last-child').textContent.includes('note 899')")
    assert page.count(".step") == 500


@contextlib.contextmanager
def loop_on(port: int, folder: Path) -> Iterator[LoopWorld]:
    """A daemon on this port, whose model is a script."""
    with scripted(DONE) as model:
        endpoint = FallbackEndpoint.checked(model.url, "scripted", None, "test")
        with world(folder, daemon={"fallback": endpoint, "listen_port": port}) as found:
            yield LoopWorld(found, model)


def test_the_stream_of_a_session_comes_back(page: Page, tmp_path: Path) -> None:
    page.expected = ["ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_EMPTY"]
    with own_port() as port:
        with loop_on(port, tmp_path) as loop:
            session = asked(loop, {"action": "observe", "summary": "seen before"}, ASK)
            open_page(loop, page, f"#/session/{session}")
            page.until("document.querySelector('.step[data-type=observe]') !== null")
            page.until("document.getElementById('question') !== null")
        page.until("document.getElementById('link').classList.contains('bad')")
        with loop_on(port, tmp_path) as loop:
            page.until("document.getElementById('link').textContent === 'live'")
            loop.model.answers[:] = [{"action": "observe", "summary": "seen after"}, DONE]
            page.run("document.getElementById('answer').focus()")
            page.type("fw-01")
            page.click("#send-answer")
            page.until("document.querySelector('.step[data-type=done]:last-child') !== null")
            page.until("document.querySelector('#facts .status').textContent === 'ended'")
            seen = page.texts(".step[data-type=observe] .text")  # each once
            assert seen == ["seen before", "seen after"]
            page.go("about:blank")


# -- how it looks


def test_small_screens(loop: LoopWorld, page: Page) -> None:
    long = change(identity=LONG[:500], after={"content": [LONG[:500]]})
    program = change(kind="program", identity="/x", verb="run", after={"argv": ["/x", LONG[:500], "--flag"]})
    session = put(loop, effect(long, program, change(verb="delete")))
    question = asked(loop, {**ASK, "options": [LONG[:300]]}, DONE)
    page.size(360, 640, touch=True)
    for place, ready in (
        ("#/sessions", "document.querySelectorAll('#sessions tbody tr').length === 2"),
        (f"#/session/{question}", "document.querySelector('.step[data-type=ask]') !== null"),
        (f"#/session/{session}", "document.getElementById('approve') !== null"),
        ("#/kb", "document.getElementById('query') !== null"),
    ):
        open_page(loop, page, place)
        page.until(ready)
        page.until("!document.getElementById('waiting').hidden")
        assert page.run("document.documentElement.scrollWidth") <= 360, place
    open_page(loop, page, f"#/session/{session}")
    page.until("document.getElementById('approve') !== null")
    page.click("#approve")
    page.until("document.getElementById('typed') !== null")
    assert page.run("document.documentElement.scrollWidth") <= 360
    for name in ("typed", "sure", "back"):
        box = page.run(
            "(name) => { const b = document.getElementById(name).getBoundingClientRect();"
            " return [b.left, b.right]; }",
            name,
        )
        assert 0 <= box[0] < box[1] <= 360, name


def test_pictures_of_sessions(loop: LoopWorld, page: Page) -> None:
    """They go to docs/img when asked for."""
    page.size(1000, 620)
    steps = {"action": "plan", "steps": ["ask what edge would change", "propose it"]}
    session = asked(loop, steps, PLAN, APPLY, DONE)
    asked(loop, ASK, DONE)
    asked(loop, PLAN, {"action": "done", "result": "blocklist is missing on fw-01"})
    for scheme, place, ready, name in (
        ("light", f"#/session/{session}", "document.querySelectorAll('.step').length === 5", "ui-session"),
        ("dark", "#/sessions", "document.querySelectorAll('#sessions tbody tr').length === 3", "ui-sessions"),
    ):
        page.scheme(scheme)
        open_page(loop, page, place)
        page.until(ready)
        page.until("document.getElementById('waiting').textContent === '2'")
        picture = page.shot()
        assert len(zlib.compress(picture)) > 10_000  # not one colour
        if os.environ.get("FAZAI_UI_PICTURES"):
            (SHOTS / f"{name}-{scheme}.png").write_bytes(picture)
