"""Recordings of which a part cannot be the recorded one: the rest of it is compared here."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from fazai.lab import LabSettings, LabThread
from tests.lab import recorded

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif("core_tunables" not in recorded.wider_recordings(), reason="no second recording"),
]


def _set_by_hand(answer: Any) -> list[dict[str, Any]]:
    """The rows of tunables that were set, by name: the list is in the order of their ids."""
    return sorted((row for row in answer["rows"] if "-" in row["uuid"]), key=lambda row: row["tunable"])


def test_tunables_that_were_set_are_listed_as_recorded() -> None:
    """The product's own differ from one kernel to another; those that were set do not."""
    compared = 0
    with LabThread() as lab:
        firewall = lab.start("tunables", LabSettings(auth_delay_s=0))
        with httpx.Client(base_url=firewall.base_url) as client:
            replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
            for index, exchange, _ in replay.run("core_tunables"):
                if not exchange["path"].endswith("/searchItem"):
                    continue
                ours = firewall.call(exchange["method"], exchange["path"], {"rowCount": -1})
                shown = httpx.Response(
                    200, json=_set_by_hand(ours), headers={"content-type": "application/json"}
                )
                theirs = {**exchange, "response": _set_by_hand(exchange["response"])}
                # one that nobody knew of stood there until the end
                if "phrase" not in exchange["name"] and index not in (27, 28):
                    assert replay.problems(index, theirs, shown) == [], exchange["name"]
                    compared += len(theirs["response"])
    assert compared >= 3


ASSIGNMENTS = "interfaces_assignment_more"
UNNAMED = ("interfaces/assignment/setItem/wan", {"interface": {"descr": ""}})
WITHOUT_WAN: tuple[str, dict[str, Any]] = ("interfaces/assignment/delItem/wan", {})
#: The exchanges that were recorded one after the other on one firewall, and what had been done to it before.
SECTIONS: list[tuple[int, int, list[tuple[str, dict[str, Any]]]]] = [
    (0, 1, [("interfaces/loopback_settings/addItem", {"loopback": {"description": "x"}})]),
    (1, 2, [("interfaces/lagg_settings/addItem", {"lagg": {"members": "vtnet3"}})]),
    (2, 3, [("interfaces/bridge_settings/addItem", {"bridge": {"members": "opt1"}})]),
    (3, 52, [WITHOUT_WAN]),
    (52, 54, [("interfaces/assignment/addItem", {"interface": {"if": "vtnet3"}})]),
    (54, 71, [WITHOUT_WAN]),
    (71, 77, [UNNAMED]),
    (77, 81, [UNNAMED]),
]


@pytest.mark.parametrize(("first", "end", "before"), SECTIONS, ids=lambda value: str(value)[:3])
def test_assignments_are_answered_as_recorded(
    first: int, end: int, before: list[tuple[str, dict[str, Any]]]
) -> None:
    """Every exchange of the file, on as many firewalls as it was recorded on."""
    wrong = []
    with LabThread() as lab:
        firewall = lab.start(f"assignments-{first}", LabSettings(auth_delay_s=0))
        for path, body in before:
            assert "failed" not in str(firewall.call("POST", f"/api/{path}", body))
        with httpx.Client(base_url=firewall.base_url) as client:
            replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
            replay.known |= recorded.MACS
            found = json.loads((recorded.WIDER / f"{ASSIGNMENTS}.json").read_text())
            assert end <= len(found)
            for index, exchange in enumerate(found[first:end], first):
                if index == 31:  # deleted without being recorded: another gets its device
                    firewall.call("POST", "/api/interfaces/assignment/delItem/opt4", {})
                problems = replay.problems(index, exchange, replay.send(exchange))
                wrong += [f"#{index} {exchange['name']}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)
