"""Access to the API: keys, users, groups, privileges."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.schema import read_json

USER_ITEMS: Final = "Auth.User.user"
GROUP_ITEMS: Final = "Auth.Group.group"
READONLY: Final = "user-config-readonly"


@dataclass(frozen=True, slots=True)
class Access:
    """Rights of one user: patterns of the paths that may be called, and whether writes are refused."""

    user: str
    patterns: tuple[str, ...]
    readonly: bool

    def allows(self, path: str) -> bool:
        """Return whether the user may call this path (`/api/firewall/alias/searchItem`).

        It is matched as it was sent: a pattern of `search_item` does not open `searchItem`, one of
        `search_item/*` opens `search_item`.
        """
        text = path.strip("/")
        return any(
            fnmatch.fnmatchcase(text, pattern) or fnmatch.fnmatchcase(f"{text}/", pattern)
            for pattern in self.patterns
        )


def read_privileges(box: Box) -> Mapping[str, Mapping[str, str]]:
    """Return every privilege of the release: its name and the pages it opens."""

    def build() -> Mapping[str, Mapping[str, str]]:
        release = box.catalogue.release
        table: Mapping[str, Mapping[str, str]] = read_json("privileges.json")
        return {name: row for name, row in table.items() if row.get("release", release) == release}

    return box.derived("privileges", (), build)


def make_api_key() -> tuple[str, str, str]:
    """Make a fresh API key: key, secret, and the line that a user's `apikeys` keeps of them."""
    key, secret = (base64.b64encode(secrets.token_bytes(60)).decode("ascii") for _ in range(2))
    return key, secret, f"{key}|{_hash_secret(secret)}"


def _hash_secret(secret: str) -> str:
    return "$lab$" + hashlib.sha256(secret.encode()).hexdigest()


def _api_keys(box: Box) -> Mapping[str, tuple[str, str]]:
    """Return the hash of each API key's secret, and the uuid of its user."""

    def build() -> Mapping[str, tuple[str, str]]:
        found = {}
        for uuid, user in box.items(USER_ITEMS).items():
            for line in user.get("apikeys", "").split("\n"):
                key, bar, digest = line.partition("|")
                if bar and user.get("disabled") != "1":
                    found[key] = (digest, uuid)
        return found

    return box.derived("api keys", (USER_ITEMS,), build)


def groups_of_user(box: Box, uid: str) -> list[Item]:
    """Return the groups that a user is a member of."""
    return [group for group in box.items(GROUP_ITEMS).values() if uid in group.get("member", "").split(",")]


def _access_of(box: Box, uuid: str) -> Access:
    known: dict[str, Access] = box.derived("access", (USER_ITEMS, GROUP_ITEMS), dict)
    if uuid not in known:
        user = box.items(USER_ITEMS)[uuid]
        names = set(user.get("priv", "").split(","))
        for group in groups_of_user(box, user["uid"]):
            names |= set(group.get("priv", "").split(","))
        table = read_privileges(box)
        patterns = [line for name in names if name in table for line in table[name]["match"].split("\n")]
        known[uuid] = Access(user["name"], tuple(patterns), READONLY in names)
    return known[uuid]


def find_access(box: Box, header: str) -> Access | str:
    """Return the rights behind an Authorization header, or "malformed" or "refused".

    The scheme word is not looked at.
    """
    _, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return "malformed"
    key, colon, secret = text.partition(":")
    if not colon:
        return "malformed"
    found = _api_keys(box).get(key)
    if found is None or not hmac.compare_digest(found[0], _hash_secret(secret)):
        return "refused"
    return _access_of(box, found[1])
