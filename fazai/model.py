"""The nouns of fazai (design.md, "The words"), as frozen values, and the two protocols that hands fulfil.

Nothing here does I/O and nothing here knows a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union, runtime_checkable

from fazai.compat.language import StrEnum, dataclass
from fazai.errors import FazaiError, InputError, Mark, Moved

if TYPE_CHECKING:
    from typing import Self, TypeGuard  # novm

_Role = TypeVar("_Role")
#: A YAML value after templating: str, int, float, bool, None, Secret, list and dict of these.
Value = Any


class Secret:
    """A value that is compared, never shown; every text form of it is `***`."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str | None = None) -> None:
        self._value = value
        self.source = source  # the file whose whole content it is, where that is known

    def reveal(self) -> str:
        """Return the text itself; called only where it goes onto the wire."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            import hmac  # not every command compares secrets

            mine, others = (each._value.encode("utf-8", "surrogatepass") for each in (self, other))
            return hmac.compare_digest(mine, others)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a secret is not serialised")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret by reference, as the YAML tags say it: !env, !file, !cmd, !vault. Not yet read."""

    scheme: str
    value: str | tuple[str, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a field of a resource or an option of a target, before any contact."""

    field: str | None
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a kind, or one option of a provider, for validation and for the reference page."""

    name: str
    #: text, secret, boolean, integer, number, choice, list, map, reference, any, path (an option's is
    #: relative to the file that says it); kinds of hosts have more of them (hosts.fieldtypes)
    type: str
    doc: str = ""
    required: bool = False
    default: Value = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    reference: str | None = None  # the kind whose name is meant
    secret: bool = False
    unique: bool = False  # no two targets may declare the same value


class Kind(Protocol):
    """The class of a resource. Pure: it reads and returns values, and does no I/O."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def fields(self) -> Mapping[str, FieldSpec]: ...
    @property
    def identity(self) -> tuple[str, ...]:
        """The fields that together name an item on a target."""

    @property
    def ordered(self) -> bool:
        """True where the order in the playbook is the order on the target."""

    @property
    def example(self) -> str:
        """One resource in YAML, for the reference page; it validates."""

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        """Return the identity's text of these fields (rendered, not yet normalised), or why there is none."""

    def normalise(self, fields: Mapping[str, Value], state: str) -> tuple[dict[str, Value], list[Problem]]:
        """Return the fields in canonical form, and everything that is wrong with them. Defaults are not
        added: the session decides what a field that is not declared counts as. `state`: present, absent; for
        a handler: notified."""


@runtime_checkable
class Telling(Protocol):
    """A kind of which a list may have several items with one identity: fields that differ tell them apart."""

    @property
    def apart(self) -> tuple[str, ...]:
        """The fields that tell items with one identity apart."""

    def apart_text(self, fields: Mapping[str, Value], name: str) -> str:
        """Return the part of an item's identity that these fields make (rendered, not yet normalised)."""

    def label_in(self, fields: Mapping[str, Value]) -> str:
        """Return the item's name on the target where these (normalised) fields say otherwise which item is
        meant; else an empty text."""


@dataclass(frozen=True, slots=True)
class Target:
    """One managed thing. `options` are its rendered settings (base_url, mode, secret, timeout, owner…)."""

    name: str
    provider: str
    mode: str  # "read" or "write"
    options: Mapping[str, Value]
    groups: tuple[str, ...] = ()
    mark: Mark | None = None
    marks: Mapping[str, Mark] = field(default_factory=dict)  # option -> place

    def where(self, option: str) -> Mark | str:
        """Return the place of an option, else of the target, else the target's name."""
        return self.marks.get(option) or self.mark or self.name


@dataclass(frozen=True, slots=True)
class Resource:
    """One desired thing on one target; `fields` are canonical, `origins` say where each came from."""

    kind: str
    identity: str
    fields: Mapping[str, Value]
    state: str = "present"
    mark: Mark | None = None
    origins: Mapping[str, Mark] = field(default_factory=dict)
    name: str | None = None
    tags: tuple[str, ...] = ()
    adopt: bool | None = None  # None: as the target says
    notify: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()  # a handler: carried out only when one of these names was notified
    label: str = ""  # what it is called on the target, where its identity says more than that


class Verb(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    MOVE = "move"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between wanted and observed for one item.

    `before` and `after` hold only the fields that differ (create: all declared; delete: all that is needed
    to make it again). `ref` is the provider's handle of the item. `activates` names the services that must
    be activated for what was saved to take effect; the journal holds them until then. `note` is for people
    (`after "block bogons"`).
    """

    target: str
    kind: str
    identity: str
    verb: Verb
    before: Mapping[str, Value]
    after: Mapping[str, Value]
    ref: str
    activates: tuple[str, ...] = ()
    note: str = ""
    adopts: bool = False
    mark: Mark | None = None
    origins: Mapping[str, Mark] = field(default_factory=dict)
    #: Declared fields that are no state of the item but say how it is written, and may run something
    #: (`validate`, `environment`, `unless`): shown and hashed with the change.
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.target}/{self.kind}/{self.identity}"


@dataclass(frozen=True, slots=True)
class Activate:
    """A step that makes what was saved take effect: one reconfigure of one service."""

    target: str
    service: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """A step that observes resources anew, because the steps before it may alter what they find. The engine
    compares them again and goes on with the steps that come of it; the steps behind this one say only what
    can be known so far. `rest` are all resources that those steps come from."""

    target: str
    rest: tuple[Resource, ...]
    after: str  # the change before it, for people: package nano


Step = Union[Change, Activate, LookAgain]


@dataclass(frozen=True, slots=True)
class Diff:
    """The steps that one target needs, in the order in which they are carried out.

    `refused` are changes that a guard forbids, each with its reason; they are not among the steps. `notes`
    are sentences for the operator that are neither change nor error. `claims` are names that only one target
    of a run may have, with the place where each is declared.
    """

    steps: tuple[Step, ...] = ()
    unchanged: int = 0
    refused: tuple[tuple[Change, FazaiError], ...] = ()
    errors: tuple[FazaiError, ...] = ()
    notes: tuple[str, ...] = ()
    claims: tuple[tuple[str, Mark | str], ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(step for step in self.steps if isinstance(step, Change))

    @property
    def later(self) -> tuple[Resource, ...]:
        """The resources that are observed again while the steps are carried out: a plan cannot know their
        changes."""
        return next((step.rest for step in self.steps if isinstance(step, LookAgain)), ())


class Observation(Protocol):
    """The state that a session read. Opaque to the engine but for its digest (of the managed state, not of
    counters)."""

    @property
    def digest(self) -> str: ...


class Session(Protocol):
    """A provider at work on one target; an async context manager. The engine calls, in this order:

    observe, diff, then for an apply: hold, write (each change of the steps), activate (each Activate of the
    steps), observe and diff (at each LookAgain of the steps, for its resources; then to read back), probe,
    verify. On a failure: write(inverse(change)) backwards, activate.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def observe(self, wanted: Sequence[Resource]) -> Observation:
        """Read the actual state that `wanted` needs; changes nothing. Raises Unreachable, DeviceError."""

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Observation,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        """Compare without I/O. `adopted`: refs taken over by earlier runs. `pending`: services saved but
        never activated, whose Activate must be among the steps. `prune`: the wanted list is whole, so that
        items that we own and that are not in it may go, where the target's options ask for it."""

    async def write(self, change: Change) -> str:
        """Carry out one change; return the item's ref. Raises Unsure when the answer was lost and the write
        cannot simply be repeated, Moved when what it rests on is not there any more and nothing was written,
        Unreachable, Rejected, DeviceError."""

    def inverse(self, change: Change, ref: str) -> Change | None:
        """Return the change that undoes this one, without I/O; None when nothing does."""

    async def hold(self) -> None:
        """Open spare connections, to reach the target after an activation that shuts out new ones."""

    async def activate(self, service: str) -> None:
        """Make what was saved for the service take effect. Raises as write does."""

    async def probe(self) -> None:
        """Prove over a fresh connection that the target still answers. Raises Unreachable or DeviceError."""

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """Compare the running state with these changes, where the target can tell; return one error for each
        that it denies."""


class AgentRegistry(Protocol):
    """The daemon's registry of remote agents and its CA, as whoever reconciles reaches them."""

    async def find(self, agent_id: str) -> Mapping[str, Value] | None:
        """Return an agent's row of the registry; None: it is not known there. `fresh` in it: it connected
        since this was first asked. Raises FazaiError where the registry cannot be asked."""

    async def enrol(self, agent_id: str) -> Secret:
        """Make a token with which an agent of this name gets a certificate, once. Raises FazaiError."""

    async def revoke(self, agent_id: str) -> None:
        """Revoke all certificates and tokens of an agent. Raises FazaiError."""


@runtime_checkable
class Registering(Protocol):
    """A provider with kinds that ask the registry of remote agents."""

    def with_agents(self, agents: AgentRegistry) -> Provider:
        """Return the same provider, which has that registry."""


@runtime_checkable
class Warming(Protocol):
    """A provider whose connections need something that takes long to load."""

    def warm(self) -> None:
        """Begin to load it in the background; returns at once, may be called again."""


@runtime_checkable
class ListChecking(Protocol):
    """A provider that can find contradictions between the resources of one target, before any contact."""

    def check_list(self, resources: Sequence[Resource]) -> list[InputError]:
        """Return all that contradicts itself in what is declared for one target, with the place of each."""


@cache
def _class_has_role(class_: Any, role: Any) -> bool:
    return issubclass(class_, role)


def has_role(value: object, role: type[_Role]) -> TypeGuard[_Role]:
    """Tell whether a value has a role that is a Protocol: what `isinstance` says, known for each class once.
    In Python 3.11 that takes 25 microseconds, and a run asks for each target."""
    asked: tuple[Any, Any] = type(value), role
    return _class_has_role(*asked)


@runtime_checkable
class Talking(Protocol):
    """A session whose writes print something that a person wants to see."""

    def listen(self, say: Callable[[str, str], None]) -> None:
        """Have `say` called with the stream (stdout, stderr) and each piece of text as it comes, secrets
        masked."""


@runtime_checkable
class Joining(Protocol):
    """A session that may carry out several changes at once, in their order. The engine journals all of them
    before the first and asks again for the rest."""

    def join(self, changes: Sequence[Change]) -> int:
        """Return how many of these, from the first on, go at once; 1: each by `Session.write`."""

    async def write_joined(self, changes: Sequence[Change]) -> tuple[list[str], FazaiError | None]:
        """Carry out as many changes as `join` just said. Returns the refs of those that are done, in order,
        and the error that `Session.write` would have raised for the next. After Unreachable and Unsure any of
        the others may be done as well."""


@runtime_checkable
class Following(Protocol):
    """A session on whose target one change may alter what later resources find."""

    async def explains(self, moved: Moved, changes: Sequence[Change]) -> bool:
        """Return whether these changes may be why something moved on; otherwise it was another hand."""

    def affected(self, changes: Sequence[Change], resources: Sequence[Resource]) -> Sequence[Resource]:
        """Return those of the resources that these changes may have altered, without I/O: they are read back
        as well."""

    def exposed(self, resources: Sequence[Resource]) -> Sequence[Resource]:
        """Return those of the resources that handlers can have undone, without I/O; none that changes by
        itself."""


@runtime_checkable
class Rehearsing(Protocol):
    """A session whose target can judge changes before any of them is written."""

    async def rehearse(self, changes: Sequence[Change]) -> list[FazaiError]:
        """Return the target's objections to these changes: nothing is written unless there are none. Raises
        Unreachable."""


@runtime_checkable
class Describing(Protocol):
    """A session that can describe its target."""

    async def facts(self) -> Mapping[str, Any]:
        """Return facts of the target in JSON types. Raises Unreachable, DeviceError."""


class Provider(Protocol):
    """The adapter that speaks a protocol to a device; found by the target's `provider:` in the registry."""

    @property
    def name(self) -> str: ...
    @property
    def kinds(self) -> Mapping[str, Kind]: ...
    @property
    def options(self) -> Mapping[str, FieldSpec]:
        """The options of a target that this provider understands."""

    def check(self, target: Target) -> list[InputError]:
        """Return all that is wrong with the target's options, before any contact."""

    def connect(self, target: Target) -> Session:
        """Return a session that is not yet connected."""

    def box_of(self, target: Target) -> str:
        """Return the target's identity, whatever the inventory calls it: the same text for two names of one
        box. Pure. Locks and what is remembered are kept by it."""


@dataclass(frozen=True, slots=True)
class TargetWork:
    """A target and all that is wanted on it. `whole`: no filter left anything out, so pruning is safe."""

    target: Target
    resources: tuple[Resource, ...]
    whole: bool = True
    handlers: tuple[Resource, ...] = ()

    @property
    def wanted(self) -> tuple[Resource, ...]:
        """All that a session is to know: declared resources and handlers."""
        return (*self.resources, *self.handlers)


@dataclass(frozen=True, slots=True)
class Work:
    """Targets that are worked on together: a play, or the rest of the inventory.

    `serial` is the size of each wave (empty: all at once; the last repeats). `max_fail` is how many targets
    of the play may fail before the remaining waves are left alone (None: no limit).
    """

    name: str
    targets: tuple[TargetWork, ...]
    serial: tuple[int, ...] = ()
    max_fail: int | None = None
