"""OpenVPN: what an instance needs for its role, and the number that the firewall gives it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel

INSTANCES: Final = "OpenVPN.Instances.Instance"
_NO_NETWORK: Final = "At least one IPv4 or IPv6 tunnel network is required."


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _check_instance(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["role"] == "server":
        yield from _check_server(box, item)
    elif item["role"] == "client":
        if not item["cert"] and not item["ca"]:
            yield "cert", "When no certificate is provided a CA needs to be provided."
        if not item["remote"]:
            yield "remote", "Remote required"
    if item["username_as_common_name"] not in ("", "0") and not item["authmode"]:
        yield "authmode", "Username as CN requires one or more authentication modes."
    interval, timeout = item["keepalive_interval"], item["keepalive_timeout"]
    if bool(interval) != bool(timeout) or _number(timeout) < 2 * _number(interval):
        yield "keepalive_timeout", "Timeout must be at least twice the interval value."
    for name, noun in (("renewal", "renewal"), ("secret", "secret")):
        if item[f"auth-gen-token-{name}"] and not item["auth-gen-token"]:
            yield f"auth-gen-token-{name}", f"A token {noun} requires a token lifetime."


def _check_server(box: Box, item: Item) -> Iterable[tuple[str, str]]:
    if not item["server"] and not item["server_ipv6"]:
        yield from (("server", _NO_NETWORK), ("server_ipv6", _NO_NETWORK))
    if item["cert"]:
        if not _has_authority(box, item["cert"]):
            yield "cert", "Unable to locate a CA for this certificate."
    elif item["verify_client_cert"] != "none":
        yield "verify_client_cert", "To validate a certificate one has to be provided."
    if item["verify_client_cert"] == "none" and not item["authmode"]:
        text = "Please select an authentication option, at least one type of authentication is required."
        yield "verify_client_cert", text
    if item["port-share"] and item["proto"].startswith("udp"):
        yield "port-share", "Port sharing is only supported when using tcp."


def _has_authority(box: Box, refid: str) -> bool:
    caref = next((c["caref"] for c in box.items("Trust.Cert.cert").values() if c["refid"] == refid), "")
    return any(ca["refid"] == caref for ca in box.items("Trust.CA.ca").values())


def _choose_number(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Give a new instance the lowest free number, but only where an empty one was sent."""
    sent = call.body.get(model.root, {})
    if new["vpnid"] or not isinstance(sent, Mapping) or "vpnid" not in sent:
        return
    used = {item["vpnid"] for key, item in call.box.items(model.path).items() if key != uuid}
    new["vpnid"] = next(str(number) for number in range(1, len(used) + 2) if str(number) not in used)


HOOKS: Final = ModelHooks(
    checks={"openvpn_instance": _check_instance},
    collections={INSTANCES: CollectionHooks(before=(_choose_number,))},
)
