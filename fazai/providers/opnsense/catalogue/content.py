"""Checks an alias's content by its type, as far as it is certain; the firewall has the last word. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from fazai.model import Problem, Value

_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9_]*|__[A-Za-z0-9_]+|_")
_ALIAS_NAME = re.compile(r"(?:[a-zA-Z]|_[a-zA-Z0-9_])[a-zA-Z0-9_]{0,30}|_")
_HOST = re.compile(
    r"(?:[a-zA-Z0-9_*](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?\.)*[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?\.?"
)
_PORT = re.compile(r"[0-9]{1,5}")
_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*|[A-Za-z_]")


def alias_problems(fields: Mapping[str, Value]) -> list[Problem]:
    """Return the problems of an alias's name and entries."""
    problems = []
    name = fields.get("name")
    if isinstance(name, str) and name and not _ALIAS_NAME.fullmatch(name):
        hint = "at most 31 letters, digits and underscores, not starting with a digit"
        problems.append(Problem("name", f'"{name}" is not a name for an alias', hint))
    check = _CHECKS.get(str(fields.get("type", "")))
    content = fields.get("content")
    if check is None or not isinstance(content, tuple):
        return problems
    for entry in content:
        if isinstance(entry, str):
            problem = check(entry)
            if problem is not None:
                problems.append(Problem("content", f'"{entry}" {problem[0]}', problem[1]))
    return problems


_Wrong = tuple[str, str | None] | None


def _check_host(entry: str) -> _Wrong:
    text = entry.removeprefix("!")
    if "/" in text:
        return "is a network, not a host", "use type: network"
    if _is_ip(text) or _is_ip_range(text):
        return None
    if re.fullmatch(r"[0-9.]+", text) or not _HOST.fullmatch(text):
        return "is not an address, a range, a host name or an alias", None
    return None


def _check_network(entry: str) -> _Wrong:
    text = entry.removeprefix("!")
    if _is_ip(text) or _is_ip_range(text) or _NAME.fullmatch(text):
        return None
    address, slash, bits = text.partition("/")
    if slash and _is_ip(address) and re.fullmatch(r"[0-9]{1,3}", bits):
        longest = ipaddress.ip_address(address).max_prefixlen
        return None if int(bits) <= longest else ("is not a network", f"a prefix is at most {longest} bits")
    if slash and _is_ip(address) and _is_ip(bits):
        return None  # a wildcard mask
    return "is not a network", "write address/bits"


def _check_port(entry: str) -> _Wrong:
    if "-" in entry and re.fullmatch(r"[0-9]+-[0-9]+", entry):
        return "is not a port range in an alias", f'write "{entry.replace("-", ":")}"'
    parts = entry.split(":")
    if all(_PORT.fullmatch(part) for part in parts) and len(parts) <= 2:
        if all(1 <= int(part) <= 65535 for part in parts):
            return ("is a range that ends before it begins", None) if int(parts[0]) > int(parts[-1]) else None
        return "is not a port", "ports are 1 to 65535"
    if len(parts) <= 2 and all(_SERVICE.fullmatch(part) or _is_one_port(part) for part in parts):
        return None  # which services there are is the firewall's to say
    return "is not a port, a service, a range from:to or an alias", None


def _is_one_port(text: str) -> bool:
    return bool(_PORT.fullmatch(text)) and 1 <= int(text) <= 65535


def _match_entry(pattern: str, message: str, hint: str | None = None) -> Callable[[str], _Wrong]:
    """Return a check that an entry matches a pattern as a whole."""
    return lambda entry: None if re.fullmatch(pattern, entry) else (message, hint)


_CHECKS: Mapping[str, Callable[[str], _Wrong]] = {
    "host": _check_host,
    "network": _check_network,
    "port": _check_port,
    "mac": _match_entry(
        rf"(?:[0-9A-Fa-f]{{2}}:){{1,5}}[0-9A-Fa-f]{{2}}|{_NAME.pattern}",
        "is not a MAC address or the beginning of one",
    ),
    "geoip": _match_entry(r"[A-Z]{2}", "is not a country code", "two capital letters, such as NL"),
    "asn": _match_entry(r"[0-9]{1,10}", "is not an AS number", "digits only"),
    "authgroup": _match_entry(r"[0-9]+", "is not the id of a group", "write its number (GID), such as 1999"),
}


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_ip_range(text: str) -> bool:
    first, dash, last = text.partition("-")
    return bool(dash) and _is_ip(first) and _is_ip(last)
