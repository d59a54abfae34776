"""Ansible's host patterns (`--limit`, `hosts:`): select hosts of an inventory, in Ansible's order.

Follows Ansible's `inventory/manager.py`. The difference: what matches nothing is an error, also in the middle
of a pattern, where Ansible warns and goes on with the wrong hosts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import translate

from fazai.errors import FazaiError, InventoryError, count_noun, did_you_mean, missing_file, raise_found
from fazai.inventory import Inventory
from fazai.inventory.ranges import is_ipv6
from fazai.yamltext import OnFileRead

_PIECE = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]+)|([0-9]+)[:-]([0-9]*))\]", re.ASCII | re.DOTALL)
_COLONS = "an IPv6 address has colons of its own: separate the parts with commas"
_HOST_PORT = re.compile(r"([\w.-]+|\[[^\[\]]+\]):[0-9]+")


def select_hosts(
    inventory: Inventory,
    pattern: str | Iterable[str],
    *,
    empty_ok: bool = False,
    on_read: OnFileRead | None = None,
) -> tuple[str, ...]:
    """Return the hosts that the pattern (or any of several) selects, each once, in Ansible's order.

    `on_read` is called with the files that the pattern names. Raises InventoryError (Errors for several) for
    a part that names no group and no host, and, unless `empty_ok`, when no host is left.
    """
    texts = [pattern] if isinstance(pattern, str) else list(pattern)
    parts = [part for text in texts for part in split_pattern(text, on_read)]
    if not parts or not all(text.strip() for text in texts):
        raise InventoryError("the host pattern is empty", hint='"all" selects every host')
    wanted = [part for part in parts if part[0] not in "&!"]
    steps = (wanted or ["all"]) + [p for p in parts if p[0] == "&"] + [p for p in parts if p[0] == "!"]
    hosts: dict[str, None] = {}
    errors: list[FazaiError] = []
    for step in steps:
        try:
            hosts = _apply_part(inventory, hosts, step)
        except InventoryError as error:
            errors.append(error)
    if errors:
        if any("::" in text and "," not in text for text in texts):
            raise InventoryError(errors[0].message, hint=_COLONS)
        raise_found(errors)
    if not hosts and not empty_ok:
        text = f'the host pattern "{",".join(texts)}" leaves no host'
        raise InventoryError(text, hint=_empty_hint(inventory, steps))
    return tuple(hosts)


def split_pattern(text: str, on_read: OnFileRead | None = None) -> list[str]:
    """Split a pattern into its parts: `a,b`, `a:b` and `a:&b:!c`; a lone IPv6 address is one part. `@file`
    stands for the lines of the file. Raises InventoryError when the file cannot be read, and for a part
    with nothing in it: with `edge:&$SITE` and no SITE the whole group would be meant."""
    if not text.strip():
        return []
    found: list[str] = []
    for part in _split_parts(text):
        found += _read_pattern_file(part[1:], on_read) if part.startswith("@") else [part]
    filled = [bool(part.lstrip("&!").removeprefix("~")) for part in found]
    if not any(filled):
        return []
    if not all(filled):
        hint = _COLONS if "::" in text else 'an empty variable of the shell? "all" selects every host'
        raise InventoryError(f'the host pattern "{text}" has an empty part', hint=hint)
    return found


def rename_lists(text: str, named: Callable[[str], str]) -> str:
    """Return the same pattern with its lists (`@file`) renamed. It has commas then: a path may have
    colons."""
    parts = _split_parts(text)
    if not any(part.startswith("@") for part in parts):
        return text
    return ",".join(f"@{named(part[1:])}" if part.startswith("@") else part for part in parts)


def _split_parts(text: str) -> list[str]:
    """The parts as they are written; an empty one for each that is missing."""
    if "," in text:
        return [part.strip() for part in text.split(",")]
    if _is_one_part(text.strip()) or text.lstrip().startswith("@"):
        return [text.strip()]
    parts = _PIECE.findall(text)
    around = _PIECE.split(text)
    if ":" in around[0] + around[-1] or any(blanks.count(":") > 1 for blanks in around[1:-1]):
        parts.append("")
    return parts


def _is_one_part(text: str) -> bool:
    """Tell whether a colon separates nothing: an IPv6 address, or a host with its port (which matches no
    name)."""
    bare = text.lstrip("!&")
    return is_ipv6(bare) or _HOST_PORT.fullmatch(bare) is not None


def _read_pattern_file(path: str, on_read: OnFileRead | None) -> list[str]:
    from fazai.yamltext import read_limited  # reads within limits

    try:
        data = read_limited(path)
        if on_read is not None:
            on_read(path, data)
        text = data.decode()
    except UnicodeDecodeError:
        text = f'the limit file "{path}" is not UTF-8 text'
        raise InventoryError(text, hint="one pattern a line") from None
    except FazaiError as error:
        hint = "@file takes the path of a file with one pattern a line"
        if not os.path.exists(path):
            raise missing_file(InventoryError, "limit file", path, hint) from None
        reason = error.message.partition(": ")[2] or error.message
        raise InventoryError(f'the limit file "{path}" cannot be read: {reason}', hint=hint) from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _apply_part(inventory: Inventory, hosts: dict[str, None], step: str) -> dict[str, None]:
    if step in inventory.hosts:
        return hosts | {step: None}
    found = _match_hosts(inventory, step.lstrip("&!") if step[0] in "&!" else step)
    if step[0] == "&":
        return {host: None for host in hosts if host in found}
    if step[0] == "!":
        return {host: None for host in hosts if host not in found}
    return hosts | found


def _match_hosts(inventory: Inventory, pattern: str) -> dict[str, None]:
    """The hosts of one part. Raises InventoryError when no group and no host has such a name."""
    expression, subscript = _split_subscript(pattern)
    matches = _compile_host_pattern(expression)
    groups = [name for name in inventory.groups if matches(name)]
    hosts = [host for name in groups for host in inventory.members(name)]
    if not groups or expression[0] == "~" or any(special in expression for special in ".?*["):
        hosts += [name for name in inventory.hosts if matches(name)]
    if not groups and not hosts:
        raise _no_match_error(inventory, pattern, expression)
    if subscript is None or not hosts:
        return dict.fromkeys(hosts)
    start, end = subscript
    chosen = hosts[start:end] if end is not None else hosts[start : start + 1 or None]
    if not chosen:
        text = f'"{pattern}" takes no host: "{expression}" has {count_noun(len(hosts), "host")}'
        raise InventoryError(text, hint=f"numbers go from 0 to {len(hosts) - 1}, or from -1 backwards")
    return dict.fromkeys(chosen)


def _split_subscript(pattern: str) -> tuple[str, tuple[int, int | None] | None]:
    """`web[1:3]` to `web` and the slice; both ends are meant, and an open end goes to the last."""
    found = None if pattern.startswith("~") else _SUBSCRIPT.fullmatch(pattern)
    if found is None:
        return pattern, None
    expression, index, start, end = found.groups()
    if len(pattern) - len(expression) > 24:
        raise InventoryError(f'the numbers in "{pattern}" are too large')
    if index is not None:
        return expression, (int(index), None)
    # an end of 0 takes the start alone, as in Ansible
    if end == "":
        return expression, (int(start), 1 << 62)
    return expression, (int(start), int(end) + 1 if int(end) else int(start) + 1)


def _compile_host_pattern(expression: str) -> Callable[[str], object]:
    source = expression[1:] if expression.startswith("~") else translate(expression)
    try:
        return re.compile(source).match
    except (re.error, RecursionError, OverflowError) as error:
        raise InventoryError(f'"{expression}" is no regular expression: {error}') from None


def _no_match_error(inventory: Inventory, pattern: str, expression: str) -> InventoryError:
    names = [*inventory.groups, *inventory.hosts]
    meant: str | None = None
    port = _HOST_PORT.fullmatch(expression)
    if port and port[1].strip("[]") in inventory.hosts:
        hint = f'leave the port away: "{port[1].strip("[]")}"'
    elif pattern != expression and any(map(re.compile(translate(pattern)).match, inventory.hosts)):
        hint = f'a number in brackets at the end counts hosts; write "{expression}*" or ~regex'
    else:
        word = expression.strip("~*?^$")
        near = [name for name in names if abs(len(name) - len(word)) <= 3]
        hint = "`fazai inventory --graph` shows what there is"
        meant = did_you_mean(word, near)
    return InventoryError(f'the pattern "{pattern}" matches no group and no host', hint=hint, meant=meant)


def _empty_hint(inventory: Inventory, steps: list[str]) -> str:
    if not inventory.hosts:
        return "the inventory has no hosts"
    if any(step[0] in "&!" for step in steps):
        return "what & and ! leave over is nothing"
    return "the group has no hosts"
