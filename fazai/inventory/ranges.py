"""Host patterns of an inventory: `fw-[01:50:2]`, `[a:f]`, `host:port`, and the rules for names."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from string import ascii_letters

#: Limit for one pattern: more hosts are a slip of the keyboard.
HOSTS_MAX = 100_000
#: Limit for all patterns together: more is more than a machine can hold.
HOSTS_IN_ALL_MAX = 1_000_000

_HOST = re.compile(r"\w[\w.@+-]*")
_GROUP = re.compile(r"\w[\w.-]*")
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_NUMERIC = re.compile(r"([0-9]*):([0-9]+)(?::([0-9]+))?", re.ASCII)
_LETTERS = re.compile(r"([A-Za-z]):([A-Za-z])(?::([0-9]+))?", re.ASCII)
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\[\]]*\])+):([0-9]+)", re.ASCII)
#: Two colons: no range of two.
_BRACKETED = re.compile(r"\[([^\[\]]*:[^\[\]]*:[^\[\]]*)\](?::([0-9]+))?", re.ASCII)
_NAME_MAX = 253


class BadName(ValueError):
    """A text that cannot name a host or a group; the message goes on after `"x" is`."""


def expand_hosts(pattern: str) -> tuple[list[str], int | None]:
    """Expand a host pattern to names, in order, and the port behind it.

    Raises ValueError with a sentence for a person.
    """
    port: int | None = None
    address = pattern
    if "[" in pattern or ":" in pattern:
        address, port = _split_port(pattern)
    if "[" not in address and "]" not in address:
        check_host_name(address)
        return [address], port
    names = _expand_ranges(address)
    for name in (names[0], names[-1]):
        check_host_name(name)
    return names, port


def _split_port(pattern: str) -> tuple[str, int | None]:
    bracketed = _BRACKETED.fullmatch(pattern)
    if bracketed and is_ipv6(bracketed[1]):
        address, port = bracketed[1], bracketed[2]
    elif with_port := _WITH_PORT.fullmatch(pattern):
        address, port = with_port[1], with_port[2]
    else:
        return pattern, None
    if port is not None and not 0 < int(port[:9]) < 65536:
        raise ValueError(f"{port} is no port; ports go from 1 to 65535")
    return address, int(port) if port else None


def _expand_ranges(address: str) -> list[str]:
    pieces = _RANGE.split(address)  # text, range, text, range, … text
    if any("[" in text or "]" in text for text in pieces[::2]):
        raise ValueError("a [ or ] without its partner")
    choices = [_expand_range(text) for text in pieces[1::2]]
    count = 1
    for words in choices:
        count *= len(words)
        if count > HOSTS_MAX:
            raise ValueError(f"stands for more than {HOSTS_MAX} hosts")
    names = [pieces[0]]
    for words, tail in zip(choices, pieces[2::2], strict=True):
        names = [name + word + tail for name in names for word in words]
    return names


def _expand_range(text: str) -> list[str]:
    """The words of one range: numbers (padded as the begin is) or letters, a to z and then A to Z."""
    if letters := _LETTERS.fullmatch(text):
        begin, end = ascii_letters.index(letters[1]), ascii_letters.index(letters[2])
        step = int(letters[3] or 1)
        if begin > end or step == 0:
            raise ValueError(f"the range [{text}] holds nothing")
        return list(ascii_letters[begin : end + 1 : step])
    numeric = _NUMERIC.fullmatch(text)
    if numeric is None:
        raise ValueError(f"[{text}] is no range; write [01:50], [01:50:2] or [a:f]")
    first = numeric[1] or "0"
    width = len(first) if first.startswith("0") else 0
    if width > 1 and width != len(numeric[2]):
        lengths = "have different lengths, and the begin is padded"
        raise ValueError(f"begin and end of the range [{text}] {lengths}")
    if max(len(first), len(numeric[2]), len(numeric[3] or "")) > 18:
        raise ValueError(f"stands for more than {HOSTS_MAX} hosts")
    begin, end, step = int(first), int(numeric[2]), int(numeric[3] or 1)
    if begin > end or step == 0:
        raise ValueError(f"the range [{text}] holds nothing")
    if (end - begin) // step >= HOSTS_MAX:
        raise ValueError(f"stands for more than {HOSTS_MAX} hosts")
    return [str(number).zfill(width) if width > 1 else str(number) for number in range(begin, end + 1, step)]


def check_host_name(name: str) -> None:
    """Check that `name` can name a host: no blanks, no pattern characters, no path. Raises BadName."""
    if not _HOST.fullmatch(name) and not is_ipv6(name):
        raise BadName("no name for a host: letters, digits, and . _ - + @ inside, or an IPv6 address")
    if len(name) > _NAME_MAX:
        raise BadName(f"no name for a host: longer than {_NAME_MAX} characters")


def check_group_name(name: str) -> None:
    """Check that `name` can name a group. Raises BadName."""
    if not _GROUP.fullmatch(name) or len(name) > _NAME_MAX:
        raise BadName("no name for a group: letters, digits, and . _ - inside")


def is_ipv6(text: str) -> bool:
    """Tell whether a text is an IPv6 address."""
    try:
        IPv6Address(text)
    except (AddressValueError, ValueError):
        return False
    return True
