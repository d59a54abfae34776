"""Keys of users that may do one thing: which addresses they can use, and what is said when one is missing."""

from __future__ import annotations

import pytest

from fazai.errors import AccessDenied
from fazai.lab import LabFirewall
from fazai.lab.access import Access, read_privileges
from fazai.model import Target
from fazai.providers.opnsense.api.calls import ApiCall, spell_in_snake_case
from fazai.providers.opnsense.catalogue.rows import SERVICES
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import apply, plan, resource, run, target

HOST = resource(
    "opnsense.unbound_host",
    {"hostname": "nas", "domain": "example.org", "rr": "A", "server": "192.0.2.1"},
)
ALIAS = resource("opnsense.alias", {"name": "one", "type": "host", "content": ["192.0.2.1"]})


def as_user(firewall: LabFirewall, privilege: str) -> Target:
    """The firewall with the key of a user who has this privilege only."""
    body = {"user": {"name": "ops", "password": "Secret-123-x", "priv": privilege}}
    assert firewall.call("POST", "/api/auth/user/add", body)["result"] == "saved"
    made = firewall.call("POST", "/api/auth/user/addApiKey/ops")
    firewall.requests.clear()
    return target(firewall, secret={"api_key": made["key"], "api_secret": made["secret"]})


def test_a_privilege_for_addresses_in_snake_case_is_enough(firewall: LabFirewall) -> None:
    """Recorded: page-services-dnsresolver-overrides opens search_host_override and not searchHostOverride."""
    to = as_user(firewall, "page-services-dnsresolver-overrides")
    assert [change.identity for change in run(plan(to, [HOST])).changes] == ["nas.example.org A"]
    with pytest.raises(
        AccessDenied, match=r"the API key's user lacks the privilege page-services-unbound \("
    ):
        run(apply(to, [HOST]))  # it may not activate
    assert [
        path.removeprefix("/api/unbound/").partition("/fa2a1000-")[0] for _, path, _ in firewall.requests
    ] == [
        "settings/searchHostOverride",  # 403
        "settings/search_host_override",
        "settings/searchHostOverride",
        "settings/search_host_override",
        "settings/set_host_override",  # known by now
        "service/reconfigure",
    ]


def test_a_key_without_the_privilege_is_told_which_one(firewall: LabFirewall) -> None:
    to = as_user(firewall, "page-services-dnsresolver-overrides")
    with pytest.raises(AccessDenied, match=r"lacks the privilege page-firewall-alias-edit \(") as caught:
        run(plan(to, [ALIAS]))
    assert (
        caught.value.hint
        == "add it to the user or one of its groups (firewall/alias/search_item was refused)"
    )
    assert len(firewall.requests) == 2


@pytest.mark.parametrize("kind", PROVIDER.kinds.values(), ids=lambda kind: kind.name)
def test_the_privilege_of_a_kind_opens_its_calls(firewall: LabFirewall, kind: object) -> None:
    row = PROVIDER.kinds[kind.name].row  # type: ignore[attr-defined]
    table = read_privileges(firewall.box)
    access = Access("ops", tuple(table[row.privilege]["match"].split("\n")), readonly=False)
    for verb in row.verbs:
        call = ApiCall("POST", f"{row.path}/{verb}")
        assert access.allows(f"api/{call.path}") or access.allows(f"api/{spell_in_snake_case(call).path}"), (
            call.path
        )


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_privilege_of_a_service_opens_its_activation(firewall: LabFirewall, service: object) -> None:
    path, privilege = service.path, service.privilege  # type: ignore[attr-defined]
    access = Access(
        "ops", tuple(read_privileges(firewall.box)[privilege]["match"].split("\n")), readonly=False
    )
    assert access.allows(f"api/{path}")
