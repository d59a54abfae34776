"""Entries of a session's journal, and the state that follows from them.

Everything that a session is, is in its journal: an entry is written before what it says has an effect, and
`SessionState.follow` is the only way by which a state changes. So a restarted daemon knows what the one
before knew, and a replay comes to the same decisions.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from fazai.loop.budget import Spent
from fazai.loop.effects import Effect
from fazai.wire.sessions import Budget

Verdict = Literal["run", "allow", "ask", "refuse"]
EndReason = Literal["done", "budget", "stuck", "aborted", "failed"]
Status = Literal["idle", "running", "waiting", "paused", "ended"]


class Entry(Struct, frozen=True, kw_only=True, tag_field="entry", omit_defaults=True):
    """Base of the entries. `at`: seconds since the epoch, UTC. `chain` is the hash of this entry and of all
    before it (`seal`)."""

    at: float
    chain: str = ""


class ObjectiveSet(Entry, frozen=True, kw_only=True, tag="objective"):
    """Somebody gave the session something to reach. `seed` is that of the model's sampler."""

    text: str
    by: str
    budget: Budget
    history: tuple[str, ...] = ()
    seed: int = 0


class Asked(Entry, frozen=True, kw_only=True, tag="asked"):
    """The model was asked. `turn` is the text that it was given after all that it had; `prompt_hash` the hash
    of the whole conversation up to it (`prompt.chain_hash`); `fresh`: the conversation began anew with it,
    for the one before was lost, or too long; `taints`: notes of the knowledge base are in it; `room`: the
    characters that it could have."""

    iteration: int
    turn: str
    prompt_hash: str
    fresh: bool = False
    taints: bool = False
    room: int = 0


class Generated(Entry, frozen=True, kw_only=True, tag="generated"):
    """The model answered. `source` is `worker` or the URL of an endpoint, `model` its name, `model_hash` the
    SHA-256 of its file where the worker says it."""

    iteration: int
    output: str
    reason: str
    source: str
    model: str = ""
    model_hash: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Proposed(Entry, frozen=True, kw_only=True, tag="proposed"):
    """The action was read from the answer: an action, or why there is none. `ignored`: text behind the
    action."""

    iteration: int
    action_id: str
    action: dict[str, Any] | None = None
    problem: str | None = None
    ignored: bool = False


class Decided(Entry, frozen=True, kw_only=True, tag="decided"):
    """The fate of the action was decided, by which rule. An action with an effect has the whole of it
    here."""

    action_id: str
    verdict: Verdict
    reason: str = ""
    rule: str = ""
    policy: str = ""
    effect: Effect | None = None


class Approved(Entry, frozen=True, kw_only=True, tag="approved"):
    """Somebody, or a rule, let the effect of that hash happen: it is the hash that was shown."""

    action_id: str
    plan_hash: str
    by: str
    reason: str | None = None


class Rejected(Entry, frozen=True, kw_only=True, tag="rejected"):
    """Somebody said no; it holds for the same substance until what it rests on changes."""

    action_id: str
    plan_hash: str
    by: str
    substance: str
    reason: str | None = None


class Began(Entry, frozen=True, kw_only=True, tag="began"):
    """The effect is about to be carried out: from here on it may have happened."""

    action_id: str


class Observed(Entry, frozen=True, kw_only=True, tag="observed"):
    """The action showed something. `text` is what the model is told, within `mark` where others wrote it;
    `digest` is the hash of the whole; `output_id` names the whole where `text` is a part of it."""

    action_id: str
    note: str
    text: str
    digest: str
    size_bytes: int = 0
    mark: str = ""
    failed: bool = False
    taints: bool = False
    repeated: bool = False
    output_id: str | None = None


class Question(Entry, frozen=True, kw_only=True, tag="question"):
    """The model asks a person; the session waits for the answer."""

    action_id: str
    question: str
    options: tuple[str, ...] = ()


class Answered(Entry, frozen=True, kw_only=True, tag="answered"):
    """A person answered what the model asked."""

    action_id: str
    text: str
    by: str


class Paused(Entry, frozen=True, kw_only=True, tag="paused"):
    """The session rests until somebody resumes it."""

    by: str
    reason: str


class Resumed(Entry, frozen=True, kw_only=True, tag="resumed"):
    """Somebody let it go on; the time that it rested is not the objective's."""

    by: str
    budget: Budget | None = None


class Ended(Entry, frozen=True, kw_only=True, tag="ended"):
    """The objective has ended. A session can have another one after it."""

    reason: EndReason
    note: str = ""
    result: Any = None


AnyEntry = (
    ObjectiveSet
    | Asked
    | Generated
    | Proposed
    | Decided
    | Approved
    | Rejected
    | Began
    | Observed
    | Question
    | Answered
    | Paused
    | Resumed
    | Ended
)

_DECODER = msgspec.json.Decoder(AnyEntry)


def encode_entry(entry: AnyEntry) -> bytes:
    """Write an entry as one line of JSON."""
    return msgspec.json.encode(entry)


def seal(entry: AnyEntry, before: str) -> AnyEntry:
    """Return the entry with the hash of it and of the entries before it, of which the last had `before`."""
    bare = msgspec.structs.replace(entry, chain="")
    chain = hashlib.sha256(before.encode() + b"\0" + encode_entry(bare)).hexdigest()
    return msgspec.structs.replace(bare, chain=chain)


def decode_entry(data: bytes | str) -> AnyEntry:
    """Read an entry. Raises msgspec.DecodeError."""
    return _DECODER.decode(data)


class Waiting(Struct, frozen=True, kw_only=True):
    """The thing that a session waits for: a person's word on an effect, or an answer."""

    action_id: str
    kind: Literal["approval", "answer"]
    plan_hash: str = ""
    question: str = ""
    options: tuple[str, ...] = ()


class Seen(Struct):
    """Count of how often an action was proposed, and the digest of what it showed last, and how often in a
    row."""

    times: int = 0
    digest: str = ""
    same: int = 0


class SessionState(Struct, kw_only=True):
    """The state of a session, as its journal has it. Only `follow` changes it."""

    status: Status = "idle"
    objective: str = ""
    by: str = ""
    history: tuple[str, ...] = ()
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    spent: Spent = field(default_factory=Spent)
    iteration: int = 0
    tainted: bool = False
    waiting: Waiting | None = None
    why: str = ""  # of the pause, or of the end
    result: Any = None
    action_id: str = ""  # the latest
    action: dict[str, Any] | None = None
    effects: dict[str, Effect] = field(default_factory=dict)
    approvals: dict[str, Approved] = field(default_factory=dict)
    ready: str | None = None  # an effect that was approved and has not begun
    begun: str | None = None  # an effect of which no outcome is known
    rejections: dict[str, Rejected] = field(default_factory=dict)  # by substance
    seen: dict[str, Seen] = field(default_factory=dict)  # by the action's digest
    text_only: int = 0  # actions in a row that looked at nothing
    unreadable: int = 0  # answers in a row from which no action could be read
    observations: list[Observed] = field(default_factory=list)  # of the objective, the latest last
    proposals: dict[str, dict[str, Any]] = field(default_factory=dict)  # actions by id, of the objective
    answers: list[tuple[str, str]] = field(default_factory=list)  # questions, and what people said
    last_error: str = ""
    prompt_hash: str = ""

    def follow(self, entry: AnyEntry) -> None:
        """Change the state as the entry says."""
        handle = getattr(self, f"_on_{entry.__struct_config__.tag}")
        handle(entry)

    def _on_objective(self, entry: ObjectiveSet) -> None:
        kept = (self.rejections, self.tainted, self.prompt_hash)  # of the conversation, not of the objective
        fresh = SessionState()
        for name in self.__struct_fields__:
            setattr(self, name, getattr(fresh, name))
        self.rejections, self.tainted, self.prompt_hash = kept
        self.status, self.objective, self.by = "running", entry.text, entry.by
        self.budget, self.history, self.seed = entry.budget, entry.history, entry.seed
        self.spent = Spent(since=entry.at)

    def _on_asked(self, entry: Asked) -> None:
        self.iteration = entry.iteration
        self.prompt_hash = entry.prompt_hash
        self.tainted = self.tainted or entry.taints

    def _on_generated(self, entry: Generated) -> None:
        self.spent.iterations = entry.iteration
        self.spent.tokens += entry.completion_tokens

    def _on_proposed(self, entry: Proposed) -> None:
        self.action_id, self.action = entry.action_id, entry.action
        if entry.action is not None:
            self.proposals[entry.action_id] = entry.action
        self.unreadable = self.unreadable + 1 if entry.action is None else 0
        if entry.problem:
            self.last_error = entry.problem

    def _on_decided(self, entry: Decided) -> None:
        if entry.effect is not None:
            self.effects[entry.action_id] = entry.effect
        if entry.verdict == "ask" and entry.effect is not None:
            waiting = Waiting(action_id=entry.action_id, kind="approval", plan_hash=entry.effect.digest)
            self._wait(waiting, entry.at)

    def _on_approved(self, entry: Approved) -> None:
        self.approvals[entry.action_id] = entry
        self.ready = entry.action_id
        self._go_on(entry.at)

    def _on_rejected(self, entry: Rejected) -> None:
        self.rejections[entry.substance] = entry
        self._go_on(entry.at)

    def _on_began(self, entry: Began) -> None:
        self.begun, self.ready = entry.action_id, None

    def _on_observed(self, entry: Observed) -> None:
        if self.begun == entry.action_id:
            self.begun = None
        if self.ready == entry.action_id:  # it was not carried out after all
            self.ready = None
        self.observations.append(entry)
        self.spent.bytes += len(entry.text)
        self.tainted = self.tainted or entry.taints
        if entry.failed and not entry.mark:  # else others wrote it, and it is among the observations
            self.last_error = entry.note
        action = self.proposals.get(entry.action_id)
        if action is None:
            return
        seen = self.seen.setdefault(action_digest(action), Seen())
        seen.times += 1
        seen.same = seen.same + 1 if seen.digest == entry.digest else 1
        seen.digest = entry.digest
        self.text_only = self.text_only + 1 if action.get("action") in ("plan", "observe") else 0

    def _on_question(self, entry: Question) -> None:
        waiting = Waiting(
            action_id=entry.action_id, kind="answer", question=entry.question, options=entry.options
        )
        self._wait(waiting, entry.at)

    def _on_answered(self, entry: Answered) -> None:
        if self.waiting is not None:
            self.answers.append((self.waiting.question, entry.text))
        self._go_on(entry.at)

    def _wait(self, waiting: Waiting, at: float) -> None:
        """Wait for a person. The time until then is not the objective's."""
        self.status, self.waiting = "waiting", waiting
        self.spent.pause(at)

    def _go_on(self, at: float) -> None:
        """Wait no longer; a session that somebody paused stays so."""
        self.waiting = None
        if self.status == "waiting":
            self.status = "running"
            self.spent.resume(at)

    def _on_paused(self, entry: Paused) -> None:
        self.status, self.why = "paused", entry.reason
        self.spent.pause(entry.at)

    def _on_resumed(self, entry: Resumed) -> None:
        self.status, self.why = "waiting" if self.waiting is not None else "running", ""
        if entry.budget is not None:
            self.budget = entry.budget
        if self.waiting is None:
            self.spent.resume(entry.at)

    def _on_ended(self, entry: Ended) -> None:
        self.status, self.why, self.result = "ended", entry.note or entry.reason, entry.result
        self.waiting = self.ready = None
        self.spent.pause(entry.at)


def action_digest(action: dict[str, Any]) -> str:
    """Return what two actions have in common that are the same."""
    return msgspec.json.encode(action, order="deterministic").decode()


def fold(entries: list[AnyEntry]) -> SessionState:
    """Return the state after these entries."""
    state = SessionState()
    for entry in entries:
        state.follow(entry)
    return state
