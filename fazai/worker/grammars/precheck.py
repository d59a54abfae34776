"""Compiles a schema or grammar once, in a process of its own, so that a defect or endless work there ends
nothing else. Some few thousand rules that name each other overrun llguidance's stack; two dozen patterns that
must all hold take it hours.

Run by its path, so it imports nothing of fazai. Reads {"schema":{…}} or {"grammar":"…"} from stdin, writes
{"text":…}, or {"problem":…} when it cannot be enforced.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import threading
from typing import Any

CPU_S = 5
_ADDRESSES = 2 << 30
#: Less than what the worker's own threads have, so that what passes here passes there.
_STACK_BYTES = 8 << 20


def compile_grammar_text(asked: dict[str, Any]) -> dict[str, str]:
    """Return the text that llguidance takes, or why there is none."""
    from llguidance import LLMatcher, grammar_from

    try:
        if "schema" in asked:
            # Without optional white space, so that all between the values is forced.
            options: Any = {"whitespace_flexible": False}
            text = LLMatcher.grammar_from_json_schema(json.dumps(asked["schema"]), overrides=options)
        else:
            text = grammar_from("gbnf" if "::=" in asked["grammar"] else "lark", asked["grammar"])
    except ValueError as error:
        return {"problem": str(error)}
    wrong, problems = LLMatcher.validate_grammar_with_warnings(text)
    if wrong or problems:  # a warning: something of it would not be enforced
        return {"problem": str(problems[0]) if problems else "it cannot be compiled"}
    return {"text": text}


def main() -> None:
    """Compile what stdin asks for. A signal ends it when it takes more than CPU_S seconds of a processor, or
    more memory than is sane."""
    with contextlib.suppress(OSError):
        os.nice(10)  # what generates meanwhile goes first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    asked = json.load(sys.stdin)
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=lambda: json.dump(compile_grammar_text(asked), sys.stdout))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
