"""`fazai tail` against a running daemon, as a process where signals or pipes matter, and its conditions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from fazai.cli.clients import parse_daemon_url
from fazai.cli.event_filter import parse_condition
from fazai.cli.main import main
from fazai.errors import InputError, SecretError, UsageError
from fazai.model import Verb
from fazai.outcome import TargetStatus
from fazai.report.events import event_line, event_style
from fazai.timestamps import utc_now
from fazai.wire.events import ChangeEvent, LogEvent, OutcomeEvent, RunEvent
from tests.daemon import certificates
from tests.daemon.live import PATIENCE_S, Live, live, own_port, token, until

FAZAI = str(Path(sys.executable).with_name("fazai"))
RUN = "01KANHC0E8M5T3W9Q7Z2R4V6XB"


Told = tuple[int, str, str]


def _environ(daemon: Live | None, more: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "HOME": "/nonexistent",
        "FAZAI_SOCKET": "/nonexistent/socket",
        **({"FAZAI_URL": daemon.url} if daemon is not None else {}),
        **more,
    }


@contextlib.contextmanager
def tail(daemon: Live | None, *words: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Begins when the daemon, if one is given, has no stream left of a tail before."""
    if daemon is not None:
        until(lambda: not daemon.services.broadcaster.streams)
    child = subprocess.Popen(
        [FAZAI, "tail", *words],
        env=_environ(daemon, environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait(PATIENCE_S)
        for pipe in (child.stdout, child.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """`fazai tail` in this process, for what needs neither signals nor pipes: code, output, errors."""

    def run(daemon: Live | None, *words: str, **environ: str) -> Told:
        if daemon is not None:
            until(lambda: not daemon.services.broadcaster.streams)
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("FAZAI_")]:
                patch.delenv(name)
            for name, value in _environ(daemon, environ).items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = main(["tail", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _end(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=PATIENCE_S)
    return child.returncode, out, err


def opened(daemon: Live) -> None:
    """A stream follows live: what is published now, its reader gets."""
    until(
        lambda: daemon.call(lambda: [one for one in daemon.services.broadcaster.streams if one.task is None])
    )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("tail")) as found:
        found.publish(
            RunEvent(timestamp=utc_now(), run_id=RUN, state="started", command="apply"),
            ChangeEvent(
                timestamp=utc_now(),
                target="edge-1",
                kind="opnsense.alias",
                identity="block",
                verb=Verb.UPDATE,
                before={"content": ["192.0.2.1"]},
                after={"content": ["192.0.2.2"]},
                status="done",
                run_id=RUN,
            ),
            OutcomeEvent(
                timestamp=utc_now(), target="edge-1", status=TargetStatus.CHANGED, changed=1, run_id=RUN
            ),
            OutcomeEvent(
                timestamp=utc_now(),
                target="core-1",
                status=TargetStatus.FAILED,
                errors=("it broke",),
                run_id=RUN,
            ),
            LogEvent(
                timestamp=utc_now(), level="warning", message="\x1b[31mred\r\nline two", target="edge-2"
            ),
            RunEvent(
                timestamp=utc_now(),
                run_id=RUN,
                state="finished",
                command="apply",
                exit_code=1,
                totals={"failed": 1},
            ),
        )
        yield found


def test_what_there_is(daemon: Live) -> None:
    with tail(daemon, "--no-follow") as child:
        code, out, err = _end(child)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert any("edge-1        change     ~ alias block  content: " in line for line in lines)
    assert any("core-1        outcome    failed: it broke" in line for line in lines)
    assert any("run        apply R4V6XB finished exit 1: 1 failed" in line for line in lines)
    assert "\x1b" not in out  # neither ours, into a pipe, nor a device's
    assert r"\x1b[31mred\r\nline two" in out


def test_colours(daemon: Live) -> None:
    with tail(daemon, "--no-follow", "--color", "always", "--type", "outcome") as child:
        _, out, _ = _end(child)
    assert "\x1b[31mfailed: it broke\x1b[0m" in out
    assert "\x1b[32mchanged (1 changed)\x1b[0m" in out


SELECTED = {
    "--host edge-1": ["change", "outcome"],
    "--host edge-*,core-?": ["change", "outcome", "outcome", "log"],
    f"--type run --run {RUN}": ["run", "run"],
    "--type log --level error": [],
    "--type log,outcome --host edge-*": ["outcome", "log"],
    "--since 1h --type change": ["change"],
    "--since 2001-01-01T00:00:00Z --type change": ["change"],
    "--since 999999 --type change": ["change"],
}


@pytest.mark.parametrize("words", SELECTED)
def test_selection(
    daemon: Live, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    until(lambda: not daemon.services.broadcaster.streams)
    monkeypatch.setenv("FAZAI_URL", daemon.url)
    code = main(["tail", "--no-follow", "--output", "json", *words.split()])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["type"] for event in events] == SELECTED[words]
    assert all(next(iter(event)) == "id" for event in events)


def test_a_run_by_either_end(tmp_path: Path, told: Callable[..., Told]) -> None:
    ids = (RUN, RUN[:-1] + "C")
    with live(tmp_path) as daemon, daemon.client() as client:
        for run_id in ids:
            event = {"type": "log", "level": "info", "message": run_id}
            head = {"run_id": run_id, "command": "apply", "host": "h", "user": "u"}
            body = {**head, "started": "2026-11-22T03:04:00Z", "events": [{"sequence": 1, "event": event}]}
            assert client.post("/events", json=body).status_code == 200
        for text, code, said in (
            ("r4v6xc", 0, ids[1]),
            (ids[0], 0, ids[0]),
            (ids[0][:13], 3, "several runs begin or end with"),
            ("nothing", 3, "no run begins or ends with"),
        ):
            found, out, err = told(daemon, "--no-follow", "--type", "log", "--run", text)
            assert (found, said in out + err) == (code, True), (text, out, err)


def test_until_and_fail_on(daemon: Live, told: Callable[..., Told]) -> None:
    for words, wanted in {
        ("--until", "type=run,state=finished"): 0,
        ("--until", "type=run,state=finished", "--fail-on", "status=failed|unreachable"): 1,
        ("--fail-on", "totals.failed>0"): 1,
        ("--until", "type=plan"): 1,
    }.items():
        assert told(daemon, "--no-follow", *words)[0] == wanted, words


def test_it_follows_and_ends_with_an_interrupt(daemon: Live) -> None:
    with tail(daemon, "--output", "json", "--type", "log") as child:
        opened(daemon)
        daemon.publish(LogEvent(timestamp=utc_now(), level="info", message="now"))
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["message"] == "now"
        child.send_signal(signal.SIGINT)
        assert _end(child) == (130, "", "")


def test_a_reader_that_goes_away(daemon: Live) -> None:
    with tail(daemon, "--type", "log") as child:
        opened(daemon)
        assert child.stdout is not None
        child.stdout.close()
        daemon.publish(LogEvent(timestamp=utc_now(), level="info", message="into a closed pipe"))
        assert child.wait(PATIENCE_S) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_it_comes_back_where_it_was(tmp_path: Path) -> None:
    words = ("--type", "log", "--output", "json", "--until", "message=three")
    with (
        own_port() as port,
        live(tmp_path, listen_port=port) as first,
        tail(first, *words) as child,
    ):
        opened(first)
        first.publish(LogEvent(timestamp=utc_now(), level="info", message="one"))
        assert child.stdout is not None
        assert _next(child.stdout) == "one"
        first.loop.call_soon_threadsafe(first.daemon.stop)
        assert _next(child.stdout).endswith("stops")
        assert _next(child.stdout).endswith("stops; connect again")
        until(lambda: first.loop.is_closed())
        with live(tmp_path, listen_port=port) as second:
            second.publish(
                LogEvent(timestamp=utc_now(), level="info", message="two"),
                LogEvent(timestamp=utc_now(), level="info", message="three"),
            )
            code, out, err = _end(child)
        messages = [json.loads(line)["message"] for line in out.splitlines()]
        assert messages[-2:] == ["two", "three"]
        assert code == 0
        assert "connecting again" in err
        assert "connected again" in err


def test_it_comes_back_where_it_was_before_it_saw_anything(daemon: Live) -> None:
    with tail(daemon, "--type", "log", "--output", "json", "--until", "message=after") as child:
        broadcaster = daemon.services.broadcaster
        opened(daemon)

        def die() -> None:  # as a daemon that is killed
            for stream in list(broadcaster.streams):
                stream.connection.transport.abort()

        daemon.call(die)
        daemon.publish(
            LogEvent(timestamp=utc_now(), level="info", message="meanwhile"),
            LogEvent(timestamp=utc_now(), level="info", message="after"),
        )
        code, out, err = _end(child)
    assert code == 0
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["meanwhile", "after"]
    assert err.splitlines() == [
        f"fazai tail: {daemon.url}: the connection ended; connecting again",
        f"fazai tail: {daemon.url}: connected again",
    ]


def test_an_address_that_is_nearly_right_gets_the_next_step(
    daemon: Live, tmp_path: Path, told: Callable[..., Told]
) -> None:
    files = certificates.server(tmp_path)
    with live(tmp_path, tls_cert=files.cert, tls_key=files.key) as secure:
        for url, why, hint in (
            (secure.url, "its certificate is not trusted: ", "FAZAI_CA_FILE names the authority"),
            (secure.url.replace("https:", "http:"), "the connection ended", "is it https:// there?"),
            (daemon.url.replace("http:", "https:"), "it does not speak TLS there", "is it http:// there"),
        ):
            code, _, err = told(None, "--no-follow", "--url", url)
            assert (code, "_ssl.c" in err) == (4, False)
            assert why in err
            assert hint in err


#: What no event can ever fit: waiting for it would never end.
NEVER = [
    (["--type", "chnge"], 'there are no events of the type "chnge"', 'did you mean "change"?'),
    (["--until", "type=rum"], 'there are no events of the type "rum"', 'did you mean "run"?'),
    (["--until", "type!=zz"], 'there are no events of the type "zz"', "there are: action, activate, agent"),
    (["--until", "nope=1"], "'nope=1': no event has a field \"nope\"", 'did you mean "note"?'),
    (["--fail-on", "totls.failed>0"], 'no event has a field "totls"', 'did you mean "totals"?'),
    (
        ["--until", "type=run,exit_cod>0"],
        'no event of the type run has a field "exit_cod"',
        'did you mean "exit_code"?',
    ),
    (
        ["--until", "type=outc*,exit_code>0"],
        'no event of the type outcome has a field "exit_code"',
        "there are",
    ),
    (
        ["--type", "log", "--until", "state=finished"],
        'no event of the type log has a field "state"',
        "there are: action_id, agent_id, id, level",
    ),
    (
        ["--fail-on", "status=failed|unreachble"],
        'status is never "unreachble"',
        'did you mean "unreachable"?',
    ),
    (["--until", "type=run,state=done"], 'state is never "done"', "one of: finished, started"),
]


@pytest.mark.parametrize(("words", "message", "hint"), NEVER, ids=lambda value: str(value)[:40])
def test_what_no_event_can_fit_is_refused_at_the_start(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tail", *words, "--url", "http://127.0.0.1:1"]) == 3
    error, told = capsys.readouterr().err.splitlines()
    assert message in error
    assert hint in told


@pytest.mark.parametrize(
    "text",
    [
        *(
            "type=run,state=fin*",
            "id>5",
            "was=",
            "status!=",
            "totals.failed>0",
            "before.content=x",
            "maxDocs>3",
        ),
        *("type=action,action=shell", "target=a|b", "level=error", "reported_by=x"),
    ],
)
def test_what_an_event_can_fit_is_waited_for(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", "--until", text, "--url", "http://127.0.0.1:1"]) == 4
    assert "the daemon does not answer" in capsys.readouterr().err


def _next(out: IO[str]) -> str:
    return str(json.loads(out.readline())["message"])


def test_over_tls_with_a_token_and_over_the_socket(tmp_path: Path, told: Callable[..., Told]) -> None:
    files = certificates.server(tmp_path)
    secret = tmp_path / "token"
    secret.write_text(token(tmp_path, "t", "viewer") + "\n")
    secret.chmod(0o600)
    path = tmp_path / "d.sock"
    words = ("--no-follow", "--type", "log", "--output", "json")
    with live(tmp_path, tls_cert=files.cert, tls_key=files.key, socket=path) as daemon:
        more = {"FAZAI_TOKEN_FILE": str(secret), "FAZAI_CA_FILE": str(files.ca)}
        code, out, err = told(daemon, *words, **more)
        assert (code, err) == (0, "")
        assert "listens on" in out
        assert told(None, *words, FAZAI_SOCKET=str(path))[:2] == (0, out)
        assert told(None, *words, "--url", f"unix:{path}")[:2] == (0, out)
        code, _, err = told(daemon, *words, FAZAI_CA_FILE=str(files.ca))
        assert code == 7
        assert "a token is needed" in err
        secret.chmod(0o644)
        code, _, err = told(daemon, *words, **more)
        assert code == 3
        assert "others may read it" in err


def test_nobody_there(tmp_path: Path, told: Callable[..., Told]) -> None:
    for words, code, text in (
        (("--url", "http://127.0.0.1:1"), 4, "the daemon does not answer"),
        ((), 4, "no daemon is known here"),
        (("--url", "ftp://x"), 3, "is no address of a daemon"),
        (("--since", "soon", "--url", "http://127.0.0.1:1"), 3, "neither a duration"),
        (("--since", "9" * 5000 + "d", "--url", "http://127.0.0.1:1"), 3, "neither a duration"),
        (("--until", "nonsense", "--url", "http://127.0.0.1:1"), 3, "is no condition"),
    ):
        found, _, err = told(None, *words)
        assert found == code, err
        assert text in err


CONDITIONS: list[tuple[str, dict[str, Any], bool]] = [
    ("type=run", {"type": "run"}, True),
    ("type=run|log", {"type": "log"}, True),
    ("type!=run", {"type": "run"}, False),
    ("target=edge-*", {"target": "edge-7"}, True),
    ("exit_code>0", {"exit_code": 1}, True),
    ("exit_code>0", {}, False),
    ("exit_code>0", {"exit_code": "1"}, False),
    ("exit_code>=1,exit_code<=3", {"exit_code": 3}, True),
    ("exit_code<1", {"exit_code": True}, False),
    ("a.b.c=1", {"a": {"b": {"c": 1}}}, True),
    ("a.b=1", {"a": 5}, False),
    ("check=true", {"check": True}, True),
    ("errors=*broke*", {"errors": ["fine", "it broke"]}, True),
    ("error!=", {"error": "x"}, True),
    ("error=", {}, True),
]


@pytest.mark.parametrize(("text", "event", "holds"), CONDITIONS)
def test_conditions(text: str, event: dict[str, Any], holds: bool) -> None:
    assert parse_condition(text).holds(event) is holds


@pytest.mark.parametrize("text", ["", "type", "=x", "a>b", "a=1,,b=2", "1a=2"])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no condition \(such as|> compares numbers"):
        parse_condition(text)


LINES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"type": "gap", "lost_from": 1, "lost_to": 5, "reason": "trimmed"},
        "events 1 to 5 are missing",
        "yellow",
    ),
    ({"type": "telemetry", "load": [0.5, 1, 2]}, "load 0.50 1.00 2.00", "dim"),
    ({"type": "agent", "state": "closing", "reason": "no heartbeat"}, "closing: no heartbeat", "red"),
    ({"type": "new_kind", "x": 1, "target": "t"}, "x=1", ""),
    ({"type": "change", "kind": 5}, "kind=5", ""),
    (
        {"type": "run", "command": "apply", "run_id": "ABCDEFGH", "state": "started"},
        "apply CDEFGH started",
        "",
    ),
    ({"type": "undo", "undone": 2, "kept": 0}, "2 changes taken back, 0 could not be", ""),
]


@pytest.mark.parametrize(("event", "text", "style"), LINES)
def test_lines(event: dict[str, Any], text: str, style: str) -> None:
    assert event_line(event).startswith(text)
    assert event_style(event) == style


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.evil.example.net:3120", "in the clear"),
        ("http://localhost.example.net", "in the clear"),
        ("http://localhost:hunter2@evil.example.net", "no user and no password"),
        ("https://me:hunter2@fazai.example.net", "no user and no password"),
        ("me:hunter2@fazai.example.net", "no user and no password"),
    ],
)
def test_a_token_goes_to_nobody_who_only_looks_like_this_machine(tmp_path: Path, url: str, said: str) -> None:
    secret = tmp_path / "token"
    secret.touch(0o600)
    secret.write_text("fzt_x\n")
    with pytest.raises(InputError, match=said) as refused:
        parse_daemon_url({"FAZAI_TOKEN_FILE": str(secret)}, url)
    assert "hunter2" not in str(refused.value)


def test_a_token_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SecretError, match="it is no file"):
        parse_daemon_url({"FAZAI_TOKEN_FILE": str(tmp_path / "pipe")}, "https://fazai.example.net")
