"""Things that no rule ever allows: fazai's own files and programs, secrets, and whoever may log in
somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fazai.loop.effects import EffectChange
from fazai.policy.names import fold, tidy_path
from fazai.policy.values import PROGRAM

#: Kinds that say what others may do: agents' policies, accounts and keys.
PROTECTED_KINDS: Mapping[str, str] = {
    "host.agent": "it holds the policy of an agent",
    "host.telemetry_agent": "it holds a host's key",
    "host.authorized_key": "it lets somebody log in",
    "opnsense.user": "it lets somebody log in",
    "opnsense.group": "it says what users may do",
}
#: A kind that runs what it is given: a rule names the program instead.
FREE_KIND = "host.command"

_OWN_FOLDERS = ("/etc/fazai", "/var/lib/fazai", "/run/fazai")
_MASK = "***"
_OWN = "fazai"
_PATH = re.compile(r"/[^\s\"'`;|&<>()=,:]*")


def protected_paths(*more: Path) -> tuple[str, ...]:
    """Return the files and folders of fazai's own that no rule reaches: those of every machine, and `more`,
    which are the policy's file, the state and the secrets of this one."""
    return tuple(dict.fromkeys([*_OWN_FOLDERS, *(str(each.absolute()) for each in more)]))


def find_protection(change: EffectChange, protected: tuple[str, ...]) -> str | None:
    """Return why no rule may allow this change; None where one may. `protected`: further paths of fazai's
    own."""
    if change.kind in PROTECTED_KINDS:
        return f"no rule allows {change.kind}: {PROTECTED_KINDS[change.kind]}"
    if change.kind == FREE_KIND:
        return f"no rule allows {change.kind}: it runs what it is given"
    texts = list(_texts([change.identity, change.before, change.after]))
    if any(_MASK in text for text in texts):
        return "no rule allows a change of a secret"
    if not (change.kind == PROGRAM or change.kind.startswith("host.")):
        return None
    for text in texts:
        if _OWN in fold(text):
            return f"no rule allows what names fazai's own files or programs: {text[:80]!r}"
        for path in map(tidy_path, _PATH.findall(text)):
            if any(path == root or path.startswith(f"{root}/") for root in protected):
                return f"no rule allows what names a file of fazai's own: {path[:80]!r}"
    place = tidy_path(change.identity)
    if change.kind != PROGRAM and place.startswith("/"):
        above = place.rstrip("/") + "/"
        for root in (*_OWN_FOLDERS, *protected):
            if root.startswith(above):
                return f"no rule allows a change of a folder that fazai's own files are in: {place[:80]!r}"
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, the keys as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
