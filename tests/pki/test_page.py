"""docs/pki.md is true: its settings, its codes and sentences, the files that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from fazai.pki import PeerCode, PkiError, PkiSettings
from fazai.pki.administration import issue_pair
from fazai.store.certificates import Revocation
from tests.pki.world import BEGIN, DAY_S, World, der_of
from tests.test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs/pki.md"


def test_the_settings_of_the_page_are_the_defaults(world: World) -> None:
    (text,) = blocks(PAGE, "yaml")
    world.settings(text)
    assert world.authority.settings == PkiSettings()
    assert world.authority.settings.agent_lifetime == 30 * DAY_S


def test_the_refusals_of_the_page_are_those_of_the_code(world: World) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE))
    assert list(rows) == list(get_args(PeerCode))
    edge = der_of(world.enrol(world.machine()).pem)
    other = World(world.root / "other")
    strange = der_of(other.enrol(world.machine()).pem)
    other.store.close()
    cases: dict[str, tuple[bytes | None, str, float]] = {
        "no_certificate": (None, "edge-7", BEGIN),
        "unknown_ca": (strange, "edge-7", BEGIN),
        "expired": (edge, "edge-7", BEGIN + 40 * DAY_S),
        "not_yet_valid": (edge, "edge-7", BEGIN - DAY_S),
        "wrong_name": (edge, "edge-8", BEGIN),
        "revoked": (edge, "edge-7", BEGIN),
    }
    for code, (cert, name, now) in cases.items():
        if code == "revoked":
            world.store.revoke(Revocation("edge-7", BEGIN, "reason"))
            world.peers.refresh()
        pattern = re.escape(rows[code]).replace("…", ".*").replace("'X'", "'.*'").replace("'Y'", "'.*'")
        with pytest.raises(PkiError, match=pattern) as failed:
            world.peers.check_peer(cert, name, now)
        assert failed.value.code == code


def test_the_files_of_the_page_are_those_that_are_made(world: World) -> None:
    world.authority.issue_listener(["a.example"])
    issue_pair(world.authority, world.store, "edge-7", world.folder / "issued")
    text = PAGE.read_text()
    for path in world.folder.iterdir():
        assert f"`{path.name}{'/' if path.is_dir() else ''}`" in text
