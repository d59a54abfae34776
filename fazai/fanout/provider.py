"""The providers that the engine gets for one program or file: their sessions are those of `fazai.fanout`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fazai.errors import InputError, Refused
from fazai.fanout.sessions import RefusedSession, StepSession
from fazai.model import FieldSpec, Kind, Provider, Session, Target


@dataclass(frozen=True, slots=True)
class FanoutProvider:
    """A provider of targets with other sessions: `refuse` says why a target is not asked, `open` makes the
    session of one that is; `dry`: no session connects to anything."""

    inner: Provider
    refuse: Callable[[Target], Refused | None]
    open: Callable[[Target], Session]
    dry: bool = False
    handlers = False
    atomic_writes = False

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def noun(self) -> str:
        return str(getattr(self.inner, "noun", "target"))

    @property
    def kinds(self) -> Mapping[str, Kind]:
        return self.inner.kinds

    @property
    def options(self) -> Mapping[str, FieldSpec]:
        return {}

    def check(self, target: Target) -> list[InputError]:
        return self.inner.check(target)

    def box_of(self, target: Target) -> str:
        return self.inner.box_of(target)

    def connect(self, target: Target) -> Session:
        refusal = self.refuse(target)
        if refusal is not None:
            return RefusedSession(target, refusal)
        return StepSession(target) if self.dry else self.open(target)
