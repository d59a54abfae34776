"""Each reader on each release of the lab."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.lab.settings import RELEASES
from tests.opnsense.helpers import FakeClock, Start, run, session, target
from tests.opnsense.reading.readers import READERS


@pytest.mark.parametrize("release", RELEASES)
def test_every_reader_has_an_answer_on_each_release(start: Start, release: str) -> None:
    firewall = start(release=release, traffic=7)
    rule = {"interface": "lan", "description": "mine", "log": "1"}
    firewall.call("POST", "/api/firewall/filter/addRule", {"rule": rule})
    firewall.call("POST", "/api/firewall/filter/apply")

    async def read() -> dict[str, Any]:
        async with session(target(firewall, retries=0), FakeClock()) as work:
            return {name: await reader.read(work.api) for name, reader in READERS.items()}

    writes = firewall.counters["writes"]
    found = run(read())
    rules = found["rules"].data
    assert rules[-1].description in ("mine", "Default allow LAN IPv6 to any rule")
    mine = next(one for one in rules if one.description == "mine")
    assert (mine.automatic, mine.interface, mine.log, mine.evaluations is not None) == (
        False,
        "lan",
        True,
        True,
    )
    assert found["firmware"].data.version == release
    assert found["states"].total == sum(one.states or 0 for one in rules) > 0
    assert all(entry.time is not None for entry in found["log"].data)
    assert found["vpn"].missing == ()
    assert found["services"].total == len(found["services"].data) == 12
    assert found["activity"].data
    assert found["backup"].endswith(b"</opnsense>\n")
    assert firewall.counters["writes"] == writes
