"""One action in flight an agent: queue, order, repeats, cancel, lost connections."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.live import until
from tests.daemon.southbound.client import Agent, done, execute, split
from tests.daemon.southbound.world import World

ROOT = Path(__file__).parents[3]


def test_actions_of_one_agent_run_one_after_the_other(world: World) -> None:
    with world.agent() as agent, world.relay() as one, world.relay() as two:
        queue = world.south.registry.find("edge-7")
        assert queue is not None
        first, second = one.begin("edge-7", execute("a-1")), one.begin("edge-7", execute("a-2"))
        until(lambda: len(queue.queue) == 2)  # two relays are two connections: nothing else orders them
        third = two.begin("edge-7", execute("a-3"))
        until(lambda: len(queue.queue) == 3)
        acknowledged: list[str] = []
        for number in (1, 2, 3):
            request = agent.recv_request(acknowledged)
            assert request == execute(f"a-{number}")
            agent.send({"method": "time"})
            assert agent.recv_request(acknowledged)["ok"] is True  # nothing else was sent meanwhile
            agent.send(done(request, stdout=request["action_id"]))
        assert one.recv() == {"id": first, "answer": done(execute("a-1"), stdout="a-1")}
        assert one.recv() == {"id": second, "answer": done(execute("a-2"), stdout="a-2")}
        assert two.recv() == {"id": third, "answer": done(execute("a-3"), stdout="a-3")}


def test_agents_do_not_wait_for_each_other(world: World) -> None:
    with world.agent("edge-7") as slow, world.agent("edge-8") as fast, world.relay() as relay:
        first = relay.begin("edge-7", execute("a-1"))
        second = relay.begin("edge-8", execute("a-1"))
        request = slow.recv()
        fast.send(done(fast.recv()))
        assert relay.recv()["id"] == second
        slow.send(done(request))
        assert relay.recv()["id"] == first


def test_sixty_four_wait_and_no_more(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        for number in range(65):
            relay.begin("edge-7", execute(f"a-{number}"))
        assert agent.recv()["action_id"] == "a-0"
        found = relay.ask("edge-7", execute("a-65"))
        assert found["code"] == "overloaded"
        assert found["error"] == "64 actions wait for edge-7 already"


@pytest.mark.parametrize(
    ("agent_id", "message", "code"),
    [
        ("nobody", execute("a-1"), "agent_unknown"),
        ("edge-9", execute("a-1"), "agent_offline"),
        ("edge-7", {"method": "shell", "action_id": "a-1"}, "unknown_method"),
        ("edge-7", {"method": "hello", "action_id": "a-1"}, "unknown_method"),
        ("edge-7", {"method": "file.apply", "action_id": "a-1"}, "unknown_method"),
        ("edge-7", {"method": "command.exec"}, "bad_request"),
        ("edge-7", execute("a b"), "bad_request"),
        ("edge-7", execute("a-1", timeout=0), "bad_request"),
        ("edge-7", {"method": "cancel", "action_id": "a-1"}, "not_found"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    world: World, agent_id: str, message: dict[str, Any], code: str
) -> None:
    with world.agent("edge-9"):
        pass
    until(lambda: world.row("edge-9")["state"] == "closing")
    capabilities = ["command.exec", "cancel", "ack"]
    with world.agent(capabilities=capabilities), world.relay() as relay:
        found = relay.ask(agent_id, message)
        assert (found.get("code"), "answer" in found) == (code, False), found


def test_a_repeated_action_is_answered_from_the_store(world: World) -> None:
    with world.relay() as relay, world.agent() as agent:
        relay.begin("edge-7", execute("a-1", "x"))
        agent.send(done(agent.recv(), stdout="once\n"))
        first = relay.recv()["answer"]
        assert agent.recv() == {"method": "ack", "action_ids": ["a-1"]}
        assert relay.ask("edge-7", execute("a-1", "x"))["answer"] == first
        other = relay.ask("edge-7", execute("a-1", "y"))
        assert other["code"] == "conflict"
        # the same content in another order, and with a name that is null
        again = {"timeout": 30_000, "env": None, **execute("a-1", "x")}
        assert relay.ask("edge-7", again)["answer"] == first
        assert agent.ask({"method": "time"})["ok"] is True  # the agent was asked once


def test_two_clients_may_ask_for_the_same_action(world: World) -> None:
    with world.agent() as agent, world.relay() as one, world.relay() as two:
        one.begin("edge-7", execute("a-1"))
        request = agent.recv()
        two.begin("edge-7", execute("a-1"))
        other = two.ask("edge-7", execute("a-1", "other"))
        assert other["code"] == "conflict"
        agent.send(done(request))
        assert one.recv()["answer"] == two.recv()["answer"] == done(request)


def test_questions_are_asked_anew(world: World) -> None:
    question = {"method": "file.diff", "action_id": "d-1", "path": "/etc/motd", "want": "x"}
    with world.agent() as agent, world.relay() as relay:
        for patch in ("one", "two"):
            relay.begin("edge-7", question)
            request = agent.recv()
            agent.send({"ok": True, "action_id": "d-1", "patch": patch})
            assert relay.recv()["answer"]["patch"] == patch
            assert request == question
        assert agent.ask({"method": "time"})["ok"] is True  # and not acknowledged


def test_cancel_ends_what_runs_and_what_waits(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        running = relay.begin("edge-7", execute("a-1"))
        waiting = relay.begin("edge-7", execute("a-2"))
        request = agent.recv()
        number = relay.begin("edge-7", {"method": "cancel", "action_id": "a-2"})
        found = {frame["id"]: frame for frame in (relay.recv(), relay.recv())}
        assert found[waiting]["code"] == "cancelled"
        assert found[number]["answer"] == {"ok": True}
        number = relay.begin("edge-7", {"method": "cancel", "action_id": "a-1"})
        assert relay.recv() == {"id": number, "answer": {"ok": True}}
        assert agent.recv() == {"method": "cancel", "action_id": "a-1"}
        agent.send({"ok": False, "action_id": "a-1", "error": "it was ended", "code": "cancelled"})
        answer = relay.recv()
        assert (answer["id"], answer["answer"]["code"]) == (running, "cancelled")
        assert request["action_id"] == "a-1"


def test_a_cancel_that_comes_too_late_is_no_lie(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        request = agent.recv()
        relay.ask("edge-7", {"method": "cancel", "action_id": "a-1"})
        agent.send(done(request))
        assert agent.recv()["method"] == "cancel"
        agent.send({"ok": False, "action_id": "a-1", "error": "not here", "code": "not_found"})
        assert relay.recv()["answer"]["ok"] is True
        assert agent.recv()["method"] == "ack"
        assert agent.ask({"method": "time"})["ok"] is True


def test_a_program_ends_with_the_client_that_wanted_it_and_a_file_is_written(world: World) -> None:
    patch = {"method": "file.apply", "action_id": "p-1", "path": "/etc/motd", "patch": ""}
    with world.agent() as agent:
        with world.relay() as relay:
            relay.begin("edge-7", execute("a-1"))
            relay.begin("edge-7", execute("a-2"))
            request = agent.recv()
        assert agent.recv() == {"method": "cancel", "action_id": "a-1"}
        agent.send({"ok": False, "action_id": "a-1", "error": "it was ended", "code": "cancelled"})
        assert agent.recv()["method"] == "ack"
        with world.relay() as relay:
            relay.begin("edge-7", patch)
            request = agent.recv()
            assert request == patch  # a-2 was not sent
        until(lambda: not world.south.relay_parts.clients)
        agent.send({"ok": True, "action_id": "p-1", "applied": True})
        assert agent.recv() == {"method": "ack", "action_ids": ["p-1"]}


def test_what_ran_when_the_connection_ended_is_unsure(world: World) -> None:
    with world.relay() as relay:
        with world.agent() as agent:
            running = relay.begin("edge-7", execute("a-1"))
            agent.recv()
            waiting = relay.begin("edge-7", execute("a-2"))
            until(lambda: len(world.queue()) == 2)
        found = {frame["id"]: frame for frame in (relay.recv(), relay.recv())}
        assert found[running]["code"] == "agent_lost"
        assert "the connection to edge-7 ended while it ran" in found[running]["error"]
        assert found[waiting]["code"] == "agent_offline"
        # the next one waits until the outcome of the lost one came, or cannot come any more
        with world.agent() as agent:
            number = relay.begin("edge-7", execute("a-3"))
            assert agent.ask({"method": "time"})["ok"] is True
            assert len(world.queue()) == 1
            late = {"method": "result", "action_id": "a-1", "of": "command.exec"}
            agent.send({**late, "answer": done(execute("a-1"), stdout="late")})
            got = [agent.recv(), agent.recv()]
            assert {"ok": True, "action_id": "a-1"} in got
            assert execute("a-3") in got
            agent.send(done(execute("a-3")))
            assert relay.recv()["id"] == number
            assert relay.ask("edge-7", execute("a-1"))["answer"]["stdout"] == "late"


def test_a_lost_action_that_is_asked_for_again_gets_its_answer(world: World) -> None:
    with world.relay() as relay:
        with world.agent(instance="one") as agent:
            relay.begin("edge-7", execute("a-1"))
            agent.recv()
        assert relay.recv()["code"] == "agent_lost"
        with world.agent(instance="one") as agent:
            relay.begin("edge-7", execute("a-2"))
            again = relay.begin("edge-7", execute("a-1"))
            request = agent.recv()
            assert request == execute("a-1")  # it goes first: the agent answers once it is done
            agent.send(done(request))
            assert relay.recv()["id"] == again
            acknowledged: list[str] = []
            assert agent.recv_request(acknowledged) == execute("a-2")


def test_an_agent_that_is_still_busy_with_a_lost_question_is_asked_again(world: World) -> None:
    question = {"method": "state.observe", "action_id": "o-1", "session": "s", "timeout": 60_000}
    with world.relay() as relay:
        with world.agent(instance="one") as agent:
            relay.begin("edge-7", {**question, "resources": []})
            agent.recv()
        assert relay.recv()["code"] == "agent_lost"
        with world.agent(instance="one") as agent:
            number = relay.begin("edge-7", execute("a-1"))
            busy = {"ok": False, "error": "another action runs", "code": "conflict"}
            for _ in range(2):
                assert agent.recv() == execute("a-1")
                agent.send({**busy, "action_id": "a-1"})
            assert agent.recv() == execute("a-1")
            agent.send(done(execute("a-1")))
            assert relay.recv() == {"id": number, "answer": done(execute("a-1"))}
            # from now on a conflict is one
            relay.begin("edge-7", execute("a-2"))
            acknowledged: list[str] = []
            assert agent.recv_request(acknowledged) == execute("a-2")
            agent.send({**busy, "action_id": "a-2"})
            assert relay.recv()["answer"]["code"] == "conflict"


def test_another_process_of_the_agent_is_asked_at_once(world: World) -> None:
    with world.relay() as relay:
        with world.agent(instance="one") as agent:
            relay.begin("edge-7", execute("a-1"))
            agent.recv()
        assert relay.recv()["code"] == "agent_lost"
        with world.agent(instance="two") as agent:
            relay.begin("edge-7", execute("a-2"))
            assert agent.recv() == execute("a-2")


def test_an_agent_that_does_not_answer_in_time_is_let_go(world: World) -> None:
    world.south.registry.grace_s = 0.1
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1", timeout=100))
        waiting = relay.begin("edge-7", execute("a-2"))
        agent.recv()
        found = {frame["id"]: frame for frame in (relay.recv(), relay.recv())}
        late = found.pop(waiting - 1)
        assert (late["code"], late["error"]) == (
            "timeout",
            "edge-7 did not answer within 0.2 s (what became of it is not known)",
        )
        assert found[waiting]["code"] == "agent_offline"
        assert agent.closed() == (1008, "timeout: edge-7 did not answer within 0.2 s")


def test_a_long_message_goes_in_parts_both_ways(world: World) -> None:
    content = base64.b64encode(b"x" * 3_000_000).decode()
    request = {
        "method": "file.apply",
        "action_id": "p-1",
        "path": "/srv/x",
        "content_base64": content,
        "base_sha256": "absent",
    }
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", request)
        assert _join(agent) == request
        answer = {"ok": True, "action_id": "p-1", "applied": True, "more": "y" * 2_500_000}
        for part in split(answer, "p-1"):
            agent.send(part)
        assert relay.recv()["answer"] == answer
        assert agent.recv() == {"method": "ack", "action_ids": ["p-1"]}


def _join(agent: Agent) -> Any:
    parts: list[bytes] = []
    while True:
        part = agent.recv()
        assert (part["method"], part["index"]) == ("part", len(parts))
        assert len(json.dumps(part)) <= 1 << 20
        parts.append(base64.b64decode(part["data"]))
        if part["last"]:
            return json.loads(b"".join(parts))


def test_metrics_count_agents_and_outcomes(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        agent.send(
            {"ok": False, "action_id": agent.recv()["action_id"], "error": "no", "code": "not_allowed"}
        )
        assert relay.recv()["answer"]["code"] == "not_allowed"
        with world.live.client() as http:
            text = http.get("/metrics").text
        assert 'fazai_agents{state="observation"} 1.0' in text
        assert 'fazai_agent_actions_total{method="command.exec",outcome="not_allowed"} 1.0' in text
        assert "fazai_agent_queue_length 0.0" in text
        assert "fazai_agent_clients 1.0" in text
        assert 'fazai_agent_action_seconds_bucket{le="+Inf"} 1.0' in text


def test_the_documented_metrics_are_those_of_the_page(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        agent.send(done(agent.recv()))
        relay.recv()
        with world.agent("edge-7", greet=False) as other:
            other.greet(clock_s=900)
        with world.live.client() as http:
            page = http.get("/metrics").text
    found = {}
    for family in text_string_to_metric_families(page):
        if family.name.startswith("fazai_agent"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = frozenset(label for one in family.samples for label in one.labels) - {"le"}
            found[name] = (family.type, labels, family.documentation)
    text = (ROOT / "docs/metrics.md").read_text().partition("<!-- agents -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| (\w+) \| ([^|]*) \| (.*) \|$", text, re.M)
    documented = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)), says) for name, kind, labels, says in rows
    }
    assert documented == found
