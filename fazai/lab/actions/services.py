"""ids, unbound, kea, dnsmasq, radvd, wireguard: the actions beyond the generic verbs."""

from __future__ import annotations

import base64
import secrets
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import reconfigure_service, recorded_answer, service_handlers
from fazai.lab.actions.sheets import download_csv, upload_csv
from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.config import SETTINGS, Item
from fazai.lab.engine.search import make_rows, recordset_answer
from fazai.lab.engine.sources import SOURCES
from fazai.lab.engine.verbs import blank_item, current_settings, set_model
from fazai.lab.live.tunnels import list_children, list_connections, list_openvpn, list_wireguard
from fazai.lab.models.dns_dhcp import (
    RESERVATIONS,
    SUBNETS,
    UNBOUND_ALIASES,
    UNBOUND_HOSTS,
    collect_options,
    host_fqdn,
    subnet_of,
)
from fazai.lab.models.wireguard import SERVERS

JOBS: Final = "Cron.jobs.job"
ENTRIES: Final = "radvd.entries"
TAGS: Final = "Dnsmasq.dhcp_tags"


@posted_only(otherwise={"status": "failed"})
def reconfigure_ids(call: ActionCall) -> Any:
    """Reconfigure the service; the first time makes a cron job for the update of the rules, which is off."""
    box = call.box
    if not box.config.settings("IDS").get("general.UpdateCron"):
        _make_update_job(call)
    controller = box.catalogue.controllers["ids/service"]
    reconfigure_service(box, controller)
    return controller.reconfigured


def _make_update_job(call: ActionCall) -> None:
    box, uuid = call.box, str(uuids.uuid4())
    job = {"origin": "IDS", "command": "ids update", "description": "ids rule updates", "enabled": "0"}
    model = box.catalogue.models["IDS"]
    settings = {**current_settings(box, model), "general.UpdateCron": uuid}
    edit = box.config.edit()
    edit.put(JOBS, uuid, {**blank_item(box, box.catalogue.items[JOBS]), **job})
    edit.put(model.name, SETTINGS, settings)
    call.save(edit)


def list_rulesets(call: ActionCall) -> Any:
    """List the rulesets of the recording, with what was switched here."""
    switched = call.box.items("IDS.rulesets")
    rows = [
        {**row, "enabled": switched.get(row["filename"], row)["enabled"]}
        for row in recorded_answer(call.box, "rulesets")
    ]
    return recordset_answer(call, make_rows(rows))


def toggle_ruleset(call: ActionCall) -> Any:
    known = {row["filename"]: row for row in recorded_answer(call.box, "rulesets")}
    names = [name for name in (call.param(0) or "").split(",") if name in known]
    if not call.posted or not names:
        return {"result": "failed"}
    edit = call.box.config.edit()
    for name in names:
        old = call.box.items("IDS.rulesets").get(name, known[name])["enabled"]
        wanted = call.param(1) if call.param(1) in ("0", "1") else ("0" if old == "1" else "1")
        edit.put("IDS.rulesets", name, {"enabled": wanted or "0"})
    call.save(edit)
    return {"status": "ok"}


# unbound


def list_local_data(call: ActionCall) -> Any:
    """List the records that the resolver answers by itself: one for each enabled host and alias."""
    running = call.box.running
    if running.services.get("unbound") != "running":
        return {"status": "failed"}
    hosts = running.items("unbound", UNBOUND_HOSTS)
    rows = []
    for item in hosts.values():
        if item["enabled"] == "1":
            rows += _records_of(host_fqdn(item), item)
    for alias in running.items("unbound", UNBOUND_ALIASES).values():
        host = hosts.get(alias["host"])
        if alias["enabled"] == "1" and host is not None and host["enabled"] == "1":
            rows += _records_of(host_fqdn(alias), host)
    return {"status": "ok", "data": rows}


def _records_of(name: str, item: Item) -> list[dict[str, str]]:
    kind = item["rr"]
    value = {"MX": f"{item['mxprio']} {item['mx']}.", "TXT": f'"{item["txtdata"]}"'}.get(kind, item["server"])
    return [{"name": f"{name}.", "ttl": item["ttl"] or "3600", "type": "IN", "rrtype": kind, "value": value}]


def list_local_zones(call: ActionCall) -> Any:
    """List the zones of the records above."""
    running = call.box.running
    if running.services.get("unbound") != "running":
        return {"status": "failed"}
    zones = {
        item["domain"] for item in running.items("unbound", UNBOUND_HOSTS).values() if item["enabled"] == "1"
    }
    return {"status": "ok", "data": [{"zone": f"{zone}.", "type": "transparent"} for zone in sorted(zones)]}


# kea


def set_kea(call: ActionCall) -> Any:
    """Set the model, and put the firewall's address into the options of subnets that ask for it."""
    edit = call.box.config.edit()
    for uuid, item in collect_options(call.box).items():
        edit.put(SUBNETS, uuid, item)
    catalogue = call.box.catalogue
    return set_model(call, catalogue.controllers["kea/dhcpv4"], catalogue.models["Kea.dhcp4"], edit)


def search_leases(call: ActionCall) -> Any:
    """List no leases: nobody asks the lab for an address."""
    stats = {"active": 0, "inactive": 0, "total": 0}
    return {**recordset_answer(call, []), "stats": stats, "interfaces": []}


def _find_reservation(call: ActionCall, sent: dict[str, str]) -> str:
    """Find a reservation by its subnet, which follows from the address, and its MAC address."""
    sent["subnet"] = subnet_of(call.box, sent.get("ip_address", "")) or sent.get("subnet", "")
    same = (sent["subnet"], sent.get("hw_address", ""))
    reservations = call.box.items(RESERVATIONS).items()
    return next((uuid for uuid, item in reservations if (item["subnet"], item["hw_address"]) == same), "")


# wireguard


def make_key_pair(call: ActionCall) -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return {
        "privkey": base64.b64encode(private).decode(),
        "pubkey": base64.b64encode(public).decode(),
        "status": "ok",
    }


def make_shared_key(call: ActionCall) -> Any:
    return {"psk": base64.b64encode(secrets.token_bytes(32)).decode(), "status": "ok"}


def list_servers(call: ActionCall) -> Any:
    if call.posted:
        return {"status": "failed"}
    rows = [{"uuid": uuid, "name": item["name"]} for uuid, item in call.box.items(SERVERS).items()]
    return {"rows": rows, "status": "ok"}


def show_wireguard(call: ActionCall) -> Any:
    """List interfaces and peers, of the types that are asked for."""
    types = call.argument("type")
    rows = list_wireguard(call.box)
    return recordset_answer(call, make_rows(row for row in rows if not types or row["type"] in types))


# openvpn, ipsec: their sessions


def search_sessions(call: ActionCall) -> Any:
    return recordset_answer(call, make_rows(list_openvpn(call.box)))


def search_connections(call: ActionCall) -> Any:
    return recordset_answer(call, make_rows(list_connections(call.box)))


def search_children(call: ActionCall) -> Any:
    return recordset_answer(call, make_rows(list_children(call.box, str(call.body.get("id", "")))))


def radvd_status(call: ActionCall) -> Any:
    """Answer `unknown` without an entry that is enabled: there is no such service then."""
    answer = service_handlers(call.box.catalogue.controllers["radvd/service"])["status"](call)
    enabled = any(item["enabled"] == "1" for item in call.box.items(ENTRIES).values())
    return answer if enabled else {**answer, "status": "unknown"}


def list_tags(call: ActionCall) -> Any:
    """List what a DHCP option may be for: tags and interfaces."""
    tags = [{"value": uuid, "label": item["tag"]} for uuid, item in call.box.items(TAGS).items()]
    labels = SOURCES["interfaces_and_loopback"][1](call.box)
    interfaces = [{"value": name, "label": label} for name, label in labels.items()]
    return {
        "tags": {"label": "Tags", "icon": "fa fa-tag text-primary", "items": tags},
        "interfaces": {"label": "Interfaces", "icon": "fa fa-ethernet text-info", "items": interfaces},
    }


ACTIONS: Final[Mapping[str, Handler]] = {
    "ids/service/reconfigure": reconfigure_ids,
    "ids/settings/listRulesets": list_rulesets,
    "ids/settings/toggleRuleset": toggle_ruleset,
    "unbound/diagnostics/listlocaldata": list_local_data,
    "unbound/diagnostics/listlocalzones": list_local_zones,
    "kea/dhcpv4/set": set_kea,
    "kea/dhcpv4/downloadReservations": download_csv(RESERVATIONS, with_uuid=False, leave_out=("subnet",)),
    "kea/dhcpv4/uploadReservations": upload_csv(RESERVATIONS, _find_reservation),
    "kea/leases4/search": search_leases,
    "wireguard/server/keyPair": make_key_pair,
    "wireguard/client/psk": make_shared_key,
    "wireguard/client/listServers": list_servers,
    "wireguard/service/show": show_wireguard,
    "openvpn/service/searchSessions": search_sessions,
    "ipsec/sessions/searchPhase1": search_connections,
    "ipsec/sessions/searchPhase2": search_children,
    "radvd/service/status": radvd_status,
    "dnsmasq/settings/getTagList": list_tags,
}
