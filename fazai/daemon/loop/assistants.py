"""Proposals of other assistants (`LoopSessions.propose`): one question for one effect, a rejection that
binds, and an approval by somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.loop.session import LoopSession
from fazai.daemon.tools.proposing import Proposal
from fazai.loop.effects import Effect


def find_proposal(
    sessions: Iterable[LoopSession], effect: Effect, who: Principal, at: float
) -> Proposal | None:
    """Return the proposal of the same client for the same effect that waits already. Raises Refusal(conflict)
    where somebody rejected it."""
    for session in _of_assistants(sessions):
        if session.record.owner != who.name:
            continue
        rejected = session.state.rejections.get(effect.substance)
        if rejected is not None:
            why = f": {rejected.reason}" if rejected.reason else ""
            raise Refusal("conflict", f"{rejected.by} rejected it, and nothing has changed since{why}")
        for action_id, waiting in _waiting(session):
            if (
                waiting.substance == effect.substance
                and waiting.policy == effect.policy
                and at <= waiting.expires
            ):
                return Proposal(session.session_id, action_id, waiting.digest, waiting.expires)
    return None


def expired_proposals(sessions: Iterable[LoopSession], at: float) -> list[LoopSession]:
    """Return the sessions of assistants whose proposal nobody decided in its time."""
    return [
        session
        for session in _of_assistants(sessions)
        if any(at > one.expires for _, one in _waiting(session))
    ]


def refuse_too_many(sessions: Iterable[LoopSession], who: Principal, most: int) -> None:
    """Refuse a proposal of a client of whom too many wait: they would leave others no session. Raises
    Refusal(overloaded)."""
    waiting = sum(
        session.record.owner == who.name and session.state.status not in ("idle", "ended")
        for session in _of_assistants(sessions)
    )
    if waiting >= most:
        text = f"{waiting} proposals of {who.name} wait for a person already"
        raise Refusal("overloaded", text, headers=((b"retry-after", b"60"),))


def check_approver(session: LoopSession, who: Principal) -> None:
    """Refuse the token with which an assistant proposed something: a program that holds it must not say yes
    to itself. Raises Refusal(forbidden)."""
    if session.record.source == "mcp" and who.token is not None and who.name == session.record.owner:
        text = "the token that proposed it does not approve it"
        raise Refusal("forbidden", text, hint="use your own, or the local socket")


def _of_assistants(sessions: Iterable[LoopSession]) -> Iterator[LoopSession]:
    return (session for session in sessions if session.record.source == "mcp")


def _waiting(session: LoopSession) -> Iterator[tuple[str, Effect]]:
    waiting = session.state.waiting
    if waiting is not None and waiting.action_id in session.state.effects:
        yield waiting.action_id, session.state.effects[waiting.action_id]
