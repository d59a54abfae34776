"""WireGuard, OpenVPN, IPsec and certificates: each kind's life on both releases, and its traps."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.model import Change, Secret
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.kinds.lifecycle import Case, changes_of, check_lifecycle

PUBLIC, OTHER = (
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
)
PRIVATE = "CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws="
SHARED = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="

_WG0 = ("opnsense.wireguard_server", {"name": "wg0", "privkey": PRIVATE, "tunneladdress": ["10.110.0.1/24"]})
_WG1 = ("opnsense.wireguard_server", {"name": "wg1", "privkey": PRIVATE, "port": 51821})

CASES = [
    Case(
        "opnsense.wireguard_server",
        {"name": "wg0", "privkey": PRIVATE, "port": 51820, "tunneladdress": ["10.110.0.1/24"]},
        {"dns": ["10.110.0.1"], "disableroutes": True, "gateway": "10.110.0.2", "mtu": 1400},
    ),
    Case(
        "opnsense.wireguard_peer",
        {"name": "laptop", "pubkey": PUBLIC, "tunneladdress": ["10.110.0.2/32"], "servers": ["wg0"]},
        {"servers": ["wg0", "wg1"], "psk": SHARED, "keepalive": 25},
        needs=[_WG0, _WG1],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("release", ["26.7.2", "26.1.11"])
def test_life(start: Start, case: Case, release: str) -> None:
    if release in case.releases:
        check_lifecycle(start, case, release)


def test_a_change_of_a_peer_leaves_it_with_its_instances(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    fields = {"name": "laptop", "pubkey": PUBLIC, "tunneladdress": ["10.110.0.2/32"]}
    run(apply(to, [resource(*_WG0), resource("opnsense.wireguard_peer", {**fields, "servers": ["wg0"]})]))
    changed = resource("opnsense.wireguard_peer", {**fields, "keepalive": 25})  # says nothing of instances
    assert len(run(apply(to, [changed])).written) == 1
    (server,) = firewall.call("POST", "/api/wireguard/server/searchServer", {})["rows"]
    assert server["%peers"] == "laptop"
    assert not run(plan(to, [changed])).steps


def test_keys_of_wireguard_stand_in_no_change(start: Start) -> None:
    to = target(start())
    peer = {"name": "laptop", "pubkey": PUBLIC, "tunneladdress": ["10.110.0.2/32"], "psk": SHARED}
    done = run(apply(to, [resource(*_WG0), resource("opnsense.wireguard_peer", peer)]))
    for kind, name, key in (("server", "privkey", PRIVATE), ("peer", "psk", SHARED)):
        (change,) = changes_of(done, f"opnsense.wireguard_{kind}")
        assert isinstance(change.after[name], Secret)
        assert key not in repr(change)
    fields = {**_WG0[1], "privkey": OTHER}
    step = run(plan(to, [resource(_WG0[0], fields)])).steps[0]
    assert isinstance(step, Change)
    assert "privkey" in step.after
    assert PRIVATE not in repr(step)
    assert OTHER not in repr(step)


def test_an_instance_is_not_made_without_its_key(start: Start) -> None:
    to = target(start())
    bare = resource("opnsense.wireguard_server", {"name": "wg0", "port": 51820})
    (error,) = run(plan(to, [bare])).errors
    assert "privkey is missing" in str(error)
    run(apply(to, [resource(*_WG0)]))
    (known,) = changes_of(run(apply(to, [bare])), "opnsense.wireguard_server")
    assert dict(known.after) == {"port": "51820", "tunneladdress": ()}


WRONG = [
    ("wireguard_server", {"name": "wg 0", "privkey": PRIVATE}, "name"),
    ("wireguard_server", {"name": "wg0", "privkey": PRIVATE, "mtu": 9301}, "mtu"),
    ("wireguard_peer", {"name": "a", "pubkey": PUBLIC, "tunneladdress": []}, "tunneladdress"),
]


@pytest.mark.parametrize(("kind", "fields", "wrong"), WRONG)
def test_a_wrong_value_is_refused_by_its_field(kind: str, fields: dict[str, Any], wrong: str) -> None:
    _, problems = PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "present")
    assert [problem.field for problem in problems] == [wrong]
