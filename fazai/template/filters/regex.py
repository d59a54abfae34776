"""Filters and tests with regular expressions: Python's `re`, without patterns that could take forever."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fazai.template.filters.base import TEXT_MAX, FilterError, TemplateFilter, check_text_length, taint
from fazai.template.filters.pattern import check_pattern

_POSIX_BASIC: Final = re.compile(r"([].[^$*\\])")


def _compile_regex(
    pattern: Any, subject: Any, ignorecase: bool = False, multiline: bool = False
) -> tuple[re.Pattern[str], str]:
    """Compile the pattern, and return it with the text it is for. Raises FilterError."""
    if not isinstance(pattern, str):
        raise FilterError(f"a regular expression is text, not {type(pattern).__name__}")
    if not isinstance(subject, str | int | float) or isinstance(subject, bool):
        raise FilterError(f"a regular expression is applied to text, not to {type(subject).__name__}")
    text = str(subject)
    flags = (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)
    try:
        compiled = re.compile(pattern, flags)
    except re.error as error:
        raise FilterError(f"this is not a regular expression: {error.msg}") from None
    check_pattern(pattern, len(text))
    return compiled, text


def regex_replace(
    value: Any,
    pattern: Any = "",
    replacement: Any = "",
    ignorecase: bool = False,
    multiline: bool = False,
    count: int = 0,
    mandatory_count: int = 0,
) -> str:
    compiled, text = _compile_regex(pattern, value, ignorecase, multiline)
    replacement = str(replacement)
    groups = 1 + replacement.count("\\")
    if (len(text) + 1) * (len(replacement) + groups * len(text)) > TEXT_MAX:
        check_text_length(_replaced_length(compiled, text, replacement, count))
    try:
        done, made = compiled.subn(replacement, text, count=count)
    except (re.error, IndexError) as error:
        raise FilterError(f"the replacement cannot be used: {error}") from None
    if mandatory_count and made < mandatory_count:
        raise FilterError(f"expected {mandatory_count} replacements, made {made}")
    return done


def _replaced_length(compiled: re.Pattern[str], text: str, replacement: str, count: int) -> int:
    references = replacement.count("\\")
    length = len(text)
    for index, match in enumerate(compiled.finditer(text)):
        if count and index >= count:
            break
        length += len(replacement) + references * len(match.group())
        if length > TEXT_MAX:
            break
    return length


def regex_search(
    value: Any, pattern: Any, *groups: Any, ignorecase: bool = False, multiline: bool = False
) -> Any:
    """The first match, or those of its groups that are named; nothing when there is none."""
    compiled, text = _compile_regex(pattern, value, ignorecase, multiline)
    found = compiled.search(text)
    if found is None:
        return None
    if not groups:
        return found.group()
    return [_match_group(found, each) for each in groups]


def _match_group(found: re.Match[str], reference: Any) -> str | None:
    name = re.fullmatch(r"\\(?:g<(\S+)>|(\d+))", reference if isinstance(reference, str) else "")
    if name is None:
        raise FilterError("a group is named \\1 or \\g<name>")
    try:
        return found.group(name[1] or int(name[2]))
    except IndexError:
        raise FilterError(f"the regular expression has no group {name[1] or name[2]}") from None


def regex_findall(value: Any, pattern: Any, multiline: bool = False, ignorecase: bool = False) -> list[Any]:
    compiled, text = _compile_regex(pattern, value, ignorecase, multiline)
    return [list(each) if isinstance(each, tuple) else each for each in compiled.findall(text)]


def regex_escape(value: Any, re_type: str = "python") -> str:
    if re_type == "python":
        return re.escape(str(value))
    if re_type == "posix_basic":
        return _POSIX_BASIC.sub(r"\\\1", str(value))
    raise FilterError('re_type is "python" or "posix_basic"')


def regex(
    value: Any,
    pattern: Any = "",
    ignorecase: bool = False,
    multiline: bool = False,
    match_type: str = "search",
) -> bool:
    """Test whether the expression is found, as `match_type` says: search, match, fullmatch."""
    if match_type not in ("search", "match", "fullmatch"):
        raise FilterError("match_type is search, match or fullmatch")
    compiled, text = _compile_regex(pattern, value, ignorecase, multiline)
    return getattr(compiled, match_type)(text) is not None


def match(value: Any, pattern: Any = "", ignorecase: bool = False, multiline: bool = False) -> bool:
    return regex(value, pattern, ignorecase, multiline, "match")


def search(value: Any, pattern: Any = "", ignorecase: bool = False, multiline: bool = False) -> bool:
    return regex(value, pattern, ignorecase, multiline, "search")


FILTERS: Final[Mapping[str, TemplateFilter]] = {
    "regex_replace": taint(regex_replace),
    "regex_search": taint(regex_search),
    "regex_findall": taint(regex_findall),
    "regex_escape": taint(regex_escape),
}
TESTS: Final[Mapping[str, TemplateFilter]] = {
    "match": taint(match),
    "search": taint(search),
    "regex": taint(regex),
}
