"""A firewall that echoes the key, and texts without an end: nothing of it is printed or stored."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fazai.lab import Fault

from .conftest import World

TWO: list[dict[str, Any]] = [
    {"opnsense.alias": {"name": name, "type": "host", "content": ["192.0.2.1"]}} for name in ("one", "two")
]


def bodies(echo: str) -> dict[str, tuple[str, int, Any]]:
    return {
        "an error of a write": ("firewall/alias/setItem/*", 500, {"errorTitle": echo, "errorMessage": echo}),
        "a validation of a write": (
            "firewall/alias/setItem/*",
            200,
            {"result": "failed", "validations": {"alias.name": echo}},
        ),
        "a validation of the trial": (
            "firewall/alias/set",
            200,
            {
                "result": "failed",
                "validations": {
                    f"alias.aliases.alias.0000000{n}-0000-4000-8000-000000000000.name": echo
                    for n in (1, 2, 3)
                },
            },
        ),
        "a deletion": ("firewall/alias/delItem/*", 200, {"result": echo}),
        "an activation": ("firewall/alias/reconfigure", 200, {"status": echo}),
        "a refused key": ("firewall/alias/search*", 403, {"message": echo}),
        "a page": ("firewall/alias/searchItem", 200, echo),
    }


@pytest.mark.parametrize("name", bodies(""))
def test_what_a_firewall_echoes_is_neither_printed_nor_stored(world: World, name: str) -> None:
    firewall = world.firewall()
    key, secret = firewall.api_key, firewall.api_secret
    token = base64.b64encode(f"{key}:{secret}".encode()).decode()
    echo = f"refused Authorization: Basic {token} ({key}:{secret}) {'long ' * 20_000}"
    path, status, body = bodies(echo)[name]
    firewall.inject(Fault(kind="status", path=path, status=status, body=json.dumps(body)))
    if name == "a deletion":
        firewall.inject(Fault(kind="status", path="firewall/alias/reconfigure", status=418, body="{}"))
    inventory = world.inventory(resources=TWO)
    shown = ""
    for words in (("apply", inventory), ("apply", inventory, "--output", "json")):
        result = world.fazai(*words)
        assert result.code in (1, 4), result
        shown += result.out + result.err
    kept = b"".join(file.read_bytes() for file in (world.folder / "state").rglob("*") if file.is_file())
    for hidden in (key, secret, token, key[:40], secret[:40], token[:40], token[-40:]):
        assert hidden not in shown
        assert hidden.encode() not in kept
    assert "long " * 120 not in shown
    assert b"long " * 120 not in kept
    if name not in ("a refused key", "a page"):
        assert "***" in shown
