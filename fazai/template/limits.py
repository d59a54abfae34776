"""The budget of one rendering, and the handling of secret values.

Jinja2's sandbox keeps a template from the machine, but not from its time and memory. So every operation whose
cost grows with its operands is paid for from a budget, before it is carried out where its result could be
large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.model import Secret, Value
from fazai.template.filters.base import FilterError, SecretMap, check_text_length, plain_entries

#: Operations in one rendering, with everything it refers to: about half a second at worst.
OPERATIONS: Final = 500_000

#: Characters of one template.
TEMPLATE_MAX: Final = 1 << 16
#: Variables that refer to one another, one after the other.
CHAIN_MAX: Final = 40
#: Levels of nesting in a value.
DEPTH_MAX: Final = 64
#: Characters that cost as much as one operation.
_TEXT_UNIT: Final = 64

_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_VIEWS: Final[tuple[Any, ...]] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS: Final = (dict, list, tuple, *_VIEWS)


class Omit:
    """The value of `omit`: the field that gets it is left out."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "omit"


OMIT: Final = Omit()


class Rendering:
    """One rendering: its budget, the variables that are being rendered, whether a secret was touched."""

    __slots__ = ("_measured", "chain", "left", "tainted")

    def __init__(self, operations: int = OPERATIONS) -> None:
        self.left = operations
        self.chain: list[tuple[int, str]] = []
        self.tainted = False
        self._measured: dict[int, tuple[Any, int, bool]] = {}

    def spend(self, operations: int) -> None:
        """Pay for `operations`. Raises FilterError when the budget is used up."""
        self.left -= operations
        if self.left < 0:
            raise FilterError("the template takes too many operations", "loop over less, or split it up")

    def spend_text(self, length: int) -> None:
        """Pay for a text of this length before it is made."""
        check_text_length(length)
        self.spend(1 + length // _TEXT_UNIT)

    def measure(self, value: Any, depth: int = 0) -> tuple[int, bool]:
        """Return the operations that it takes to walk through a value, and whether a Secret is in it.

        Containers are remembered, so that one which holds another many times over is measured quickly,
        however large it would be if it were written out.
        """
        kind = type(value)
        if kind in _LEAVES:
            return (1 + len(value) // _TEXT_UNIT, False) if kind is str else (1, False)
        if isinstance(value, Secret):
            self.tainted = True
            return 1, True
        if isinstance(value, range):
            return 1 + len(value), False
        if not isinstance(value, _CONTAINERS):
            return (1 + len(value) // _TEXT_UNIT, False) if isinstance(value, str) else (1, False)
        known = self._measured.get(id(value))
        if known is None:
            known = self._walk(value, depth)
            self._measured[id(value)] = known
        return known[1], known[2]

    def _walk(self, value: Any, depth: int) -> tuple[Any, int, bool]:
        if depth > DEPTH_MAX:
            raise FilterError(f"a value is nested more than {DEPTH_MAX} levels deep")
        self.spend(1 + len(value) // 8)
        weight, secret = 1, isinstance(value, SecretMap)
        self.tainted = self.tainted or secret
        if isinstance(value, dict) and not secret:
            secret = any(isinstance(key, Secret) for key in value)
        for item in value.values() if isinstance(value, dict) else value:
            item_weight, item_secret = self.measure(item, depth + 1)
            weight += item_weight
            secret = secret or item_secret
        return value, weight, secret

    def holds_secret(self, *values: Any) -> bool:
        """Tell whether a Secret is in any of these, however deep."""
        secret = [self.measure(value)[1] for value in values]  # all of them, so that all are paid for
        return any(secret)


def is_listed(value: Any) -> bool:
    """Tell whether it is one of Python's own kinds of list that a template can come by: a range, some
    keys."""
    return isinstance(value, (range, *_VIEWS))


def reveal(value: Any) -> Any:
    """Return the value with every Secret in it as its text: for the duration of one operation only."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {reveal(key): reveal(item) for key, item in plain_entries(value)}
    if isinstance(value, list | tuple):
        return [reveal(item) for item in value]
    return value


def conceal(value: Value) -> Value:
    """Make every text and number in a value a Secret: the result of an operation on something secret."""
    if value is None or isinstance(value, bool | Secret):
        return value
    if isinstance(value, Mapping):
        return SecretMap.of({key: conceal(item) for key, item in plain_entries(value)})
    if isinstance(value, list | tuple):
        return [conceal(item) for item in value]
    return Secret(str(value))
