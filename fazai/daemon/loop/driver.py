"""Carries an objective on, one action at a time: ask the model, read one action, judge it, carry it out,
tell.

What has an effect is written down before it (`Began`) and after it (`Observed`). After a crash between the
two it is never done again: what became of it is looked up.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.http.auth import Principal
from fazai.daemon.loop.conversation import Conversation, ConversationLost, ModelAnswer
from fazai.daemon.loop.effects import EffectTools
from fazai.daemon.loop.handlers import find_handler
from fazai.daemon.loop.observing import decision_event, observe_event, observed_entry
from fazai.daemon.loop.session import LoopSession, now
from fazai.daemon.loop.turn import Finish, Told, Turn, WantsAnswer, WantsEffect
from fazai.daemon.services import Services
from fazai.daemon.tools.answers import all_tools
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.lists import fleet_lists
from fazai.daemon.tools.running import failure
from fazai.errors import FazaiError
from fazai.loop import prompt
from fazai.loop.effects import Effect
from fazai.loop.journal import (
    Approved,
    Asked,
    Began,
    Decided,
    Ended,
    EndReason,
    Generated,
    Observed,
    Proposed,
    Question,
    Verdict,
)
from fazai.loop.progress import exhausted_tools, stuck_reason
from fazai.loop.proposals import read_proposal
from fazai.loop.schema import MAX_ACTION_TOKENS, build_action_schema
from fazai.loop.tools import AnyTool, Observation
from fazai.timestamps import timestamp, utc_now
from fazai.wire.actions import ActionBase, ProposedAction
from fazai.wire.events import AskEvent, DoneEvent, EventBase, ExecLogEvent, TokenEvent
from fazai.wire.worker import GenerateParams, SessionParams

_ANSWER_MS = 120_000
_FRESH_TRIES = 3


class Driver:
    """Carries on the objective of one session."""

    def __init__(self, services: Services, session: LoopSession) -> None:
        self._services = services
        self._session = session
        self._tools: tuple[AnyTool, ...] = ()  # what a model may call
        self._effects = EffectTools(services.tools)
        own = msgspec.convert(session.record.params, SessionParams)
        self._params = own
        self._answer_tokens = own.max_tokens or MAX_ACTION_TOKENS
        self._conversation = session.conversation or Conversation(
            services.sessions.client, own, self._answer_tokens
        )
        session.conversation = self._conversation

    async def run(self) -> None:
        """Carry the objective on until it ends, or waits for a person. Raises Unreachable, WireError,
        StateError, and Refusal where its owner could not ask for it any more: the objective then rests, and
        can be resumed."""
        self._tools = await all_tools(self._services)
        await self._settle()
        while self._session.state.status == "running":
            await self._step()

    async def _step(self) -> None:
        state = self._session.state
        await self._services.guard.refresh()
        self._services.guard.check_owner(self._session.record.owner, "operator")
        if state.ready is not None:
            await self._carry_out(state.ready)
            return
        if self._session.record.source == "mcp":  # another assistant goes on, not our model
            await self.end("done")
            return
        if (over := state.spent.over(state.budget, now())) is not None:
            await self.end("budget", over)
            return
        answer = await self._ask_model()
        await self._handle_answer(answer)

    # -- the model

    async def _ask_model(self) -> ModelAnswer:
        """Ask for the next action. Raises Unreachable, WireError."""
        session = self._session
        for _ in range(_FRESH_TRIES):
            fresh = not self._conversation.is_open
            if fresh:
                await self._conversation.open(prompt.system_text(self._tools))
            notes = await self._notes() if fresh else ""
            room = self._conversation.turn_chars // 2 if fresh else 0  # it is to grow again
            turn = self._fresh_turn(notes, room) if fresh else prompt.next_turn(session.entries_since(Asked))
            before = "" if fresh else session.state.prompt_hash
            asked = Asked(
                at=now(),
                iteration=session.state.iteration + (0 if self._unanswered() else 1),
                turn=turn,
                prompt_hash=prompt.chain_hash(before, turn),
                fresh=fresh,
                taints=bool(notes),
                room=room,
            )
            async with session.turn:
                await session.append(asked)
            try:
                return await self._conversation.ask(turn, self._generation(), self._show_tokens)
            except ConversationLost:
                await self._conversation.close()
        raise FazaiError(
            "the objective does not fit into the model's context",
            hint="fazai worker --context N, or a shorter objective",
        )

    def _unanswered(self) -> bool:
        """Return whether the model was asked and has not answered: it is asked again, in one iteration."""
        state = self._session.state
        return state.iteration > state.spent.iterations

    def _fresh_turn(self, notes: str, room: int) -> str:
        """Return the first turn of a conversation: of the objective, or of what is left to know of it, in so
        many characters."""
        state = self._session.state
        mark = secrets.token_hex(4)
        facts = self._facts()
        if state.iteration:
            return prompt.condensed_turn(state, facts, notes, mark, room)
        return prompt.opening_turn(state, facts, notes, mark)

    def _facts(self) -> str:
        names = fleet_lists(self._services)
        counts = ", ".join(f"{len(names[name])} {name}" for name in ("firewalls", "hosts"))
        shown = ", ".join(names["playbooks"][:20]) or "none"
        return f"{counts}; playbooks: {shown}"

    async def _notes(self) -> str:
        """Return the notes that may help, as text; each says who wrote it, and whether it was verified."""
        most = self._conversation.turn_chars // 6
        hits = await self._services.kb.notes_for_prompt(self._session.state.objective, most)
        return "\n".join(hit.prompt_text() for hit in hits)

    def _generation(self) -> GenerateParams:
        names = fleet_lists(self._services)
        state = self._session.state
        spent = exhausted_tools(state)
        offered = [tool for tool in self._tools if tool.name not in spent]
        return GenerateParams(
            json_schema=build_action_schema(offered, names),
            max_tokens=self._answer_tokens,
            temperature=self._params.temperature if self._params.temperature is not None else 0.0,
            seed=(state.seed + state.iteration) % 2**32,
            timeout_ms=self._params.timeout_ms or _ANSWER_MS,
        )

    async def _show_tokens(self, text: str) -> None:
        await self._session.append(events=[TokenEvent(timestamp=utc_now(), text=text)])

    # -- an answer

    async def _handle_answer(self, answer: ModelAnswer) -> None:
        """Read the action, write it down, and handle it."""
        session = self._session
        reading = read_proposal(answer.text)
        action_id = f"a-{secrets.token_hex(8)}"
        iteration = session.state.iteration
        built = msgspec.to_builtins(reading.action) if reading.action is not None else None
        entries = (
            Generated(
                at=now(),
                iteration=iteration,
                output=answer.text,
                reason=answer.reason,
                source=answer.source,
                model=answer.model,
                model_hash=answer.model_hash,
                prompt_tokens=answer.prompt_tokens,
                cached_tokens=answer.cached_tokens,
                completion_tokens=answer.completion_tokens,
            ),
            Proposed(
                at=now(),
                iteration=iteration,
                action_id=action_id,
                action=built,
                problem=reading.problem,
                ignored=reading.ignored,
            ),
        )
        async with session.turn:
            await session.append(*entries)
        if (why := stuck_reason(session.state)) is not None:
            await self.end("stuck", why)
        elif reading.action is not None:
            await self._handle(action_id, reading.action)

    async def _handle(self, action_id: str, action: ProposedAction) -> None:
        turn = Turn(self._services, self._session, self._call(action_id), self._tools)
        handled = await find_handler(str(action.__struct_config__.tag))(turn, action)
        shown = msgspec.structs.replace(action, timestamp=utc_now(), action_id=action_id)
        match handled:
            case Told():
                await self._tell(action_id, handled, shown)
            case WantsEffect(effect):
                await self._judge(action_id, effect, shown)
            case WantsAnswer(question, options):
                asked = Question(at=now(), action_id=action_id, question=question, options=options)
                event = AskEvent(timestamp=utc_now(), question=question, options=options, action_id=action_id)
                async with self._session.turn:
                    await self._session.append(asked, events=[shown, event, self._resting("answer")])
            case Finish(result):
                await self.end("done", result=result, before=[shown])

    async def _tell(self, action_id: str, told: Told, shown: ActionBase) -> None:
        entry = await self._observed(action_id, told.observation, taints=told.taints)
        events = told.events or (observe_event(action_id, told.observation.note),)
        async with self._session.turn:
            await self._session.append(
                Decided(at=now(), action_id=action_id, verdict="run"), entry, events=[shown, *events]
            )

    async def _observed(self, action_id: str, found: Observation, *, taints: bool) -> Observed:
        """Return the entry of an observation; the whole of a long one is kept. Raises StateError."""
        most = max(500, self._conversation.turn_chars // 6)
        entry, whole = observed_entry(self._session.state, action_id, found, taints=taints, most=most)
        if whole is not None and entry.output_id is not None:
            await self._services.store.sessions.put_output(self._session.session_id, entry.output_id, whole)
        return entry

    # -- effects

    async def _judge(self, action_id: str, effect: Effect, shown: ActionBase) -> None:
        """Let policy and earlier rejections decide; where they do not, the session waits for a person."""
        session = self._session
        verdict, reason, rule = await self._decide(effect)
        at = now()
        decided = Decided(
            at=at,
            action_id=action_id,
            verdict=verdict,
            reason=reason,
            rule=rule,
            policy=effect.policy,
            effect=effect,
        )
        shown = msgspec.structs.replace(
            shown,
            plan_hash=effect.digest,
            changes=tuple(msgspec.to_builtins(one) for one in effect.changes),
            expires=timestamp(effect.expires),
        )
        if verdict == "refuse":
            found = Observation(note=reason, failed=True)
            taints = effect.substance not in session.state.rejections  # the policy quotes names of items
            refused = observed_entry(session.state, action_id, found, taints=taints)[0]
            async with session.turn:
                await session.append(decided, refused, events=[shown, observe_event(action_id, reason)])
        elif verdict == "allow":
            by = f"policy:{rule}"
            approved = Approved(at=at, action_id=action_id, plan_hash=effect.digest, by=by)
            event = decision_event(by, "approved", action_id, effect.digest)
            async with session.turn:
                await session.append(decided, approved, events=[shown, event])
        else:
            async with session.turn:
                await session.append(
                    decided, events=[shown, self._resting("approval", action_id, effect.digest)]
                )

    async def _decide(self, effect: Effect) -> tuple[Verdict, str, str]:
        rejected = self._session.state.rejections.get(effect.substance)
        if rejected is not None:
            return "refuse", f"{rejected.by} rejected it, and nothing has changed since", ""
        tainted = self._session.state.tainted or self._session.record.source == "rule"  # what a rule met
        decision = await self._services.policy.claim(effect, tainted=tainted)
        return decision.verdict, decision.reason, decision.rule or ""

    async def _carry_out(self, action_id: str) -> None:
        """Carry out an effect that was approved: once."""
        session, state = self._session, self._session.state
        effect = state.effects[action_id]
        tool = self._effects.find(effect)
        async with session.turn:
            if state.status != "running" or state.ready != action_id:
                return  # somebody ended it, or let it rest, since it was approved
            if (note := self._lapsed(effect)) is not None:
                entry = observed_entry(state, action_id, Observation(note=note, failed=True))[0]
                await session.append(entry, events=[observe_event(action_id, note)])
                return
            await session.append(Began(at=now(), action_id=action_id))
        call = self._call(action_id)
        assert tool.run is not None
        try:
            async with deadline(tool.timeout_s):
                found = await tool.run(call, effect)
        except TimeoutError:
            found = Observation(note=f"no outcome came within {tool.timeout_s:g} s", failed=True)
        except FazaiError as error:
            found = failure(error)
        await self._tell_outcome(action_id, found)

    def _lapsed(self, effect: Effect) -> str | None:
        """Return why an approval no longer holds; None: it does."""
        if now() > effect.expires:
            return "the approval has expired: propose it again"
        if self._services.policy.generation != effect.policy:
            return "the policy was edited since this was approved: propose it again"
        return None

    async def _settle(self) -> None:
        """Find out what became of an effect that had begun when the daemon, or this task, was ended."""
        action_id = self._session.state.begun
        if action_id is None:
            return
        effect = self._session.state.effects[action_id]
        tool = self._effects.find(effect)
        if tool.settle is None:
            found = Observation(
                note="it was interrupted, and what became of it is not known: look before it is done again",
                failed=True,
            )
        else:
            found = await tool.settle(self._call(action_id), effect)
        await self._tell_outcome(action_id, found)

    async def _tell_outcome(self, action_id: str, found: Observation) -> None:
        session = self._session
        entry = await self._observed(action_id, found, taints=True)
        async with session.turn:
            await session.append(entry, events=[observe_event(action_id, found.note)])
        self._tools = await all_tools(self._services)  # it may have made one

    def _call(self, action_id: str) -> ToolCall:
        async def emit(event: EventBase) -> None:
            if isinstance(event, ExecLogEvent):
                event = msgspec.structs.replace(event, action_id=action_id)
            await self._session.append(events=[event])

        record = self._session.record
        approved = self._session.state.approvals.get(action_id)
        return ToolCall(
            self._services,
            Principal(record.owner, "operator"),
            *(record.session_id, action_id, emit),
            approved_by=approved.by if approved is not None else "",
        )

    # -- ends

    def _resting(self, what: str, action_id: str | None = None, plan_hash: str | None = None) -> DoneEvent:
        """Return the event that ends a stream while the session waits for a person."""
        result: dict[str, Any] = {"stop_reason": what}
        if action_id is not None:
            result |= {"action_id": action_id, "plan_hash": plan_hash}
        return DoneEvent(timestamp=utc_now(), result=result | {"usage": self._usage()})

    def _usage(self) -> dict[str, int]:
        spent = self._session.state.spent
        return {"iterations": spent.iterations, "tokens": spent.tokens, "bytes": spent.bytes}

    async def end(
        self,
        reason: EndReason,
        note: str = "",
        *,
        result: Any = None,
        before: Sequence[EventBase | ActionBase] = (),
    ) -> None:
        """End the objective, and say why."""
        said: dict[str, Any] = {"stop_reason": reason}
        if result is not None:
            said["result"] = result
        if note:
            said["note"] = note
        async with self._session.turn:
            event = DoneEvent(timestamp=utc_now(), result=said | {"usage": self._usage()})
            await self._session.append(
                Ended(at=now(), reason=reason, note=note, result=result), events=[*before, event]
            )
        if reason in ("stuck", "budget"):
            text = f"the objective ended, {reason}: {note}"
            self._services.log.say(
                "warning", text, logger="fazai.daemon.loop", session_id=self._session.session_id
            )
