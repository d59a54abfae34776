"""What the running state says, and what it is not asked."""

from __future__ import annotations

import pytest

from fazai.errors import FazaiError
from fazai.lab import Fault, LabFirewall
from fazai.model import Resource
from tests.opnsense.helpers import FakeClock, Start, apply_in, resource, run, session, target

ALIASES = [
    resource("opnsense.alias", {"name": "hosts", "type": "host", "content": ["192.0.2.1"]}),
    resource("opnsense.alias", {"name": "ports", "type": "port", "content": ["80"]}),
    resource("opnsense.alias", {"name": "off", "type": "host", "content": ["192.0.2.1"], "enabled": False}),
]
HOSTS = [
    resource("opnsense.unbound_host", {"hostname": "nas", "domain": "example.org", "server": "192.0.2.7"}),
    resource(
        "opnsense.unbound_host",
        {"hostname": "v6", "domain": "example.org", "rr": "AAAA", "server": "2001:DB8:0::1"},
    ),
    resource(
        "opnsense.unbound_host", {"domain": "example.org", "rr": "MX", "mx": "mail.example.org", "mxprio": 10}
    ),
    resource("opnsense.unbound_host", {"hostname": "*", "domain": "apps.example.org", "server": "192.0.2.8"}),
]
GATEWAY = resource("opnsense.gateway", {"name": "LAB_GW", "interface": "lan", "gateway": "192.168.1.254"})


def verified(firewall: LabFirewall, wanted: list[Resource], meanwhile: str = "") -> list[FazaiError]:
    """What verify says after an apply; `meanwhile` is called at the console in between."""

    async def both() -> list[FazaiError]:
        async with session(target(firewall), FakeClock()) as work:
            done = await apply_in(work, wanted)
            assert done.after.steps == ()
            if meanwhile:
                firewall.call("POST", meanwhile)
            return await work.verify(done.diff.changes)

    return run(both())


def test_what_runs_is_confirmed(firewall: LabFirewall) -> None:
    assert verified(firewall, [*ALIASES, *HOSTS, GATEWAY]) == []


def test_an_empty_table_is_found(firewall: LabFirewall) -> None:
    (error,) = verified(firewall, ALIASES, "/api/firewall/alias_util/flush/hosts")
    assert error.message == 'the running packet filter holds nothing for alias "hosts"'
    assert error.where == "fw-01/opnsense.alias/hosts"


def test_a_record_that_is_not_answered_is_found(start: Start) -> None:
    firewall = start()
    firewall.call("POST", "/api/unbound/service/start")

    async def saved_but_not_active() -> list[FazaiError]:
        async with session(target(firewall), FakeClock()) as work:
            await apply_in(work, HOSTS[:1])
            seen = await work.observe(HOSTS[:2])
            (change,) = work.diff(HOSTS[:2], seen).changes
            await work.write(change)
            await work.observe(HOSTS[:2])
            return await work.verify([change])

    (error,) = run(saved_but_not_active())
    assert error.message == 'the running Unbound does not answer "v6.example.org AAAA"'


def test_what_cannot_be_asked_is_not_an_error(start: Start) -> None:
    firewall = start(
        faults=(
            Fault(kind="not_found", path="unbound/diagnostics/*"),
            Fault(kind="status", status=403, path="routes/gateway/*", body="{}"),
        )
    )
    assert verified(firewall, [*HOSTS, GATEWAY]) == []
    assert verified(start(), HOSTS[:1], "/api/unbound/service/stop") == []


ROUTE = {"gateway": "WAN_GW", "descr": "x"}
NOT_ACTIVE = {
    "route": (
        [resource("opnsense.route", {"network": f"172.{n}.0.0/16", **ROUTE}) for n in (16, 17)],
        "the route to 172.17.0.0/16 is not in the routing table",
    ),
    "vlan": (
        [resource("opnsense.vlan", {"if": "vtnet3", "tag": n, "descr": "x"}) for n in (100, 101)],
        "the device vlan02 does not exist",
    ),
}


@pytest.mark.parametrize("name", NOT_ACTIVE)
def test_what_was_saved_and_not_activated_does_not_run(start: Start, name: str) -> None:
    """The first item is activated, the second only saved: of that one the running state knows nothing."""
    wanted, text = NOT_ACTIVE[name]
    firewall = start()

    async def half() -> list[FazaiError]:
        async with session(target(firewall), FakeClock()) as work:
            done = await apply_in(work, wanted[:1])
            assert await work.verify(done.diff.changes) == []
            (change,) = work.diff(wanted, await work.observe(wanted)).changes
            await work.write(change)
            await work.observe(wanted)
            return await work.verify([change])

    (error,) = run(half())
    assert error.message == text


def test_a_field_that_was_not_read_back_is_no_defect(firewall: LabFirewall) -> None:
    async def main() -> list[FazaiError]:
        vlan = resource("opnsense.vlan", {"if": "vtnet2", "tag": 20, "vlanif": "vlan0.20", "descr": "guests"})
        async with session(target(firewall), FakeClock()) as work:
            done = await apply_in(work, [vlan])
            assert work._seen is not None
            ((ref, row),) = work._seen.collections["opnsense.vlan"].rows.items()
            stripped = {name: cell for name, cell in row.items() if name != "vlanif"}
            work._seen.collections["opnsense.vlan"].rows[ref] = stripped
            return await work.verify(done.diff.changes)

    (error,) = run(main())
    assert error.message == "the device  does not exist"
