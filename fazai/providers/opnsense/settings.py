"""Reads a target's options: how the firewall is reached, and what may be done on it."""

from __future__ import annotations

from fazai.errors import InventoryError
from fazai.model import Target
from fazai.providers.opnsense.api.budget import MIB
from fazai.providers.opnsense.api.calls import ApiSettings
from fazai.providers.opnsense.api.credentials import read_credentials
from fazai.providers.opnsense.api.tls import read_ca
from fazai.providers.opnsense.catalogue.ownership import mark_of
from fazai.providers.opnsense.catalogue.values import text_of
from fazai.providers.opnsense.options import option_of
from fazai.providers.opnsense.planning.policy import TargetPolicy, parse_placements, parse_prune


def read_target_policy(target: Target) -> TargetPolicy:
    """Return what may be done on a firewall, and to which items."""
    owner = str(option_of(target, "owner"))
    return TargetPolicy(
        target=target.name,
        owner=owner,
        mark=mark_of(owner),
        adopt=bool(option_of(target, "adopt")),
        protected=tuple(option_of(target, "protected") or ()),
        prune=parse_prune(option_of(target, "prune")),
        max_prune=option_of(target, "max_prune"),
        place=parse_placements(option_of(target, "place") or {}),
        unmanaged={kind: frozenset(names) for kind, names in (option_of(target, "unmanaged") or {}).items()},
    )


def read_api_settings(target: Target) -> ApiSettings:
    """Return how a firewall is reached, with its key; reads the `ca` file.

    Raises InventoryError for an address, a key or a file that cannot be used.
    """
    base_url = str(target.options.get("base_url", ""))
    if not base_url.startswith(("https://", "http://")):
        text = f"{target.name}: base_url is not an address that can be reached: {base_url or 'missing'}"
        hint = "a lab:// firewall is served by the lab that fazai starts"
        in_lab = base_url.startswith("lab:")
        raise InventoryError(text, where=target.where("base_url"), hint=hint if in_lab else None)
    try:
        credentials = read_credentials(target.options.get("secret"))
    except ValueError as error:
        raise InventoryError(f"{target.name}: secret {error}", where=target.where("secret")) from None
    ca = target.options.get("ca")
    pin = str(target.options.get("fingerprint") or "").lower().replace(":", "").replace(" ", "")
    return ApiSettings(
        target=target.name,
        base_url=base_url,
        credentials=credentials,
        verify_tls=bool(option_of(target, "verify_tls")),
        ca_pem=read_ca(text_of(ca), target.where("ca")) if ca and not pin else "",
        pin=pin.removeprefix("sha256"),
        timeout_s=float(option_of(target, "timeout")),
        connect_timeout_s=float(option_of(target, "connect_timeout")),
        activate_timeout_s=float(option_of(target, "activate_timeout")),
        probe_timeout_s=float(option_of(target, "probe_timeout")),
        retries=int(option_of(target, "retries")),
        max_answer_bytes=int(option_of(target, "max_answer")) * MIB,
    )
