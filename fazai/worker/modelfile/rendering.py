"""Renders a chat template in a process of its own, so that what a file of weights says neither runs for ever,
nor takes the machine's memory, nor reaches the worker.

Run by its path, so it imports nothing of fazai. Reads {"template":…, "bos":…, "eos":…, "conversations":[…]}
from stdin, each of them {"messages":[…], "tools":…, "thinking":…}, and writes a list with {"text":…} or
{"problem":…} for each.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from typing import Any

CPU_S = 2
MEMORY_BYTES = 512 << 20
#: Of a rendered conversation of three short messages; the longest public templates write some thousands.
MAX_TEXT = 1 << 20
_RENDER_ERRORS = (
    *(ArithmeticError, LookupError, TypeError, ValueError, AttributeError),
    *(RecursionError, MemoryError, OSError, SyntaxError, ImportError),
)


def render_conversations(asked: dict[str, Any]) -> list[dict[str, str]]:
    """Return each conversation as the template writes it, or what is wrong with it."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse_conversation(message: object = "") -> None:
        raise jinja2.TemplateError(str(message))

    environment.globals.update(raise_exception=refuse_conversation, strftime_now=time.strftime)
    environment.globals.update(bos_token=asked["bos"], eos_token=asked["eos"])
    environment.filters["tojson"] = lambda value, indent=None, **_: json.dumps(
        value, ensure_ascii=False, indent=indent
    )

    def render(conversation: dict[str, Any]) -> dict[str, str]:
        try:
            made = environment.from_string(asked["template"])
            text = made.render(
                messages=conversation["messages"],
                tools=conversation.get("tools"),
                enable_thinking=conversation.get("thinking", False),
                add_generation_prompt=True,
                documents=None,
            )
        except MemoryError:
            return {"problem": f"it takes more than {MEMORY_BYTES >> 20} MiB"}
        except (jinja2.TemplateError, *_RENDER_ERRORS) as error:
            return {"problem": str(error) or type(error).__name__}
        if len(text) > MAX_TEXT:
            return {"problem": f"it writes more than {MAX_TEXT} characters"}
        return {"text": text}

    return [render(conversation) for conversation in asked["conversations"]]


def limit_this_process() -> None:
    """Limit what this process takes from now on, time and memory, and let it write no file."""
    import jinja2.sandbox  # noqa: F401 - loading it is no work of the template's

    until_s = math.ceil(time.process_time()) + CPU_S
    for what, limit in (
        (resource.RLIMIT_CORE, (0, 0)),
        (resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        (resource.RLIMIT_CPU, (until_s, until_s + 1)),
        (resource.RLIMIT_FSIZE, (0, 0)),
    ):
        resource.setrlimit(what, limit)


def main() -> None:
    """Render what stdin asks for. A signal ends it when it takes more than CPU_S seconds of a processor."""
    asked = json.load(sys.stdin)
    limit_this_process()
    json.dump(render_conversations(asked), sys.stdout)


if __name__ == "__main__":
    main()
