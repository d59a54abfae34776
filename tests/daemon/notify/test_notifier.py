"""A daemon that runs tells what happens, through real receivers: once, in time, and after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.events.announcer import row_of
from fazai.daemon.notify.config import NotifyConfig, Subscription
from fazai.daemon.runs.config import DaemonConfig
from fazai.notify.message import EVENT_KINDS
from fazai.notify.telegram import TelegramChannel
from fazai.notify.webhook import WebhookChannel
from fazai.store.daemon import StoredEvent
from fazai.store.factory import open_daemon_store
from fazai.timestamps import utc_now
from fazai.wire.events import AgentEvent, AgentState, Level
from tests.daemon.live import Live, live, own_port, until
from tests.daemon.loop.scripted import loop_world, of_type, plain
from tests.daemon.runs_world import World, world
from tests.notify.receivers import Hook, serve_hook, status
from tests.probes.servers import in_a_thread

APPLY = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
KEY = "0123456789abcdef0123456789abcdef"
BOT = "12345:AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


def secret(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def notify(folder: Path, port: int, **more: Any) -> NotifyConfig:
    channel = WebhookChannel(
        name="ops", url=f"http://127.0.0.1:{port}/", secret_file=secret(folder, "key", KEY), timeout_s=5.0
    )
    kinds = frozenset(more.pop("kinds", EVENT_KINDS))
    quick = {"gather_s": 0.05, "first_pause_s": 0.05, **more}
    return NotifyConfig(subscriptions={"ops": Subscription(channel, kinds)}, **quick)


@contextlib.contextmanager
def told(folder: Path, hook: Hook, **more: Any) -> Iterator[Live]:
    """A daemon with one webhook, which comes and goes while the receiver stays."""
    with live(folder, config=DaemonConfig(notify=notify(folder, hook.port, **more))) as daemon:
        yield daemon


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    with in_a_thread(serve_hook(found)):
        yield found


def announce(daemon: Live, *names: str, state: AgentState = "closing", level: Level = "warning") -> None:
    """Publishes that these machines went silent, all at once."""
    rows = [
        row_of(
            AgentEvent(
                timestamp=utc_now(), agent_id=name, target=name, state=state, reason="no record for 90 s"
            ),
            level,
        )
        for name in names
    ]
    daemon.call(lambda: daemon.services.store.publish(rows))


def until_told(daemon: Live, hook: Hook, count: int) -> None:
    """Waits until so many came, and the daemon has noted that they did."""
    until(lambda: len(hook.posts) == count)
    outbox = daemon.services.notifier.outbox
    until(lambda: not any(entry.is_open for entry in list(outbox._entries.values())))


def subjects(hook: Hook) -> list[str]:
    return [json.loads(post.body)["subject"] for post in hook.posts]


def test_a_silent_host_is_told_once(tmp_path: Path, hook: Hook) -> None:
    with told(tmp_path, hook) as daemon:
        announce(daemon, "web-01", state="observation", level="info")
        announce(daemon, "web-01")
        until(lambda: hook.posts)
        announce(daemon, "web-01")
        announce(daemon, "web-02")
        until(lambda: len(hook.posts) == 2)
    assert subjects(hook) == ["web-01 is silent: no record for 90 s", "web-02 is silent: no record for 90 s"]
    found = json.loads(hook.posts[0].body)
    assert (found["kind"], found["target"]) == ("silent_host", "web-01")


def test_what_comes_together_is_one_message(tmp_path: Path, hook: Hook) -> None:
    with told(tmp_path, hook) as daemon:
        announce(daemon, *(f"web-{number:02}" for number in range(60)))
        until_told(daemon, hook, 1)
    (found,) = (json.loads(post.body) for post in hook.posts)
    assert found["subject"] == "60 machines are silent"
    assert found["lines"][0] == "web-00 is silent: no record for 90 s"
    assert (len(found["lines"]), found["lines"][-1]) == (51, "… and 10 more")
    assert "target" not in found


def test_a_restart_neither_forgets_nor_repeats(tmp_path: Path, hook: Hook) -> None:
    with told(tmp_path, hook) as daemon:
        announce(daemon, "web-01")
        until_told(daemon, hook, 1)
    with told(tmp_path, hook) as daemon:
        announce(daemon, "web-01")
        announce(daemon, "web-03")
        until(lambda: len(hook.posts) == 2)
    assert subjects(hook)[1] == "web-03 is silent: no record for 90 s"


def test_what_happened_while_no_daemon_ran_is_told_at_its_start(tmp_path: Path, hook: Hook) -> None:
    with told(tmp_path, hook) as daemon:
        announce(daemon, "web-01")
        until_told(daemon, hook, 1)
    event = AgentEvent(timestamp=utc_now(), agent_id="w", target="web-09", state="closing", reason="gone")
    with contextlib.closing(open_daemon_store(tmp_path / "state")) as store:
        asyncio.run(store.publish([row_of(event, "warning")]))
    with told(tmp_path, hook):
        until(lambda: len(hook.posts) == 2)
    assert subjects(hook)[1] == "web-09 is silent: gone"


@pytest.mark.parametrize(
    "failure", [status(500), status(429), "half", b"nonsense\r\n\r\n"], ids=["500", "429", "half", "nonsense"]
)
def test_a_delivery_that_fails_is_made_again(tmp_path: Path, hook: Hook, failure: bytes | str) -> None:
    hook.script += [failure, failure]
    with told(tmp_path, hook) as daemon:
        announce(daemon, "web-01")
        until(lambda: len(hook.posts) == 3)
        log = daemon.log()
    assert len({json.loads(post.body)["id"] for post in hook.posts}) == 1
    assert log.count("is not delivered by ops yet: ") == 1
    assert KEY not in log


def test_a_message_outlives_the_daemon_that_could_not_deliver_it(tmp_path: Path) -> None:
    with own_port() as port:
        away = Hook(port=port)
        with told(tmp_path, away) as daemon:
            announce(daemon, "web-01")
            until(lambda: "is not delivered by ops yet: it is not reached: ConnectError" in daemon.log())
    there = Hook()
    with in_a_thread(serve_hook(there)), told(tmp_path, there):
        until(lambda: there.posts)
    assert subjects(there) == ["web-01 is silent: no record for 90 s"]


def test_what_is_given_up_is_an_error_with_what_it_said(tmp_path: Path, hook: Hook) -> None:
    hook.script.append(status(404, body=f"no such hook {KEY}"))
    with told(tmp_path, hook) as daemon:
        announce(daemon, "web-01")
        until(lambda: "is given up by ops after 1 attempts: it answers 404: no such hook ***" in daemon.log())
        assert "; it said: web-01 is silent: no record for 90 s" in daemon.log()
        assert KEY not in daemon.log()

        def given_up() -> list[StoredEvent]:
            events = daemon.call(lambda: daemon.services.store.events_after(0))
            return [one for one in events if one.type == "log" and b"is given up" in one.data]

        until(given_up)
        (event,) = given_up()
        assert (event.level, KEY.encode() in event.data) == ("error", False)
    stored = [path.read_bytes() for path in (tmp_path / "state").glob("fazai.sqlite3*")]
    assert stored
    assert KEY.encode() not in b"".join(stored)


def test_one_channel_does_not_wait_for_another(tmp_path: Path, hook: Hook) -> None:
    hook.script += ["silence"] * 5
    bot = Hook()
    with in_a_thread(serve_hook(bot)):
        found = notify(tmp_path, hook.port)
        phone = TelegramChannel(
            name="phone",
            chat="1",
            token_file=secret(tmp_path, "bot", BOT),
            base_url=f"http://127.0.0.1:{bot.port}",
        )
        both = {**found.subscriptions, "phone": Subscription(phone)}
        config = DaemonConfig(notify=replace(found, subscriptions=both))
        with live(tmp_path, config=config) as daemon:
            announce(daemon, "web-01")
            until(lambda: bot.posts)
            announce(daemon, "web-02")
            until(lambda: len(bot.posts) == 2)
            assert BOT not in daemon.log()
    assert len(hook.posts) == 1


def test_without_a_channel_nothing_is_stored(tmp_path: Path) -> None:
    with live(tmp_path) as daemon:
        announce(daemon, "web-01")
        assert daemon.call(lambda: daemon.services.store.notices()) == ([], None)


# -- runs


@contextlib.contextmanager
def running(folder: Path, hook: Hook, **more: Any) -> Iterator[World]:
    """A daemon that may run `edge`, and tells of it."""
    secret(folder, "key", KEY)
    channel = {"type": "webhook", "url": f"http://127.0.0.1:{hook.port}/", "secret_file": "key"}
    with world(folder, notify={"channels": {"ops": channel}, "gather": "1s"}, **more) as found:
        yield found


def test_a_plan_that_waits_is_told_with_what_it_changes(tmp_path: Path, hook: Hook) -> None:
    with running(tmp_path, hook) as found:
        run_id = found.started(found.run())
        row = found.ended(run_id)
        assert row["exit_code"] == 2
        until(lambda: hook.posts)
        plan_hash = found.daemon.services.run_queue.records.get(run_id).plan_hash  # type: ignore[union-attr]
        assert plan_hash is not None
        assert subjects(hook) == [f"a plan of edge waits for approval ({plan_hash[:12]}): fw-01: 1 change"]
        assert json.loads(hook.posts[0].body)["run_id"] == run_id


def test_drift_is_told_where_nobody_looked(tmp_path: Path, hook: Hook) -> None:
    with running(tmp_path, hook, job={"modes": ["check"]}) as found:
        run_queue = found.daemon.services.run_queue
        job = run_queue.jobs["edge"]
        asked = found.daemon.call(lambda: run_queue.enqueue(job, "check", "schedule", "schedule"))
        found.ended(asked.run_id)
        until(lambda: hook.posts)
        assert subjects(hook) == ["fw-01 differs from what is declared: 1 change"]
        found.ended(found.started(found.run()))  # by a person, who sees it
        again = found.daemon.call(lambda: run_queue.enqueue(job, "check", "schedule", "schedule"))
        found.ended(again.run_id)
        found.inventory(base_url="https://127.0.0.1:1")
        broken = found.daemon.call(lambda: run_queue.enqueue(job, "check", "schedule", "schedule"))
        assert found.ended(broken.run_id)["exit_code"] == 4
        until(lambda: len(hook.posts) == 2)
        (_, failed) = subjects(hook)
        assert failed.startswith("check of edge failed with exit code 4: fw-01: unreachable, ")


# -- the action loop


def test_an_effect_that_waits_and_a_session_that_is_stuck_are_told(tmp_path: Path, hook: Hook) -> None:
    secret(tmp_path, "key", KEY)
    channel = {"type": "webhook", "url": f"http://127.0.0.1:{hook.port}/", "secret_file": "key"}
    with loop_world(tmp_path, notify={"channels": {"ops": channel}, "gather": "1s"}) as world:
        session = world.open()
        world.model.answers[:] = [APPLY]
        shown = of_type(plain(world.ask(session, "bring it back")), "action")[0]
        until(lambda: hook.posts)
        found = json.loads(hook.posts[0].body)
        assert (found["kind"], found["session_id"]) == ("approval_waits", session)
        assert found["action_id"] == shown["action_id"]
        what = "create of opnsense.alias blocklist on fw-01"
        assert found["subject"] == f"session {session} waits for an approval: {what}"
        world.post("reject", session, shown)
        until(lambda: len(hook.posts) == 2)
        found = json.loads(hook.posts[1].body)
        assert (found["kind"], found["session_id"]) == ("loop_stuck", session)
        assert found["subject"].startswith(f"session {session} is stuck: ")
