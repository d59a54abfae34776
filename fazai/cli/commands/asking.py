"""`fazai ask`: an objective from its beginning until it rests, and what a person decides on the way."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from fazai.cli.event_stream import SILENCE_S, StreamLost, explaining_losses, parse_events, read_events
from fazai.errors import ExitCode, FazaiError, Refused, Unreachable
from fazai.report.lines import error_lines, escape_controls
from fazai.timestamps import format_time

if TYPE_CHECKING:
    from fazai.cli.daemon_api import DaemonApi
    from fazai.wire.sessions import AnswerBody, ApproveBody, GenerateBody, SessionRow

_WAITS_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # before the stream is opened again
_CODES: Mapping[str, int] = {
    "done": ExitCode.OK,
    **dict.fromkeys(("approval", "answer", "paused"), ExitCode.PENDING),
}
Choice = Literal["approve", "reject", "leave"]
_CHOICES: tuple[Choice, ...] = ("approve", "reject")


class Asking:
    """An objective of one session, watched. `typed`: a person at a terminal decides what waits; `machine`:
    standard output is for events alone."""

    def __init__(
        self, api: DaemonApi, show: Callable[[Mapping[str, Any]], None], *, typed: bool, machine: bool
    ) -> None:
        self._api = api
        self._show = show
        self._typed = typed
        self._machine = machine
        self._session_id = ""
        self._last: str | None = None  # the id of the last event
        self._shown: dict[str, Mapping[str, Any]] = {}  # actions that may be approved, by id
        self._question: Mapping[str, Any] = {}

    def open(self, session: str | None) -> str:
        """Find the session, or open one, and return its id. Raises FazaiError."""
        from fazai.wire.base import SessionAnswer
        from fazai.wire.sessions import SessionsBody

        if session is not None:
            self._session_id = self._api.session(session).session_id
        else:
            answer = self._api.ask("POST", "/agent/sessions", SessionAnswer, SessionsBody())
            self._session_id, self._last = answer.session_id, "0"
        return self._session_id

    def run(self, body: GenerateBody) -> int:
        """Give the session the objective, watch it, and return the exit code. Raises FazaiError."""
        ending = self._read_objective(body) or self._follow()
        while True:
            waits = self._waiting_for(ending)
            if waits == "approval":
                goes_on = self._settle_approval(ending)
            elif waits == "answer":
                goes_on = self._settle_question()
            else:
                return self._end(ending)
            if not goes_on:
                return ExitCode.PENDING
            ending = self._follow()

    def interrupt(self) -> int:
        """Let the objective rest after Ctrl-C, say how to go on, and return the exit code."""
        if not self._session_id:
            click.echo("\ninterrupted", err=True)
            return ExitCode.INTERRUPTED
        try:
            row = self._pause()
        except FazaiError as error:
            self._say_error(error)
        else:
            click.echo(f"\ninterrupted: session {row.session_id} is {row.status}", err=True)
            if row.status in ("running", "waiting", "paused"):
                self._say_how_to_go_on("show" if row.status == "waiting" else "resume")
        return ExitCode.INTERRUPTED

    def _pause(self) -> SessionRow:
        """Let the objective rest, if it runs. The connections are new: the interrupt may have come within an
        answer."""
        from fazai.cli.daemon_api import daemon_api
        from fazai.wire.base import OkAnswer
        from fazai.wire.sessions import PauseBody

        with daemon_api(self._api.url) as api:
            if api.session(self._session_id).status == "running":
                body = PauseBody(session_id=self._session_id, reason="Ctrl-C")
                with contextlib.suppress(FazaiError):  # it came to its rest meanwhile
                    api.ask("POST", "/agent/pause", OkAnswer, body)
            return api.session(self._session_id)

    def _say_how_to_go_on(self, first: str = "resume") -> None:
        for what in (first, "abort"):
            click.echo(f"  {self._api.command('session', what, self._session_id)}", err=True)

    # -- streams

    def _read_objective(self, body: GenerateBody) -> Mapping[str, Any] | None:
        """Show what the session says until it rests, and return the event that says so; None where the stream
        broke off. Raises FazaiError."""
        from fazai.cli.daemon_api import refusal
        from fazai.wire.base import encode

        request = self._api.client.stream(
            "POST",
            "/agent/generate",
            content=encode(body),
            headers={"Content-Type": "application/json"},
            timeout=SILENCE_S,
        )
        with self._api.explaining(), request as answer:
            if answer.status_code != 200:
                answer.read()
                raise refusal(answer, self._api.place)
            with contextlib.suppress(StreamLost), explaining_losses(self._api.place):
                return self._take_until_rest(parse_events(answer.iter_lines()))
        return None

    def _follow(self) -> Mapping[str, Any]:
        """Show the session's events after the last one until it rests. Raises Unreachable, Refused."""
        query = {"session": self._session_id}
        client, place = self._api.client, self._api.place
        waits = iter(_WAITS_S)
        if self._last is None:
            raise self._lost(StreamLost("the stream ended"))
        while True:
            try:
                events = read_events(client, place, query, self._last, lambda: None)
                with contextlib.closing(events):
                    found = self._take_until_rest(events)
                if found is not None:
                    return found
                why = StreamLost("the stream ended")
            except StreamLost as gone:
                why = gone
            wait_s = next(waits, None)
            if wait_s is None:
                raise self._lost(why)
            time.sleep(wait_s)

    def _lost(self, why: StreamLost) -> Unreachable:
        self._say_how_to_go_on("show")
        text = f"the daemon does not answer: {why}"
        return Unreachable(text, stage="read", where=self._api.place.name, hint=why.hint)

    def _take_until_rest(self, events: Iterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Show events, and return the one after which the session rests. Raises Refused."""
        for event in events:
            if "id" in event:
                self._last = str(event["id"])
            if "type" not in event:
                continue  # the id at which the stream begins
            if event["type"] == "error" and event.get("session_id") != self._session_id:
                raise Refused(str(event.get("message")), where=self._api.place.name)  # of the stream
            if event.get("action_id") and event.get("plan_hash"):
                self._shown[str(event["action_id"])] = event
            if event["type"] == "ask":
                self._question = event
            self._show(event)
            if event["type"] in ("done", "error"):
                return event
        return None

    # -- what waits

    def _waiting_for(self, ending: Mapping[str, Any]) -> str:
        return _stop_reason(ending) if ending["type"] == "done" else ""

    def _end(self, ending: Mapping[str, Any]) -> int:
        """Return the exit code of an objective that ended, or rests."""
        if ending["type"] == "error":
            text = str(ending.get("message"))
            away = ending.get("code") in ("worker_unavailable", "overloaded")
            hint = self._api.command("session", "resume", self._session_id)
            where = f"session {self._session_id}"
            error = (
                Unreachable(text, stage="answer", where=where, hint=hint)
                if away
                else FazaiError(text, where=where, hint=hint)
            )
            self._say_error(error)
            return error.exit_code
        code = _CODES.get(_stop_reason(ending), ExitCode.FAILED)
        if code == ExitCode.PENDING:
            self._say_how_to_go_on()
        elif code != ExitCode.OK:
            click.echo("why it ended so:", err=True)
            click.echo(f"  {self._api.command('session', 'show', self._session_id, '--journal')}", err=True)
        return code

    def _settle_approval(self, ending: Mapping[str, Any]) -> bool:
        """Ask a person about what waits, or say how it is approved. Return whether the session goes on.
        Raises FazaiError."""
        action_id = str(ending["result"].get("action_id"))
        shown = self._shown.get(action_id)
        if shown is None or shown["plan_hash"] != ending["result"].get("plan_hash"):
            raise FazaiError(
                "the hash that waits is not the one that was shown",
                where=f"session {self._session_id}",
                hint=self._api.command("session", "show", self._session_id),
            )
        plan_hash = str(shown["plan_hash"])  # of what was shown, and nothing else
        words = (self._session_id, action_id, plan_hash)
        self._say_proposal(shown)
        while self._typed:
            choice = _ask_choice()
            if choice == "leave":
                break
            reason = _ask_line("why? (one line, or nothing) ") if choice == "reject" else None
            if self._decide(choice, action_id, plan_hash, reason):
                return True
        self._say("it waits; to approve or to reject it:")
        for what in ("approve", "reject"):
            self._say(f"  {self._api.command('session', what, *words)}")
        return False

    def _say_proposal(self, shown: Mapping[str, Any]) -> None:
        targets = dict.fromkeys(str(one.get("target")) for one in shown.get("changes") or ())
        rows = {
            "session": self._session_id,
            "action": str(shown["action_id"]),
            "hash": str(shown["plan_hash"]),
            "targets": ", ".join(targets),
            "until": _time_text(shown.get("expires")),
        }
        for name, value in rows.items():
            self._say(f"  {name:<8} {escape_controls(value)}")

    def _say(self, text: str) -> None:
        click.echo(text, err=self._machine)

    def _decide(self, choice: Choice, action_id: str, plan_hash: str, reason: str | None) -> bool:
        """Send a person's word. Return whether the session goes on; where it was refused, say why."""
        from fazai.wire.base import OkAnswer
        from fazai.wire.sessions import ApproveBody

        body = ApproveBody(
            session_id=self._session_id, action_id=action_id, plan_hash=plan_hash, reason=reason or None
        )
        return self._send(f"/agent/{choice}", body, OkAnswer, action_id)

    def _send(self, path: str, body: ApproveBody | AnswerBody, of: Any, action_id: str) -> bool:
        try:
            self._api.ask("POST", path, of, body)
        except Unreachable:
            raise
        except FazaiError as error:
            self._say_error(error)
            waiting = self._api.session(self._session_id).waiting
            return waiting is None or waiting.action_id != action_id  # somebody else decided
        return True

    def _settle_question(self) -> bool:
        """Let a person answer what the model asked, or say how. Return whether the session goes on."""
        from fazai.wire.base import OkAnswer
        from fazai.wire.sessions import AnswerBody

        options = [str(one) for one in self._question.get("options") or ()]
        action_id = str(self._question.get("action_id"))
        self._say(f"? {escape_controls(str(self._question.get('question')))}")
        for number, option in enumerate(options, 1):
            self._say(f"  {number}) {escape_controls(option)}")
        while self._typed:
            said = _ask_line("answer (a number, or your own words; nothing leaves it): ")
            if not said:
                break
            numbered = said.isascii() and said.isdigit() and 0 < int(said) <= len(options)
            text = options[int(said) - 1] if numbered else said
            body = AnswerBody(session_id=self._session_id, action_id=action_id, text=text)
            if self._send("/agent/answer", body, OkAnswer, action_id):
                return True
        self._say("it waits for an answer:")
        self._say(f"  {self._api.command('session', 'answer', self._session_id, 'TEXT')}")
        return False

    def _say_error(self, error: FazaiError) -> None:
        for line in error_lines(error):
            click.echo(line, err=True)


def _stop_reason(ending: Mapping[str, Any]) -> str:
    result = ending.get("result")
    return str(result.get("stop_reason", "done")) if isinstance(result, Mapping) else "done"


def _time_text(text: object) -> str:
    try:
        return format_time(datetime.fromisoformat(str(text)).timestamp())
    except ValueError:
        return str(text or "-")


def _ask_choice() -> Choice:
    """Return what a person chose; the end of input leaves it."""
    while True:
        said = _ask_line("approve, reject or leave it? [a/r/l] ")
        if said is None or (said and "leave".startswith(said.lower())):
            return "leave"
        for choice in _CHOICES:
            if said and choice.startswith(said.lower()):
                return choice


def _ask_line(prompt: str) -> str | None:
    """Return a line that was typed, without blanks around it; None at the end of input."""
    sys.stdout.write(prompt)
    sys.stdout.flush()
    _await_input()
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        click.echo("that is not UTF-8", err=True)
        return ""
    if not line:
        click.echo()
        return None
    return line.strip()


def _await_input() -> None:
    """Wait until a line was typed. Ctrl-C that comes just before the wait ends it, too: a read would not see
    it before the next key."""
    heard, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(told)
    try:
        while sys.stdin not in select.select([sys.stdin, heard], [], [])[0]:
            os.read(heard, 64)  # the handler raises KeyboardInterrupt, or it was another signal
    finally:
        signal.set_wakeup_fd(before)
        os.close(heard)
        os.close(told)
