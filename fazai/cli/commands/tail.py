"""fazai tail"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.event_stream import (
    SILENCE_S,
    StreamLost,
    explaining_losses,
    match_ids,
    raise_refusal,
    read_events,
    write_json_line,
)
from fazai.cli.options import COLOR, OUTPUT
from fazai.errors import ExitCode, FazaiError, InputError, Unreachable, UsageError
from fazai.timestamps import utc_now

if TYPE_CHECKING:
    import httpx

    from fazai.cli.clients import DaemonAddress
    from fazai.cli.event_filter import EventCondition
    from fazai.cli.terminal import Terminal

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WAIT_S = (0.2, 10.0)  # the first pause before it connects again, and the longest
_LEVELS = ["debug", "info", "warning", "error", "critical"]
_WILD = set("*?[,")
_ULID_LETTERS = 26


@click.command(
    "tail",
    epilog="\b\nExamples:\n  fazai tail --since 10m\n  fazai tail --host 'edge-*' --type change,outcome"
    "\n  fazai tail --run 01JDXK3M8Q… --until type=run,state=finished --fail-on 'exit_code>0'"
    "\n  fazai tail --since 1d --no-follow --output json | jq .target"
    "\n  FAZAI_URL=https://fazai.example:3120 FAZAI_TOKEN_FILE=~/.fazai-token fazai tail",
)
@click.option(
    "--host", "hosts", multiple=True, metavar="PATTERN", help="Only of these targets or hosts (* and ?)."
)
@click.option("--type", "types", multiple=True, help="Only events of these types.")
@click.option("--run", help="Only of this run: its id, or either end of it.")
@click.option("--session", help="Only of this session.")
@click.option("--level", type=click.Choice(_LEVELS), help="Of log events: this level and above.")
@click.option(
    "--since", metavar="10m|TIME|ID", help="Begin there. [default: now; the beginning with --no-follow]"
)
@click.option("--no-follow", is_flag=True, help="Show what there is, then end.")
@OUTPUT
@click.option("--until", multiple=True, metavar="EXPR", help="End (exit 0) after such an event.")
@click.option("--fail-on", multiple=True, metavar="EXPR", help="End with exit 1 after such an event.")
@click.option("--url", help="https://HOST:3120 or unix:PATH. [default: $FAZAI_URL, else the local socket]")
@COLOR
def tail_command(**options: Any) -> int:
    """Watch what happens: runs, changes, outcomes, hosts.

    EXPR is FIELD=VALUE, FIELD!=VALUE or FIELD>NUMBER; a comma is "and", | separates values, the option may be
    repeated ("or").
    """
    from fazai.cli import event_filter
    from fazai.cli.clients import require_daemon
    from fazai.cli.terminal import Terminal

    types = event_filter.check_event_types(_split_commas(options["types"]))
    ends = {
        name: [event_filter.parse_condition(text) for text in options[name]] for name in ("until", "fail_on")
    }
    for condition in (*ends["until"], *ends["fail_on"]):
        event_filter.check_condition(condition, types)
    terminal = Terminal.of(sys.stdout, os.environ, options["color"])
    tail = _EventTail(
        place=require_daemon(os.environ, options["url"]),
        query=_events_query(options),
        hosts=_split_commas(options["hosts"]),
        follow=not options["no_follow"],
        until=ends["until"],
        fail_on=ends["fail_on"],
        show=write_json_line if options["output"] == "json" else _TextOutput(terminal).event,
    )
    # Ctrl-C is the usual end: there is nothing to tidy up, and an exception could be lost in a finaliser.
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
    try:
        return tail.run()
    except BrokenPipeError:  # it has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    finally:
        signal.signal(signal.SIGINT, before)


def _split_commas(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _events_query(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the query for the daemon; patterns of hosts are matched here."""
    query = {name: options[name] for name in ("run", "session", "level") if options[name]}
    types, hosts = _split_commas(options["types"]), _split_commas(options["hosts"])
    if types:
        query["types"] = ",".join(types)
    if len(hosts) == 1 and not _WILD & set(hosts[0]):
        query["target"] = hosts[0]
    if options["no_follow"]:
        query["follow"] = "false"
    query.update(_parse_since(options["since"] or ("0" if options["no_follow"] else None)))
    return query


def _parse_since(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    if text.isascii() and text.isdigit():
        return {"since": text}
    if text[:-1].isascii() and text[:-1].isdigit() and text[-1] in _UNITS and len(text) < 20:
        start = utc_now() - timedelta(seconds=min(int(text[:-1]) * _UNITS[text[-1]], 10**10))
        return {"since_time": start.isoformat()}
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        message = f"--since {text!r} is neither a duration, a time nor an event's id"
        raise UsageError(message, hint="such as 10m, 2h, 1d, 2026-11-22T03:04:05Z") from None
    return {"since_time": (start if start.tzinfo else start.astimezone()).isoformat()}


@dataclass
class _EventTail:
    place: DaemonAddress
    query: dict[str, str]
    hosts: tuple[str, ...]
    follow: bool
    until: list[EventCondition]
    fail_on: list[EventCondition]
    show: Callable[[Mapping[str, Any]], None]
    last: str | None = None  # the id of the last event
    connected: bool = False  # once, at least
    reconnecting: bool = False  # the loss of the connection was told

    def run(self) -> int:
        wait_s = _WAIT_S[0]
        with self.place.client(timeout_s=SILENCE_S) as client:
            while True:
                try:
                    for event in self._read_stream(client):
                        wait_s = _WAIT_S[0] if "type" in event else wait_s
                        code = self._show_event(event)
                        if code is not None:
                            return code
                    if not self.follow:
                        return self._end_of_stream()
                    why = "the stream ended"
                except StreamLost as gone:
                    if not self.connected:
                        text, where = f"the daemon does not answer: {gone}", self.place.name
                        raise Unreachable(text, stage="connect", where=where, hint=gone.hint) from None
                    why = str(gone)
                self._say_lost(why)
                time.sleep(wait_s * random.uniform(0.7, 1.3))  # noqa: S311 - spread, not a secret
                wait_s = min(wait_s * 2, _WAIT_S[1])

    def _end_of_stream(self) -> int:
        if not self.until:
            return ExitCode.OK
        wanted = " or ".join(one.text for one in self.until)
        raise FazaiError(f"no event fits --until {wanted}")

    def _read_stream(self, client: httpx.Client) -> Iterator[dict[str, Any]]:
        """Yield the events of one connection. Raises StreamLost, Refused, InputError."""
        if 0 < len(self.query.get("run", "")) < _ULID_LETTERS:
            self.query["run"] = self._find_run_id(client, self.query["run"])
        yield from read_events(client, self.place, self.query, self.last, self._note_connection)

    def _note_connection(self) -> None:
        if self.reconnecting:
            self._say("connected again")
            self.reconnecting = False
        self.connected = True

    def _find_run_id(self, client: httpx.Client, text: str) -> str:
        """Find the whole id of a run of which either end is given. Raises StreamLost, Refused, InputError."""
        with explaining_losses(self.place):
            answer = client.get("/runs", params={"limit": 1000})
        if answer.status_code != 200:
            raise_refusal(answer, self.place)
        ids = [str(row["run_id"]) for row in answer.json()["runs"]]
        found = match_ids(text.upper(), ids)
        if len(found) == 1:
            return found[0]
        why = f"several runs begin or end with {text!r}" if found else f"no run begins or ends with {text!r}"
        raise InputError(why, where=self.place.name, hint="see: fazai history")

    def _show_event(self, event: dict[str, Any]) -> int | None:
        if "id" in event:
            self.last = str(event["id"])
        if "type" not in event:
            return None  # the id at which the stream begins
        if event["type"] != "gap" and not self._is_wanted(event):
            return None
        self.show(event)
        if any(one.holds(event) for one in self.fail_on):
            return ExitCode.FAILED
        if any(one.holds(event) for one in self.until):
            return ExitCode.OK
        return None

    def _is_wanted(self, event: Mapping[str, Any]) -> bool:
        from fazai.report.events import event_host

        return not self.hosts or any(fnmatchcase(event_host(event), pattern) for pattern in self.hosts)

    def _say_lost(self, why: str) -> None:
        if not self.reconnecting:
            self._say(f"{why}; connecting again")
            self.reconnecting = True

    def _say(self, text: str) -> None:
        click.echo(f"fazai tail: {self.place.name}: {text}", err=True)


class _TextOutput:
    """Output for people: time, host, type, text; a line of its own when the day changes."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._day = ""
        self._width = 12

    def event(self, event: Mapping[str, Any]) -> None:
        from fazai.report.events import event_host, event_line, event_style
        from fazai.report.lines import escape_controls

        paint = self._terminal.paint
        time_utc = _as_utc(event.get("timestamp"))
        day = time_utc[:10] if time_utc else self._day
        lines = ""
        if day != self._day:
            self._day = day
            lines = paint(f"-- {day} UTC", "dim") + "\n"
        host = escape_controls(event_host(event)) or "-"
        self._width = min(32, max(self._width, len(host)))
        clock = paint(time_utc[11:19] if time_utc else " " * 8, "dim")
        kind = escape_controls(str(event.get("type")))[:10]
        text = paint(event_line(event), event_style(event))
        sys.stdout.write(f"{lines}{clock}  {host:<{self._width}}  {kind:<9}  {text}\n")
        sys.stdout.flush()


def _as_utc(text: object) -> str:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC).isoformat()
    except ValueError:
        return ""
