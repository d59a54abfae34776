"""Settings: found as they are, changed, and the same again changes nothing, on both releases."""

from __future__ import annotations

import pytest

from tests.opnsense.helpers import Start
from tests.opnsense.kinds.lifecycle import Case, check_lifecycle

CASES = [
    Case("opnsense.wireguard_settings", {"enabled": True}, {"enabled": False}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("release", ["26.7.2", "26.1.11"])
def test_life(start: Start, case: Case, release: str) -> None:
    if release in case.releases:
        check_lifecycle(start, case, release)
