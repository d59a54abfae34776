"""Replacing the CA without enrolling anew: who is ready, what is refused, and what a crash leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from fazai.agent.link import tls
from fazai.errors import Refused
from fazai.pki import Authority, Enrolments, PeerChecker, PkiError
from fazai.pki.administration import issue_pair
from fazai.pki.building import pem_of
from fazai.pki.listing import list_lines, list_record
from fazai.pki.reading import fingerprint_of, is_issued_by, read_certificate
from fazai.pki.rotation import Rotation, agent_states, rotation_lines, rotation_record
from fazai.store.certificates import Revocation, TrustHolder
from fazai.store.factory import open_certificates
from tests.pki.world import DAY_S, Existing, Machine, World, openssl

YEAR_S = 365 * DAY_S


class Killed(Exception):
    """Stands for kill -9."""


def dying_at(instant: str) -> Callable[[str], None]:
    def fault(name: str) -> None:
        if name == instant:
            raise Killed

    return fault


def rotation(world: World, instant: str = "") -> Rotation:
    return Rotation(world.authority.folder, world.clock, dying_at(instant))


def told(world: World, name: str, problem: str = "") -> None:
    """An agent was told of the CAs as they are."""
    mark = Authority.load(world.authority.folder, world.clock).bundle_mark
    world.store.put_trust_holder(TrustHolder(name, mark, world.clock(), problem))


def enrolments(world: World) -> Enrolments:
    authority = Authority.load(world.authority.folder, world.clock)
    return Enrolments(authority, world.store, clock=world.clock)


def enrol(world: World, machine: Machine) -> str:
    made = enrolments(world)
    return made.redeem(made.create(machine.name).token, machine.request()).pem


def lacks(world: World) -> dict[str, str]:
    authority = Authority.load(world.authority.folder, world.clock)
    return {one.name: one.lacks for one in agent_states(authority, world.store)}


def test_the_ca_is_replaced_and_nobody_enrols_anew(world: World) -> None:
    old = world.authority
    old.issue_listener(["localhost"])
    first = enrol(world, machine := world.machine("edge-7"))
    assert lacks(world) == {"edge-7": ""}

    both, made = rotation(world).begin(None, YEAR_S)
    assert made
    assert fingerprint_of(both.trusted[0]) == fingerprint_of(old.trusted[0])
    assert len(both.trusted) == 2
    assert rotation(world).begin(None, YEAR_S)[1] is False
    assert is_issued_by(read_certificate(enrol(world, world.machine("edge-8"))), old.trusted[0])
    PeerChecker(both, world.store).check_peer(der(first), "edge-7", world.clock())

    # nothing changes hands before the agents trust the next one, or an admin says so
    told(world, "edge-8")
    with pytest.raises(Refused, match="edge-7 does not trust the next CA yet") as error:
        rotation(world).switch(world.store, force=False)
    assert error.value.hint == "fazai pki ca status shows why; they are enrolled anew after: --force"
    listener = both.read_listener()
    assert listener is not None
    assert is_issued_by(listener, old.trusted[0])
    told(world, "edge-7", "its disk is full")
    assert lacks(world)["edge-7"] == "it did not take the CAs: its disk is full"
    told(world, "edge-7")
    new = rotation(world).switch(world.store, force=False)
    assert fingerprint_of(new.trusted[0]) == fingerprint_of(both.trusted[1])
    listener = new.read_listener()
    assert listener is not None
    assert is_issued_by(listener, new.trusted[0])

    # the old certificate is good, and renewed by the next CA
    PeerChecker(new, world.store).check_peer(der(first), "edge-7", world.clock())
    told(world, "edge-7")
    told(world, "edge-8")
    assert lacks(world)["edge-7"] == (
        "its certificate is of the CA before: it renews within minutes while it is connected"
    )
    with pytest.raises(Refused, match="edge-7, edge-8: each needs the CA before still"):
        rotation(world).retire(world.store, force=False)
    world.clock.now += 1
    second = enrolments(world).renew(der(first), machine.request())
    assert is_issued_by(read_certificate(second.pem), new.trusted[0])
    assert second.ca_pem.count("BEGIN") == 2
    world.store.revoke(Revocation("edge-8", world.clock()))
    assert lacks(world) == {"edge-7": ""}

    last = rotation(world).retire(world.store, force=False)
    assert [fingerprint_of(one) for one in last.trusted] == [fingerprint_of(new.trusted[0])]
    PeerChecker(last, world.store).check_peer(der(second.pem), "edge-7", world.clock())
    with pytest.raises(PkiError, match="this daemon trusts") as unknown:
        PeerChecker(last, world.store).check_peer(der(first), "edge-7", world.clock())
    assert unknown.value.code == "unknown_ca"
    assert sorted(path.name for path in last.folder.glob("*.key")) == ["ca.key", "listener.key"]
    for path in last.folder.glob("ca.*"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not (last.folder / "endorsements.pem").exists()
    assert last.listener_certificate.read_text().count("BEGIN") == 2  # its own, and one CA


def der(pem: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return read_certificate(pem).public_bytes(Encoding.DER)


def test_steps_in_another_order_are_refused(world: World) -> None:
    with pytest.raises(Refused, match="there is no next CA"):
        rotation(world).switch(world.store, force=False)
    with pytest.raises(Refused, match="there is one CA, and none to retire"):
        rotation(world).retire(world.store, force=False)
    rotation(world).begin(None, YEAR_S)
    with pytest.raises(Refused, match="the next CA does not issue yet"):
        rotation(world).retire(world.store, force=True)
    rotation(world).switch(world.store, force=True)
    with pytest.raises(Refused, match="no third one is made"):
        rotation(world).begin(None, YEAR_S)


def test_who_was_away_is_told_apart_and_forced(world: World) -> None:
    enrol(world, world.machine("edge-7"))
    rotation(world).begin("ed25519", YEAR_S)
    assert lacks(world) == {"edge-7": "not told yet: it is when it is connected, unless it is too old"}
    new = rotation(world).switch(world.store, force=True)
    assert new.key_type == "ed25519"
    told(world, "edge-9")  # one without a certificate: it came by signed HTTP
    world.clock.now += 31 * DAY_S  # the certificate of edge-7 has expired: it may come back, or enrols
    assert lacks(world) == {"edge-9": ""}
    rotation(world).retire(world.store, force=False)


@pytest.mark.parametrize(
    "instant",
    ["next.key", "next.endorsed", "next.trusted", "old.kept", "switched", "listener.renewed", "retired"],
)
def test_a_replacement_that_was_killed_goes_on(world: World, instant: str) -> None:
    world.authority.issue_listener(["localhost"])
    first = enrol(world, machine := world.machine("edge-7"))
    steps: list[Callable[[Rotation], object]] = [
        lambda one: one.begin(None, YEAR_S),
        lambda one: one.switch(world.store, force=True),
        lambda one: one.retire(world.store, force=True),
    ]
    died = 0
    for step in steps:
        try:
            step(rotation(world, instant))
        except Killed:
            died += 1
            authority = Authority.load(world.authority.folder, world.clock)  # whoever starts now has a CA
            authority.issue(machine.request(), "edge-7")
            PeerChecker(authority, world.store)
            if instant != "retired":
                PeerChecker(authority, world.store).check_peer(der(first), "edge-7", world.clock())
            step(rotation(world))
    assert died == 1
    last = Authority.load(world.authority.folder, world.clock)
    assert len(last.trusted) == 1
    assert fingerprint_of(last.trusted[0]) != fingerprint_of(world.authority.trusted[0])
    listener = last.read_listener()
    assert listener is not None
    assert is_issued_by(listener, last.trusted[0])
    assert rotation(world).phase() == "single"


@pytest.mark.parametrize("force", [False, True])
def test_a_next_ca_that_has_a_key_alone_does_not_issue(world: World, force: bool) -> None:
    with pytest.raises(Killed):
        rotation(world, "next.key").begin(None, YEAR_S)
    with pytest.raises(Refused, match="the next CA has a key and no certificate") as error:
        rotation(world).switch(world.store, force=force)
    assert error.value.hint == "it goes on where it was: fazai pki ca rotate"
    authority = Authority.load(world.authority.folder, world.clock)  # which issues as before
    assert fingerprint_of(authority.trusted[0]) == fingerprint_of(world.authority.trusted[0])
    rotation(world).begin(None, YEAR_S)
    rotation(world).switch(world.store, force=True)


def test_a_retirement_that_was_killed_needs_no_agent_to_end(world: World) -> None:
    enrol(world, world.machine("edge-7"))
    rotation(world).begin(None, YEAR_S)
    rotation(world).switch(world.store, force=True)
    with pytest.raises(Killed):
        rotation(world, "retired").retire(world.store, force=True)
    assert lacks(world) != {"edge-7": ""}  # it is away
    rotation(world).retire(world.store, force=False)
    assert rotation(world).phase() == "single"
    assert not (world.authority.folder / "ca.old.key").exists()


def test_a_state_that_knows_no_agent_says_nothing_of_them(world: World, tmp_path: Path) -> None:
    """With another FAZAI_STATE_DIR than the daemon's, nobody would keep the CA of all agents from going."""
    enrol(world, world.machine())
    authority, _ = rotation(world).begin(None, YEAR_S)
    with closing(open_certificates(tmp_path / "other")) as other:
        *_, last = rotation_lines(rotation_record(rotation(world), authority, other))
        assert last.startswith("0 of 0 agents ready (FAZAI_STATE_DIR is that of the daemon?); ")
        with pytest.raises(Refused, match="no agent was ever enrolled in this state"):
            rotation(world).switch(other, force=False)
    assert rotation(world).phase() == "overlap"


@pytest.mark.parametrize("way", ["enrol", "issue"])
def test_a_machine_made_anew_in_the_overlap_is_not_ready(world: World, way: str) -> None:
    """It trusts the CA of its token alone, whatever the machine before it had taken."""
    enrol(world, machine := world.machine("edge-7"))
    both, _ = rotation(world).begin(None, YEAR_S)
    told(world, "edge-7")
    assert lacks(world) == {"edge-7": ""}
    world.clock.now += 1
    if way == "enrol":
        pem = enrol(world, machine)
    else:
        pem = issue_pair(both, world.store, "edge-7", world.root / "pairs")[0].pem
    assert lacks(world) == {"edge-7": "not told yet: it is when it is connected, unless it is too old"}
    with pytest.raises(Refused, match="edge-7 does not trust the next CA yet"):
        rotation(world).switch(world.store, force=False)
    told(world, "edge-7")
    world.clock.now += 1
    enrolments(world).renew(der(pem), machine.request())
    assert lacks(world) == {"edge-7": ""}  # a renewal is of the same machine
    rotation(world).switch(world.store, force=False)


def test_the_next_ca_is_endorsed_by_the_one_before(world: World) -> None:
    both, _ = rotation(world).begin(None, YEAR_S)
    first, second = map(fingerprint_of, both.trusted)
    (one,) = both.endorsements
    assert (one.issuer, one.endorsed) == (first, second)
    path = world.folder / "endorsements.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    agent_name = read_certificate(one.pem)
    for name in ("edge-7", "fazai trust"):  # its key is no secret, and it is nobody's
        with pytest.raises(PkiError, match="a certificate that is not an agent's"):
            PeerChecker(both, world.store).check_peer(der(one.pem), name, world.clock())
    assert is_issued_by(agent_name, both.trusted[0])
    # a file that was lost is made anew, and until then that is said
    path.unlink()
    alone = Authority.load(world.folder, world.clock)
    assert alone.bundle_mark != both.bundle_mark
    lines = list(rotation_lines(rotation_record(rotation(world), alone, world.store)))
    text = "warning: none endorses another, so agents take none that they do not know: fazai pki ca rotate"
    assert text in lines
    again, made = rotation(world).begin(None, YEAR_S)
    assert (made, again.bundle_mark) == (False, both.bundle_mark)
    assert text not in rotation_lines(rotation_record(rotation(world), again, world.store))


@pytest.mark.parametrize("fault", ["lost", "damaged"])
def test_an_endorsement_is_made_again_after_the_switch(world: World, fault: str) -> None:
    """As with a replacement that an older fazai began, which knew of none."""
    first = read_certificate(enrol(world, world.machine("edge-7")))
    rotation(world).begin(None, YEAR_S)
    after = rotation(world).switch(world.store, force=True)
    second = read_certificate(enrol(world, world.machine("edge-8")))
    issuing, before = map(pem_of, after.trusted)
    path = world.folder / "endorsements.pem"
    path.unlink()
    if fault == "damaged":
        path.write_text("nothing")
    alone = Authority.load(world.folder, world.clock)
    assert alone.needed_by(first) == issuing + before
    for one in (second, None):  # who never knew the one before is not told of it
        assert alone.needed_by(one) == issuing
    told(world, "edge-7", "the authority is new, and none that this agent trusts has endorsed it")
    text = "warning: none endorses another, so agents take none that they do not know: fazai pki ca rotate"
    assert text in rotation_lines(rotation_record(rotation(world), alone, world.store))
    again, made = rotation(world).begin(None, YEAR_S)
    assert (made, again.bundle_mark, again.problem) == (False, after.bundle_mark, None)
    assert [one.endorsed for one in again.endorsements] == [fingerprint_of(after.trusted[0])]
    assert text not in rotation_lines(rotation_record(rotation(world), again, world.store))
    with pytest.raises(Refused, match="no third one is made"):
        rotation(world).begin(None, YEAR_S)
    (world.folder / "ca.old.key").write_text((world.folder / "ca.key").read_text())
    path.unlink()
    with pytest.raises(Refused, match="no third one is made"):  # with a key that is that of no such CA
        rotation(world).begin(None, YEAR_S)


DAMAGES = {
    "text": "it holds no endorsements",
    "cut off": "a block of it has no end",
    "no certificate": "this is no certificate in block 1 of it",
    "no key": "a certificate has no key behind it",
    "other key": "a key follows no certificate of its own in block 2 of it",
    "locked key": "a key cannot be used in block 2 of it",
    "weak key": "a key cannot be used in block 2 of it",
    "folder": "cannot be read: Is a directory",
    "agent": "a certificate names no CA (fazai:trust:SHA-256) in block 2 of it",
}


def damage(world: World, sort: str) -> None:
    path = world.folder / "endorsements.pem"
    certificate, _, key = path.read_text().partition("-----BEGIN PRIVATE KEY")
    key = f"-----BEGIN PRIVATE KEY{key}"
    machine = world.machine("edge-9", "rsa1024" if sort == "weak key" else "p256")
    if sort == "folder":
        path.unlink()
        path.mkdir()
        return
    locked = openssl("pkcs8", "-topk8", "-in", str(machine.key), "-passout", "pass:x").decode()
    agent = "" if sort != "agent" else enrol(world, machine)
    path.write_text(
        {
            "text": "nothing\n",
            "cut off": certificate[:300],
            "no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "no key": certificate,
            "other key": certificate + machine.key.read_text(),
            "locked key": certificate + locked,
            "weak key": certificate + machine.key.read_text(),
            "agent": agent + machine.key.read_text(),
        }[sort]
    )


@pytest.mark.parametrize("sort", DAMAGES)
def test_damaged_endorsements_are_said_and_end_nothing(world: World, sort: str) -> None:
    """At three in the morning a stolen agent is revoked, whatever stands in a file that is public."""
    stolen = enrol(world, world.machine("edge-8"))
    both, _ = rotation(world).begin(None, YEAR_S)
    damage(world, sort)
    authority = Authority.load(world.folder, world.clock)
    assert authority.endorsements == ()
    assert authority.problem is not None
    assert f"not all of {world.folder}/endorsements.pem is used: {DAMAGES[sort]}" in authority.problem
    assert authority.problem.endswith("(fazai pki ca rotate makes it anew)")
    world.store.revoke(Revocation("edge-8", world.clock()))
    with pytest.raises(PkiError, match="was revoked"):
        PeerChecker(authority, world.store).check_peer(der(stolen), "edge-8", world.clock())
    enrol(world, world.machine("edge-7"))
    assert f"  warning: {authority.problem}" in list_lines(
        list_record(authority, world.store, with_replaced=True)
    )
    lines = list(rotation_lines(rotation_record(rotation(world), authority, world.store)))
    assert f"warning: {authority.problem}" in lines
    if sort == "folder":
        (world.folder / "endorsements.pem").rmdir()
    again, made = rotation(world).begin(None, YEAR_S)
    assert (made, again.problem, again.bundle_mark) == (False, None, both.bundle_mark)


def test_good_endorsements_are_used_beside_others(world: World, tmp_path: Path) -> None:
    """With what stands between a certificate and its key: what leads to its CA."""
    rotation(world).begin(None, YEAR_S)
    path = world.folder / "endorsements.pem"
    good = path.read_text()
    certificate, _, key = good.partition("-----BEGIN PRIVATE KEY")
    ca = (world.folder / "ca.pem").read_text().partition("-----END CERTIFICATE-----\n")
    chained = f"{certificate}a root that is sent, too\n{ca[0]}{ca[1]}-----BEGIN PRIVATE KEY{key}"
    path.write_text(certificate + chained + certificate + certificate[:200])
    authority = Authority.load(world.folder, world.clock)
    (one,) = authority.endorsements
    assert one.pem == chained.replace("a root that is sent, too\n", "")
    assert authority.problem is not None
    assert "a certificate has no key behind it, and 2 more" in authority.problem
    (tmp_path / "one.pem").write_text(one.pem)
    (tmp_path / "old.pem").write_text(pem_of(authority.trusted[0]))
    assert tls.read_endorsed(str(tmp_path / "old.pem"), str(tmp_path / "one.pem")) == {one.endorsed}
    again, _ = rotation(world).begin(None, YEAR_S)
    assert (again.problem, len(again.endorsements)) == (None, 1)
    path.write_text(good * 17)
    many = Authority.load(world.folder, world.clock)
    assert len(many.endorsements) == 16
    assert "it holds more than 16 endorsements" in str(many.problem)


@dataclass
class TwoExisting:
    """Two CAs of a company, of which the first endorses the second."""

    root: Path

    def __post_init__(self) -> None:
        self.first, self.second = Existing(self.root / "first"), Existing(self.root / "second")
        self.folder = self.root / "pki"
        self.folder.mkdir(mode=0o700)
        self.mark = fingerprint_of(read_certificate((self.second.folder / "ca.pem").read_bytes()))
        self.uri = f"URI:fazai:trust:{self.mark}"
        self.words = self.folder / "endorsements.pem"
        (self.folder / "cas.pem").write_text(
            "".join((one.folder / "ca.pem").read_text() for one in (self.first, self.second))
        )
        (self.folder / "pki.yml").write_text(json.dumps({"existing_ca": str(self.folder / "cas.pem")}))

    def endorse(self, machine: Machine, subject: str, names: str) -> None:
        extensions = f"subjectAltName = {names}\nextendedKeyUsage = clientAuth\n"
        word = self.first.issue(machine.request(subject), extensions)
        self.words.write_bytes(openssl("x509", "-inform", "DER", data=word) + machine.key.read_bytes())


def test_an_intermediate_ca_leads_to_the_one_that_is_trusted(world: World, tmp_path: Path) -> None:
    cas, between, leaf = TwoExisting(tmp_path), world.machine("between"), world.machine("word")
    constraint = "basicConstraints = critical,CA:true\nkeyUsage = keyCertSign\n"
    middle = cas.first.issue(between.request("/CN=Between"), constraint)
    pem = openssl("x509", "-inform", "DER", data=middle)
    (tmp_path / "between.pem").write_bytes(pem)
    (tmp_path / "ext").write_text(f"subjectAltName = {cas.uri}\nextendedKeyUsage = clientAuth\n")
    (tmp_path / "csr").write_text(leaf.request("/CN=fazai trust"))
    ca = ("-CA", str(tmp_path / "between.pem"), "-CAkey", str(between.key), "-CAcreateserial")
    files = ("-in", str(tmp_path / "csr"), "-extfile", str(tmp_path / "ext"))
    word = openssl("x509", "-req", *files, *ca, "-days", "30").decode()
    cas.words.write_text(word + pem.decode() + leaf.key.read_text())
    authority = Authority.load(cas.folder)
    assert (authority.problem, [one.endorsed for one in authority.endorsements]) == (None, [cas.mark])
    (tmp_path / "word.pem").write_text(authority.endorsements[0].pem)
    assert tls.read_endorsed(str(cas.first.folder / "ca.pem"), str(tmp_path / "word.pem")) == {cas.mark}
    cas.words.write_text("nothing")
    assert str(Authority.load(cas.folder).problem).endswith("(docs/pki.md, The word of an existing CA)")


@pytest.mark.parametrize(
    ("subject", "names", "said"),
    [
        ("/CN=edge-7", "", "edge-7"),
        ("/CN=fazai trust/CN=edge-7", "", "edge-7"),
        ("/CN=*.example.net", "", "*.example.net"),
        ("/CN=fazai trust", ",DNS:fazai.example.net", "fazai.example.net"),
        ("/CN=fazai trust", ",IP:192.0.2.1", "192.0.2.1"),
        ("/CN=fazai trust", ",URI:fazai:agent:edge-7", "fazai:agent:edge-7"),
        ("/CN=the word of our CA", "", ""),
        ("/O=Example", ",email:ca@example.net", ""),
    ],
)
def test_an_endorsement_whose_key_would_be_that_of_an_agent_is_left_out(
    world: World, tmp_path: Path, subject: str, names: str, said: str
) -> None:
    cas = TwoExisting(tmp_path)
    cas.endorse(world.machine("word"), subject, cas.uri + names)
    authority = Authority.load(cas.folder)
    assert [one.endorsed for one in authority.endorsements] == ([] if said else [cas.mark])
    text = f"a certificate names '{said}', which an agent or a host may be called, and its key is no secret"
    assert (text in str(authority.problem)) == bool(said)


def test_an_endorsement_whose_key_would_be_that_of_a_ca_is_left_out(world: World, tmp_path: Path) -> None:
    cas = TwoExisting(tmp_path)
    cas.endorse(world.machine("word"), "/CN=fazai trust", f"{cas.uri}\nbasicConstraints = CA:true")
    authority = Authority.load(cas.folder)
    assert authority.endorsements == ()
    assert "a certificate is one of a CA, and its key is no secret" in str(authority.problem)


def test_a_certificate_of_a_retired_ca_is_listed_with_the_next_step(world: World) -> None:
    enrol(world, world.machine("edge-7"))
    enrol(world, world.machine("edge-8"))
    rotation(world).begin(None, YEAR_S)
    rotation(world).switch(world.store, force=True)
    world.clock.now += 1
    made = enrolments(world)
    made.redeem(made.create("edge-8").token, world.machine("edge-8").request())

    def states() -> list[str]:
        authority = Authority.load(world.folder, world.clock)
        record = list_record(authority, world.store, with_replaced=False)
        lines = list(list_lines(record))
        text = "  its CA was retired: fazai pki enrol edge-7"
        states = [one["state"] for one in record["certificates"]]
        assert any(line.endswith(text) for line in lines) == (states[0] == "retired")
        return states

    assert states() == ["valid", "valid"]
    rotation(world).retire(world.store, force=True)
    assert states() == ["retired", "valid"]


def test_an_existing_ca_is_not_ours_to_replace(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "existing"
    folder.mkdir(mode=0o700)
    rotation(world).begin(None, YEAR_S)  # a file with two of them
    (folder / "pki.yml").write_text(json.dumps({"existing_ca": str(world.authority.folder / "ca.pem")}))
    with pytest.raises(PkiError, match="the replacement of the CA is not offered"):
        Rotation(folder, world.clock).begin(None, YEAR_S)
    authority = Authority.load(folder, world.clock)
    assert len(authority.trusted) == 2
    world.store.put_trust_holder(TrustHolder("edge-7", "another", world.clock()))
    (state,) = agent_states(authority, world.store)
    assert state.lacks == "not told yet of this step: it is when it is connected"
    told_of = TrustHolder("edge-7", authority.bundle_mark, world.clock())
    world.store.put_trust_holder(told_of)
    assert not agent_states(authority, world.store)[0].lacks
