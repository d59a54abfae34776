"""Tokens, renewal and return: what is let through, once, and what is refused, told and counted."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fazai.pki import PkiError
from fazai.store.certificates import Revocation
from fazai.store.factory import open_certificates
from tests.pki.world import BEGIN, DAY_S, HOUR_S, World, der_of, openssl, refused, rfc3339

# -- tokens


def test_a_token_gives_one_certificate_of_its_name(world: World) -> None:
    made = world.enrolments.create("edge-7")
    assert re.fullmatch(r"fza_[A-Za-z0-9_-]{32}\.[0-9a-f]{16}", made.token)
    (world.root / "ca.pem").write_text(world.authority.ca_pem)
    shown = openssl("x509", "-in", str(world.root / "ca.pem"), "-noout", "-fingerprint", "-sha256").decode()
    assert shown.strip().split("=")[1].replace(":", "").lower().startswith(made.token.split(".")[1])
    issued = world.enrolments.redeem(made.token, world.machine().request())
    assert (issued.name, issued.ca_pem) == ("edge-7", world.authority.ca_pem)
    world.peers.check_peer(der_of(issued.pem), "edge-7", BEGIN)
    (record,) = world.store.certificates()
    assert (record.fingerprint, record.origin, record.issued) == (issued.fingerprint, "enrolled", BEGIN)
    assert [(one.level, one.agent_id) for one in world.notices] == [("info", "edge-7")]
    assert "edge-7 was enrolled; its new certificate is valid until 20" in world.notices[0].message


def test_the_text_of_a_token_is_nowhere(world: World) -> None:
    made = world.enrolments.create("edge-7")
    secret = made.token[4:36]
    with pytest.raises(PkiError) as failed:
        world.enrolments.redeem(made.token, "no request")
    world.enrolments.redeem(made.token, world.machine().request())
    with pytest.raises(PkiError) as again:
        world.enrolments.redeem(made.token, world.machine().request())
    said = [repr(made), str(failed.value), str(again.value), *map(repr, world.notices)]
    assert not [text for text in said if secret in text]
    files = [path for path in world.root.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_a_second_use_is_refused_and_alarmed(world: World) -> None:
    """Also by the machine itself, with the same request."""
    machine, token = world.machine(), world.enrolments.create("edge-7").token
    csr = machine.request()
    world.enrolments.redeem(token, csr)
    thief = world.machine(folder="elsewhere")
    for number, request in enumerate((csr, thief.request(), "no request at all"), 1):
        world.clock.now += 60
        world.notices.clear()
        with refused("token_used", "the enrolment token of edge-7 was used before, at 20"):
            world.enrolments.redeem(token, request)
        (notice,) = world.notices
        assert (notice.level, notice.agent_id) == ("error", "edge-7")
        assert "came a second time" in notice.message
        assert "fazai pki revoke edge-7" in notice.message
        (enrolment,) = world.store.enrolments()
        assert (enrolment.refused, enrolment.last_refused) == (number, BEGIN + number * 60)
    assert len(world.store.certificates()) == 1


def test_a_token_lives_for_an_hour(world: World) -> None:
    machine, made = world.machine(), world.enrolments.create("edge-7")
    assert made.expires == BEGIN + HOUR_S
    world.clock.now = BEGIN + HOUR_S
    with refused("token_expired", "the enrolment token of edge-7 expired at 20"):
        world.enrolments.redeem(made.token, machine.request())
    assert [one.level for one in world.notices] == ["warning"]
    world.clock.now = BEGIN + HOUR_S - 1
    world.enrolments.redeem(made.token, machine.request())
    made = world.enrolments.create("edge-7", 300)
    assert made.expires == world.clock.now + 300
    world.settings("token_lifetime: 15m\n")
    assert world.enrolments.create("edge-7").expires == world.clock.now + 900


@pytest.mark.parametrize(
    "text", ["", "fza_", "fzt_x", "fza_" + "a" * 32 + "." + "0" * 16, "x" * 100_000, "\ud800"]
)
def test_a_token_that_nobody_knows_is_refused(world: World, text: str) -> None:
    world.enrolments.create("edge-7")
    with refused("bad_token", "the enrolment token is not valid"):
        world.enrolments.redeem(text, world.machine().request())
    assert world.notices == []  # nobody's log is filled by guessing
    assert [one.refused for one in world.store.enrolments()] == [0]


def test_a_token_is_for_one_name(world: World) -> None:
    token = world.enrolments.create("edge-7").token
    with refused("wrong_name", "the request is for 'edge-8', and edge-7 was expected") as failed:
        world.enrolments.redeem(token, world.machine("edge-8").request())
    assert failed.value.hint == "this token is for edge-7 alone; for another name: fazai pki enrol THAT-NAME"
    assert [one.level for one in world.notices] == ["warning"]
    assert "an enrolment was refused: the request is for 'edge-8'" in world.notices[0].message
    world.enrolments.redeem(token, world.machine("edge-7").request())  # that was no use of it


def test_a_newer_token_withdraws_the_older(world: World) -> None:
    first, second = (world.enrolments.create("edge-7").token for _ in range(2))
    other = world.enrolments.create("edge-8").token
    machine = world.machine()
    with refused("token_expired", "the enrolment token of edge-7 was withdrawn at 20"):
        world.enrolments.redeem(first, machine.request())
    world.enrolments.redeem(second, machine.request())
    world.enrolments.redeem(other, world.machine("edge-8").request())


RACE = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from fazai.pki import Authority, Enrolments, PkiError
    from fazai.store.factory import open_certificates
    root = Path(sys.argv[1])
    authority = Authority.load(root / "secrets/pki")
    enrolments = Enrolments(authority, open_certificates(root / "state"))
    csr = Path(sys.argv[2]).read_text()
    for line in sys.stdin:
        try:
            print(enrolments.redeem(line.strip(), csr).fingerprint, flush=True)
        except PkiError as error:
            print(error.code, flush=True)
    """
)


def test_of_two_processes_one_wins(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.clock.now = time.time()
    machine = world.machine()
    csr = tmp_path / "csr"
    csr.write_text(machine.request())
    words = [sys.executable, "-c", RACE, str(tmp_path), str(csr)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        for turn in range(25):
            token = world.enrolments.create("edge-7").token
            answers = []
            for process in both:
                assert process.stdin is not None
                process.stdin.write(token + "\n")
                process.stdin.flush()
            for process in both:
                assert process.stdout is not None
                answers.append(process.stdout.readline().strip())
            assert sorted(len(answer) for answer in answers) == [len("token_used"), 64], answers
            assert len(world.store.certificates()) == turn + 1
            assert world.store.enrolments()[-1].refused == 1
    finally:
        world.store.close()
        for process in both:
            process.communicate(timeout=30)


# -- renewal


def test_renewal_by_an_unexpired_certificate(world: World) -> None:
    machine = world.machine()
    old = world.enrol(machine)
    world.clock.now += 20 * DAY_S
    world.notices.clear()
    new = world.enrolments.renew(der_of(old.pem), machine.request())
    assert new.not_after == int(world.clock.now + 30 * DAY_S)
    assert [one.origin for one in world.store.certificates()] == ["enrolled", "renewed"]
    assert "edge-7 renewed its certificate; its new certificate is valid until 20" in world.notices[0].message
    for issued in (old, new):  # the old one until it expires: the answer may have been lost
        world.peers.check_peer(der_of(issued.pem), "edge-7", world.clock.now)
    fresh_key = world.machine(folder="new-key")
    assert world.enrolments.renew(new.pem, fresh_key.request()).name == "edge-7"


def test_renewal_is_for_the_same_name(world: World) -> None:
    old = world.enrol(world.machine())
    with refused("wrong_name", "the request is for 'edge-8', and edge-7 was expected"):
        world.enrolments.renew(der_of(old.pem), world.machine("edge-8").request())


def test_renewal_needs_a_good_certificate(world: World, tmp_path: Path) -> None:
    machine = world.machine()
    old = world.enrol(machine)
    csr = machine.request()
    world.clock.now = BEGIN - 2 * HOUR_S
    with refused("not_yet_valid", "the certificate of edge-7 is valid only from 20"):
        world.enrolments.renew(old.pem, csr)
    world.clock.now = BEGIN + 30 * DAY_S + 1
    with refused("expired", "the certificate of edge-7 expired at 20"):
        world.enrolments.renew(old.pem, csr)
    world.clock.now = BEGIN + 1
    other = World(tmp_path / "other")
    with refused("unknown_ca", r"issued by 'fazai CA \w+', not by this CA"):
        world.enrolments.renew(other.enrol(machine).pem, csr)
    other.store.close()
    listener = world.authority.issue_listener(["edge-7"])
    with refused("wrong_name", "the certificate is not an agent's"):
        world.enrolments.renew(listener.pem, csr)
    with refused("bad_request", "this is no certificate"):
        world.enrolments.renew(b"", csr)
    world.store.revoke(Revocation("edge-7", BEGIN, "stolen"))
    with refused("revoked", r"the certificate of edge-7 was revoked at 20.* \(stolen\)"):
        world.enrolments.renew(old.pem, csr)
    assert [one.origin for one in world.store.certificates()] == ["enrolled"]


def test_a_renewal_that_races_a_revocation_is_refused(world: World) -> None:
    """Whichever is first: the store decides both in one transaction."""
    machine = world.machine()
    old = world.enrol(machine)
    issued = world.authority.issue(machine.request(), "edge-7")  # the daemon is here when the admin revokes
    world.store.revoke(Revocation("edge-7", BEGIN))
    assert not world.store.add_certificate(issued.record("renewed", BEGIN), old.fingerprint)
    world.peers.refresh()
    with refused("revoked", "was revoked"):
        world.peers.check_peer(der_of(issued.pem), "edge-7", BEGIN)


# -- return after expiry


@pytest.mark.parametrize("sort", ["p256", "p384", "ed25519", "rsa2048"])
def test_one_that_was_off_comes_back_once(world: World, sort: str) -> None:
    """Lifetime + 10 days, by the openssl program."""
    machine = world.machine(sort=sort)
    old = world.enrol(machine)
    world.clock.now = BEGIN + 40 * DAY_S
    with refused("expired", "expired at 20.*, 10 days ago"):
        world.peers.check_peer(der_of(old.pem), "edge-7", world.clock.now)
    world.notices.clear()
    csr, now = machine.request(), rfc3339(world.clock.now - 30)
    new = world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)
    world.peers.check_peer(der_of(new.pem), "edge-7", world.clock.now)
    (notice,) = world.notices
    assert (notice.level, notice.agent_id) == ("warning", "edge-7")
    assert "edge-7 came back 10 days after its certificate had expired" in notice.message
    first, second = world.store.certificates()
    assert (first.returned, second.origin) == (world.clock.now, "returned")
    for request in (machine.request(f"/CN=edge-7/O={number}") for number in range(2)):
        with refused("already_returned", "came back with this expired certificate before, which goes once"):
            world.enrolments.return_after_expiry(old.pem, request, machine.sign(request, now), now)
    assert [one.level for one in world.notices[1:]] == ["warning", "warning"]
    world.clock.now += 31 * DAY_S  # the next time it is another certificate
    now = rfc3339(world.clock.now)
    world.enrolments.return_after_expiry(new.pem, csr, machine.sign(csr, now), now)


def test_an_answer_that_was_lost_is_given_again(world: World, tmp_path: Path) -> None:
    """To the same request, by the same key, also by a daemon that was restarted, also after the window."""
    machine = world.machine()
    old = world.enrol(machine)
    world.clock.now = BEGIN + 59.9 * DAY_S
    csr = machine.request()

    def come_back() -> str:
        now = rfc3339(world.clock.now)
        return world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now).pem

    first = come_back()
    world.notices.clear()
    world.store.close()
    world.store = open_certificates(tmp_path / "state")
    world.load()
    world.clock.now += DAY_S
    assert come_back() == first
    assert len(world.store.certificates()) == 2
    with refused("bad_signature", "is not signed by the key of edge-7's certificate"):
        world.enrolments.return_after_expiry(old.pem, csr, "AAAA", rfc3339(world.clock.now))
    assert world.notices == []
    new = world.store.certificates()[1].fingerprint
    world.store.revoke(Revocation("edge-7", BEGIN, "by mistake?", new))
    with refused("revoked", "by mistake"):
        come_back()
    world.store.revoke(Revocation("edge-7", BEGIN))
    with refused("revoked", "was revoked"):
        come_back()


def test_the_window_is_the_admins(world: World) -> None:
    machine = world.machine()
    old = world.enrol(machine)

    def come_back(days: float) -> None:
        world.clock.now = BEGIN + days * DAY_S
        csr, now = machine.request(), rfc3339(world.clock.now)
        world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)

    with refused("not_expired", "the certificate of edge-7 is valid until 20.*: it is renewed with itself"):
        come_back(29)
    with refused("too_late", "expired 60 days ago, and agents may come back by themselves for 30 days"):
        come_back(90)  # lifetime + 60 days
    with refused("too_late", "expired 30 days ago"):
        come_back(60.001)
    world.settings("return_window: 0\n")
    with refused("too_late", "expired 2 h ago, and agents may come back by themselves for 0 s"):
        come_back(30 + 2 / 24)
    world.settings("return_window: 90d\n")
    come_back(90)


def test_a_return_is_proved_by_the_old_key(world: World) -> None:
    machine, thief = world.machine(), world.machine(folder="elsewhere")
    old = world.enrol(machine)
    world.clock.now = BEGIN + 40 * DAY_S
    csr, now = thief.request(), rfc3339(world.clock.now)
    good = machine.sign(csr, now)
    for signature, text, request in (
        (thief.sign(csr, now), now, csr),  # who found the certificate, which is no secret
        (good, rfc3339(world.clock.now + 1), csr),  # another time
        (good, now, machine.request()),  # another request
        ("", now, csr),
        ("AAAA", now, csr),
    ):
        with refused("bad_signature", "the request is not signed by the key of edge-7's certificate"):
            world.enrolments.return_after_expiry(old.pem, request, signature, text)
    for signature, text in (("?", now), (good, "yesterday"), (good, "2026-99-99T00:00:00Z"), ("ä", now)):
        with refused("bad_request", "the signature is no base64, or the time none of RFC 3339"):
            world.enrolments.return_after_expiry(old.pem, csr, signature, text)
    with refused("bad_request", "the time has no zone"):
        world.enrolments.return_after_expiry(old.pem, csr, good, "2026-11-30T06:00:00")
    with refused("bad_request", "this is no certificate"):
        world.enrolments.return_after_expiry(csr, csr, good, now)
    assert len(world.store.certificates()) == 1
    assert len(world.notices) == 1  # of the enrolment: whoever proves nothing fills no log


@pytest.mark.parametrize(("off_s", "says"), [(HOUR_S, "says 20"), (-HOUR_S, "says 20"), (-DAY_S, "says 20")])
def test_a_wrong_clock_is_told_as_such(world: World, off_s: float, says: str) -> None:
    machine = world.machine()
    old = world.enrol(machine)
    world.clock.now = BEGIN + 40 * DAY_S
    csr, now = machine.request(), rfc3339(world.clock.now + off_s)
    with refused("bad_clock", f"the clock of edge-7 {says}.*, and it is 20.* here"):
        world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)
    now = rfc3339(world.clock.now + 299)
    world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)


def test_a_revoked_one_does_not_come_back(world: World) -> None:
    machine = world.machine()
    old = world.enrol(machine)
    world.store.revoke(Revocation("edge-7", BEGIN, "lost"))
    world.clock.now = BEGIN + 40 * DAY_S
    world.notices.clear()
    csr, now = machine.request(), rfc3339(world.clock.now)
    with refused("revoked", r"was revoked at 20.* \(lost\)"):
        world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)
    assert [one.level for one in world.notices] == ["warning"]
    assert "a return was refused: the certificate of edge-7 was revoked" in world.notices[0].message


def test_one_that_the_state_forgot_comes_back_once_all_the_same(world: World, tmp_path: Path) -> None:
    """The state was lost, the CA was not."""
    machine = world.machine()
    old = world.enrol(machine)
    world.store.close()
    world.store = open_certificates(tmp_path / "new-state")
    world.enrolments = world.make_enrolments()
    world.clock.now = BEGIN + 40 * DAY_S
    csr, now = machine.request(), rfc3339(world.clock.now)
    world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)
    csr = machine.request("/CN=edge-7/O=other")
    with refused("already_returned", "which goes once"):
        world.enrolments.return_after_expiry(old.pem, csr, machine.sign(csr, now), now)
    world.store.close()
