"""What our CA issues, for requests of any tool, is what OpenSSL takes at its strictest; what it refuses."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fazai.pki import PkiError
from fazai.pki.building import KeyType, build_request
from tests.pki.world import BEGIN, DAY_S, HOUR_S, KEYS, WEAK_KEYS, Machine, World, openssl


def read(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def strictly_verified(world: World, pem: str, purpose: str, now: float = BEGIN) -> None:
    """By the openssl program, with all that RFC 5280 asks for."""
    (world.root / "ca.pem").write_text(world.authority.ca_pem)
    (world.root / "one.pem").write_text(pem)
    words = ("-x509_strict", "-check_ss_sig", "-purpose", purpose, "-attime", str(int(now)))
    openssl("verify", *words, "-CAfile", str(world.root / "ca.pem"), str(world.root / "one.pem"))


@pytest.mark.parametrize("sort", KEYS)
@pytest.mark.parametrize("key_type", ["p256", "ed25519"])
def test_requests_of_openssl_get_certificates(tmp_path: Path, sort: str, key_type: KeyType) -> None:
    world = World(tmp_path, key_type=key_type)
    with contextlib.closing(world.store):
        machine = world.machine(sort=sort)
        issued = world.authority.issue(machine.request(), "edge-7")
    strictly_verified(world, issued.pem, "sslclient")
    found = read(issued.pem)
    assert found.subject.rfc4514_string() == "CN=edge-7"
    other = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in other] == ["fazai:agent:edge-7"]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    public = openssl("pkey", "-in", str(machine.key), "-pubout")
    assert openssl("x509", "-in", str(tmp_path / "one.pem"), "-noout", "-pubkey") == public


def test_times_are_backdated_and_short(world: World) -> None:
    machine = world.machine()
    found = read(world.authority.issue(machine.request(), "edge-7").pem)
    assert found.not_valid_before_utc.timestamp() == int(BEGIN - 300)
    assert found.not_valid_after_utc.timestamp() == int(BEGIN + 30 * DAY_S)
    found = read(world.authority.issue(machine.request(), "edge-7", 2 * HOUR_S).pem)
    assert found.not_valid_after_utc.timestamp() == int(BEGIN + 2 * HOUR_S)
    ca = world.authority.trusted[0]
    assert ca.not_valid_after_utc.timestamp() == int(BEGIN + 3650 * DAY_S)
    world.settings("agent_lifetime: 12h\nlistener_lifetime: 7d\n")
    assert world.authority.issue(machine.request(), "edge-7").not_after == int(BEGIN + 12 * HOUR_S)
    assert world.authority.issue_listener(["a.example"]).not_after == int(BEGIN + 7 * DAY_S)


def test_nothing_outlives_the_ca(world: World) -> None:
    machine, end = world.machine(), world.authority.trusted[0].not_valid_after_utc.timestamp()
    world.clock.now = end - DAY_S
    assert world.authority.issue(machine.request(), "edge-7").not_after == end
    world.clock.now = end
    with pytest.raises(PkiError, match=r"the CA fazai CA \w+ itself expired at 20") as failed:
        world.authority.issue(machine.request(), "edge-7")
    assert failed.value.code == "expired"


def test_a_request_has_a_say_in_nothing_but_its_key(world: World) -> None:
    """Not even in names, purposes or constraints that it asks for."""
    key = ed25519.Ed25519PrivateKey.generate()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "edge-7"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "admins"),
        ]
    )
    greedy = (
        x509.CertificateSigningRequestBuilder(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("fazai.example.net")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, None)
    )
    pem = greedy.public_bytes(serialization.Encoding.PEM)
    found = read(world.authority.issue(pem, "edge-7").pem)
    plain = read(world.authority.issue(build_request(key, "edge-7"), "edge-7").pem)
    assert found.subject == plain.subject
    assert [one.value for one in found.extensions] == [one.value for one in plain.extensions]


@pytest.mark.parametrize("sort", WEAK_KEYS)
def test_weak_keys_are_refused(world: World, sort: str) -> None:
    machine = world.machine(sort=sort)
    with pytest.raises(PkiError, match="the key of the request is of no sort that is taken") as failed:
        world.authority.issue(machine.request(), "edge-7")
    assert failed.value.code == "bad_request"


def _broken_requests(machine: Machine) -> dict[str, tuple[str | bytes, str]]:
    good = machine.request()
    lines = good.splitlines()
    middle = lines[len(lines) // 2]
    flipped = good.replace(middle, middle[:-1] + ("A" if middle[-1] != "A" else "B"))
    return {
        "empty": ("", "this is no certificate request"),
        "binary": (bytes(range(256)), "this is no certificate request"),
        "key": (machine.key.read_text(), "this is no certificate request"),
        "cut": (good[: len(good) // 2], "this is no certificate request"),
        "flipped": (flipped, "no certificate request|not signed by its own key|no sort that is taken"),
        "nobody": (machine.request("/O=edge-7"), "the request names nobody"),
        "two names": (machine.request("/CN=edge-7/CN=edge-8"), "the request names several"),
        "long": (good + "x" * 20_000, "larger than 16384 bytes"),
        "other": (machine.request("/CN=edge-8"), "the request is for 'edge-8', and edge-7 was expected"),
        "nul": (machine.request("/CN=edge-7\\0.evil"), "the request is for 'edge-7.*', and edge-7"),
    }


@pytest.mark.parametrize(
    "case",
    ["empty", "binary", "key", "cut", "flipped", "nobody", "two names", "long", "other", "nul"],
)
def test_requests_that_are_none_are_refused(world: World, case: str) -> None:
    csr, match = _broken_requests(world.machine())[case]
    with pytest.raises(PkiError, match=match) as failed:
        world.authority.issue(csr, "edge-7")
    assert failed.value.code == ("wrong_name" if case in ("other", "nul") else "bad_request")
    assert str(failed.value).isprintable()


@pytest.mark.parametrize("name", ["", "../ca", "a/b", "-x", ".x", "a b", "ä", "x" * 65, "a\n", "a:b", "*"])
def test_names_that_are_none_are_refused(world: World, name: str) -> None:
    with pytest.raises(PkiError, match="is no name for an agent"):
        world.authority.issue(world.machine().request(), name)
    with pytest.raises(PkiError, match="is no name for an agent"):
        world.enrolments.create(name)


def test_a_listener_has_its_names(world: World) -> None:
    issued = world.authority.issue_listener(["fazai.example.net", "192.0.2.1", "2001:db8::1", "*.lab"])
    strictly_verified(world, issued.pem, "sslserver")
    chain = x509.load_pem_x509_certificates(world.authority.listener_certificate.read_bytes())
    assert chain[1:] == list(world.authority.trusted)
    shown = openssl("x509", "-in", str(world.authority.listener_certificate), "-noout", "-text").decode()
    for name in ("DNS:fazai.example.net", "IP Address:192.0.2.1", "2001:DB8", "DNS:*.lab"):
        assert name in shown
    assert world.authority.listener_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name", ["", "a b", "http://x", "x/y", "1.2.3", "256.1.1.1", "-a", "a..b", "x" * 254]
)
def test_a_name_that_is_none_makes_no_listener(world: World, name: str) -> None:
    with pytest.raises(PkiError, match="is neither a host name nor an address"):
        world.authority.issue_listener(["good.example", name])
    assert not world.authority.listener_certificate.exists()
    assert not world.authority.listener_key.exists()


def test_the_listener_is_renewed_in_time_with_the_same_key(world: World) -> None:
    assert world.authority.renew_listener() is None  # there is none
    first = world.authority.issue_listener(["a.example", "127.0.0.1"])
    key = world.authority.listener_key.read_bytes()
    world.clock.now += 59 * DAY_S
    assert world.authority.renew_listener() is None
    world.clock.now += 2 * DAY_S
    second = world.authority.renew_listener()
    assert second is not None
    assert second.not_after == int(world.clock.now + 90 * DAY_S)
    assert read(second.pem).extensions.get_extension_for_class(x509.SubjectAlternativeName) == read(
        first.pem
    ).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert world.authority.listener_key.read_bytes() == key
    world.clock.now += 200 * DAY_S  # it was forgotten: it can be renewed all the same
    assert world.authority.renew_listener() is not None
    assert world.authority.renew_listener(force=True) is not None
