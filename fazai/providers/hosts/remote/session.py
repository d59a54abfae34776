"""A session on a host through its agent (`model.Session`): questions and changes travel as data, and the
agent's own kinds ask and write there. A run that finds nothing to do is one message each way."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from fazai.errors import DeviceError, FazaiError, Mark, Moved, NotAvailable, Refused, Unreachable, Unsure
from fazai.model import Change, Diff, Resource, Target, Verb
from fazai.providers.hosts import planning
from fazai.providers.hosts.comparing import ComparingSession
from fazai.providers.hosts.kind import Act, HostKind, Want
from fazai.providers.hosts.planning import HostObservation
from fazai.providers.hosts.remote.asking import SharedMessages
from fazai.providers.hosts.remote.failures import Places, decode_error
from fazai.providers.hosts.remote.messages import (
    RemoteObservation,
    decode_observation,
    decode_output,
    encode_change,
    encode_resource,
)
from fazai.providers.hosts.remote.values import NONSENSE, Malformed, decode_text, encode_value
from fazai.providers.hosts.shell.batching import MAX_CHANGES
from fazai.providers.hosts.shell.questions import Question

if TYPE_CHECKING:
    from typing import Self  # novm

#: Seconds that the way to the agent and back may take beside what it does.
_WAY_S: Final = 10.0
#: Seconds for the agent to close a session at the end of a run.
_CLOSE_S: Final = 5.0
#: How long a handler may keep an agent from answering, and how often to try; as of a shell.
_PROBE_S, _PROBE_PAUSE_S = 20.0, 0.5
#: Contents that one message of changes makes the agent write at most.
_MOST_BYTES: Final = 4 * 1024 * 1024
#: The longest time that a message may allow.
_MOST_MS: Final = 3_600_000
#: So many times in a run the agent may have forgotten the session, and is asked anew.
_MOST_LOSSES: Final = 3
_AGAIN: Final = "run it again: it looks first"


class Relay(Protocol):
    """A carrier of messages to agents."""

    async def request(self, agent: str, message: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Send a message and return the answer. Raises Unreachable: with the stage `connect` where it was not
        sent, else where nobody knows what became of it; Refused, DeviceError."""


class SessionLost(Moved):
    """The agent does not know the session any more, as it was started anew: nothing was written."""


def _not_by_agent_error(resource: Resource) -> NotAvailable:
    text = f"{resource.kind} {resource.identity}: it cannot be managed through the agent of its host"
    return NotAvailable(text, where=resource.mark or resource.identity, hint="provider: ssh")


class AgentSession(ComparingSession):
    """One host under its kinds, through the agent that runs there.

    `way` is entered with the session, to the relay that takes its messages; `timeout_s`: for one step of the
    agent; `shared`: with the sessions of other hosts.
    """

    def __init__(
        self,
        target: Target,
        kinds: Mapping[str, HostKind],
        way: AbstractAsyncContextManager[Relay],
        agent: str,
        *,
        timeout_s: float,
        shared: SharedMessages | None = None,
    ) -> None:
        super().__init__(target, kinds)
        self._shared = shared or SharedMessages()
        self._way, self._agent, self._timeout_s = way, agent, timeout_s
        self._relay: Relay | None = None
        self._session = secrets.token_hex(12)
        self._places = Places(target.name)
        self._wrote = False
        self._losses = 0

    async def __aenter__(self) -> Self:
        self._relay = await self._way.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the agent forget what was written; a session that only looked it forgets by itself."""
        try:
            if self._wrote and (error is None or isinstance(error, FazaiError)):
                with suppress(FazaiError):  # it forgets by itself, later
                    await self._send("state.close", {}, _CLOSE_S)
        finally:
            await self._way.__aexit__(kind, error, trace)

    # -- looking ----------------------------------------------------------------------------------------

    async def observe(self, wanted: Sequence[Resource]) -> HostObservation:
        """Have the agent look at all resources, in one message."""
        asked = [each for each in wanted if not each.listen and self._kinds[each.kind].by_agent]
        found = await self._observe(asked)
        self._root, self.names = found.root.rstrip("/"), found.names
        items = dict(found.seen.items)
        for resource in wanted:
            if not resource.listen:
                key = resource.kind, resource.identity
                items.setdefault(key, _not_by_agent_error(resource))
                self._items[key].want, self._items[key].found = Want(resource, self._at), items[key]
        return replace(found.seen, items=items)

    async def ask(self, *questions: Question) -> Mapping[Question, Any]:
        """Refuse questions that are scripts: an agent answers those of its own kinds alone."""
        text = f"{self._target.name} is reached through its agent, which runs no script of others"
        raise NotAvailable(text, where=self._target.name, hint="provider: ssh reaches its shell")

    async def facts(self) -> Mapping[str, Any]:
        """Return the facts of the host (`model.Describing`)."""
        found = await self._observe((), facts=True)
        return {} if found.facts is None else found.facts

    async def _observe(self, wanted: Sequence[Resource], *, facts: bool = False) -> RemoteObservation:
        for each in wanted:
            self._places.note(each)
        fields: dict[str, Any] = {"resources": self._shared.encode(wanted, self._kinds)}
        if facts:
            fields["facts"] = True
        answer = await self._send("state.observe", fields, self._timeout_s)
        try:
            seen = answer.get("observation")
            return decode_observation(seen, wanted, self._places, self._shared.decode)
        except Malformed as error:
            raise self._nonsense_error(str(error)) from None

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Any,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        try:
            return super().diff(wanted, seen, adopted=adopted, pending=pending, prune=prune)
        except NONSENSE as error:  # what an agent says of an item may be anything
            raise self._nonsense_error(type(error).__name__) from None

    # -- writing ----------------------------------------------------------------------------------------

    async def write(self, change: Change) -> str:
        """Have the agent carry out one change (`model.Session`)."""
        refs, error = await self.write_joined([change])
        if error is not None:
            raise error
        return refs[0]

    def join(self, changes: Sequence[Change]) -> int:
        """Return how many of these go in one message: those of kinds that a shell writes together as well."""
        count = size = 0
        for change in changes[:MAX_CHANGES]:
            size += getattr(change.after.get("content"), "size", 0)
            if not self._kinds[change.kind].joins or (count and size > _MOST_BYTES):
                break
            count += 1
        return max(1, count)

    async def write_joined(self, changes: Sequence[Change]) -> tuple[list[str], FazaiError | None]:
        """Have the agent carry out these, in their order; returns the refs of what is done, and why the next
        one is not."""
        first = changes[0]
        names = f"{first.kind} {first.identity}" + (f" and {len(changes) - 1} more" if changes[1:] else "")
        undone = first.note == planning.UNDONE_NOTE
        seconds = self._timeout_s + sum(self._seconds_of(change) for change in changes)
        names_of = [encode_change(c, undo=undone, by_hash=self._kinds[c.kind].by_hash) for c in changes]
        step = {"write": names_of}
        try:
            result = await self._apply(step, seconds, f"while {names} was written", first.where)
            done, error = result.get("done"), self._error_of(result)
            refs = [change.ref for change in changes[: len(done) if isinstance(done, list) else 0]]
            if done != encode_value(refs) or (error is None) is (len(refs) < len(changes)):
                raise self._unsure(
                    "its agent does not say what was done", f"while {names} was written", first.where
                )
        except FazaiError as failed:
            return [], failed
        return refs, error

    def _seconds_of(self, change: Change) -> float:
        """Return the seconds that the agent may take for a change, as its kind says."""
        known, undone = self._items[change.kind, change.identity], change.note == planning.UNDONE_NOTE
        options = {} if undone else known.wanted_fields
        have = {**known.seen, **change.before}
        return self._block_seconds(
            change.kind, self._act(change.verb, change.identity, change.after, options, have, undone=undone)
        )

    def _act(
        self,
        verb: Verb,
        identity: str,
        after: Mapping[str, Any],
        options: Mapping[str, Any],
        have: Mapping[str, Any],
        *,
        undone: bool = False,
    ) -> Act:
        return Act(
            verb=verb,
            identity=identity,
            after=after,
            options=options,
            token="0" * 16,
            at=self._at,
            memory={},
            have=have,
            undone=undone,
        )

    def _block_seconds(self, kind: str, act: Act) -> float:
        try:
            return sum(block.timeout_s or self._timeout_s for block in self._kinds[kind].write(act))
        except (FazaiError, *NONSENSE):  # the agent says what is wrong with it
            return self._timeout_s

    async def _run_handler(self, service: str, handler: Resource, where: Mark | str) -> None:
        seconds = self._timeout_s + self._block_seconds(
            handler.kind, self._act(Verb.RUN, handler.identity, handler.fields, handler.fields, {})
        )
        self._places.note(handler)
        step = {
            "activate": {
                "service": encode_value(service),
                "handler": encode_resource(handler),
            }
        }
        what = f"while {handler.kind} {handler.identity} was written"
        result = await self._apply(step, seconds, what, str(where))
        if (error := self._error_of(result)) is not None:
            raise error

    async def hold(self) -> None:
        """Open no spare connection (`model.Session`): the agent dials out, and the way is the daemon's."""

    async def probe(self) -> None:
        """Prove that the agent still answers: it may have dialled anew since its handlers ran."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + _PROBE_S
        while True:
            try:
                await self._observe(())
                return
            except Unreachable:
                if now_s() > until_s:
                    raise
                await asyncio.sleep(_PROBE_PAUSE_S)

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """Have the agent wait until what was written works, for the kinds that `proves`."""
        keys = {want.key for want in self._items_to_prove(changes)}
        waiting = [encode_change(c, hashed=False) for c in changes if (c.kind, c.identity) in keys]
        if not waiting:
            return []
        what, where = "while it was proven that what was written works", self._target.name
        result = await self._apply({"verify": waiting}, planning.PROOF_S + 2 * self._timeout_s, what, where)
        if (error := self._error_of(result)) is not None:
            raise error
        try:
            errors = result.get("errors")
            return [
                decode_error(each, self._places) for each in (errors if isinstance(errors, list) else [None])
            ]
        except Malformed as error:
            raise self._nonsense_error(str(error)) from None

    async def explains(self, moved: Moved, changes: Sequence[Change]) -> bool:
        """Tell whether these changes reach there (`model.Following`). An agent that was started anew explains
        it as well: it looks again."""
        if isinstance(moved, SessionLost):
            self._losses += 1
            return self._losses <= _MOST_LOSSES
        if not changes:
            return False
        names = [encode_change(change, hashed=False) for change in changes]
        step = {"explains": {"path": encode_value(moved.path), "changes": names}}
        result = await self._apply(step, self._timeout_s, "while it was asked", self._target.name)
        if (error := self._error_of(result)) is not None:
            raise error
        return result.get("explains") is True

    # -- messages ---------------------------------------------------------------------------------------

    async def _apply(
        self, step: Mapping[str, Any], seconds: float, what: str, where: str
    ) -> Mapping[str, Any]:
        """Send a step and return its result. Raises Unsure where it may or may not have been done; `what`
        says during what."""
        self._wrote = True
        try:
            answer = await self._send("state.apply", {"step": step}, seconds)
        except Unreachable as error:
            if error.stage == "connect":  # it was not sent
                raise
            raise self._unsure(error.message, what, where) from None
        result = answer.get("result")
        try:
            if not isinstance(result, dict):
                raise Malformed("no result")
            output = decode_output(result.get("output", []))
        except Malformed as error:
            text = f"the answer of its agent cannot be understood ({error})"
            raise self._unsure(text, what, where) from None
        if self._say is not None:
            for stream, text in output:
                self._say(stream, text)
        return result

    async def _send(self, method: str, fields: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """Send a message of this session and return the answer. Raises what the agent's refusal means."""
        message = {
            "method": method,
            "action_id": secrets.token_hex(16),
            "session": self._session,
            **({} if method == "state.close" else {"timeout": min(int(seconds * 1000), _MOST_MS)}),
            **fields,
        }
        assert self._relay is not None, "the session was not entered"
        limit_s = seconds + _WAY_S
        answer = await self._relay.request(self._agent, message, limit_s)  # deadline: limit_s
        if answer.get("ok") is True:
            return answer
        raise self._refusal(method, answer)

    def _refusal(self, method: str, answer: Mapping[str, Any]) -> FazaiError:
        """Return the error for an answer that is none."""
        code, name = answer.get("code"), self._target.name
        try:
            text = decode_text(answer.get("error"))[:2000]
            hint = decode_text(answer["hint"])[:2000] if "hint" in answer else None
        except Malformed:
            text, hint = "it does not say why", None
        if code == "not_allowed":
            where = self._places.named_in(text) or self._target.where("agent_id")
            return Refused(f"the agent of {name} refuses: {text}", where=where, hint=hint)
        if code == "not_found" and method == "state.apply":
            text = (
                f"the agent of {name} has forgotten what it saw, as it was started anew: nothing was written"
            )
            return SessionLost(text, path="", where=name, hint=_AGAIN)
        if code in ("conflict", "overloaded"):
            return Unreachable(
                f"the agent of {name} is busy: {text}", stage="connect", where=name, hint=_AGAIN
            )
        if code == "unknown_method":
            text = f"the agent of {name} does not reconcile: its agent.yml says reconcile: no, or it is older"
            return Refused(
                text, where=self._target.where("agent_id"), hint="on the machine: fazai agent check"
            )
        if code == "too_large" and method == "state.observe":
            hint = "ask for fewer resources at once: --kind, or several plays"
            return DeviceError(
                f"the agent of {name} has more to say than fits: {text}", where=name, hint=hint
            )
        if code in ("bad_request", "bad_version"):
            hint = hint or "is the agent of another version? fazai agent version"
            return DeviceError(f"the agent of {name} does not understand: {text}", where=name, hint=hint)
        return Unreachable(f"the agent of {name}: {text}", stage="answer", where=name, hint=hint)

    def _error_of(self, result: Mapping[str, Any]) -> FazaiError | None:
        """Return the error in a result. Raises Unreachable for one that is none."""
        if "error" not in result:
            return None
        try:
            return decode_error(result["error"], self._places)
        except Malformed as error:
            text = f"the answer of its agent cannot be understood ({error})"
            return self._unsure(text, "", self._target.name)

    def _unsure(self, text: str, what: str, where: str) -> Unsure:
        return Unsure(f"{text}, {what}" if what else text, where=where, hint=_AGAIN)

    def _nonsense_error(self, why: str) -> Unreachable:
        text = f"the answer of its agent cannot be understood ({why})"
        hint = "is it of another version? fazai agent version"
        return Unreachable(text, stage="answer", where=self._target.name, hint=hint)
