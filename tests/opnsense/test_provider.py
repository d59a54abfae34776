"""Options of a firewall, its key, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import InventoryError, Mark
from fazai.model import Secret, Target
from fazai.providers.opnsense.api.credentials import read_credentials
from fazai.providers.opnsense.provider import PROVIDER
from fazai.providers.opnsense.session import OpnsenseSession
from tests.opnsense.helpers import ROOT

GOOD: dict[str, Any] = {
    "base_url": "https://fw-01.example.net",
    "secret": {"api_key": "k", "api_secret": Secret("s")},
}


def target(**options: Any) -> Target:
    merged = {**GOOD, **options}
    places = {name: Mark("inventory.yml", place, 7) for place, name in enumerate(merged, 1)}
    return Target("fw-01", "opnsense", "write", merged, mark=Mark("inventory.yml", 9, 5), marks=places)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"base_url": "lab://fw-01"},
        {"base_url": "http://127.0.0.1:8080"},
        {"base_url": "http://[::1]:8080"},
        {"base_url": "https://[2001:db8::1]:8443/"},
        {"fingerprint": "sha256:" + "AB:" * 31 + "ab"},
        {"prune": True, "max_prune": "25%"},
        {"prune": ["opnsense.alias"], "max_prune": 3},
        {"prune": {"opnsense.alias": True}},
        {"protected": ["keep-*"]},
        {"timeout": 2.5, "retries": 0},
    ],
)
def test_good_options(options: dict[str, Any]) -> None:
    assert PROVIDER.check(target(**options)) == []


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"base_url": None}, "base_url", "is missing"),
    ({"base_url": "fw-01.example.net"}, "base_url", 'is not an address: "fw-01.example.net"'),
    ({"base_url": "http://192.0.2.1"}, "base_url", "would send the key unencrypted over http://"),
    ({"base_url": "https://user:pw@fw-01"}, "base_url", "must not hold a key"),
    ({"base_url": "https://fw-01:99999"}, "base_url", 'is not an address: "https://fw-01:99999"'),
    ({"base_url": "https://fw..example"}, "base_url", 'is not an address: "https://fw..example"'),
    ({"base_url": "https://-fw"}, "base_url", 'is not an address: "https://-fw"'),
    ({"base_url": "https://fw%20"}, "base_url", 'is not an address: "https://fw%20"'),
    ({"base_url": "https://^\U000a709c"}, "base_url", 'is not an address: "https://^\U000a709c"'),
    ({"base_url": "https://fw 01"}, "base_url", 'is not an address: "https://fw 01"'),
    ({"base_url": "https://fw-01/?x=1"}, "base_url", 'must not have a query: "https://fw-01/?x=1"'),
    ({"base_url": "lab://"}, "base_url", "names no firewall of the lab"),
    ({"secret": None}, "secret", "is missing"),
    ({"secret": {"api_key": "k"}}, "secret", "has no api_secret"),
    ({"secret": Secret("hunter2")}, "secret", "has no api_key and api_secret"),
    ({"secret": 5}, "secret", "must be a map of api_key and api_secret"),
    ({"secret": {"api_key": "a:b", "api_secret": "s"}}, "secret", "holds a key that cannot be sent"),
    ({"verify_tls": "no"}, "verify_tls", 'must be true or false, not "no"'),
    ({"timeout": "30s"}, "timeout", 'must be a number, not "30s"'),
    ({"timeout": 0}, "timeout", "must be from 1 to 3600, not 0"),
    ({"retries": 2.5}, "retries", 'must be a number, not "2.5"'),
    ({"fingerprint": "sha1:00"}, "fingerprint", "must be sha256: and 64 hexadecimal digits"),
    ({"prune": "yes"}, "prune", "must be true, false, a list of kinds, or a map of kinds to true"),
    ({"prune": ["opnsense.alas"]}, "prune", 'names no kind: "opnsense.alas"'),
    ({"max_prune": "lots"}, "max_prune", 'must be a number or a percentage, not "lots"'),
    ({"owner": "a team"}, "owner", "must be letters, digits, dots and dashes"),
    ({"protected": "x"}, "protected", "must be a list of texts"),
]


@pytest.mark.parametrize(("options", "option", "message"), WRONG)
def test_wrong_options_are_said_with_their_place(options: dict[str, Any], option: str, message: str) -> None:
    wanted = target(**options)
    (error,) = PROVIDER.check(wanted)
    assert isinstance(error, InventoryError)
    assert error.message.startswith(f"fw-01: {option} {message}")
    assert error.where == wanted.where(option)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": "k", "api_secret": "s"},
        {"key": Secret("k"), "secret": Secret("s")},
        Secret('{"api_key": "k", "api_secret": "s"}'),
        Secret("key=k\nsecret=s\n"),
    ],
)
def test_forms_of_a_key(value: Any) -> None:
    found = read_credentials(value)
    assert (found.key.reveal(), found.secret.reveal()) == ("k", "s")
    assert "Secret" not in repr(found) or "***" in repr(found)


def test_broken_json_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="not valid JSON") as caught:
        read_credentials(Secret('{"api_key": "hunter2"'))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_session_refuses_an_address_that_only_the_shell_can_resolve() -> None:
    with pytest.raises(InventoryError, match="not an address that can be reached: lab://fw-01"):
        PROVIDER.connect(target(base_url="lab://fw-01"))


def test_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="there is no CA file"):
        PROVIDER.connect(target(ca=str(tmp_path / "ca.pem")))
    for text in (
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----é",
    ):
        with pytest.raises(InventoryError, match="ca holds no certificate that can be read"):
            PROVIDER.connect(target(ca=text))


def test_session_reads_its_options(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    session = PROVIDER.connect(
        target(
            ca=str(tmp_path / "ca.pem"), fingerprint="SHA256:" + "AB:" * 31 + "AB", timeout=7, owner="team-b"
        )
    )
    assert isinstance(session, OpnsenseSession)
    assert session._settings.timeout_s == 7
    assert session._settings.pin == "ab" * 32
    assert session._policy.mark not in ("fa2a1000", "")


def test_kinds_and_checks_need_no_http_client() -> None:
    code = (
        "import sys; from fazai.providers.opnsense.provider import PROVIDER; PROVIDER.kinds; "
        "assert not {'httpx', 'ssl', 'asyncio', 'anyio'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pages_name_every_option_and_kind() -> None:
    page = (ROOT / "docs" / "opnsense.md").read_text()
    assert [name for name in PROVIDER.options if f"`{name}`" not in page] == []
    kinds = (ROOT / "docs" / "kinds.md").read_text()
    assert [kind for kind in PROVIDER.kinds if f"[`{kind}`]" not in kinds] == []
