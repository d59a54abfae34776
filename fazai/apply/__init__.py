"""The engine: carries work out on targets. It names no provider and alone knows check mode, order,
parallelism, locking, the journal, verification and undoing (docs/architecture.md)."""

from fazai.apply.engine import Engine

__all__ = ["Engine"]
