"""Facts of fields beyond the device's own: references, secrets, separators, requirements."""

from __future__ import annotations

from typing import Any

_CATEGORIES: dict[str, Any] = {"reference": "opnsense.category", "doc": "category names"}

_NAT_RULE: dict[str, dict[str, Any]] = {
    "categories": _CATEGORIES,
    "description": {"required": True},
    "interface": {"required": True, "default": None},
}
_KEA_OPTIONS: dict[str, Any] = {"reference": "opnsense.kea_option", "doc": "descriptions of options"}
_OPTION_LISTS: dict[str, dict[str, Any]] = {
    f"option_data.{name}": {"in_order": True}
    for name in ("domain_name_servers", "domain_search", "routers", "ntp_servers", "time_servers")
}

#: Facts by kind and field.
EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "alias": {
        "content": {"separator": "\n", "doc": "entries; what is valid depends on the type"},
        "categories": _CATEGORIES,
        "password": {"secret": True},
    },
    "rule": {
        "categories": _CATEGORIES,
        "gateway": {"reference": "opnsense.gateway", "key": "name"},
        "replyto": {"reference": "opnsense.gateway", "key": "name"},
        "overload": {"reference": "opnsense.alias"},
        "shaper1": {"reference": "opnsense.shaper_pipe"},
        "shaper2": {"reference": "opnsense.shaper_pipe"},
        "description": {"required": True},
    },
    "source_nat": _NAT_RULE,
    "one_to_one": _NAT_RULE,
    "npt": _NAT_RULE,
    "dnat": {
        "category": {**_CATEGORIES, "key": "name"},
        "descr": {"required": True},
        "target": {"required": True},
    },
    "interface_group": {"sequence": {"default": "0"}},
    "source_nat_mode": {
        "mode": {
            "type": "choice",
            "api": "Option",
            "required": True,
            "source": "snat_mode",
            "choices": ("automatic", "hybrid", "advanced", "disabled"),
        }
    },
    "unbound_host": {"domain": {"fold": "host"}},
    "unbound_alias": {
        "host": {"reference": "opnsense.unbound_host", "type": "reference"},
        "domain": {"fold": "host"},
    },
    "unbound_forward": {
        "type": {
            "choices": ("forward",),
            "default": "forward",
            "doc": "a server over TLS is an opnsense.unbound_dot",
        }
    },
    "unbound_dot": {
        "type": {"choices": ("dot",), "doc": "a plain server is an opnsense.unbound_forward"},
        "verify": {"doc": "the name that the server's certificate must be for"},
    },
    "unbound_acl": {"networks": {"required": True}},
    "route": {"gateway": {"reference": "opnsense.gateway", "key": "name", "type": "reference"}},
    "gateway": {
        "defaultgw": {"source": "upstream"},  # the row's own `defaultgw` says which one is in use just now
        "interface": {"required": True, "default": None},
        "gateway": {"fold": "address"},
    },
    "vlan": {
        "vlanif": {
            "required": False,
            "always": True,
            "cut": " [",  # "vlan01 [GUEST]" once it is assigned
            "doc": "chosen by the firewall when left out",
        }
    },
    "vip": {
        "network": {
            "type": "text",
            "api": "Network",
            "required": True,
            "source": "address",
            "always": True,
            "fold": "address",
            "doc": "address/bits",
        },
        "password": {"secret": True},
    },
    "kea_subnet": {
        "option": _KEA_OPTIONS,
        "ddns_domain_key_secret": {"secret": True},
        "pools": {"type": "list", "separator": "\n"},
        **_OPTION_LISTS,
    },
    "kea_reservation": {
        "subnet": {"reference": "opnsense.kea_subnet", "type": "reference"},
        "hw_address": {"required": True},
        "option": _KEA_OPTIONS,
        **_OPTION_LISTS,
    },
    "dnsmasq_host": {
        "host": {"required": True},
        "domain": {"fold": "host"},
        "set_tag": {"reference": "opnsense.dnsmasq_tag", "doc": "a tag's name"},
    },
    "monit_service": {
        "tests": {"reference": "opnsense.monit_test"},
        "depends": {"reference": "opnsense.monit_service"},
    },
    "user": {
        "password": {
            "secret": True,
            "write_once": True,
            "doc": "sent when the user is created; never compared",
        },
        "otp_seed": {"secret": True},
        "authorizedkeys": {"doc": "base64 of the keys, as the API has it"},
    },
    "group": {"member": {"reference": "opnsense.user", "key": "uid", "doc": "user names"}},
    "cron_job": {"command": {"required": True}},
}
