"""An effect as a value: everything that an approval is for, and its hash (SPEC.md, 2.3)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct


class EffectChange(Struct, frozen=True, kw_only=True):
    """One change of an effect. Of a program that is run, `kind` is `program`, `identity` its path, `after`
    holds `argv`."""

    target: str
    kind: str
    identity: str
    verb: str
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}


class Effect(Struct, frozen=True, kw_only=True):
    """All that an action would do.

    `base` is the digest of the state that it rests on (of a plan: its hash, which covers what was observed),
    `inventory` that of the inventory, `policy` that of the policy, `expires` the time (seconds since the
    epoch) after which it may not run. `free` says that a model wrote a part of it that is no choice from the
    inventory. `ref` is the tool's own handle, such as the run that made the plan.
    """

    tool: str
    changes: tuple[EffectChange, ...]
    base: str
    inventory: str
    policy: str
    expires: float
    free: bool = False
    ref: str = ""

    @property
    def digest(self) -> str:
        """The hash that is shown and approved. It covers every field."""
        return _sha256(self)

    @property
    def substance(self) -> str:
        """The hash of what is done to which state, whenever and under whatever policy: by it a rejection is
        remembered (requirement B5)."""
        return _sha256((self.tool, self.changes, self.base))

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that it touches, each once, in order."""
        return tuple(dict.fromkeys(change.target for change in self.changes))


def _sha256(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
