"""The daemon's registry of remote agents, and its CA, for what a run asks of them (`model.AgentRegistry`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.cli import environment
from fazai.errors import FazaiError, InputError, Refused, Unreachable
from fazai.model import Secret

if TYPE_CHECKING:
    from fazai.cli.agents.known import KnownAgents
    from fazai.cli.clients import DaemonAddress
    from fazai.pki import Authority
    from fazai.store.certificates import CertificateStore

_SECONDS = 20.0
#: A daemon looks at the CA's files four times a second.
_REREAD_S = 2.0
_ASK_AGAIN_S = 0.1


class DaemonAgents:
    """The registry of the daemon at FAZAI_URL or the local socket; the CA is that of the state on this
    machine. Nothing is opened before it is asked for."""

    def __init__(
        self,
        make_token: Callable[[str], str] | None = None,
        revoke_name: Callable[[str], None] | None = None,
    ) -> None:
        self._make_token, self._revoke_name = make_token, revoke_name
        self._first: dict[str, Any] = {}  # since when each was connected, when it was first asked for
        self._place: tuple[DaemonAddress, Any] | None = (
            None  # with what verifies it, which takes long to load
        )

    async def find(self, agent_id: str) -> Mapping[str, Any] | None:
        """Return an agent's row (`AgentRegistry.find`)."""
        if self._place is None:
            self._place = _find_place()
        row = await _get_row(*self._place, agent_id)
        since = None if row is None else row.get("since")
        first = self._first.setdefault(agent_id, since)
        return None if row is None else {**row, "fresh": since != first}

    async def enrol(self, agent_id: str) -> Secret:
        """Make a token for one agent."""
        import asyncio

        return Secret(await asyncio.to_thread(self._make_token or make_token_here, agent_id))

    async def revoke(self, agent_id: str) -> None:
        """Revoke what an agent was given."""
        import asyncio

        await asyncio.to_thread(self._revoke_name or revoke_here, agent_id)


def _find_place() -> tuple[DaemonAddress, Any]:
    from fazai.cli.clients import find_daemon

    place = find_daemon(os.environ, root=os.geteuid() == 0)
    if place is None:
        raise Unreachable("no daemon is known here", stage="connect", hint="FAZAI_URL names one")
    return place, place.verify()


async def _get_row(place: DaemonAddress, verify: Any, agent_id: str) -> Mapping[str, Any] | None:
    from urllib.parse import quote

    import httpx

    from fazai.cli.clients import refusal_reason

    transport = httpx.AsyncHTTPTransport(uds=str(place.socket) if place.socket else None, verify=verify)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=_SECONDS, **place.options()) as client:
            answer = await client.get(f"/agents/{quote(agent_id, safe='')}")
        found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        text = f"the daemon does not answer: {error or type(error).__name__}"
        raise Unreachable(text, stage="connect", where=place.name) from None
    if answer.status_code == 404:
        return None
    if answer.status_code != 200:
        reason = refusal_reason(answer.content, f"status {answer.status_code}")
        raise FazaiError(f"the daemon does not tell of {agent_id}: {reason}", where=place.name)
    row: Mapping[str, Any] = found["agent"]
    return row


def ask_same_place(
    place: DaemonAddress, authority: Authority, timeout_s: float = _SECONDS, wait_s: float = _REREAD_S
) -> KnownAgents:
    """Ask a daemon for its registry, and refuse to make a token that it would not take: its CA, or its state,
    is not the one that a command would use. One of the same state may have to read a CA again that another
    step of its replacement wrote just now: that is waited for. Raises InputError, and as `fetch_agents`."""
    from fazai.cli.agents.known import fetch_agents
    from fazai.files import mark_folder
    from fazai.pki.reading import fingerprint_of

    own, state = fingerprint_of(authority.trusted[0]), environment.read_config().state
    until_s = time.monotonic() + wait_s
    known = fetch_agents(place, timeout_s)
    is_same = known.state is not None and known.state == mark_folder(state)
    while is_same and known.ca not in (None, own) and time.monotonic() < until_s:
        time.sleep(_ASK_AGAIN_S)
        known = fetch_agents(place, timeout_s)
    if known.ca is not None and known.ca != own:
        text = f"the daemon has the CA {known.ca[:16]}, and {authority.folder} holds {own[:16]}"
        hint = "FAZAI_SECRETS as it has it"
        if is_same:
            text += f", which it has not read again within {wait_s:.3g} s"
            hint = f"see its log; or {hint}"
        raise InputError(f"{text}: it would not take the token", where=place.name, hint=hint)
    if known.state not in (None, mark_folder(state)):
        text = f"the daemon has another state folder than {state}: it would not take the token"
        raise InputError(
            text, where=place.name, hint="FAZAI_STATE_DIR as it has it; another daemon: FAZAI_URL=unix:PATH"
        )
    return known


def make_token_here(agent_id: str) -> str:
    """Make an enrolment token with the CA on this machine. Raises FazaiError."""
    from fazai.cli.clients import find_daemon
    from fazai.pki import Authority, Enrolments

    config = environment.read_config()
    authority = Authority.load(config.secrets / "pki")
    place = find_daemon(os.environ, root=os.geteuid() == 0)
    if place is not None and place.socket is not None:
        with contextlib.suppress(Unreachable, Refused):  # whoever waits for the agent says so
            ask_same_place(place, authority)
    with contextlib.closing(_open_store(config.state)) as store:
        return Enrolments(authority, store).create(agent_id).token


def revoke_here(agent_id: str) -> None:
    """Revoke an agent's certificates and tokens in the state on this machine. Raises FazaiError."""
    from fazai.pki import Authority
    from fazai.store.certificates import Revocation

    config = environment.read_config()
    authority = Authority.load(config.secrets / "pki")
    with contextlib.closing(_open_store(config.state)) as store:
        store.revoke(Revocation(agent_id, authority.clock(), "the agent was removed (host.agent)"))


def _open_store(state: Path) -> CertificateStore:
    from fazai.store.factory import open_certificates

    return open_certificates(state)
