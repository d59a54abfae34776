"""Each refusal of a peer has its sentence; revocations act at once; existing CAs are trusted, and no more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fazai.errors import InputError
from fazai.pki import Authority, Enrolments, PeerChecker
from fazai.pki.administration import Maker
from fazai.pki.errors import PkiError
from fazai.pki.peers import CRL_MAX_BYTES
from fazai.store.certificates import Revocation
from fazai.store.factory import open_certificates
from tests.pki.world import BEGIN, DAY_S, HOUR_S, Clock, Existing, World, der_of, openssl, refused

# -- our own CA


def test_a_good_one_is_let_through_from_its_first_second_to_its_last(world: World) -> None:
    cert = der_of(world.enrol(world.machine()).pem)
    for now in (BEGIN - 300, BEGIN, BEGIN + 30 * DAY_S - 1):
        world.peers.check_peer(cert, "edge-7", now)


def test_none(world: World) -> None:
    with refused("no_certificate", r"^edge-7 presented no certificate \("):
        world.peers.check_peer(None, "edge-7", BEGIN)


@pytest.mark.parametrize(
    ("off_s", "code", "match"),
    [
        (
            -HOUR_S,
            "not_yet_valid",
            r"is valid only from 20.* on, in 55 min \(it is 20.* here\) \(one of the two",
        ),
        (-DAY_S, "not_yet_valid", r"is valid only from 20.* on, in 1 day \("),
        (31 * DAY_S, "expired", r"expired at 20.*, 1 day ago \(it is 20"),
        (40 * DAY_S, "expired", r"expired at 20.*, 10 days ago"),
        (90 * DAY_S, "expired", r"expired at 20.*, 60 days ago"),
    ],
)
def test_clocks(world: World, off_s: float, code: str, match: str) -> None:
    cert = der_of(world.enrol(world.machine()).pem)
    with pytest.raises(PkiError, match=match) as failed:
        world.peers.check_peer(cert, "edge-7", BEGIN + off_s)
    assert failed.value.code == code
    world.peers.check_peer(cert, "edge-7", BEGIN + HOUR_S)


def test_an_unknown_ca(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    with contextlib.closing(other.store):
        cert = der_of(other.enrol(world.machine()).pem)
    with refused("unknown_ca", r"issued by 'fazai CA \w+', and this daemon trusts 'fazai CA \w+'"):
        world.peers.check_peer(cert, "edge-7", BEGIN)


def test_a_ca_of_the_same_name_is_unknown(world: World) -> None:
    """And one that signs itself with the agent's name."""
    key = ec.generate_private_key(ec.SECP256R1())
    for issuer in (world.authority.trusted[0].subject, x509.Name.from_rfc4514_string("CN=edge-7")):
        forged = (
            x509.CertificateBuilder(issuer, x509.Name.from_rfc4514_string("CN=edge-7"), key.public_key())
            .serial_number(1)
            .not_valid_before(datetime.fromtimestamp(BEGIN, UTC))
            .not_valid_after(datetime.fromtimestamp(BEGIN + DAY_S, UTC))
            .sign(key, hashes.SHA256())
        )
        with refused("unknown_ca", "the certificate was issued by"):
            world.peers.check_peer(forged.public_bytes(serialization.Encoding.DER), "edge-7", BEGIN)


@pytest.mark.parametrize("data", [b"", b"x", b"\x30\x80", b"\x00" * 5000])
def test_what_is_no_certificate_is_unknown(world: World, data: bytes) -> None:
    with refused("unknown_ca", "the peer's certificate cannot be read"):
        world.peers.check_peer(data, "edge-7", BEGIN)


def test_another_name(world: World) -> None:
    cert = der_of(world.enrol(world.machine()).pem)
    for name in ("edge-8", "EDGE-7", "edge-7.example", "", "fazai:agent:edge-7", "edge-7\n"):
        with refused("wrong_name", r"is that of edge-7, and the agent says that it is"):
            world.peers.check_peer(cert, name, BEGIN)


def test_the_listeners_certificate_is_no_agents(world: World) -> None:
    cert = der_of(world.authority.issue_listener(["edge-7"]).pem)
    with refused("wrong_name", "presented a certificate that is not an agent's"):
        world.peers.check_peer(cert, "edge-7", BEGIN)


def test_what_somebody_else_signed_with_our_key_is_no_agents(world: World) -> None:
    """An admin may use the CA for a person, or another client: that is not the agent of the same name."""
    (world.root / "csr").write_text(world.machine().request())
    (world.root / "ext").write_text("extendedKeyUsage = clientAuth\nsubjectAltName = DNS:edge-7\n")
    ca = ("-CA", str(world.folder / "ca.pem"), "-CAkey", str(world.folder / "ca.key"), "-set_serial", "7")
    files = ("-in", str(world.root / "csr"), "-extfile", str(world.root / "ext"))
    cert = openssl("x509", "-req", *files, *ca, "-days", "300", "-outform", "DER")
    with refused("wrong_name", "presented a certificate that is not an agent's"):
        world.peers.check_peer(cert, "edge-7", BEGIN)
    with refused("wrong_name", "the certificate is not an agent's"):
        world.enrolments.renew(cert, world.machine().request())


def test_messages_hold_no_control_characters(world: World) -> None:
    cert = der_of(world.enrol(world.machine()).pem)
    with pytest.raises(PkiError, match=r"says that it is \?\[31mroot\?") as failed:
        world.peers.check_peer(cert, "\x1b[31mroot\n" + "x" * 500, BEGIN)
    assert str(failed.value).isprintable()
    assert len(str(failed.value)) < 250


# -- revocation


def test_a_revocation_acts_with_the_next_refresh(world: World) -> None:
    """Of another process, as `fazai pki revoke` is one."""
    cert = der_of(world.enrol(world.machine()).pem)
    other = der_of(world.enrol(world.machine("edge-8")).pem)
    assert not world.peers.refresh()  # what was issued is no reason to look at living connections again
    with contextlib.closing(open_certificates(world.root / "state")) as admin:
        gone = admin.revoke(Revocation("edge-7", BEGIN + 1, "stolen from the van"))
    assert [one.name for one in gone] == ["edge-7"]
    assert world.peers.refresh()
    with refused("revoked", r"the certificate of edge-7 was revoked at 20.* \(stolen from the van\)"):
        world.peers.check_peer(cert, "edge-7", BEGIN)
    world.peers.check_peer(other, "edge-8", BEGIN)


def test_enrolled_anew_a_name_is_good_again_and_its_old_certificates_are_not(world: World) -> None:
    """Whatever the clock says: it went back by an hour."""
    old = der_of(world.enrol(world.machine()).pem)
    unknown = der_of(world.authority.issue(world.machine().request(), "edge-7").pem)  # not in the store
    world.store.revoke(Revocation("edge-7", BEGIN))
    world.clock.now -= HOUR_S
    new = der_of(world.enrol(world.machine()).pem)
    world.peers.refresh()
    world.peers.check_peer(new, "edge-7", BEGIN)
    for cert in (old, unknown):
        with refused("revoked", "was revoked"):
            world.peers.check_peer(cert, "edge-7", BEGIN)
    world.store.revoke(Revocation("edge-7", BEGIN, "again"))
    world.peers.refresh()
    with refused("revoked", r"\(again\)"):
        world.peers.check_peer(new, "edge-7", BEGIN)


def test_one_certificate_alone_is_revoked(world: World) -> None:
    machine = world.machine()
    first = world.enrol(machine)
    second = world.enrolments.renew(first.pem, machine.request())
    world.store.revoke(Revocation("edge-7", BEGIN, fingerprint=first.fingerprint))
    world.peers.refresh()
    with refused("revoked", "was revoked"):
        world.peers.check_peer(der_of(first.pem), "edge-7", BEGIN)
    world.peers.check_peer(der_of(second.pem), "edge-7", BEGIN)


def test_a_revocation_takes_the_name_its_open_token(world: World) -> None:
    token = world.enrolments.create("edge-7").token
    world.store.revoke(Revocation("edge-7", BEGIN))
    with refused("token_expired", "the enrolment token of edge-7 was withdrawn"):
        world.enrolments.redeem(token, world.machine().request())


def verdict(peers: PeerChecker, cert: bytes) -> str:
    try:
        peers.check_peer(cert, "edge-7", BEGIN)
    except PkiError as error:
        return error.code
    return "good"


def test_checks_and_refreshes_from_several_threads(world: World) -> None:
    cert = der_of(world.enrol(world.machine()).pem)
    world.peers.refresh()
    failed: list[BaseException] = []
    done = threading.Event()

    def refresh() -> None:
        try:
            while not done.is_set():
                world.peers.refresh()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=refresh) for _ in range(3)]
    for thread in threads:
        thread.start()
    verdicts = []
    for turn in range(60):
        if turn == 30:
            world.store.revoke(Revocation("edge-7", BEGIN))
        verdicts.append(verdict(world.peers, cert))
    done.set()
    for thread in threads:
        thread.join(30)
    assert failed == []
    world.peers.refresh()
    with refused("revoked", "was revoked"):
        world.peers.check_peer(cert, "edge-7", BEGIN)
    good = verdicts.count("good")
    assert good >= 30
    assert verdicts == ["good"] * good + ["revoked"] * (60 - good)


# -- an existing CA


@pytest.fixture
def existing(tmp_path: Path) -> Existing:
    return Existing(tmp_path / "company")


@pytest.fixture
def foreign(tmp_path: Path, existing: Existing) -> Iterator[tuple[Authority, PeerChecker, Clock]]:
    """A daemon that trusts the existing CA, at a time of the real one."""
    clock = Clock(datetime.now(UTC).timestamp() + 60)  # certificates that are made later hold, too
    crl = existing.write_crl()
    maker = Maker(tmp_path / "foreign/secrets/pki", clock)
    authority, made = maker.trust_existing(existing.folder / "ca.pem", crl)
    assert made
    with contextlib.closing(open_certificates(tmp_path / "foreign/state")) as store:
        yield authority, PeerChecker(authority, store), clock


Foreign = tuple[Authority, PeerChecker, Clock]


@pytest.mark.parametrize(
    ("subject", "extensions", "names"),
    [
        ("/O=Example/CN=edge-7", "", ["edge-7"]),
        ("/O=Example/CN=edge-7", "extendedKeyUsage = clientAuth", ["edge-7"]),
        (
            "/CN=machine",
            "subjectAltName = DNS:edge-7,DNS:edge-7.example.net",
            ["edge-7", "edge-7.example.net"],
        ),
        ("/O=Example", "subjectAltName = URI:fazai:agent:edge-7,URI:https://x", ["edge-7"]),
    ],
)
def test_certificates_of_an_existing_ca_by_their_names(
    foreign: Foreign, existing: Existing, world: World, subject: str, extensions: str, names: list[str]
) -> None:
    _, peers, clock = foreign
    cert = existing.issue(world.machine().request(subject), extensions)
    for name in names:
        peers.check_peer(cert, name, clock.now)
    for name in ("edge-8", "https://x", "x", ""):
        with refused("wrong_name", "the certificate is that of"):
            peers.check_peer(cert, name, clock.now)


def test_a_servers_certificate_of_an_existing_ca_is_no_agents(
    foreign: Foreign, existing: Existing, world: World
) -> None:
    _, peers, clock = foreign
    cert = existing.issue(world.machine().request(), "extendedKeyUsage = serverAuth")
    with refused("wrong_name", "is not an agent's, but a server's"):
        peers.check_peer(cert, "edge-7", clock.now)
    for cert, code in (
        (existing.issue(world.machine().request(), days=1), "expired"),
        (der_of(world.enrol(world.machine()).pem), "unknown_ca"),
    ):
        with pytest.raises(PkiError, match="the certificate") as failed:
            peers.check_peer(cert, "edge-7", clock.now + 2 * DAY_S)
        assert failed.value.code == code


def test_an_existing_ca_offers_no_enrolment(foreign: Foreign, tmp_path: Path, world: World) -> None:
    authority, _, clock = foreign
    with contextlib.closing(open_certificates(tmp_path / "foreign/state")) as store:
        enrolments = Enrolments(authority, store, clock=clock)
        csr = world.machine().request()
        where = "certificates come from the existing CA Example Machines CA"
        with refused("not_offered", f"enrolment is not offered: {where}"):
            enrolments.create("edge-7")
        with refused("not_offered", f"enrolment is not offered: {where}"):
            enrolments.redeem("fza_x", csr)
        with refused("not_offered", f"renewal is not offered: {where}"):
            enrolments.renew(b"", csr)
        with refused("not_offered", f"return after expiry is not offered: {where}"):
            enrolments.return_after_expiry("", csr, "", "")
    with refused("not_offered", f"issuing is not offered: {where}"):
        authority.issue(csr, "edge-7")
    with refused("not_offered", f"issuing is not offered: {where}"):
        authority.issue_listener(["a.example"])
    assert authority.renew_listener(force=True) is None


def test_the_list_of_an_existing_ca_revokes(foreign: Foreign, existing: Existing, world: World) -> None:
    _, peers, clock = foreign
    cert = existing.issue(world.machine().request())
    other = existing.issue(world.machine("edge-8").request())
    peers.check_peer(cert, "edge-7", clock.now)
    assert not peers.refresh()
    existing.revoke(cert)
    assert peers.refresh()
    with refused("revoked", "the certificate of edge-7 was revoked by its CA at 20"):
        peers.check_peer(cert, "edge-7", clock.now)
    peers.check_peer(other, "edge-8", clock.now)


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_long_lists(
    foreign: Foreign, existing: Existing, world: World, encoding: serialization.Encoding
) -> None:
    _, peers, clock = foreign
    cert = existing.issue(world.machine().request())
    ca = x509.load_pem_x509_certificate((existing.folder / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((existing.folder / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.fromtimestamp(clock.now, UTC)
    serials = (*range(1, 4000), x509.load_der_x509_certificate(cert).serial_number)
    entries = [x509.RevokedCertificateBuilder(serial, now).build() for serial in serials]
    until = now + timedelta(days=7)
    builder = x509.CertificateRevocationListBuilder(ca.subject, now, until, [], entries)
    crl = builder.sign(key, hashes.SHA256()).public_bytes(encoding)
    assert len(crl) > 65_536
    (existing.folder / "crl.pem").write_bytes(crl)
    assert peers.refresh()
    assert not peers.problem
    with refused("revoked", "was revoked by its CA"):
        peers.check_peer(cert, "edge-7", clock.now)


def test_our_own_word_counts_beside_the_list(
    foreign: Foreign, existing: Existing, world: World, tmp_path: Path
) -> None:
    _, peers, clock = foreign
    cert = existing.issue(world.machine().request())
    with contextlib.closing(open_certificates(tmp_path / "foreign/state")) as admin:
        admin.revoke(Revocation("edge-7", clock.now, "stolen"))
        assert peers.refresh()
        with refused("revoked", r"was revoked at 20.* \(stolen\)"):
            peers.check_peer(cert, "edge-7", clock.now)
        assert admin.lift_revocation("edge-7")
        assert peers.refresh()
        peers.check_peer(cert, "edge-7", clock.now)


def test_one_of_two_names_takes_the_other_with_it(
    foreign: Foreign, existing: Existing, world: World, tmp_path: Path
) -> None:
    _, peers, clock = foreign
    cert = existing.issue(world.machine().request("/CN=machine"), "subjectAltName = DNS:edge-7,DNS:edge-8")
    with contextlib.closing(open_certificates(tmp_path / "foreign/state")) as admin:
        admin.revoke(Revocation("edge-8", clock.now))
    peers.refresh()
    for name in ("edge-7", "edge-8", "machine"):
        with refused("revoked", "the certificate of edge-8 was revoked"):
            peers.check_peer(cert, name, clock.now)


def test_a_list_that_is_damaged_is_told_and_the_last_good_one_holds(
    foreign: Foreign, existing: Existing, world: World
) -> None:
    authority, peers, clock = foreign
    cert = existing.issue(world.machine().request())
    path = existing.revoke(cert)
    peers.refresh()
    assert not peers.problem
    good = path.read_bytes()
    for damage, match in (
        (good[: len(good) // 2], "is damaged: it holds no revocation list"),
        (b"", "is damaged: it holds no revocation list"),
        (b"x" * (CRL_MAX_BYTES + 1), "is larger than 16777216 bytes"),
    ):
        path.write_bytes(damage)
        assert not peers.refresh()
        assert peers.problem is not None
        assert match in peers.problem
        assert peers.problem.endswith("the revocations read before still hold")
        with refused("revoked", "was revoked by its CA"):
            peers.check_peer(cert, "edge-7", clock.now)
    path.unlink()
    assert not peers.refresh()
    assert "cannot be read: No such file" in str(peers.problem)
    with pytest.raises(InputError, match="cannot be read: No such file"):  # but a daemon does not begin so
        PeerChecker(authority, peers._store)
    path.write_bytes(good)
    assert peers.refresh()
    assert not peers.problem
    clock.now += 8 * DAY_S
    peers.refresh()
    assert "should have been replaced by 20" in str(peers.problem)
    with refused("revoked", "was revoked by its CA"):
        peers.check_peer(cert, "edge-7", clock.now)


def test_a_list_of_somebody_else_is_refused(foreign: Foreign, existing: Existing, tmp_path: Path) -> None:
    _, peers, _ = foreign
    other = Existing(tmp_path / "other")  # a CA of the same name
    (existing.folder / "crl.pem").write_bytes(other.write_crl().read_bytes())
    peers.refresh()
    assert "is of 'Example Machines CA', and not signed by a trusted CA" in str(peers.problem)
