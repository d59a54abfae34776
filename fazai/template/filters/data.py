"""Filters on values of any shape: defaults, conversion, serialisation, mappings.

Semantics: ansible-core 2.19, `ansible.builtin`; where Ansible falls back in silence (`bool` of an unknown
word), this is an error instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import Undefined
from jinja2.filters import FILTERS as JINJA

from fazai.errors import FazaiError
from fazai.model import Secret
from fazai.template.filters.base import (
    FilterError,
    SecretMap,
    TemplateFilter,
    carry,
    check_count,
    plain_entries,
    refuse,
    taint,
)

_TRUE: Final = frozenset({"yes", "on", "1", "true", "y", "t"})
_FALSE: Final = frozenset({"no", "off", "0", "false", "n", "f", ""})


def default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    """`value`, or `other` where it is not defined; with `boolean`, also where it is empty or false."""
    if isinstance(value, Undefined):
        value.absent()  # raises where it is there, but in error
        return other
    if boolean and not (value.reveal() if isinstance(value, Secret) else value):
        return other
    return value


def mandatory(value: Any, msg: str | None = None) -> Any:
    """`value`; an error with `msg` where it is not defined."""
    if isinstance(value, Undefined):
        value.absent()
        if msg:
            raise FilterError(str(msg))
        value.fail()
    return value


def boolean(value: Any) -> bool:
    """The truth value that a word stands for; nothing is false."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise FilterError("this is neither true nor false", "true, yes, on, 1 or false, no, off, 0")


def to_json(value: Any, **options: Any) -> str:
    """JSON in one line. Options: indent, sort_keys, ensure_ascii, separators."""
    known = _check_dump_options("to_json", options, {"indent", "sort_keys", "ensure_ascii", "separators"})
    if isinstance(known.get("indent"), int):
        check_indent(known["indent"])
    return json.dumps(value, default=_encode_other, **known)


def to_nice_json(value: Any, indent: int = 4, sort_keys: bool = True, **options: Any) -> str:
    return to_json(value, indent=indent, sort_keys=sort_keys, separators=(",", ": "), **options)


def _encode_other(value: Any) -> Any:
    if isinstance(value, range | type({}.keys()) | type({}.values())):
        return list(value)
    raise FilterError(f"{type(value).__name__} cannot be written as JSON")


def from_json(text: Any) -> Any:
    if not isinstance(text, str):
        raise FilterError(f"from_json takes text, not {type(text).__name__}")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise FilterError(
            f"this is not JSON: {error.msg}, line {error.lineno} column {error.colno}"
        ) from None


def to_yaml(value: Any, indent: int = 2, sort_keys: bool = True, width: int = 80, **options: Any) -> str:
    return _dump_yaml(value, None, indent, sort_keys=sort_keys, width=width, **options)


def to_nice_yaml(value: Any, indent: int = 4, sort_keys: bool = True, width: int = 80, **options: Any) -> str:
    return _dump_yaml(value, False, indent, sort_keys=sort_keys, width=width, **options)


def _dump_yaml(value: Any, style: bool | None, indent: int, **options: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    known = _check_dump_options(
        "to_yaml", options, {"sort_keys", "width", "explicit_start", "explicit_end", "default_style"}
    )
    check_indent(indent)
    check_count(known.get("width", 0))
    try:
        text: str = yaml.dump(
            _plain_containers(value),
            Dumper=Dumper,
            allow_unicode=True,
            default_flow_style=style,
            indent=indent,
            **known,
        )
    except yaml.YAMLError:
        raise FilterError(f"{type(value).__name__} cannot be written as YAML") from None
    return text


def _plain_containers(value: Any) -> Any:
    """The value in YAML's own types: dict and list, not what derives from them."""
    if isinstance(value, dict):
        return {key: _plain_containers(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range | type({}.keys()) | type({}.values())):
        return [_plain_containers(item) for item in value]
    return str(value) if isinstance(value, str) else value


def from_yaml(text: Any) -> Any:
    """One document; what the YAML of fazai's own files refuses is refused here too."""
    from fazai.yamltext import loads_yaml

    if not isinstance(text, str):
        raise FilterError(f"from_yaml takes text, not {type(text).__name__}")
    try:
        return _plain_containers(loads_yaml(text, "from_yaml"))
    except FazaiError as error:
        try:  # a single value is a document, too
            lines = text.strip("\n").split("\n")
            items = loads_yaml("- " + "\n  ".join(lines) + "\n", "from_yaml")
        except FazaiError:
            raise FilterError(f"this is not YAML: {error}") from None
        return _plain_containers(items[0]) if isinstance(items, list) else None


def check_indent(indent: Any) -> None:
    check_count(indent)
    if not 0 <= indent <= 16:
        raise FilterError("an indent is 0 to 16")


def _check_dump_options(name: str, given: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    unknown = sorted(given.keys() - known)
    if unknown:
        raise FilterError(f"{name} has no option {unknown[0]}", f"it has {', '.join(sorted(known))}")
    return dict(given)


def combine(*terms: Any, recursive: bool = False, list_merge: str = "replace") -> dict[str, Any]:
    """Mappings merged, the later ones on top; with `recursive` the mappings inside of them too."""
    merges = ("replace", "keep", "append", "prepend", "append_rp", "prepend_rp")
    if list_merge not in merges:
        raise FilterError(f'list_merge cannot be "{list_merge}"', f"it is one of {', '.join(merges)}")
    mappings: list[Any] = []
    for term in terms:
        mappings.extend(term if isinstance(term, list | tuple) else [term])
    result: dict[str, Any] = {}
    for mapping in mappings:
        if not isinstance(mapping, Mapping):
            raise FilterError(f"combine takes mappings, not {type(mapping).__name__}")
        result = _merge_mappings(result, mapping, recursive, list_merge)
    return result


def _merge_mappings(
    below: Mapping[str, Any], above: Mapping[str, Any], recursive: bool, lists: str
) -> dict[str, Any]:
    merged = dict(plain_entries(below))
    for key, new in plain_entries(above):
        old = merged.get(key)
        if recursive and isinstance(old, Mapping) and isinstance(new, Mapping):
            merged[key] = _merge_mappings(old, new, recursive, lists)
        elif isinstance(old, list) and isinstance(new, list):
            merged[key] = _merge_lists(old, new, lists)
        else:
            merged[key] = new
    secret = isinstance(below, SecretMap) or isinstance(above, SecretMap)
    return SecretMap.of(merged) if secret else merged


def _merge_lists(old: list[Any], new: list[Any], how: str) -> list[Any]:
    if how == "append":
        return old + new
    if how == "prepend":
        return new + old
    if how == "append_rp":
        return [item for item in old if item not in new] + new
    if how == "prepend_rp":
        return new + [item for item in old if item not in new]
    return old if how == "keep" else new


def dict2items(value: Any, key_name: str = "key", value_name: str = "value") -> list[dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise FilterError(f"dict2items takes a mapping, not {type(value).__name__}")
    return [{key_name: key, value_name: item} for key, item in value.items()]


def items2dict(value: Any, key_name: str = "key", value_name: str = "value") -> dict[str, Any]:
    if not isinstance(value, list | tuple):
        raise FilterError(f"items2dict takes a list, not {type(value).__name__}")
    for item in value:
        if not isinstance(item, Mapping) or key_name not in item or value_name not in item:
            raise FilterError(f"items2dict takes mappings with {key_name} and {value_name}")
    return {item[key_name]: item[value_name] for item in value}


def ternary(value: Any, yes: Any, no: Any, none: Any = None) -> Any:
    if value is None and none is not None:
        return none
    return yes if (value.reveal() if isinstance(value, Secret) else value) else no


def type_debug(value: Any) -> str:
    for kind in (dict, list, str, bool, int, float):
        if isinstance(value, kind):
            return kind.__name__
    return type(value).__name__


def extract(environment: Any, item: Any, container: Any, morekeys: Any = None) -> Any:
    """`container[item]`, and deeper with `morekeys`."""
    keys = [] if morekeys is None else morekeys if isinstance(morekeys, list) else [morekeys]
    for key in (item, *keys):
        container = environment.getitem(container, key)
    return container


def from_jinja(name: str, how: Callable[..., TemplateFilter] = carry) -> TemplateFilter:
    """One of Jinja2's own filters, with what it wants before its value."""
    call = JINJA[name]
    passed = getattr(call, "jinja_pass_arg", None)
    takes = {"context": "context", "environment": "environment"}.get(passed.name if passed else "", "")
    if passed is not None and passed.name == "eval_context":
        return how(lambda context, *args, **named: call(context.eval_ctx, *args, **named), "context")
    return how(call, takes)


FILTERS: Final[Mapping[str, TemplateFilter]] = {
    "default": carry(default, undefined=True),
    "d": carry(default, undefined=True),
    "mandatory": carry(mandatory, undefined=True),
    "bool": taint(boolean),
    "int": taint(JINJA["int"]),
    "float": taint(JINJA["float"]),
    "abs": refuse(abs),
    "to_json": taint(to_json),
    "tojson": taint(to_json),
    "to_nice_json": taint(to_nice_json),
    "from_json": taint(from_json),
    "to_yaml": taint(to_yaml),
    "to_nice_yaml": taint(to_nice_yaml),
    "from_yaml": taint(from_yaml),
    "combine": carry(combine),
    "dict2items": carry(dict2items),
    "items2dict": carry(items2dict),
    "items": from_jinja("items"),
    "dictsort": from_jinja("dictsort"),
    "ternary": carry(ternary),
    "type_debug": carry(type_debug),
    "extract": carry(extract, "environment"),
}
