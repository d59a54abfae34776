"""An agent's process and a daemon: hello, actions, outcomes."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon, Peer


def test_an_agent_says_hello_and_runs_a_program(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    hello = peer.hello()
    assert hello["agent_id"] == "edge-7"
    assert hello["contract"] == "1.1"
    assert hello["reconcile"] == "no"
    assert {"command.exec", "file.diff", "ack", "cancel", "result", "part", "outcomes"} <= set(
        hello["capabilities"]
    )
    assert "state.observe" not in hello["capabilities"]
    assert peer.certificate()["subject"] == ((("commonName", "edge-7"),),)
    answer = peer.exec("a-1", "/bin/echo", "hello there")
    assert answer == {"ok": True, "action_id": "a-1", "exit_code": 0, "stdout": "hello there\n", "stderr": ""}
    assert agent.stop() == 0
    assert peer.wait_closed()[0] == 1001


_PART = b'{"method":"part","action_id":"p","index":0,"last":true,"data":""}'


@pytest.fixture
def connected(agent: Agent, daemon: Daemon) -> Peer:
    """A daemon's end of a connection that has said hello."""
    agent.configure(f"wss://localhost:{daemon.port}", more="reconcile: {mode: yes}\n")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    return peer


def test_a_repeated_action_is_answered_from_the_journal(connected: Peer, tmp_path: Path) -> None:
    target = tmp_path / "lines"
    first = connected.exec("a-1", "/bin/sh", "-c", f"echo x >> {target}; echo done")
    assert first["stdout"] == "done\n"
    assert connected.exec("a-1", "/bin/sh", "-c", f"echo x >> {target}; echo done") == first
    assert target.read_text() == "x\n"
    other = connected.exec("a-1", "/bin/sh", "-c", "echo other")
    assert (other["ok"], other["code"], other["action_id"]) == (False, "conflict", "a-1")
    assert target.read_text() == "x\n"


def test_an_agent_says_which_actions_it_never_had(connected: Peer, agent: Agent, tmp_path: Path) -> None:
    done = connected.exec("a-1", "/bin/echo", "once")
    connected.send({"method": "ack", "action_ids": ["a-1"]})
    connected.send(_sleeping("a-2", tmp_path))
    _wait_for(tmp_path / "a-2")
    asked = ["a-1", "a-2", "a-3"]
    answer = connected.ask(method="outcomes", action_id="q-1", action_ids=asked)
    assert answer == {"ok": True, "action_id": "q-1", "unknown": ["a-3"]}
    late = connected.receive()  # the daemon had it once, and lost it
    assert late == {"method": "result", "action_id": "a-1", "of": "command.exec", "answer": done}
    connected.send({"ok": True, "action_id": "a-1"})
    connected.send({"method": "cancel", "action_id": "a-2"})
    assert connected.receive()["code"] == "cancelled"
    assert connected.ask(method="outcomes", action_id="q-2", action_ids=[])["code"] == "bad_request"


def test_one_question_for_outcomes_is_answered_at_a_time(connected: Peer) -> None:
    done = connected.exec("a-1", "/bin/echo", "once")
    connected.send({"method": "ack", "action_ids": ["a-1"]})
    assert connected.ask(method="outcomes", action_id="q-1", action_ids=["a-1"])["ok"] is True
    late = {"method": "result", "action_id": "a-1", "of": "command.exec", "answer": done}
    assert connected.receive() == late
    for number in range(2, 40):  # which the daemon does not answer
        refused = connected.ask(method="outcomes", action_id=f"q-{number}", action_ids=["a-1"])
        assert (refused["code"], refused["action_id"]) == ("conflict", f"q-{number}")
        assert refused["error"] == "an earlier question is being answered"
    connected.send({"ok": True, "action_id": "a-1"})
    assert connected.ask(method="outcomes", action_id="q-50", action_ids=["a-1"])["ok"] is True
    assert connected.receive() == late


def test_methods_without_effect_are_carried_out_again(connected: Peer) -> None:
    for _ in range(2):
        answer = connected.ask(method="file.diff", action_id="d-1", path="/etc/motd", want="abc")
        assert answer == {"ok": True, "action_id": "d-1", "patch": "xxx", "differs": True}
    answer = connected.ask(method="file.diff", action_id="d-1", path="/etc/motd", want="other")
    assert answer["patch"] == "xxxxx"


def test_one_action_runs_at_a_time(connected: Peer, tmp_path: Path) -> None:
    connected.send(_sleeping("a-1", tmp_path))
    _wait_for(tmp_path / "a-1")
    answer = connected.ask(method="file.diff", action_id="d-1", path="/etc/motd", want="")
    assert (answer["code"], answer["error"]) == ("conflict", "another action runs (one at a time)")
    changed = connected.ask(**{**_sleeping("a-1", tmp_path), "timeout": 1})
    assert changed["error"] == "this `action_id` stands for another action, which runs"
    connected.send({"method": "cancel", "action_id": "a-1"})
    assert connected.receive()["code"] == "cancelled"


def test_cancel_ends_an_action_and_what_it_started(connected: Peer, tmp_path: Path) -> None:
    connected.send(_sleeping("a-1", tmp_path))
    number = int(_wait_for(tmp_path / "a-1"))
    connected.send({"method": "cancel", "action_id": "a-1"})
    answer = connected.receive()
    assert answer["code"] == "cancelled"
    assert answer["action_id"] == "a-1"
    assert answer["stdout"] == ""
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    nothing = connected.ask(method="cancel", action_id="a-1")
    assert (nothing["code"], nothing["error"]) == ("not_found", "no such action runs here")
    assert connected.exec("a-2", "/bin/echo", "next")["stdout"] == "next\n"


def test_an_action_is_ended_after_its_time(connected: Peer, tmp_path: Path) -> None:
    answer = connected.ask(**{**_sleeping("a-1", tmp_path), "timeout": 100})
    assert (answer["code"], answer["error"]) == ("timeout", "it took too long")


def test_an_action_has_the_time_of_the_policy_at_most(agent: Agent, daemon: Daemon, tmp_path: Path) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello(timeouts={"exec": 100})
    assert peer.ask(**_sleeping("a-1", tmp_path))["code"] == "timeout"


def test_an_action_whose_process_dies_is_interrupted(connected: Peer) -> None:
    answer = connected.exec("a-1", "die")
    assert answer["code"] == "interrupted"
    assert answer["error"] == "its process was ended by signal 9; what became of it is not known"
    assert connected.exec("a-1", "die") == answer


def test_long_messages_go_in_parts_both_ways(connected: Peer) -> None:
    request = json.dumps(
        {"method": "file.diff", "action_id": "d-1", "path": "/etc/motd", "want": "ä" * 400_000}
    ).encode()
    pieces = [request[at : at + 40_000] for at in range(0, len(request), 40_000)]
    for index, piece in enumerate(pieces):
        data = base64.b64encode(piece).decode()
        last = index == len(pieces) - 1
        connected.send({"method": "part", "action_id": "d-1", "index": index, "last": last, "data": data})
    answer = connected.receive_whole()
    assert answer["action_id"] == "d-1"
    assert answer["patch"] == "x" * 400_000


@pytest.mark.parametrize(
    ("parts", "code", "text"),
    [
        ([(1, False, b"{}")], "bad_request", "part 1 came where 0 was expected"),
        ([(0, False, b"{"), (2, True, b"}")], "bad_request", "part 2 came where 1 was expected"),
        ([(0, True, b'{"method":"cancel","action_id":"other"}')], "bad_request", "another `action_id`"),
        ([(0, True, b"{")], "bad_json", "JSON is malformed"),
        ([(0, True, _PART)], "bad_request", "another"),
    ],
)
def test_wrong_parts_are_refused(
    connected: Peer, parts: list[tuple[int, bool, bytes]], code: str, text: str
) -> None:
    for index, last, data in parts:
        encoded = base64.b64encode(data).decode()
        connected.send({"method": "part", "action_id": "p", "index": index, "last": last, "data": encoded})
    answer = connected.receive()
    assert (answer["ok"], answer["code"], answer["action_id"]) == (False, code, "p")
    assert text in answer["error"]
    assert connected.exec("a-2", "/bin/echo", "next")["stdout"] == "next\n"


def test_parts_over_the_limit_are_refused(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello(max_message=100_000)
    data = base64.b64encode(b" " * 40_000).decode()
    for index in range(3):
        peer.send({"method": "part", "action_id": "p", "index": index, "last": False, "data": data})
    answer = peer.receive()
    assert (answer["code"], answer["error"]) == ("too_large", "the message in parts is over 100000 bytes")


def test_outputs_are_cut_to_the_policy(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello(max_output=5)
    answer = peer.exec("a-1", "/bin/echo", "äöü")
    assert answer["stdout"] == "äö"
    assert answer["truncated"] is True


def test_an_answer_over_the_limit_is_replaced(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello(max_message=65_536, max_payload=65_536, max_output=10_000_000)
    answer = peer.exec("a-1", "/usr/bin/head", "-c", "100000", "/dev/zero")
    assert (answer["ok"], answer["code"], answer["action_id"]) == (False, "too_large", "a-1")
    assert "the daemon takes 65536" in answer["error"]


def test_what_reconciles_lives_on_between_requests(connected: Peer) -> None:
    ask = {"method": "state.observe", "session": "s-1", "timeout": 1000, "resources": []}
    first = connected.ask(**ask, action_id="o-1")
    assert first["action_id"] == "o-1"
    assert connected.ask(**ask, action_id="o-2")["observation"] == first["observation"]
    assert connected.ask(method="state.close", action_id="o-3", session="s-1") == {
        "ok": True,
        "action_id": "o-3",
    }
    apply = {"method": "state.apply", "session": "s-1", "timeout": 60_000}
    connected.send({**apply, "action_id": "o-4", "step": {"write": "wait"}})
    connected.send({"method": "cancel", "action_id": "o-4"})
    assert connected.receive()["code"] == "cancelled"
    second = connected.ask(**ask, action_id="o-5")
    assert second["observation"] == first["observation"]  # one request ended, not the process


def test_what_reconciles_and_hangs_is_killed(connected: Peer) -> None:
    apply = {"method": "state.apply", "session": "s-1", "timeout": 50, "action_id": "o-1"}
    answer = connected.ask(**apply, step={"write": "hang"})
    assert (answer["ok"], answer["code"]) == (False, "timeout")
    observe = {"method": "state.observe", "session": "s-1", "timeout": 1000, "resources": []}
    assert connected.ask(**observe, action_id="o-2")["ok"]


def test_a_machine_that_may_not_be_reconciled_is_not(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    answer = peer.ask(method="state.observe", action_id="o", session="s", timeout=1000, resources=[])
    assert answer["code"] == "not_allowed"
    assert "`reconcile` in agent.yml" in answer["error"]


def test_an_outcome_is_delivered_again_until_it_is_acknowledged(
    agent: Agent, daemon: Daemon, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    answers = [peer.exec(f"a-{number}", "/bin/echo", str(number)) for number in range(3)]
    peer.send({"method": "ack", "action_ids": ["a-1"]})
    peer.ask(method="cancel", action_id="none")  # the acknowledgement was read before this
    peer.close()
    second = daemon.accept()
    second.hello()
    second.send(_sleeping("b-1", tmp_path))  # waits until the outcomes are through
    found = [second.receive(), second.receive()]
    assert [(one["method"], one["action_id"], one["of"]) for one in found] == [
        ("result", "a-0", "command.exec"),
        ("result", "a-2", "command.exec"),
    ]
    assert [one["answer"] for one in found] == [answers[0], answers[2]]
    assert not (tmp_path / "b-1").exists()
    for one in found:
        second.send({"ok": True, "action_id": one["action_id"]})
    _wait_for(tmp_path / "b-1")
    second.send({"method": "cancel", "action_id": "b-1"})
    assert second.receive()["action_id"] == "b-1"
    second.close()
    third = daemon.accept()
    third.hello()
    assert third.receive()["action_id"] == "b-1"


def test_an_outcome_of_a_lost_connection_comes_as_a_result(
    agent: Agent, daemon: Daemon, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    go = tmp_path / "go"
    script = f"echo $$ > {tmp_path}/a-1; while [ ! -e {go} ]; do sleep 0.05; done; echo done"
    peer.send(_command("a-1", "/bin/sh", "-c", script))
    _wait_for(tmp_path / "a-1")
    peer.close()
    second = daemon.accept()
    second.hello()
    second.ask(method="cancel", action_id="none")
    go.touch()
    found = second.receive()
    assert (found["method"], found["action_id"], found["answer"]["stdout"]) == ("result", "a-1", "done\n")


def test_an_action_that_is_asked_for_again_answers_there(
    agent: Agent, daemon: Daemon, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    go = tmp_path / "go"
    script = f"echo $$ >> {tmp_path}/a-1; while [ ! -e {go} ]; do sleep 0.05; done; echo done"
    request = _command("a-1", "/bin/sh", "-c", script)
    peer.send(request)
    _wait_for(tmp_path / "a-1")
    peer.close()
    second = daemon.accept()
    second.hello()
    second.send(request)
    second.ask(method="cancel", action_id="none")
    go.touch()
    answer = second.receive()
    assert (answer["ok"], answer["action_id"], answer["stdout"]) == (True, "a-1", "done\n")
    assert len((tmp_path / "a-1").read_text().splitlines()) == 1


def test_a_daemon_of_1_0_is_sent_nothing_of_1_1(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    first = daemon.accept()
    assert "instance" in first.receive()
    first.send({"ok": False, "code": "bad_request", "error": "unknown field `instance`"})
    second = daemon.accept()
    hello = second.receive()
    assert set(hello) == {"method", "agent_id", "name", "version", "capabilities", "timestamp"}
    second.send({"ok": True, "policy": {"timeouts": {"exec": 9000}, "max_payload": 65_536}})
    assert second.exec("a-1", "/bin/echo", "x")["exit_code"] == 0
    second.close()
    third = daemon.accept()
    third.receive()
    third.send({"ok": True, "policy": {"timeouts": {"exec": 9000}, "max_payload": 65_536}})
    assert third.ask(method="file.diff", action_id="d", path="/x", want="a")["action_id"] == "d"


def test_sigterm_ends_the_running_action_and_tells_its_outcome(
    agent: Agent, daemon: Daemon, connected: Peer, tmp_path: Path
) -> None:
    connected.send(_sleeping("a-1", tmp_path))
    number = int(_wait_for(tmp_path / "a-1"))
    agent.process.terminate()
    answer = connected.receive()
    assert answer["code"] == "interrupted"
    assert "the agent was stopped while it ran" in answer["error"]
    assert connected.wait_closed() == (1001, "the agent ends")
    assert agent.process.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_what_an_agent_runs_ends_with_it(agent: Agent, connected: Peer, tmp_path: Path) -> None:
    """Each child by itself: the one that reconciles, and that of the action, with what it started."""
    observe = {"method": "state.observe", "session": "s-1", "timeout": 1000, "resources": []}
    worker = connected.ask(**observe, action_id="o-1")["observation"]["pid"]
    connected.send(_sleeping("a-1", tmp_path))
    number = int(_wait_for(tmp_path / "a-1"))
    agent.kill()
    limit = time.monotonic() + 30
    for one in (worker, number):
        while _is_alive(one) and time.monotonic() < limit:
            time.sleep(0.02)
        assert not _is_alive(one)


def test_no_room_for_a_process_is_told(agent: Agent, daemon: Daemon) -> None:
    """A machine that can fork no more: the action is refused, and the agent stays."""
    import resource

    agent.configure(f"wss://localhost:{daemon.port}", more="reconcile: {mode: yes}\n")
    process = agent.start()
    peer = daemon.accept()
    peer.hello()
    peer.exec("a-0", "/bin/echo", "x")
    held = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (4, held[1]))  # no pipe, no process
    answer = peer.exec("a-1", "/bin/echo", "x")
    assert (answer["code"], answer["action_id"]) == ("unavailable", "a-1")
    assert "no process could be made for it: Too many open files" in answer["error"]
    observe = {"method": "state.observe", "session": "s-1", "timeout": 1000, "resources": []}
    assert peer.ask(**observe, action_id="o-1")["code"] == "unavailable"
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, held)
    assert peer.exec("a-2", "/bin/echo", "x")["exit_code"] == 0
    assert peer.ask(**observe, action_id="o-2")["ok"]


@pytest.mark.slow
def test_who_asks_and_does_not_listen_fills_no_memory(agent: Agent, daemon: Daemon) -> None:
    """Refusals wait to be sent up to a bound; then the agent reads no more, and takes it for silence."""
    agent.configure(f"wss://localhost:{daemon.port}")
    process = agent.start()
    peer = daemon.accept()
    peer.hello(heartbeat_ms=1000)
    before = _peak_kb(process.pid)
    peer.flood({"method": "cancel", "action_id": "x" * 100}, seconds=60)
    agent.wait_said("the daemon was silent for 3 s")
    assert _peak_kb(process.pid) - before < 8 * 1024
    daemon.accept().hello()


def _peak_kb(number: int) -> int:
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _is_alive(number: int) -> bool:
    """Return whether a process runs; one that nobody has taken note of is at its end."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_fifty_outcomes_wait_for_the_network(agent: Agent, daemon: Daemon, tmp_path: Path) -> None:
    """A5: the daemon goes away and acknowledged nothing; all of it arrives later, in order, once."""
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    names = [f"a-{number}" for number in range(50)]
    answers = [peer.exec(name, "/bin/sh", "-c", f"echo {name} >> {tmp_path}/lines") for name in names]
    agent.kill()
    peer.close()
    agent.start()
    second = daemon.accept()
    second.hello()
    for name, answer in zip(names, answers, strict=True):
        found = second.receive()
        assert (found["method"], found["action_id"], found["answer"]) == ("result", name, answer)
        second.send({"ok": True, "action_id": name})
    second.ask(method="cancel", action_id="none")
    second.close()
    third = daemon.accept()
    third.hello()
    assert third.ask(method="cancel", action_id="none")["code"] == "not_found"  # nothing is left to deliver
    assert (tmp_path / "lines").read_text().split() == names


def test_sighup_reads_the_configuration_again(agent: Agent, daemon: Daemon, connected: Peer) -> None:
    good = agent.config.read_text()
    agent.config.write_text(good + "colour: blue\n")
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_said("the configuration stays as it was")
    assert 'has no setting "colour"' in agent.said()
    assert connected.exec("a-1", "/bin/echo", "x")["exit_code"] == 0
    agent.config.write_text(good.replace("mode: yes", "mode: no"))
    agent.process.send_signal(signal.SIGHUP)
    assert connected.wait_closed()[0] == 1001
    again = daemon.accept()
    assert again.hello()["reconcile"] == "no"


def _command(action_id: str, command: str, *args: str) -> dict[str, Any]:
    return {
        "method": "command.exec",
        "action_id": action_id,
        "command": command,
        "args": args,
        "timeout": 30_000,
    }


def _sleeping(action_id: str, folder: Path) -> dict[str, Any]:
    """Return a request that writes the number of its process and sleeps."""
    return _command(action_id, "/bin/sh", "-c", f"echo $$ > {folder}/{action_id}; exec sleep 60")


def _wait_for(path: Path) -> str:
    limit = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < limit
        time.sleep(0.02)
    return path.read_text()
