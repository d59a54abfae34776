"""What the new value of a field may be: one of some values, a number, a text, an address, or a list of such.

A value that is not of the form that a bound is about does not meet it: no type is made of another, nothing is
trimmed, folded or looked up. Reasons hold no text of a change, which may be a secret that nobody declared as
one; addresses and numbers they do hold.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fazai.masking import MASK
from fazai.policy.arguments import ArgumentRule, explain_value, quote_value
from fazai.rules.addresses import Address, parse_address, parse_network
from fazai.rules.values import Network

#: Characters of a text that a bound is tried on.
VALUE_LENGTH = 4096
#: A single value and its type, so that neither 1 and true nor 1 and "1" are the same.
ScalarKey = tuple[str, str | int | float | bool]

#: Only what every reader takes for the same number: no sign before 0, no further zeros, no exponent, no `_`,
#: no digits of other alphabets. Plans of firewalls have numbers as text.
_NUMBER = re.compile(r"(?:0|-?[1-9][0-9]{0,14})(?:\.[0-9]{1,6})?")
#: `ipaddress` also takes masks (`/255.0.0.0`), inverted ones, zeros before a prefix and any text as a zone.
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32}|/(?:0|[1-9][0-9]{0,2}))?")
_SHOWN = 8
_SHOWN_NUMBER = 10**18


@dataclass(frozen=True, slots=True)
class ValuesBound:
    """It is one of these values, and of its type."""

    values: frozenset[ScalarKey]

    def explain(self, value: Any) -> str | None:
        """Return why a value does not meet the bound; None where it does."""
        return None if make_key(value) in self.values else f"is not {self.describe()}"

    def describe(self) -> str:
        """Return what is allowed, in words."""
        return _join([_show_key(key) for key in sorted(self.values, key=str)])


@dataclass(frozen=True, slots=True)
class NumberBound:
    """It is a number between two, which count as well; None where there is no end."""

    least: int | float | None
    most: int | float | None

    def explain(self, value: Any) -> str | None:
        """Return why a value does not meet the bound; None where it does."""
        number = _read_number(value)
        if number is None:
            return "is no number"
        below = self.least is not None and number < self.least
        above = self.most is not None and number > self.most
        if not below and not above:
            return None
        shown = str(number) if abs(number) < _SHOWN_NUMBER else "too many digits"  # str() has a limit
        return f"is {shown}, not {self.describe()}"

    def describe(self) -> str:
        """Return what is allowed, in words."""
        ends = [f"at least {self.least}"] if self.least is not None else []
        ends += [f"at most {self.most}"] if self.most is not None else []
        return " and ".join(ends)


@dataclass(frozen=True, slots=True)
class PatternBound:
    """It is a text, all of which the pattern fits, as one place of an argument list."""

    place: ArgumentRule

    def explain(self, value: Any) -> str | None:
        """Return why a value does not meet the bound; None where it does."""
        if not isinstance(value, str):
            return "is no text"
        if len(value) > VALUE_LENGTH:
            return f"has more than {VALUE_LENGTH} characters"
        if not value.isprintable():  # U+2028 or a mark that turns the line round is no control character
            return "holds a character that is not printed"
        why = explain_value(value, self.place)
        return None if why is None else f"does not fit: {why}"

    def describe(self) -> str:
        """Return what is allowed, in words."""
        return f"a text that matches {self.place.pattern}"


@dataclass(frozen=True, slots=True)
class NetworkBound:
    """It is an address or a network in one of these networks. `least_prefix`: how long the prefix has to be
    at least, by the version of IP; an address has the longest."""

    networks: tuple[Network, ...]  # in order, none within another: `sort_networks`
    least_prefix: tuple[tuple[int, int], ...] = ()

    def explain(self, value: Any) -> str | None:
        """Return why a value does not meet the bound; None where it does."""
        found = read_network(value)
        if found is None:
            return "is no address or network"
        place = bisect_right(self.networks, _first(found), key=_first)
        if not place or not _contains(self.networks[place - 1], found):
            return f"is {found}, not {self._describe_networks()}"
        least = dict(self.least_prefix).get(found.version, 0)
        is_wide = isinstance(found, Network) and found.prefixlen < least
        return f"is {found}, wider than /{least}" if is_wide else None

    def _describe_networks(self) -> str:
        return f"within {_join([str(network) for network in self.networks])}"

    def describe(self) -> str:
        """Return what is allowed, in words."""
        least = " or ".join(f"/{prefix}" for _, prefix in self.least_prefix)
        return self._describe_networks() + (f" and no wider than {least}" if least else "")


SingleBound = ValuesBound | NumberBound | PatternBound | NetworkBound


@dataclass(frozen=True, slots=True)
class ListBound:
    """It is a list of single values, each of which meets `each`. At most `most_added` of them were not in it
    before, and at most `most_removed` were that are not now."""

    each: SingleBound | None
    most_added: int | None = None
    most_removed: int | None = None

    def describe(self) -> str:
        """Return what is allowed, in words."""
        parts = [f"each {self.each.describe()}"] if self.each is not None else []
        parts += [f"at most {self.most_added} added"] if self.most_added is not None else []
        parts += [f"at most {self.most_removed} removed"] if self.most_removed is not None else []
        return ", ".join(parts)


Bound = SingleBound | ListBound


def describe_field(name: str, bound: Bound) -> str:
    """Return what a field may become, in words."""
    return f"{name}: {bound.describe()}"


def explain_bound(bound: Bound, before: Any, after: Any) -> str | None:
    """Return why a field that was `before` may not become `after`; None where it may. `before` None: the
    change does not say what it was."""
    if any(_is_secret(each) for each in (before if isinstance(before, list | tuple) else (before,))):
        return "it was a secret"
    if isinstance(bound, ListBound):
        return _explain_list(bound, before, after)
    return _explain_single(bound, after, "it")


def _explain_single(bound: SingleBound | None, value: Any, name: str) -> str | None:
    if make_key(value) is None:
        return f"{name} is no single value"
    if _is_secret(value):
        return f"{name} is a secret"
    why = bound.explain(value) if bound is not None else None
    return None if why is None else f"{name} {why}"


def _is_secret(value: Any) -> bool:
    return isinstance(value, str) and MASK in value


def _explain_list(bound: ListBound, before: Any, after: Any) -> str | None:
    if not isinstance(after, list | tuple):
        return "it is no list"
    for number, entry in enumerate(after, 1):
        if (why := _explain_single(bound.each, entry, f"entry {number}")) is not None:
            return why
    if bound.most_added is None and bound.most_removed is None:
        return None
    if not isinstance(before, list | tuple | None) or any(make_key(entry) is None for entry in before or ()):
        return "it was no list of single values"
    if before is None and bound.most_removed is not None:
        return "it does not say what it was"
    old, new = Counter(map(make_key, before or ())), Counter(map(make_key, after))
    added, removed = (new - old).total(), (old - new).total()
    if bound.most_added is not None and added > bound.most_added:
        return f"it gets {added} more, and at most {bound.most_added} may be added"
    if bound.most_removed is not None and removed > bound.most_removed:
        return f"it loses {removed}, and at most {bound.most_removed} may be removed"
    return None


def make_key(value: Any) -> ScalarKey | None:
    """Return a single value with its type; None of what is none, such as a list or nothing at all."""
    if isinstance(value, bool):
        return ("truth value", value)
    if isinstance(value, str):
        return ("text", str(value))
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return ("number", value)
    return None


def _show_key(key: ScalarKey) -> str:
    sort, value = key
    if sort == "text":
        return quote_value(str(value))
    return str(value).lower() if sort == "truth value" else str(value)


def _read_number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            return None
        return float(value) if "." in value else int(value)
    return value if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def read_network(value: Any) -> Address | Network | None:
    """Return the address or network that a value means, an IPv4 one where it is written as a mapped IPv6 one,
    and without its zone. None where it is none, or has bits beside its prefix: some take `198.51.100.1/0` for
    the one, some for all of them."""
    if not isinstance(value, str) or _ADDRESS.fullmatch(value) is None:
        return None
    try:
        return parse_network(value) if "/" in value else parse_address(value, zones=True)
    except ValueError:
        return None


def sort_networks(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the networks in order, without those that are within another of them."""
    found: list[Network] = []
    for network in sorted(networks, key=lambda each: (*_first(each), each.prefixlen)):
        if not found or not _contains(found[-1], network):
            found.append(network)
    return tuple(found)


def _first(found: Address | Network) -> tuple[int, int]:
    address = found.network_address if isinstance(found, Network) else found
    return found.version, int(address)


def _contains(outer: Network, inner: Address | Network) -> bool:
    if not isinstance(inner, Network):
        return inner in outer
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def _join(texts: list[str]) -> str:
    more = [f"one of {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return " or ".join(texts[:_SHOWN] + more)
