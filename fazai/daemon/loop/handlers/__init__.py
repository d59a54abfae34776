"""Handlers of actions: one module a kind of action, found by its name; each has one `handle`."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fazai.daemon.loop.turn import Handled, Turn

Handler = Callable[[Turn, Any], Awaitable[Handled]]


def find_handler(action: str) -> Handler:
    """Return the handler of a kind of action, such as `use_tool`. The contract's types let no other name
    through."""
    return cast("Handler", importlib.import_module(f"{__name__}.{action}").handle)
