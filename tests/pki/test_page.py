"""docs/pki.md is true: its settings, its codes and sentences, the files that it names."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import get_args

import pytest

from fazai.agent.link import tls
from fazai.pki import Authority, PeerCode, PkiError, PkiSettings
from fazai.pki.administration import issue_pair
from fazai.pki.reading import fingerprint_of
from fazai.store.certificates import Revocation
from tests.pki.world import BEGIN, DAY_S, Clock, Existing, World, der_of, openssl
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


def test_the_word_of_an_existing_ca_is_made_as_the_page_says(world: World) -> None:
    """And agents check it: fazai/agent has no other code for one sort than for the other."""
    (script,) = [text for text in blocks(PAGE, "sh") if "word.csr" in text]
    existing, after = Existing(world.root / "company"), World(world.root / "after", Clock(time.time()))
    after.store.close()
    folder = world.root / "there"
    folder.mkdir(mode=0o700)
    (folder / "next-ca.pem").write_text(after.authority.ca_pem)
    old = (existing.folder / "ca.pem").read_text()
    (folder / "both.pem").write_text(old + after.authority.ca_pem)
    (folder / "pki.yml").write_text(json.dumps({"existing_ca": str(folder / "both.pem")}))
    before, _, last = script.replace("/etc/fazai/secrets/pki", str(folder)).partition("# the CA")
    subprocess.run(["bash", "-ec", before], cwd=folder, check=True, capture_output=True)
    mark = fingerprint_of(after.authority.trusted[0])
    names = f"extendedKeyUsage = clientAuth\nsubjectAltName = URI:fazai:trust:{mark}"
    made = existing.issue((folder / "word.csr").read_text(), names)
    (folder / "word.pem").write_bytes(openssl("x509", "-inform", "DER", data=made))
    subprocess.run(["bash", "-ec", last.partition("\n")[2]], cwd=folder, check=True)
    authority = Authority.load(folder)
    (word,) = authority.endorsements
    assert word.endorsed == mark
    (folder / "known.pem").write_text(old)
    (folder / "offered.pem").write_text(word.pem)
    assert tls.read_endorsed(str(folder / "known.pem"), str(folder / "offered.pem")) == {mark}
