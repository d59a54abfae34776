"""What is stored and what runs are two things: only the group's own call brings one to the other."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fazai.lab import LabFirewall, LabSettings
from tests.lab.helpers import add_alias, with_firewall


async def table(client: httpx.AsyncClient, name: str) -> list[str]:
    answer = (await client.get(f"/api/firewall/alias_util/list/{name}")).json()
    return [row["ip"] for row in answer["rows"]]


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any] | None = None) -> Any:
    return (await client.post(f"/api/{path}", json=body or {})).json()


def test_a_table_changes_with_the_reconfigure_of_aliases() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await add_alias(client, "web", "192.0.2.1\n192.0.2.4-192.0.2.7\nwww.example.org")
        assert await table(client, "web") == []
        assert await post(client, "firewall/alias/reconfigure") == {"status": "ok"}
        assert await table(client, "web") == ["192.0.2.1", "192.0.2.4/30"]
        row = (await post(client, "firewall/alias/searchItem", {"searchPhrase": "web"}))["rows"][0]
        assert row["current_items"] == "2"
        size = (await client.get("/api/firewall/alias/getTableSize")).json()
        assert size["details"]["web"]["count"] == 2

    with_firewall(work)


@pytest.mark.parametrize(("release", "with_rules"), [("26.7.2", []), ("26.1.11", ["192.0.2.7"])])
def test_only_before_26_7_an_apply_of_rules_refreshes_aliases(release: str, with_rules: list[str]) -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await add_alias(client, "web")
        await post(client, "firewall/filter/apply")
        assert await table(client, "web") == with_rules

    with_firewall(work, LabSettings.parse({"release": release, "auth_delay_s": 0}))


def test_nested_aliases_and_disabled_ones() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await add_alias(client, "inner", "198.51.100.1")
        await add_alias(client, "outer", "inner\n198.51.100.2")
        off = {"alias": {"name": "off", "type": "host", "content": "198.51.100.9", "enabled": "0"}}
        await post(client, "firewall/alias/addItem", off)
        await post(client, "firewall/alias/reconfigure")
        assert await table(client, "outer") == ["198.51.100.1", "198.51.100.2"]
        assert await table(client, "off") == []

    with_firewall(work)


def test_rules_run_after_an_apply() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await post(client, "firewall/filter/addRule", {"rule": {"interface": "lan", "description": "new"}})
        ids = "/api/diagnostics/firewall/listRuleIds"
        assert (await client.get(ids)).json() == {"items": []}
        await post(client, "firewall/filter/apply")
        found = [row["descr"] for row in (await client.get(ids)).json()["items"]]
        assert found == ["Default allow LAN to any rule", "Default allow LAN IPv6 to any rule", "new"]

    with_firewall(work)


def test_routes_are_in_the_table_after_their_reconfigure() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        route = {"route": {"network": "203.0.113.0/24", "gateway": "WAN_GW"}}
        await post(client, "routes/routes/addroute", route)
        path = "/api/diagnostics/interface/getRoutes"
        assert (await client.get(path)).json() == []
        await post(client, "routes/routes/reconfigure")
        (row,) = (await client.get(path)).json()
        assert (row["destination"], row["gateway"], row["netif"]) == ("203.0.113.0/24", "192.0.2.1", "vtnet0")

    with_firewall(work)


def test_host_overrides_are_answered_after_their_reconfigure() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        host = {"host": {"hostname": "nas", "domain": "home.example.org", "rr": "A", "server": "192.168.1.4"}}
        made = await post(client, "unbound/settings/addHostOverride", host)
        alias = {"alias": {"host": made["uuid"], "hostname": "files", "domain": "home.example.org"}}
        await post(client, "unbound/settings/addHostAlias", alias)
        await post(client, "unbound/service/reconfigure")
        data = (await client.get("/api/unbound/diagnostics/listlocaldata")).json()["data"]
        assert {(row["name"], row["value"]) for row in data} == {
            ("nas.home.example.org.", "192.168.1.4"),
            ("files.home.example.org.", "192.168.1.4"),
        }
        await post(client, f"unbound/settings/delHostOverride/{made['uuid']}")
        kept = (await client.get("/api/unbound/diagnostics/listlocaldata")).json()["data"]
        assert len(kept) == 2

    with_firewall(work)


def test_a_vlan_is_a_device_after_its_reconfigure() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await post(client, "interfaces/vlan_settings/addItem", {"vlan": {"if": "vtnet3", "tag": "100"}})
        path = "/api/diagnostics/interface/getInterfaceConfig"
        assert "vlan01" not in (await client.get(path)).json()
        await post(client, "interfaces/vlan_settings/reconfigure")
        assert (await client.get(path)).json()["vlan01"]["vlan"]["tag"] == "100"
        rows = (await client.get("/api/interfaces/overview/interfacesInfo")).json()["rows"]
        assert [row["identifier"] for row in rows if row["device"] == "vlan01"] == [""]

    with_firewall(work)


def test_names_of_vlan_devices_go_on_from_the_highest() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        for tag in range(1, 13):
            vlan = {"vlan": {"if": "vtnet3", "tag": str(tag)}}
            assert (await post(client, "interfaces/vlan_settings/addItem", vlan))["result"] == "saved"
        rows = (await post(client, "interfaces/vlan_settings/searchItem"))["rows"]
        assert [row["vlanif"] for row in rows][:2] == ["vlan01", "vlan02"]
        assert {row["vlanif"] for row in rows} >= {"vlan010", "vlan012"}

    with_firewall(work)


def test_a_revert_does_not_touch_what_runs() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        await post(client, "firewall/category/addItem", {"category": {"name": "x"}})
        history = "/api/core/backup/backups/this"
        before = (await client.get(history)).json()["items"][0]["id"]
        await add_alias(client, "web")
        await post(client, "firewall/alias/reconfigure")
        assert await post(client, f"core/backup/revertBackup/{before}") == {"status": "reverted"}
        assert (await client.get("/api/firewall/alias/getAliasUUID/web")).json() == []
        assert await table(client, "web") == ["192.0.2.7"]
        await post(client, "firewall/alias/reconfigure")
        assert await table(client, "web") == []

    with_firewall(work)


def test_a_useless_set_pushes_an_entry_out_of_the_history() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        made = await post(client, "firewall/category/addItem", {"category": {"name": "first"}})
        path = f"firewall/category/setItem/{made['uuid']}"
        for _ in range(3):
            assert await post(client, path, {"category": {"name": "first"}}) == {"result": "saved"}
        items = (await client.get("/api/core/backup/backups/this")).json()["items"]
        assert len(items) == 3
        assert all("setItem" in item["description"] for item in items)
        assert len({item["id"] for item in items}) == 3
        await post(client, path, {"category": {"name": ""}})
        assert firewall.counters["writes"] == 4

    with_firewall(work, LabSettings(auth_delay_s=0, history=3))
