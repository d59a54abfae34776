"""fazai session list, show, pause, resume, abort, approve, reject, answer, output"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.commands.ask import BUDGET, URL, read_budget, session_report
from fazai.cli.options import FILE, OUTPUT, add_options
from fazai.errors import ExitCode, FazaiError

if TYPE_CHECKING:
    from fazai.cli.daemon_api import DaemonApi
    from fazai.loop.effects import Effect
    from fazai.loop.journal import Verdict
    from fazai.loop.replay import Decide, Replayed
    from fazai.wire.base import Message
    from fazai.wire.sessions import SessionRow

SESSION = click.argument("session")
REASON = click.option("--reason", help="Why; the model is told.")
_OBJECTIVE_CHARS = 60
_PAGE_CHARS = 65_536


@click.group(
    "session",
    epilog="\b\nExamples:\n  fazai session list\n  fazai session show 7f3a --replay"
    "\n  fazai session reject 7f3a a-19c4 9f2c61d0b7e4 --reason 'not on a Friday'"
    "\n\nSESSION is the id of a session, or either end of it.",
)
def session_command() -> None:
    """Sessions of the action loop: what they do, what waits for you, what they did."""


@session_command.command("list")
@OUTPUT
@URL
def list_command(output: str, url: str | None) -> None:
    """List the sessions, the one that was used last first."""
    from fazai.cli.daemon_api import daemon_api
    from fazai.report.lines import escape_controls
    from fazai.wire.sessions import LoopSessionsAnswer

    with daemon_api(url) as api:
        rows = api.ask("GET", "/agent/sessions", LoopSessionsAnswer).sessions
    if output == "json":
        click.echo(json.dumps([_record(row) for row in rows], indent=1))
        return
    if not rows:
        click.echo("no sessions yet")
    for row in rows:
        used = row.used_at.strftime("%Y-%m-%d %H:%M:%SZ")
        what = escape_controls(" ".join((row.objective or "").split()))[:_OBJECTIVE_CHARS]
        status = f"{row.status} ({row.waiting.kind})" if row.waiting is not None else row.status
        click.echo(f"{row.session_id:<20}  {status:<18}  {used}  {row.owner:<12}  {what}".rstrip())


@session_command.command("show")
@SESSION
@click.option("--journal", is_flag=True, help="All that happened in it, an entry a line.")
@click.option("--replay", is_flag=True, help="Decide all of it anew, and say where that differs: exit 1.")
@click.option(
    "--policy",
    type=FILE,
    help="Of --replay: the daemon's policy. [default: $FAZAI_POLICY, else /etc/fazai/policy.yml]",
)
@OUTPUT
@URL
def show_command(
    session: str, journal: bool, replay: bool, policy: Path | None, output: str, url: str | None
) -> int:
    """Show a session: what it is to reach, where it is, what waits for you."""
    from fazai.cli.daemon_api import daemon_api

    with daemon_api(url) as api:
        row = api.session(session)
        entries = list(_read_journal(api, row.session_id)) if journal or replay else []
    if replay:
        return _show_replay(row, entries, policy, output)
    if journal:
        for entry in entries:
            click.echo(json.dumps(entry, ensure_ascii=output != "json") if output == "json" else _line(entry))
        return ExitCode.OK
    if output == "json":
        click.echo(json.dumps(_record(row), indent=1))
        return ExitCode.OK
    _show_row(api, row)
    return ExitCode.OK


def _read_journal(api: DaemonApi, session_id: str) -> Iterator[dict[str, Any]]:
    from fazai.wire.sessions import JournalAnswer

    since: int | None = 0
    while since is not None:
        params = {"since": str(since)}
        page = api.ask("GET", f"/agent/sessions/{session_id}/journal", JournalAnswer, params=params)
        yield from page.entries
        since = page.next


def _show_replay(row: SessionRow, journal: list[dict[str, Any]], policy: Path | None, output: str) -> int:
    """Write what a replay of the journal finds, an entry a line; return the exit code."""
    import msgspec

    from fazai.loop.journal import decode_entry
    from fazai.loop.replay import compare_end, replay_journal

    entries = [decode_entry(msgspec.json.encode(one)) for one in journal]
    decided = replay_journal(entries, *_read_decisions(policy), tainted=row.source == "rule")
    found = [*decided, *compare_end(entries, row)]
    for one in found:
        if output == "json":
            click.echo(json.dumps({"number": one.number, **one.as_record()}))
        else:
            click.echo(_replayed_line(one, journal[one.number] if one.number < len(journal) else None))
    wrong = sum(bool(one.differences) for one in found)
    if output != "json":
        click.echo(f"{len(entries)} entries, {wrong} that differ" if wrong else f"{len(entries)} entries, =")
    return ExitCode.FAILED if wrong else ExitCode.OK


def _read_decisions(file: Path | None) -> tuple[Decide, str]:
    """Return what the policy that is here decides, and its generation. Raises InputError."""
    from fazai.cli.commands.policy import own_paths, policy_path
    from fazai.daemon.policy.words import read_known_words
    from fazai.policy.deciding import decide
    from fazai.policy.reading import digest_of, load_policy
    from fazai.policy.values import Policy

    path = file or policy_path()
    own = own_paths(path)
    if file is not None or path.exists():
        policy = load_policy(path, read_known_words(), own)
    else:
        policy = Policy(generation=digest_of(b""), protected=own)

    def decide_anew(effect: Effect, tainted: bool, now: float) -> tuple[Verdict, str, str]:
        found = decide(policy, effect, tainted=tainted, uses={}, now=now)
        return found.verdict, found.reason, found.rule or ""

    return decide_anew, policy.generation


def _replayed_line(one: Replayed, entry: dict[str, Any] | None) -> str:
    from fazai.report.lines import escape_controls

    sign = "!" if one.differences else "="
    text = _line(entry) if entry is not None else "the end"
    more = [*one.differences, *one.notes]
    return f"{sign} {one.number:>4}  {text}" + "".join(f"\n        {escape_controls(each)}" for each in more)


_HIDDEN = ("entry", "at", "chain")
_ENTRY_CHARS = 160


def _line(entry: dict[str, Any]) -> str:
    """Return an entry of a journal as a line for people."""
    from fazai.report.lines import escape_controls
    from fazai.timestamps import format_time

    rest = "  ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in entry.items()
        if name not in _HIDDEN
    )
    shown = rest if len(rest) <= _ENTRY_CHARS else f"{rest[: _ENTRY_CHARS - 1]}…"
    return f"{format_time(float(entry['at']))}  {entry['entry']:<9}  {escape_controls(shown)}"


def _show_row(api: DaemonApi, row: SessionRow) -> None:
    from fazai.report.lines import escape_controls
    from fazai.report.sessions import result_lines

    used = row.usage
    lines = {
        "session": row.session_id,
        "owner": f"{row.owner} ({row.source})",
        "status": f"{row.status}{': ' + row.why if row.why else ''}",
        "objective": row.objective or "-",
        "used": f"{used.iterations} iterations, {used.tokens} tokens, {used.seconds:g} s" if used else "-",
        "tainted": "yes: it has read what others wrote" if row.tainted else "no",
    }
    for name, value in lines.items():
        click.echo(f"{name:<10} {escape_controls(' '.join(value.split()))}")
    if row.result is not None:
        for line in result_lines({"result": row.result}):
            click.echo(f"{'result':<10} {line}")
    _show_waiting(api, row)


def _show_waiting(api: DaemonApi, row: SessionRow) -> None:
    from fazai.report.lines import escape_controls
    from fazai.timestamps import format_time, utc_now

    waiting = row.waiting
    if waiting is None:
        return
    if waiting.kind == "answer":
        click.echo("waits for an answer")
        click.echo(f"  {escape_controls(waiting.question or '')}")
        for number, option in enumerate(waiting.options, 1):
            click.echo(f"  {number}) {escape_controls(option)}")
        click.echo(f"  {api.command('session', 'answer', row.session_id, 'TEXT')}")
        return
    click.echo(f"waits for an approval of {escape_controls(waiting.tool or 'an effect')}")
    session_report("auto").changes(waiting.changes)
    sys.stdout.flush()
    over = waiting.expires is not None and waiting.expires <= utc_now()
    until = format_time(waiting.expires.timestamp()) if waiting.expires else "-"
    click.echo(f"  until {until}{': that is over, ask for it anew after' if over else ''}")
    if over:
        click.echo(f"  {api.command('session', 'abort', row.session_id)}")
        return
    for what in ("approve", "reject"):
        words = (row.session_id, waiting.action_id, waiting.plan_hash or "")
        click.echo(f"  {api.command('session', what, *words)}")


def _record(row: SessionRow) -> Any:
    from fazai.wire.base import encode

    return json.loads(encode(row))


def _say(url: str | None, session: str, path: str, make_body: Any, done: str) -> None:
    """Send a person's word about a session, and say that it was taken. Raises FazaiError."""
    from fazai.cli.daemon_api import daemon_api
    from fazai.wire.base import OkAnswer

    with daemon_api(url) as api:
        row = api.session(session)
        body: Message = make_body(row)
        try:
            api.ask("POST", path, OkAnswer, body)
        except FazaiError as error:
            if not error.hint:  # what waits there, and in which state it is
                error.hint = api.command("session", "show", row.session_id)
            raise
        watch = api.command("tail", "--session", row.session_id)
    click.echo(f"{row.session_id}: {done}" + (f"; watch it: {watch}" if "goes on" in done else ""), err=True)


@session_command.command("pause")
@SESSION
@REASON
@URL
def pause_command(session: str, reason: str | None, url: str | None) -> None:
    """Let the objective of a session rest until it is resumed."""
    from fazai.wire.sessions import PauseBody

    def body(row: SessionRow) -> PauseBody:
        return PauseBody(session_id=row.session_id, reason=reason)

    _say(url, session, "/agent/pause", body, "it rests")


@session_command.command("resume")
@SESSION
@add_options(BUDGET)
@URL
def resume_command(session: str, url: str | None, **options: Any) -> None:
    """Go on with an objective that rests. A budget that is given counts from the objective's beginning."""
    from fazai.wire.sessions import ResumeBody

    budget = read_budget(options)

    def body(row: SessionRow) -> ResumeBody:
        return ResumeBody(session_id=row.session_id, budget=budget)

    _say(url, session, "/agent/resume", body, "it goes on")


@session_command.command("abort")
@SESSION
@URL
def abort_command(session: str, url: str | None) -> None:
    """End the objective of a session. A run that has begun to write goes on to its own end."""
    from fazai.wire.sessions import AbortBody

    _say(url, session, "/agent/abort", lambda row: AbortBody(session_id=row.session_id), "aborted")


def _decide(
    what: str, session: str, action: str, plan_hash: str, reason: str | None, url: str | None
) -> None:
    from fazai.wire.sessions import ApproveBody

    def body(row: SessionRow) -> ApproveBody:
        return ApproveBody(
            session_id=row.session_id, action_id=action, plan_hash=plan_hash, reason=reason or None
        )

    _say(url, session, f"/agent/{what}", body, f"{what.removesuffix('e')}ed; it goes on")


@session_command.command("approve")
@SESSION
@click.argument("action")
@click.argument("plan_hash", metavar="HASH")
@REASON
@URL
def approve_command(session: str, action: str, plan_hash: str, reason: str | None, url: str | None) -> None:
    """Let a change happen, by the HASH that was shown with it (exit 6: it is not that one)."""
    _decide("approve", session, action, plan_hash, reason, url)


@session_command.command("reject")
@SESSION
@click.argument("action")
@click.argument("plan_hash", metavar="HASH")
@REASON
@URL
def reject_command(session: str, action: str, plan_hash: str, reason: str | None, url: str | None) -> None:
    """Refuse a change: it is not proposed again until what it rests on changes."""
    _decide("reject", session, action, plan_hash, reason, url)


@session_command.command("answer")
@SESSION
@click.argument("text")
@URL
def answer_command(session: str, text: str, url: str | None) -> None:
    """Answer what a session asks you."""
    from fazai.errors import InputError
    from fazai.wire.sessions import AnswerBody

    def body(row: SessionRow) -> AnswerBody:
        if row.waiting is None or row.waiting.kind != "answer":
            raise InputError(f"session {row.session_id} asks nothing", hint="see: fazai session list")
        return AnswerBody(session_id=row.session_id, action_id=row.waiting.action_id, text=text)

    _say(url, session, "/agent/answer", body, "answered; it goes on")


@session_command.command("output")
@SESSION
@click.argument("output_id", metavar="OUTPUT")
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True, help="The first character.")
@URL
def output_command(session: str, output_id: str, offset: int, url: str | None) -> None:
    """Print a long observation, of which the model was shown a part. OUTPUT is its id in the journal."""
    from urllib.parse import quote

    from fazai.cli.daemon_api import daemon_api
    from fazai.cli.generate_io import protect_terminal
    from fazai.wire.sessions import OutputAnswer

    terminal = sys.stdout.isatty()
    with daemon_api(url) as api:
        path = f"/agent/sessions/{api.session(session).session_id}/outputs/{quote(output_id, safe='')}"
        while True:
            params = {"offset": str(offset), "limit": str(_PAGE_CHARS)}
            page = api.ask("GET", path, OutputAnswer, params=params)
            click.echo(protect_terminal(page.text, terminal=terminal), nl=False)
            offset += len(page.text)
            if not page.text or offset >= page.total:
                break
    click.echo()
