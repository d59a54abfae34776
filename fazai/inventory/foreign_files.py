"""Files beside inventories that are none: saved plans, playbooks, other programs' settings."""

from __future__ import annotations

import re
from typing import Any, Final

from fazai.errors import did_you_mean
from fazai.yamltext import YamlList, YamlMap

_SECTIONS: Final = ("hosts", "children", "vars", "resources")
_TOP: Final = ("all", "ungrouped", "playbooks", "plugin", "_meta")
_LOOK_BYTES: Final = 8192
_WORD_BYTES: Final = 512
_PUBLIC_KEY: Final = re.compile(rb"(sk-)?(ssh|ecdsa)-\S+ AAAA")


def identify_bytes(data: bytes, mode: int) -> str | None:
    """Name what a file is, by its bytes, when it is surely no inventory; else None. One word that others may
    not read is a password sooner than a host: as a host's name it would be shown."""
    if b"\0" in data[:_LOOK_BYTES]:
        return "no text"
    if not mode & 0o077 and len(data) < _WORD_BYTES and len(data.split()) == 1:
        return "one word that others may not read, such as a password"
    if _PUBLIC_KEY.match(data):
        return "a public key"
    return None


def identify_document(document: YamlMap | YamlList | None) -> str | None:
    """Name what a file is, by its document, when it is surely no inventory; else None: a badly written one is
    still meant as one."""
    if isinstance(document, YamlList):
        if not document or not all(isinstance(item, YamlMap) for item in document):
            return None
        return "a playbook" if any("hosts" in item for item in document) else "a list of something"
    if not document:
        return None
    if str(document.get("format", "")).startswith("fazai-plan/"):
        return "a saved plan"
    return None if any(_may_be_group(name, body) for name, body in document.items()) else "no groups in it"


def _may_be_group(name: str, body: Any) -> bool:
    """Tell whether a key at the top of a file may be meant as a group of hosts, well written or not."""
    if name in _TOP or did_you_mean(name, _TOP) or body is None:
        return True
    return isinstance(body, YamlMap) and any(did_you_mean(key, _SECTIONS) for key in body)
