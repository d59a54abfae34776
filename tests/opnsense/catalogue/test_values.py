"""When two texts mean the same, and how an item of `get` reads."""

from __future__ import annotations

import pytest

from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.catalogue.values import flatten_item, is_same, to_api
from fazai.providers.opnsense.provider import PROVIDER


def row(path: str) -> FieldRow:
    kind, _, name = path.partition(" ")
    return PROVIDER.kinds[f"opnsense.{kind}"].rows[name]


SAME = [
    ("alias content", "a\nb", "b\na", True),
    ("alias content", "a\nb", "a\nc", False),
    ("alias content", "52:54:00:AA:BB:CC", "52:54:00:aa:bb:cc", True),
    ("alias content", "2001:DB8:0::1", "2001:db8::1", True),
    ("alias content", "!2001:DB8:0::/48", "!2001:db8::/48", True),
    ("alias content", "2001:db8::1-2001:DB8::9", "2001:db8::1-2001:db8::9", True),
    ("alias content", "WWW.example.org", "www.example.org", True),
    ("alias content", "https://x.org/A", "https://x.org/a", False),
    ("alias content", "Nested", "nested", False),
    ("alias counters", "0", "", True),
    ("rule interface", "lan,opt1", "opt1,lan", True),
    ("rule destination_port", "HTTPS", "https", True),
    ("rule description", "Text", "text", False),
    ("rule source_net", "10.0.0.1/8", "10.0.0.0/8", False),
    ("route network", "172.16.5.1/12", "172.16.0.0/12", False),
    ("unbound_host hostname", "NAS", "nas", True),
    ("kea_subnet option_data.routers", "10.0.0.1,10.0.0.2", "10.0.0.2,10.0.0.1", False),
    ("kea_reservation hw_address", "52-54-00-AA-BB-CC", "52:54:00:aa:bb:cc", True),
]


@pytest.mark.parametrize(("path", "first", "second", "wanted"), SAME)
def test_same(path: str, first: str, second: str, wanted: bool) -> None:
    assert is_same(row(path), first, second) is wanted
    assert is_same(row(path), second, first) is wanted


def test_to_api() -> None:
    assert to_api(row("alias content"), ("a", "b")) == "a\nb"
    assert to_api(row("rule interface"), ("lan", "wan")) == "lan,wan"
    assert to_api(row("rule interface"), ()) == ""
    assert to_api(row("rule log"), "1") == "1"


def test_an_item_of_get_reads_like_a_row() -> None:
    item = {
        "enabled": "1",
        "interface": {"lan": {"value": "LAN", "selected": 1}, "wan": {"value": "WAN", "selected": 0}},
        "gateway": {"": {"value": "None", "selected": 1}, "GW": {"value": "GW", "selected": 0}},
        "categories": [],
        "%source_net": "LAN net",
        "destination": {"network": "any", "port": "", "not": "0"},
    }
    assert flatten_item(item) == {
        "enabled": "1",
        "interface": "lan",
        "gateway": "",
        "categories": "",
        "destination.network": "any",
        "destination.port": "",
        "destination.not": "0",
    }
