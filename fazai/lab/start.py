"""The configuration a new firewall starts with: three interfaces, one gateway, two rules, one user."""

from __future__ import annotations

from fazai.lab.access import USER_ITEMS
from fazai.lab.engine.config import Item, State
from fazai.lab.engine.names import INTERFACES
from fazai.lab.engine.schema import Catalogue, read_json
from fazai.lab.models.rules import RULES


def start_state(catalogue: Catalogue, key_line: str, *, legacy_rules: bool = False) -> State:
    """Return the starting state; root holds the API key whose line is given.

    `legacy_rules`: the factory's rules are no items of the API.
    """
    state: dict[str, dict[str, Item]] = {}
    for path, items in read_json("start.json").items():
        if path == RULES and legacy_rules:
            items = {}
        blank = {"descr": "", "lock": "0"} if path == INTERFACES else {}
        if path in catalogue.items:
            blank = catalogue.items[path].blank()
        state[path] = {uuid: {**blank, **item} for uuid, item in items.items()}
    root = next(uuid for uuid, user in state[USER_ITEMS].items() if user["name"] == "root")
    state[USER_ITEMS][root] = {**state[USER_ITEMS][root], "apikeys": key_line}
    return state
