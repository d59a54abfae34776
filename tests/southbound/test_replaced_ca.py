"""The CA of a running daemon is replaced, and its agents go on without being enrolled anew."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.live import until
from tests.southbound.fleet import Fleet

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        (tmp_path / "secrets/pki/pki.yml").write_text("agent_lifetime: 1h\n")
        made.start_daemon()
        for name in ("edge-1", "edge-2"):
            made.enrol(name)
        made.start_agent("edge-1")
        yield made
    finally:
        made.close()


def status(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.fazai("pki", "ca", "status", "--output", "json").stdout)
    return found


def lacks(fleet: Fleet) -> dict[str, str | None]:
    return {one["name"]: one["lacks"] for one in status(fleet)["agents"]}


def authorities(path: Path) -> int:
    return path.read_text().count("BEGIN CERTIFICATE")


def issuer_of_listener(fleet: Fleet) -> str:
    found = ssl.get_server_certificate((fleet.address, fleet.port))
    return issuer_of(found)


def issuer_of(pem: str) -> str:
    from cryptography import x509

    return x509.load_pem_x509_certificate(pem.encode()).issuer.rfc4514_string()


def test_no_agent_is_enrolled_anew(fleet: Fleet) -> None:
    folder = fleet.folder / "edge-1"
    before = issuer_of((folder / "cert.pem").read_text())
    said = fleet.fazai("pki", "ca", "rotate").stdout
    assert "made, and trusted from now on:" in said
    until(lambda: authorities(folder / "ca.pem") == 2)  # told over the connection that stands
    until(
        lambda: (
            lacks(fleet)
            == {"edge-1": None, "edge-2": "not told yet: it is when it is connected, unless it is too old"}
        )
    )
    refused = fleet.fazai("pki", "ca", "switch", expect=(7,))
    assert "edge-2 does not trust the next CA yet" in refused.stderr
    assert issuer_of_listener(fleet) == before
    fleet.start_agent("edge-2")
    until(lambda: lacks(fleet) == {"edge-1": None, "edge-2": None})

    assert "2 of 2 agents ready; next: fazai pki ca retire" not in fleet.fazai("pki", "ca", "switch").stdout
    until(lambda: issuer_of_listener(fleet) != before)
    after = issuer_of_listener(fleet)
    # a machine that enrols between the two steps trusts the next one alone
    fleet.enrol("edge-3")
    assert authorities(fleet.folder / "edge-3/ca.pem") == 1
    # each gets its next certificate of the next CA by itself
    for name in ("edge-1", "edge-2"):
        until(lambda name=name: issuer_of((fleet.folder / name / "cert.pem").read_text()) == after)  # type: ignore[misc]
    until(lambda: lacks(fleet)["edge-1"] is None and lacks(fleet)["edge-2"] is None)
    fleet.start_agent("edge-3")
    until(lambda: lacks(fleet) == {"edge-1": None, "edge-2": None, "edge-3": None})

    said = fleet.fazai("pki", "ca", "retire").stdout
    assert "before" not in said
    for name in ("edge-1", "edge-2", "edge-3"):
        until(lambda name=name: authorities(fleet.folder / name / "ca.pem") == 1)  # type: ignore[misc]
    fleet.kill(fleet.daemon)
    fleet.start_daemon()
    for name in ("edge-1", "edge-2", "edge-3"):
        fleet.wait_for(name, "observation")
        echo = {"method": "command.exec", "action_id": f"a-{name}", "command": "/bin/echo", "args": ["hi"]}
        assert fleet.ask(name, {**echo, "timeout": 60_000})["answer"]["stdout"] == "hi\n"
    text = (fleet.folder / "daemon.log").read_text()
    assert "PRIVATE KEY" not in text
    assert not list((fleet.folder / "secrets/pki").glob("ca.*.key"))
