"""`fazai ask` and `fazai session` against a running daemon whose model is a script: as a process where a
terminal, signals or pipes matter."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fazai.cli.main import main
from fazai.daemon.loop.registry import LoopSessions
from fazai.daemon.runs.config_file import read_daemon_config
from tests.daemon.live import PATIENCE_S, live, token, until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world

LIST: dict[str, Any] = {"action": "use_tool", "name": "fleet.list", "args": {}}
APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
ASK: dict[str, Any] = {"action": "ask", "question": "Adotar ou desfazer?", "options": ["adotar", "desfazer"]}
ROOT = Path(__file__).parents[3]
FAZAI = (sys.executable, "-m", "fazai")
Told = tuple[int, str, str]
HASH = re.compile(r"\b[0-9a-f]{64}\b")


def _environ(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAZAI_")}
    return {**kept, "FAZAI_SOCKET": "/nonexistent/socket", **more}


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    """For objectives that change nothing."""
    with loop_world(tmp_path_factory.mktemp("ask")) as found:
        yield found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """A command in this process, without a terminal: code, output, errors."""

    def run(url: str, *words: str, **environ: str) -> Told:
        before = signal.getsignal(signal.SIGINT)
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("FAZAI_")]:
                patch.delenv(name)
            for name, value in _environ(FAZAI_URL=url, **environ).items():
                patch.setenv(name, value)
            capsys.readouterr()
            try:
                code = main(list(words))
            finally:
                signal.signal(signal.SIGINT, before)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


class Screen:
    """A command at a pseudo terminal, and what it shows."""

    def __init__(self, url: str, *words: str, **environ: str) -> None:
        env = _environ(FAZAI_URL=url, TERM="xterm", NO_COLOR="1", COLUMNS="160", **environ)
        self.text = ""
        self.pid, self._master = pty.fork()
        if self.pid == 0:  # pragma: no cover - the child
            os.execve(sys.executable, [*FAZAI, *words], env)

    def until(self, wanted: str) -> None:
        """Read until it is there."""
        end = time.monotonic() + PATIENCE_S
        while wanted not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self._master], [], [], 1)[0]:
                try:
                    part = os.read(self._master, 65_536)
                except OSError:
                    part = b""
                assert part, f"it ended: {self.text}"
                self.text += part.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read to the end; returns the exit code."""
        with contextlib.suppress(OSError):
            while part := os.read(self._master, 65_536):
                self.text += part.decode(errors="replace")
        _, status = os.waitpid(self.pid, 0)
        os.close(self._master)
        return os.waitstatus_to_exitcode(status)


def _sessions(world: LoopWorld) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = world.client.get("/agent/sessions").json()["sessions"]
    return rows


def test_an_objective_is_shown_as_it_comes(looks: LoopWorld, told: Callable[..., Told]) -> None:
    looks.model.answers[:] = [
        {"action": "plan", "steps": ["look", "say\x1b[31m it"]},
        {**LIST, "args": {"limit": 3}},
        {"action": "observe", "summary": "one firewall"},
        {"action": "done", "result": "fw-01 está\nassim\x07"},
    ]
    code, out, err = told(looks.daemon.url, "ask", "qual firewall mudou?", "--history", "it was Friday")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:4] == ["> plan", "  1. look", "  2. say\\x1b[31m it", "> fleet.list limit=3"]
    assert lines[4] == "  0 machines"
    assert lines[5:8] == ["> one firewall", "fw-01 está", "assim\\x07"]
    assert lines[8].startswith("(4 iterations, ")
    assert len(lines) == 9
    first = looks.model.asked[-4][-1]["content"]
    assert "Objective: qual firewall mudou?\nWhat the person said before:\n- it was Friday\n" in first


def test_raw_events_for_machines(looks: LoopWorld, told: Callable[..., Told]) -> None:
    looks.model.answers[:] = [LIST, DONE]
    code, out, err = told(looks.daemon.url, "ask", "go", "--output", "json")
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    types = [one["type"] for one in events if one["type"] != "token"]
    assert types == ["action", "observe", "action", "done"]
    assert "token" in {one["type"] for one in events}
    assert all(next(iter(one)) == "id" and one["session_id"] for one in events)


@pytest.mark.parametrize("output", ["text", "json"])
def test_what_waits_is_printed_with_the_command_that_approves(
    looks: LoopWorld, told: Callable[..., Told], output: str
) -> None:
    looks.model.answers[:] = [APPLY, DONE]
    code, out, err = told(looks.daemon.url, "ask", "bring it back", "--output", output)
    assert code == 2
    row = _sessions(looks)[0]
    waiting = row["waiting"]
    session, action, shown = row["session_id"], waiting["action_id"], waiting["plan_hash"]
    command = f"fazai session approve {session} {action} {shown}"
    said = out if output == "text" else err
    assert f"  {command}\n" in said
    assert f"  fazai session reject {session} {action} {shown}\n" in said
    assert f"  hash     {shown}\n" in said
    assert "  targets  fw-01\n" in said
    assert f"  until    {waiting['expires'][:19].replace('T', ' ')}Z\n" in said
    if output == "text":
        assert "> reconcile.apply playbook=edge" in out
        assert re.search(r"^  fw-01 +\+ alias blocklist +type host  content 192.0.2.7$", out, re.M)
        assert "+  - 192.0.2.7" in out
    else:
        assert all(json.loads(line)["type"] for line in out.splitlines())
    assert "blocklist" not in looks.world.aliases()
    words = ("session", "reject", session, action, shown, "--reason", "não hoje")
    code, out, err = told(looks.daemon.url, *words)
    assert (code, out) == (0, "")
    assert f"{session}: rejected; it goes on" in err
    until(lambda: looks.session(session)["status"] == "ended")
    assert "rejected by anonymous: não hoje" in looks.model.said()
    assert "blocklist" not in looks.world.aliases()


def test_at_a_terminal_it_is_approved_by_the_hash_that_was_shown(tmp_path: Path) -> None:
    with loop_world(tmp_path) as world:
        world.model.answers[:] = [APPLY, {"action": "done", "result": "it is back"}]
        screen = Screen(world.daemon.url, "ask", "bring it back")
        screen.until("approve, reject or leave it? [a/r/l] ")
        assert "+ alias blocklist" in screen.text
        assert "blocklist" not in world.world.aliases()
        (shown,) = set(HASH.findall(screen.text))
        assert shown == _sessions(world)[0]["waiting"]["plan_hash"]
        screen.type("maybe\n")
        screen.until("maybe\r\napprove, reject or leave it? [a/r/l] ")
        assert "blocklist" not in world.world.aliases()
        screen.type("a\n")
        assert screen.end() == 0, screen.text
        assert "blocklist" in world.world.aliases()
        assert "it is back" in screen.text
        assert "applied it" in screen.text
        entries = world.journal(_sessions(world)[0]["session_id"])
        assert [one["plan_hash"] for one in entries if one["entry"] == "approved"] == [shown]


def test_at_a_terminal_it_is_rejected_with_a_reason(looks: LoopWorld) -> None:
    looks.model.answers[:] = [APPLY, DONE]
    screen = Screen(looks.daemon.url, "ask", "bring it back")
    screen.until("[a/r/l] ")
    screen.type("reject\n")
    screen.until("why? ")
    screen.type("freeze até segunda\n")
    assert screen.end() == 0, screen.text
    assert "rejected by anonymous: freeze até segunda" in looks.model.said()
    assert "blocklist" not in looks.world.aliases()


@pytest.mark.parametrize("keys", ["l\n", "\x04"])
def test_at_a_terminal_it_can_be_left(looks: LoopWorld, keys: str) -> None:
    looks.model.answers[:] = [APPLY, DONE]
    screen = Screen(looks.daemon.url, "ask", "bring it back")
    screen.until("[a/r/l] ")
    screen.type(keys)
    assert screen.end() == 2, screen.text
    row = _sessions(looks)[0]
    waiting = row["waiting"]
    words = (row["session_id"], waiting["action_id"], waiting["plan_hash"])
    assert f"fazai session approve {' '.join(words)}" in screen.text.replace("\r\n", "\n")
    looks.client.post("/agent/abort", json={"session_id": row["session_id"]})


def test_somebody_else_decides_while_it_is_shown(looks: LoopWorld) -> None:
    looks.model.answers[:] = [APPLY, DONE]
    screen = Screen(looks.daemon.url, "ask", "bring it back")
    screen.until("[a/r/l] ")
    row = _sessions(looks)[0]
    body = {name: row["waiting"][name] for name in ("action_id", "plan_hash")}
    looks.client.post("/agent/reject", json={"session_id": row["session_id"], **body})
    until(lambda: looks.session(row["session_id"])["status"] == "ended")
    screen.type("a\n")
    assert screen.end() == 0, screen.text
    assert "the proposal no longer waits" in screen.text
    assert "nothing left to do" in screen.text
    assert "blocklist" not in looks.world.aliases()


def test_what_was_edited_behind_the_dialogue_is_not_approved(looks: LoopWorld) -> None:
    """An approval is for what was shown: a session that meanwhile waits for something else refuses it."""
    looks.model.answers[:] = [APPLY, DONE]
    screen = Screen(looks.daemon.url, "ask", "bring it back")
    screen.until("[a/r/l] ")
    row = _sessions(looks)[0]
    session = row["session_id"]
    looks.client.post("/agent/abort", json={"session_id": session})
    looks.model.answers[:] = [APPLY, DONE]
    looks.ask(session, "again")
    screen.type("a\n")
    screen.until("no proposal")
    assert looks.session(session)["status"] == "waiting"
    looks.client.post("/agent/abort", json={"session_id": session})
    screen.end()
    assert "blocklist" not in looks.world.aliases()


@pytest.mark.parametrize(
    ("typed", "told_as"), [("2\n", "desfazer"), ("nem um nem outro\n", "nem um nem outro")]
)
def test_questions_at_a_terminal(looks: LoopWorld, typed: str, told_as: str) -> None:
    looks.model.answers[:] = [ASK, DONE]
    screen = Screen(looks.daemon.url, "ask", "o que fazer?")
    screen.until("leaves it): ")
    assert "? Adotar ou desfazer?\r\n  1) adotar\r\n  2) desfazer\r\n" in screen.text
    screen.type(typed)
    assert screen.end() == 0, screen.text
    assert f"The person answers: {told_as}" in looks.model.said()


def test_questions_without_a_terminal(looks: LoopWorld, told: Callable[..., Told]) -> None:
    looks.model.answers[:] = [ASK, DONE]
    code, out, _ = told(looks.daemon.url, "ask", "o que fazer?")
    session = _sessions(looks)[0]["session_id"]
    assert code == 2
    assert "? Adotar ou desfazer?\n  1) adotar\n  2) desfazer\n" in out
    assert f"  fazai session answer {session} TEXT\n" in out
    code, _, err = told(looks.daemon.url, "session", "answer", session[-8:], "adotar, já")
    assert (code, err.split(";")[0]) == (0, f"{session}: answered")
    until(lambda: looks.session(session)["status"] == "ended")
    assert "The person answers: adotar, já" in looks.model.said()
    code, _, err = told(looks.daemon.url, "session", "answer", session, "again")
    assert (code, "asks nothing" in err) == (3, True)


def test_ctrl_c_lets_it_rest(looks: LoopWorld, told: Callable[..., Told]) -> None:
    looks.model.answers[:] = [DONE]
    looks.model.hold.clear()
    asked = len(looks.model.asked)
    try:
        screen = Screen(looks.daemon.url, "ask", "go on for ever")
        until(lambda: len(looks.model.asked) > asked)
        screen.type("\x03")
        assert screen.end() == 130, screen.text
    finally:
        looks.model.hold.set()
    session = _sessions(looks)[0]["session_id"]
    assert f"interrupted: session {session} is paused" in screen.text
    assert f"  fazai session resume {session}\r\n  fazai session abort {session}\r\n" in screen.text
    assert looks.session(session)["status"] == "paused"
    code, _, err = told(looks.daemon.url, "session", "resume", session)
    assert (code, f"fazai tail --session {session}" in err) == (0, True)
    until(lambda: looks.session(session)["status"] == "ended")
    assert looks.session(session)["result"] == "nothing left to do"


def test_ctrl_c_before_an_approval_leaves_it_waiting(looks: LoopWorld) -> None:
    """Also where it comes between the question and the wait for a line."""
    looks.model.answers[:] = [APPLY, DONE]
    screen = Screen(looks.daemon.url, "ask", "bring it back")
    screen.until("[a/r/l] ")
    screen.type("\x03")
    assert screen.end() == 130, screen.text
    row = _sessions(looks)[0]
    assert (row["status"], row["waiting"]["kind"]) == ("waiting", "approval")
    assert f"fazai session show {row['session_id']}" in screen.text
    looks.client.post("/agent/abort", json={"session_id": row["session_id"]})


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    """Also where the daemon answers nothing any more."""
    with loop_world(tmp_path) as world:
        world.model.hold.clear()
        screen = Screen(world.daemon.url, "ask", "go on for ever")
        until(lambda: world.model.asked)
        hangs = threading.Event()
        try:
            world.daemon.loop.call_soon_threadsafe(hangs.wait)
            codes: list[int] = []
            reader = threading.Thread(target=lambda: codes.append(screen.end()))
            reader.start()
            while reader.is_alive():  # one that comes right after another is one signal with it
                with contextlib.suppress(OSError):
                    screen.type("\x03")
                reader.join(0.2)
        finally:
            hangs.set()
        assert codes == [130]
        assert "Traceback" not in screen.text


ENDS: dict[str, tuple[list[Any], list[str], int, str]] = {
    "stuck": ([{"action": "reboot"}], [], 1, "stuck: 3 answers in a row were no action"),
    "budget": ([LIST], ["--iterations", "1"], 1, "budget: it has used its 1 iterations"),
}


@pytest.mark.parametrize("name", ENDS)
def test_other_ends(looks: LoopWorld, told: Callable[..., Told], name: str) -> None:
    answers, options, wanted, said = ENDS[name]
    looks.model.answers[:] = answers
    code, out, err = told(looks.daemon.url, "ask", "go", *options)
    session = _sessions(looks)[0]["session_id"]
    assert (code, err) == (wanted, f"why it ended so:\n  fazai session show {session} --journal\n")
    assert f"\n{said}\n" in f"\n{out}"


def test_without_a_daemon(told: Callable[..., Told], tmp_path: Path) -> None:
    for words in (("ask", "go"), ("session", "list"), ("session", "approve", "s-1", "a-1", "0" * 64)):
        code, out, err = told("http://127.0.0.1:1", *words)
        assert (code, out) == (4, ""), words
        assert "the daemon does not answer: Connection refused" in err
        assert "is it running? fazai daemon" in err
    code, _, err = told("", "ask", "go")
    assert (code, "no daemon is known here" in err) == (4, True)


def test_a_socket_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not said that no daemon runs."""
    monkeypatch.delenv("FAZAI_URL", raising=False)
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "d.sock"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may use any
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "d.sock"))
        for words in (["session", "list"], ["ask", "go"], ["kb", "search", "x"], ["tail"]):
            assert main(words) == 7, words
            said = capsys.readouterr().err
            assert f"{tmp_path}/d.sock: this user may not use the daemon's socket" in said
            assert "FAZAI_URL and FAZAI_TOKEN_FILE" in said


def test_an_approval_that_is_over_is_not_offered(looks: LoopWorld, told: Callable[..., Told]) -> None:
    session = looks.open()
    looks.model.answers[:] = [APPLY, DONE]
    looks.ask(session, "bring it back")
    loop = looks.daemon.services.loop
    assert isinstance(loop, LoopSessions)
    found = loop.find(session)
    waiting = found.state.waiting
    assert waiting is not None
    effect = found.state.effects[waiting.action_id]
    found.state.effects[waiting.action_id] = msgspec.structs.replace(effect, expires=1.0)
    code, out, _ = told(looks.daemon.url, "session", "show", session)
    assert (code, f"  fazai session abort {session}\n" in out) == (0, True), out
    assert "  until 1970-01-01 00:00:01Z: that is over, ask for it anew after\n" in out
    assert "fazai session approve" not in out
    looks.client.post("/agent/abort", json={"session_id": session})


def test_without_a_worker(tmp_path: Path, told: Callable[..., Told]) -> None:
    with live(tmp_path) as daemon:
        code, out, err = told(daemon.url, "ask", "go")
        assert (code, out) == (4, "")
        assert "the Gemma worker does not answer" in err
        found = re.search(r"fazai session resume (s-[0-9a-f]+)", err)
        assert found is not None
        code, out, _ = told(daemon.url, "session", "list")
        assert (code, out.split()[:2]) == (0, [found[1], "paused"])


def test_a_viewer_may_look_only(looks: LoopWorld, told: Callable[..., Told], tmp_path: Path) -> None:
    with loop_world(tmp_path) as world:
        session = world.open()
        file = tmp_path / "viewer.token"
        file.write_text(token(world.daemon.folder, "eve", "viewer"))
        file.chmod(0o600)
        reads = ("session", "list")
        until(lambda: told(world.daemon.url, *reads, FAZAI_TOKEN_FILE=str(file))[0] == 0)
        for words in (
            ("ask", "go"),
            ("session", "abort", session),
            ("session", "approve", session, "a-1", "0" * 64),
            ("session", "reject", session, "a-1", "0" * 64),
        ):
            code, out, err = told(world.daemon.url, *words, FAZAI_TOKEN_FILE=str(file))
            assert (code, out) == (7, ""), words
            assert "operator" in err
        code, _, err = told(world.daemon.url, "ask", "go")
        assert (code, "FAZAI_TOKEN_FILE" in err) == (7, True)


def test_objectives_from_stdin_and_history_from_files(looks: LoopWorld, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("foi na sexta")
    looks.model.answers[:] = [DONE]
    words = ("ask", "-", "--history", f"@{tmp_path / 'notes.txt'}", "--history", "e no sábado")
    found = subprocess.run(
        [*FAZAI, *words],
        input="por quê?\n",
        env=_environ(FAZAI_URL=looks.daemon.url),
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "nothing left to do" in found.stdout
    told_first = looks.model.asked[-1][-1]["content"]
    assert "Objective: por quê?\n" in told_first
    assert "- foi na sexta\n- e no sábado\n" in told_first


def test_wrong_words(looks: LoopWorld, told: Callable[..., Told], tmp_path: Path) -> None:
    looks.open()
    looks.open()
    for words, said in {
        ("ask", " "): "the objective is empty\n  hint: fazai ask",
        ("ask", "go", "--history", f"@{tmp_path / 'none'}"): "there is no file of --history",
        ("ask", "go", "--iterations", "0"): "--iterations",
        ("ask", "go", "--session", "zzz"): "no session begins or ends with 'zzz'",
        ("session", "show", ""): "no session begins or ends with ''",
        ("session", "show", "s-"): "several sessions begin or end with 's-'",
    }.items():
        code, _, err = told(looks.daemon.url, *words)
        assert (code, said in err) == (3, True), (words, err)


def test_a_session_is_named_by_either_end_of_its_id(looks: LoopWorld, told: Callable[..., Told]) -> None:
    """With the prefix that all of them have, or without it."""
    session = looks.open()
    for part in (session, session[:12], session.removeprefix("s-")[:10], session[-10:]):
        code, out, err = told(looks.daemon.url, "session", "show", part)
        assert (code, session in out) == (0, True), (part, err)


def test_a_refused_word_says_what_to_look_at(looks: LoopWorld, told: Callable[..., Told]) -> None:
    session = looks.open()
    for words in (("pause", session), ("approve", session, "a-1", "0" * 64), ("resume", session)):
        code, _, err = told(looks.daemon.url, "session", *words)
        assert (code != 0, f"hint: fazai session show {session}" in err) == (True, True), (words, err)


def test_a_reader_that_goes_away(looks: LoopWorld) -> None:
    """It goes on to its own end and exit code."""
    looks.model.answers[:] = [LIST, DONE]
    child = subprocess.Popen(
        [*FAZAI, "ask", "go"],
        env=_environ(FAZAI_URL=looks.daemon.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, err) == (0, b"")
    assert _sessions(looks)[0]["status"] == "ended"


class Relay:
    """Passes connections on to a daemon until they are cut; later ones are passed on again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
                self._open += [ours, theirs]
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for one in self._open:
            one.close()


def test_a_stream_that_breaks_off_is_read_on(looks: LoopWorld, told: Callable[..., Told]) -> None:
    """What came meanwhile is in the event log: that the session rests, for nobody watched it."""
    looks.model.answers[:] = [DONE]
    looks.model.hold.clear()
    asked = len(looks.model.asked)
    relay = Relay(looks.daemon.port)

    def cut() -> None:
        until(lambda: len(looks.model.asked) > asked)
        relay.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        code, out, err = told(relay.url, "ask", "go")
    finally:
        looks.model.hold.set()
        cutting.join()
        relay.close()
    assert (code, out.splitlines()[0]) == (2, "paused: the client went away"), err
    assert "fazai session resume" in err


def test_what_was_rejected_is_told_when_it_is_proposed_again(
    looks: LoopWorld, told: Callable[..., Told]
) -> None:
    session = looks.open()
    looks.model.answers[:] = [APPLY, DONE]
    looks.ask(session)
    waiting = looks.session(session)["waiting"]
    looks.client.post("/agent/reject", json={"session_id": session, **_shown(waiting)})
    until(lambda: looks.session(session)["status"] == "ended")
    looks.model.answers[:] = [APPLY, DONE]
    code, out, _ = told(looks.daemon.url, "ask", "bring it back", "--session", session)
    assert code == 0
    assert "> reconcile.apply playbook=edge\n" in out
    assert "\n  anonymous rejected it, and nothing has changed since\n" in out


def _shown(waiting: dict[str, Any]) -> dict[str, Any]:
    return {name: waiting[name] for name in ("action_id", "plan_hash")}


def test_sessions_are_listed_and_shown(looks: LoopWorld, told: Callable[..., Told]) -> None:
    session = looks.open()
    looks.model.answers[:] = [APPLY, DONE]
    looks.ask(session, "traz de\nvolta\x1b[2J")
    code, out, _ = told(looks.daemon.url, "session", "list")
    assert code == 0
    assert re.search(rf"^{session} +waiting \(approval\)  20\S+ \S+  anonymous +traz de volta", out, re.M)
    assert "\x1b" not in out
    shown = looks.session(session)["waiting"]["plan_hash"]
    code, out, _ = told(looks.daemon.url, "session", "show", session)
    assert code == 0
    assert f"session    {session}\nowner      anonymous (api)\nstatus     waiting\n" in out
    assert "+ alias blocklist" in out
    assert "\nwaits for an approval of reconcile.apply\n" in out
    assert f"fazai session approve {session} " in out
    assert shown in out
    code, out, _ = told(looks.daemon.url, "session", "show", session, "--output", "json")
    assert json.loads(out)["waiting"]["plan_hash"] == shown
    code, out, _ = told(looks.daemon.url, "session", "list", "--output", "json")
    assert session in [row["session_id"] for row in json.loads(out)]
    code, out, _ = told(looks.daemon.url, "session", "show", session, "--journal")
    assert [line.split()[2] for line in out.splitlines()] == [
        *("objective", "asked", "generated", "proposed", "decided")
    ]
    wrong = told(looks.daemon.url, "session", "approve", session, "a-1", shown)
    assert (wrong[0], "has no proposal 'a-1'" in wrong[2]) == (3, True)
    action = looks.session(session)["waiting"]["action_id"]
    wrong = told(looks.daemon.url, "session", "approve", session, action, "0" * 64)
    assert (wrong[0], "the hash is not that of the proposal" in wrong[2]) == (6, True)
    assert "blocklist" not in looks.world.aliases()
    assert told(looks.daemon.url, "session", "pause", session)[0] == 0
    assert told(looks.daemon.url, "session", "abort", session)[0] == 0
    assert looks.session(session)["status"] == "ended"
    wrong = told(looks.daemon.url, "session", "resume", session)
    assert (wrong[0], "does not rest" in wrong[2]) == (1, True)


PAGES = ("docs/ask.md", "docs/pt-BR/ask.md")
_VARYING = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\b([as])-[0-9a-f]{16}\b"), r"\1-ID"),
    (re.compile(r"\brun [0-9A-Z]{26}\b"), "run ID"),
    (re.compile(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ"), "TIME"),
)


def _fixed(text: str) -> str:
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def test_the_example_of_the_pages_is_what_comes(looks: LoopWorld, told: Callable[..., Told]) -> None:
    plan = {"action": "use_tool", "name": "reconcile.plan", "args": {"playbook": "edge"}}
    looks.model.answers[:] = [plan, APPLY, DONE]
    code, out, _ = told(
        looks.daemon.url, "ask", "which firewall has drifted?", "--color", "never", COLUMNS="160"
    )
    assert code == 2
    for page in PAGES:
        (example,) = re.findall(r"^```text\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
        assert _fixed(out) == _fixed(example)


def test_the_two_pages_have_the_same_bones() -> None:
    bones = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
        code = [line.split(" #")[0].rstrip() for block in blocks for line in block.splitlines()]
        code = [line for line in code if not line.startswith(("fazai ask ", "fazai session answer"))]
        codes = re.findall(r"^\| (\d+) \|", text, re.M)
        bones.append((text.count("\n## "), code, codes))
    assert bones[0] == bones[1]


def test_the_endpoints_of_the_pages_are_read(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    key = tmp_path / "secrets/models.key"
    key.write_text("sesame")
    key.chmod(0o600)
    for page in PAGES:
        (example,) = re.findall(r"^```yaml\n(gemma:.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
        (tmp_path / "daemon.yml").write_text(example)
        assert [one.model for one in read_daemon_config(tmp_path / "daemon.yml").gemma.endpoints] == [
            *("gemma-3-12b-it", "large")
        ]
