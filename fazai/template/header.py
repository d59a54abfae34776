"""The first line of a template file that says how the rest is read: `#jinja2: lstrip_blocks: True`."""

from __future__ import annotations

import ast
from typing import Any, Final

from fazai.errors import TemplateError

HEADER: Final = "#jinja2:"
_SWITCHES: Final = ("trim_blocks", "lstrip_blocks")
_MARKERS: Final = tuple(
    f"{what}_{end}_string" for what in ("block", "variable", "comment") for end in ("start", "end")
)


def read_header(text: str) -> tuple[str, dict[str, Any]]:
    """Split a text into the part behind the header, and the header's settings; none where there is no header.

    Raises TemplateError, with the line as the excerpt."""
    if not text.startswith(HEADER):
        return text, {}
    line, end, body = text.partition("\n")
    settings: dict[str, Any] = {}
    if not end:
        raise TemplateError("the line #jinja2: is all there is in the template", excerpt=line)
    for pair in line.removeprefix(HEADER).split(","):
        name, _, value = (word.strip() for word in pair.partition(":"))
        settings[name] = _parse_header_setting(name, value, line)
    starts = [settings.get(f"{what}_start_string", usual) for what, usual in _USUAL.items()]
    if len(set(starts)) < len(starts):
        raise TemplateError("#jinja2: blocks, variables and comments start alike", excerpt=line)
    return body, settings


_USUAL: Final = {"block": "{%", "variable": "{{", "comment": "{#"}


def _parse_header_setting(name: str, text: str, line: str) -> Any:
    known = ", ".join((*_SWITCHES, *_MARKERS))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if name not in (*_SWITCHES, *_MARKERS):
        text, hint = f'#jinja2: has no setting "{name[:60]}" here', f"it has {known}"
        raise TemplateError(text, hint=hint, excerpt=line)
    if name in _SWITCHES and not isinstance(value, bool):
        raise TemplateError(f"#jinja2: {name} is True or False", excerpt=line)
    if name in _MARKERS and not (isinstance(value, str) and value):
        raise TemplateError(f"#jinja2: {name} is a quoted text", excerpt=line)
    return value
