"""docs/daemon.md: the privileges that it names open what the readers ask, and none of them opens a write."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from fazai.errors import AccessDenied
from fazai.lab import LabFirewall
from tests.opnsense.helpers import ROOT, FakeClock, run, session, target
from tests.opnsense.reading.readers import READERS

PAGE = (ROOT / "docs/daemon.md").read_text()
ROWS: dict[str, list[str]] = {
    topic: re.findall(r"`(page-[a-z-]+)`", privileges)
    for topic, privileges in re.findall(r"^\| `/opn/{id}/(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)
}


def read_as(firewall: LabFirewall, who: str, topic: str, privileges: list[str]) -> Any:
    """Read with the key of a user who has these privileges and no others."""
    user = {"name": who, "password": "Secret-123-x", "disabled": "0"}
    user["priv"] = ",".join(privileges)
    assert firewall.call("POST", "/api/auth/user/add", {"user": user})["result"] == "saved"
    key = firewall.call("POST", f"/api/auth/user/addApiKey/{user['name']}", {})
    whole = target(firewall, retries=0)
    secret = {"api_key": key["key"], "api_secret": key["secret"]}

    async def read() -> Any:
        narrow = replace(whole, options={**whole.options, "secret": secret})
        async with session(narrow, FakeClock()) as work:
            return await READERS[topic].read(work.api)

    return run(read())


def test_every_reader_is_on_the_page() -> None:
    assert set(ROWS) == set(READERS)


@pytest.mark.parametrize("topic", READERS)
def test_the_privileges_suffice_and_are_needed(firewall: LabFirewall, topic: str) -> None:
    found = read_as(firewall, "reader", topic, ROWS[topic])
    assert getattr(found, "missing", ()) == ()
    if topic != "vpn":
        with pytest.raises(AccessDenied, match="lacks the privilege"):
            read_as(firewall, "other", topic, ["page-diagnostics-arptable", *ROWS[topic][1:]])
