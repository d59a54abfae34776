"""fazai token create, list, revoke"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from fazai.cli.options import OUTPUT
from fazai.errors import InputError, UsageError
from fazai.timestamps import parse_duration_s, timestamp

if TYPE_CHECKING:
    from fazai.store.daemon import Token, TokenStore

_NAME = re.compile(r"\A[A-Za-z0-9][\w.@-]{0,63}\Z", re.ASCII)


@click.group(
    "token",
    epilog="\b\nExamples:\n  fazai token create grafana --role viewer"
    "\n  fazai token create ci --role operator --expires 90d\n  fazai token revoke ci",
)
def token_command() -> None:
    """Create, list and revoke the daemon's bearer tokens. They hold at once, also for a running daemon."""


@token_command.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True)
@click.option("--expires", metavar="90d", help="Valid for so long; m, h or d. [default: until revoked]")
def create_command(name: str, role: str, expires: str | None) -> None:
    """Create a token and print it. It is shown once; only its hash is stored."""
    from fazai.daemon.http.tokens import hash_of, new_token
    from fazai.store.daemon import Role, Token

    if not _NAME.match(name):
        raise UsageError(f"{name!r} is no name for a token", hint="letters, digits, . _ @ -; at most 64")
    now = time.time()
    store = _token_store()
    if any(one.name == name and _token_state(one, now) == "valid" for one in store.tokens()):
        raise UsageError(f'there is a token "{name}"', hint=f"fazai token revoke {name}, or another name")
    text = new_token()
    until = now + _parse_duration_s(expires) if expires else None
    store.put(Token(hash_of(text), name, cast("Role", role), now, until))
    click.echo(text)
    click.echo(f"{role} token {name}: shown this once; keep it in a file of mode 0600", err=True)


@token_command.command("list")
@OUTPUT
def list_command(output: str) -> None:
    """List the tokens, without their text."""
    import json

    now = time.time()
    rows = [
        {
            "id": one.hash[:12],
            "name": one.name,
            "role": one.role,
            "state": _token_state(one, now),
            "created": _time_text(one.created),
            "expires": _time_text(one.expires),
        }
        for one in _token_store().tokens()
    ]
    if output == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("no tokens yet")
    for row in rows:
        until = f"  until {row['expires']}" if row["expires"] else ""
        known = f"{row['name']:<20} {row['role']:<8} {row['state']:<7}"
        click.echo(f"{row['id']}  {known}  {row['created']}{until}")


@token_command.command("revoke")
@click.argument("name")
def revoke_command(name: str) -> None:
    """Revoke the token of this NAME (or id)."""
    store, now = _token_store(), time.time()
    by_id = len(name) >= 8
    found = [one for one in store.tokens() if name == one.name or (by_id and one.hash.startswith(name))]
    valid = [one for one in found if one.revoked is None]
    if not valid:
        hint = "it was revoked before" if found else "see: fazai token list"
        raise InputError(f'there is no token "{name}" to revoke', hint=hint)
    for one in valid:
        store.put(replace(one, revoked=now))
    click.echo(f"revoked: {name}", err=True)


def _token_store() -> TokenStore:
    from fazai.cli import environment
    from fazai.store.factory import open_tokens

    return open_tokens(environment.read_config().state)


def _parse_duration_s(text: str) -> float:
    seconds = parse_duration_s(text)
    if seconds is None:
        raise UsageError(f"--expires {text!r} is no duration", hint="such as 30m, 12h or 90d")
    return seconds


def _token_state(token: Token, now: float) -> str:
    if token.revoked is not None:
        return "revoked"
    return "expired" if token.expires is not None and token.expires <= now else "valid"


def _time_text(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
