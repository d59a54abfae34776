"""The words that a policy may use: the tools of the daemon, and the kinds of all providers."""

from __future__ import annotations

from fazai.daemon.tools.table import TABLE
from fazai.policy.planned import RECONCILE, RULE_ENTRIES
from fazai.policy.reading import KnownWords
from fazai.policy.values import SHELL
from fazai.registry import Registry


def read_known_words() -> KnownWords:
    """Return the words. This imports all providers."""
    effects = {tool.name for tool in TABLE if tool.has_effect}
    return KnownWords(
        tools=frozenset({*effects, SHELL, RECONCILE, RULE_ENTRIES}),
        readers=frozenset(tool.name for tool in TABLE if not tool.has_effect),
        kinds={kind.name: frozenset(kind.fields) for kind in Registry().kinds()},
    )
