"""What comes from the network before anybody is known: whatever it is, it is refused with a sentence."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from fazai.pki import IssuedCertificate, PkiError
from fazai.pki.building import build_request
from tests.campaign import with_examples
from tests.pki.world import BEGIN, DAY_S, World, der_of, rfc3339

#: The same examples each time, however slow the machine.
STEADY = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
#: Some bytes of a message, each replaced by another value; then a piece that is cut out or doubled.
CHANGES = st.tuples(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    st.integers(0, 5000),
    st.integers(0, 40),
    st.sampled_from(["keep", "cut", "double"]),
)
Changes = tuple[list[tuple[int, int]], int, int, str]


def change(data: bytes, changes: Changes) -> bytes:
    replaced, at, size, how = changes
    found = bytearray(data)
    for index, value in replaced:
        found[index % len(found)] = value
    at %= len(found)
    piece = found[at : at + size]
    rest = {"keep": piece, "cut": bytearray(), "double": piece * 2}[how]
    return bytes(found[:at] + rest + found[at + size :])


def refusal_of(use: Callable[[], object]) -> PkiError | None:
    """Return the refusal, which can be shown; anything else that is raised is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of serial numbers that are none
        try:
            use()
        except PkiError as error:
            return error if str(error).isprintable() and len(str(error)) < 400 else None
    return None


_KEY = ec.generate_private_key(ec.SECP256R1())


@with_examples(150, 3000)
def test_certificates_that_were_changed(world: World, count: int) -> None:
    """Also by one bit: none of them is an agent's."""
    cert = der_of(world.authority.issue(build_request(_KEY, "edge-7"), "edge-7").pem)
    now = rfc3339(BEGIN)

    @settings(STEADY, max_examples=count)
    @given(changes=CHANGES)
    @example(changes=([(61, 205)], 0, 0, "keep"))
    def holds(changes: Changes) -> None:
        changed = change(cert, changes)
        assume(changed != cert)
        assert refusal_of(lambda: world.peers.check_peer(changed, "edge-7", BEGIN))
        assert refusal_of(lambda: world.enrolments.renew(changed, build_request(_KEY, "edge-7")))
        assert refusal_of(lambda: world.enrolments.return_after_expiry(changed, "", "AAAA", now))

    holds()


@with_examples(150, 3000)
def test_requests_that_were_changed(world: World, count: int) -> None:
    """In their DER form, which then is wrapped well, or in their text: what is taken all the same is the same
    request."""
    request = x509.load_pem_x509_csr(build_request(_KEY, "edge-7").encode())

    @settings(STEADY, max_examples=count)
    @given(changes=CHANGES, inside=st.booleans())
    @example(changes=([(7, 1)], 0, 0, "keep"), inside=True)  # a version that is none
    def holds(changes: Changes, inside: bool) -> None:
        form = serialization.Encoding.DER if inside else serialization.Encoding.PEM
        changed = change(request.public_bytes(form), changes)
        if inside:
            body = base64.encodebytes(changed).decode()
            lines = ("-----BEGIN CERTIFICATE REQUEST-----", f"{body}-----END CERTIFICATE REQUEST-----")
            changed = "\n".join(lines).encode()
        issued: list[IssuedCertificate] = []
        assert refusal_of(lambda: issued.append(world.authority.issue(changed, "edge-7"))) or issued
        for one in issued:
            found = x509.load_pem_x509_certificate(one.pem.encode())
            assert found.subject.rfc4514_string() == "CN=edge-7"
            assert found.public_key() == _KEY.public_key()

    holds()


TEXTS = st.text() | st.binary()
TOKENS = st.text() | st.from_regex(r"\Afza_[A-Za-z0-9_-]{32}\.[0-9a-f]{16}\Z")
TIMES = st.text() | st.datetimes().map(str) | st.just("9999-12-31T23:59:59-23:59")


@with_examples(100, 1000)
def test_tokens_and_returns_of_nobody(world: World, count: int) -> None:
    real = world.authority.issue(build_request(_KEY, "edge-7"), "edge-7").pem

    @settings(STEADY, max_examples=count)
    @given(token=TOKENS, cert=TEXTS, csr=TEXTS, signature=st.text(), time=TIMES)
    def holds(token: str, cert: str | bytes, csr: str | bytes, signature: str, time: str) -> None:
        assert refusal_of(lambda: world.enrolments.redeem(token, csr))
        for old in (cert, real):
            proof = (old, csr, signature, time)
            assert refusal_of(lambda proof=proof: world.enrolments.return_after_expiry(*proof))  # type: ignore[misc]

    holds()
    assert world.store.certificates() == []
    assert world.notices == []


NAMES = [
    "",
    "CN=edge-7,CN=edge-7",
    "CN=edge-7\\00.evil",
    "CN=\x1b[2J",
    "CN=" + "ä" * 30,
    "O=edge-7",
    "UID=edge-7",
]


@pytest.mark.parametrize("text", NAMES, ids=range(len(NAMES)))
def test_strange_names_of_a_trusted_ca(world: World, text: str) -> None:
    """An existing CA may sign what it likes: who is not named so is refused, in a line that can be shown."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name.from_rfc4514_string("CN=\u001b[31mCA")
    begin, end = (datetime.fromtimestamp(BEGIN + days * DAY_S, UTC) for days in (-1, 300))

    def build(name: x509.Name, *extensions: x509.ExtensionType, ca: bool = False) -> x509.Certificate:
        builder = x509.CertificateBuilder(subject, name, _KEY.public_key() if not ca else ca_key.public_key())
        builder = builder.serial_number(7).not_valid_before(begin).not_valid_after(end)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    root = build(subject, x509.BasicConstraints(ca=True, path_length=None), ca=True)
    (world.root / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    world.settings(f"existing_ca: {world.root}/ca.pem\n")
    name = x509.Name.from_rfc4514_string(text)
    cert = build(name).public_bytes(serialization.Encoding.DER)
    with pytest.raises(PkiError, match=r"presented a certificate that|the certificate is that of") as failed:
        world.peers.check_peer(cert, "edge-7", BEGIN)
    assert failed.value.code == "wrong_name"
    assert str(failed.value).isprintable()
