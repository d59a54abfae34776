"""Tools as values: what a model, a person or another assistant may call by name with typed arguments.

A tool is an async function below its `@Tool(…)` (read-only) or `@EffectTool(…)` (it changes something).
Whether a tool has an effect is said here, in code, and by nothing that a caller sends (SPEC.md, 2.3).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta, Struct

from fazai.loop.effects import Effect
from fazai.wire.base import Label, RequestMessage

#: The lists of the live fleet from which an argument can be chosen; `schema.build_action_schema` puts the
#: names in place of `enumOf`.
FleetList = Literal["firewalls", "hosts", "targets", "playbooks", "sessions"]

FirewallName = Annotated[Label, Meta(extra_json_schema={"enumOf": "firewalls"})]
HostName = Annotated[Label, Meta(extra_json_schema={"enumOf": "hosts"})]
TargetName = Annotated[Label, Meta(extra_json_schema={"enumOf": "targets"})]
PlaybookName = Annotated[Label, Meta(extra_json_schema={"enumOf": "playbooks"})]


class ToolArgs(RequestMessage, frozen=True, kw_only=True):
    """Base of the arguments of a tool. Each text and each list has a `max_length`, each integer a range: they
    become the schema that a model's decoder enforces."""


class NoArgs(ToolArgs, frozen=True, kw_only=True):
    """The arguments of a tool that takes none."""


class Observation(Struct, frozen=True, kw_only=True):
    """Finding of a tool. `note` is one sentence for people and models; `data` is any JSON value, bounded and
    without secrets. `citations` name the notes and pages that it rests on. `failed` where there is no answer,
    and `note` says why. `same_as`: what it has in common with another that shows the same; empty: all of it.
    """

    note: str
    data: Any = None
    citations: tuple[str, ...] = ()
    failed: bool = False
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that only reads. `taints`: what it returns was written by devices, hosts or other people, and no
    policy approves by itself what a model proposes after it has read that."""

    name: str
    summary: str
    _: KW_ONLY
    taints: bool = True
    timeout_s: float = 30.0
    args: type[ToolArgs] = NoArgs
    run: Callable[[Any, Any], Awaitable[Observation]] | None = None

    has_effect = False

    def __call__(self, run: Callable[[Any, Any], Awaitable[Observation]]) -> Tool:
        """Return the tool with this function, whose second parameter says its arguments."""
        return replace(self, run=run, args=get_type_hints(run)["args"])


@dataclass(frozen=True, slots=True)
class EffectTool:
    """A tool that changes something. `prepare` looks and returns the whole effect, which is shown, judged and
    approved by its hash; `run` carries out that effect, once, and nothing else. `settle` finds out what
    became of one that had begun when the daemon was killed; without it, that is not known."""

    name: str
    summary: str
    _: KW_ONLY
    taints: bool = True
    timeout_s: float = 600.0
    args: type[ToolArgs] = NoArgs
    prepare: Callable[[Any, Any], Awaitable[Effect]] | None = None
    run: Callable[[Any, Effect], Awaitable[Observation]] | None = None
    settle: Callable[[Any, Effect], Awaitable[Observation]] | None = None

    has_effect = True

    def __call__(self, prepare: Callable[[Any, Any], Awaitable[Effect]]) -> EffectTool:
        """Return the tool with this function as its `prepare`, whose second parameter says its arguments."""
        return replace(self, prepare=prepare, args=get_type_hints(prepare)["args"])

    def carried_out_by(self, run: Callable[[Any, Effect], Awaitable[Observation]]) -> EffectTool:
        """Return the tool with this function as its `run`."""
        return replace(self, run=run)

    def settled_by(self, settle: Callable[[Any, Effect], Awaitable[Observation]]) -> EffectTool:
        """Return the tool with this function as its `settle`."""
        return replace(self, settle=settle)


AnyTool = Tool | EffectTool
