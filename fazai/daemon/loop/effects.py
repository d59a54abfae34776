"""Which tool carries out an effect: those of the table, programs, and tools of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from fazai.daemon.tools.offered.custom import TOOL_SPEC
from fazai.daemon.tools.offered.program import PROGRAM
from fazai.errors import InputError
from fazai.loop.effects import Effect
from fazai.loop.tools import AnyTool, EffectTool


class EffectTools:
    """The tools with an effect, by name."""

    def __init__(self, tools: Sequence[AnyTool]) -> None:
        found = [tool for tool in tools if isinstance(tool, EffectTool)]
        self._by_name = {tool.name: tool for tool in (*found, PROGRAM, TOOL_SPEC)}

    def find(self, effect: Effect) -> EffectTool:
        """Return the tool of an effect. Raises InputError for one of another release."""
        try:
            return self._by_name[effect.tool]
        except KeyError:
            raise InputError(f"no tool {effect.tool!r} carries that out", hint="propose it again") from None
