"""What every store of certificates promises (`CertificateStore` in fazai/store/certificates.py)."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import StateError
from fazai.store.certificates import (
    CertificateRecord,
    CertificateStore,
    EnrolmentRecord,
    Revocation,
    RevocationList,
)
from fazai.store.factory import open_certificates
from tests.store.conftest import OpenDaemon

DAY_S = 86_400.0
Open = Callable[[], contextlib.AbstractContextManager[CertificateStore]]


@pytest.fixture
def open_store(place: str) -> Open:
    return lambda: contextlib.closing(open_certificates(place))


@pytest.fixture
def store(open_store: Open) -> Iterator[CertificateStore]:
    with open_store() as opened:
        yield opened


def certificate(number: int, name: str = "edge-7", issued: float = 1000.0) -> CertificateRecord:
    times = (issued, issued - 300, issued + 30 * DAY_S)
    return CertificateRecord(f"{number:064x}", f"{number:x}", name, "enrolled", *times)


def enrolment(number: int, name: str = "edge-7", created: float = 1000.0) -> EnrolmentRecord:
    return EnrolmentRecord(f"{number:064x}", name, created, created + 3600)


def test_certificates_last(open_store: Open) -> None:
    second = replace(certificate(2, "edge-8"), origin="renewed")
    with open_store() as store:
        assert store.certificates() == []
        assert store.add_certificate(second)
        assert store.add_certificate(certificate(3, issued=1001.5))
        assert store.add_certificate(certificate(1))
    with open_store() as store:
        assert store.certificates() == [certificate(1), certificate(3, issued=1001.5), second]
        assert store.find_certificate(second.fingerprint) == second
        assert store.find_certificate("0") is None
        assert store.names() == {"edge-7": 1001.5, "edge-8": 1000.0}


def test_one_fingerprint_is_one_certificate(store: CertificateStore) -> None:
    store.add_certificate(certificate(1))
    with pytest.raises(StateError, match="cannot be used"):
        store.add_certificate(certificate(1, "edge-8"))
    assert store.certificates() == [certificate(1)]
    store.add_certificate(certificate(2))  # and it goes on


def test_what_expired_long_ago_is_dropped(store: CertificateStore) -> None:
    """And nothing else, however many come."""
    store.add_certificate(certificate(1))
    store.put_enrolment(enrolment(1))
    later = 1000.0 + 430 * DAY_S
    store.add_certificate(certificate(2, issued=later))
    assert [one.fingerprint for one in store.certificates()] == [f"{1:064x}", f"{2:064x}"]
    store.add_certificate(certificate(3, issued=later + 1))
    assert [one.fingerprint for one in store.certificates()] == [f"{2:064x}", f"{3:064x}"]
    store.put_enrolment(enrolment(2, "edge-8", created=4600.0 + 30 * DAY_S))
    assert len(store.enrolments()) == 2
    store.put_enrolment(enrolment(3, "edge-8", created=4601.0 + 30 * DAY_S))
    assert [one.hash for one in store.enrolments()] == [f"{2:064x}", f"{3:064x}"]


def test_who_renews_day_and_night_fills_no_disk(store: CertificateStore) -> None:
    old = certificate(0, issued=1.0)
    store.add_returned(certificate(1, issued=2.0), old)
    store.add_certificate(certificate(999, "edge-8", issued=1.0))
    for number in range(2, 130):
        store.add_certificate(certificate(number, issued=float(number + 1)))
    found = [int(one.fingerprint, 16) for one in store.certificates()]
    assert found == [0, *range(30, 130), 999]
    assert not store.add_returned(certificate(1000), old)


def test_a_successor_of_what_is_revoked_is_not_stored(store: CertificateStore) -> None:
    store.add_certificate(certificate(1))
    assert store.add_certificate(certificate(2), certificate(1).fingerprint)
    assert store.add_certificate(certificate(3), "f" * 64)  # one that it does not know
    store.revoke(Revocation("edge-7", 2000.0, fingerprint=certificate(1).fingerprint))
    assert not store.add_certificate(certificate(4), certificate(1).fingerprint)
    assert store.add_certificate(certificate(5), certificate(2).fingerprint)
    store.revoke(Revocation("edge-7", 2001.0))
    for known in (certificate(2).fingerprint, "f" * 64):
        assert not store.add_certificate(certificate(6), known)
    assert store.find_certificate(certificate(6).fingerprint) is None


# -- enrolments


def test_a_token_is_redeemed_once_with_its_certificate(open_store: Open) -> None:
    with open_store() as store:
        store.put_enrolment(enrolment(1))
        assert store.find_enrolment(f"{1:064x}") == enrolment(1)
        assert store.find_enrolment("0") is None
        assert store.redeem_enrolment(f"{1:064x}", certificate(1, issued=1500.0))
        assert not store.redeem_enrolment(f"{1:064x}", certificate(2, issued=1501.0))
        store.count_refusal(f"{1:064x}", 1501.0)
        store.count_refusal(f"{1:064x}", 1502.0)
    with open_store() as store:
        used = replace(enrolment(1), used=1500.0, fingerprint=certificate(1).fingerprint)
        assert store.enrolments() == [replace(used, refused=2, last_refused=1502.0)]
        assert store.certificates() == [certificate(1, issued=1500.0)]


@pytest.mark.parametrize("why", ["expired", "withdrawn", "another name", "unknown"])
def test_a_token_that_is_not_good_gives_nothing(store: CertificateStore, why: str) -> None:
    store.put_enrolment(enrolment(1))
    wanted = certificate(1)
    if why == "expired":
        wanted = certificate(1, issued=4600.0)
    elif why == "withdrawn":
        store.put_enrolment(enrolment(2, created=1001.0))
        assert [one.withdrawn for one in store.enrolments()] == [1001.0, None]
    elif why == "another name":
        wanted = certificate(1, "edge-8")
    assert not store.redeem_enrolment("0" if why == "unknown" else f"{1:064x}", wanted)
    assert store.certificates() == []
    assert store.enrolments()[0].used is None


def test_a_certificate_that_cannot_be_stored_uses_up_no_token(store: CertificateStore) -> None:
    store.put_enrolment(enrolment(1))
    store.add_certificate(certificate(1))
    with pytest.raises(StateError, match="cannot be used"):
        store.redeem_enrolment(f"{1:064x}", certificate(1))
    assert store.find_enrolment(f"{1:064x}") == enrolment(1)
    assert store.redeem_enrolment(f"{1:064x}", certificate(2))


def test_of_many_threads_one_redeems(open_store: Open) -> None:
    with open_store() as one, open_store() as other:
        one.put_enrolment(enrolment(1))
        won: list[bool] = []
        start = threading.Barrier(8)

        def redeem(store: CertificateStore, number: int) -> None:
            start.wait(30)
            won.append(store.redeem_enrolment(f"{1:064x}", certificate(number)))

        threads = [
            threading.Thread(target=redeem, args=(store, number))
            for number, store in enumerate([one, other] * 4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(won) == [False] * 7 + [True]
        assert len(one.certificates()) == 1


# -- return after expiry


def test_an_expired_certificate_is_used_for_a_return_once(store: CertificateStore) -> None:
    old, late = certificate(1), 1000.0 + 40 * DAY_S
    store.add_certificate(old)
    new = replace(
        certificate(2, issued=late), origin="returned", predecessor=old.fingerprint, request="r", pem="p"
    )
    assert store.find_returned(old.fingerprint, "r") is None
    assert store.add_returned(new, old)
    assert store.find_returned(old.fingerprint, "r") == new
    assert store.find_returned(old.fingerprint, "s") is None
    assert store.find_returned(new.fingerprint, "r") is None
    assert not store.add_returned(certificate(3, issued=late), old)
    found = store.certificates()
    assert found == [replace(old, returned=late), new]
    forgotten = certificate(8)
    assert store.add_returned(certificate(4, issued=late), forgotten)
    assert not store.add_returned(certificate(5, issued=late), forgotten)
    store.revoke(Revocation("edge-7", late))
    for revoked in (certificate(2), certificate(9)):
        assert not store.add_returned(certificate(6, issued=late), revoked)
    assert store.find_certificate(certificate(9).fingerprint) is None


# -- revocations


def test_revocations_have_a_version_that_others_watch(open_store: Open) -> None:
    with open_store() as watcher, open_store() as admin:
        empty = watcher.revocations()
        assert empty is not None
        assert (empty.names, empty.fingerprints) == ({}, {})
        assert watcher.revocations(empty.version) is None
        admin.put_enrolment(enrolment(1))
        admin.add_certificate(certificate(1, "edge-8"))
        assert watcher.revocations(empty.version) is None
        admin.revoke(Revocation("edge-7", 2000.0, "lost"))
        found = watcher.revocations(empty.version)
        assert found is not None
        assert found.version > empty.version
        assert found.find("edge-7", "f") == Revocation("edge-7", 2000.0, "lost")
        assert found.find("edge-8", "f") is None
        assert watcher.revocations(found.version) is None


def test_of_a_revoked_name_what_was_issued_since_is_good(store: CertificateStore) -> None:
    """And nothing else, also nothing that the store does not know; by no clock."""

    def revoked() -> list[int]:
        found = store.revocations()
        assert found is not None
        return [number for number in range(1, 6) if found.find("edge-7", f"{number:064x}") is not None]

    for number in (1, 2):
        store.add_certificate(certificate(number))
    gone = store.revoke(Revocation("edge-7", 2000.0))
    assert [one.fingerprint for one in gone] == [f"{1:064x}", f"{2:064x}"]
    assert revoked() == [1, 2, 3, 4, 5]
    store.add_certificate(certificate(3, issued=10.0))
    assert revoked() == [1, 2, 4, 5]
    store.revoke(Revocation("edge-7", 2001.0, fingerprint=f"{3:064x}"))
    store.add_certificate(certificate(4))
    assert revoked() == [1, 2, 3, 5]
    assert [one.fingerprint for one in store.revoke(Revocation("edge-7", 2002.0))] == [f"{4:064x}"]
    assert revoked() == [1, 2, 3, 4, 5]
    assert {one.fingerprint[-1]: one.revoked for one in store.certificates()} == {
        "1": 2000.0,
        "2": 2000.0,
        "3": 2001.0,
        "4": 2002.0,
    }


def test_a_revocation_is_of_one_name_and_takes_its_tokens(store: CertificateStore) -> None:
    for number, name in enumerate(("edge-7", "edge-8"), 1):
        store.add_certificate(certificate(number, name))
        store.put_enrolment(enrolment(number, name))
    store.revoke(Revocation("edge-7", 2000.0, fingerprint="f" * 64))
    assert [one.withdrawn for one in store.enrolments()] == [None, None]
    store.revoke(Revocation("edge-7", 2001.0))
    assert [one.withdrawn for one in store.enrolments()] == [2001.0, None]
    assert [one.revoked for one in store.certificates()] == [2001.0, None]


def test_what_was_said_of_a_revocation_stays_until_there_is_more_to_say(store: CertificateStore) -> None:
    def reason() -> tuple[float, str]:
        found = (store.revocations() or RevocationList()).find("edge-7", "f")
        assert found is not None
        return found.time, found.reason

    store.revoke(Revocation("edge-7", 2000.0, "lost"))
    assert store.revoke(Revocation("edge-7", 2001.0)) == []
    assert reason() == (2000.0, "lost")
    store.revoke(Revocation("edge-7", 2002.0, "stolen"))
    assert reason() == (2002.0, "stolen")
    store.add_certificate(certificate(1))
    store.revoke(Revocation("edge-7", 2003.0))
    assert reason() == (2003.0, "")


def test_a_name_is_accepted_again_when_its_revocation_is_lifted(store: CertificateStore) -> None:
    store.revoke(Revocation("edge-7", 2000.0))
    store.revoke(Revocation("edge-7", 2001.0, "", "a" * 64))
    before = store.revocations()
    assert before is not None
    assert not store.lift_revocation("edge-8")
    assert store.lift_revocation("edge-7")
    after = store.revocations(before.version)
    assert after is not None
    assert after.find("edge-7", "f" * 64) is None
    assert after.find("edge-7", "a" * 64) is not None
    assert not store.lift_revocation("edge-7")


def test_it_works_beside_a_running_daemon(open_daemon: OpenDaemon, open_store: Open) -> None:
    with open_store() as store, open_daemon():
        store.put_enrolment(enrolment(1))
        assert store.redeem_enrolment(f"{1:064x}", certificate(1))
        with open_store() as other:
            assert other.certificates() == [certificate(1)]


def test_revocations_are_read_while_a_write_waits(open_store: Open, tmp_path: Path) -> None:
    """As for a vacuum, for which all writes wait."""
    with open_store() as store:
        store.revoke(Revocation("edge-7", 2000.0))
        other = sqlite3.connect(tmp_path / "state/fazai.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=store.put_enrolment, args=(enrolment(1),))
        waiting.start()
        found = store.revocations()
        assert found is not None
        assert found.find("edge-7", "f") is not None
        assert waiting.is_alive()  # it waits for the other, or has not begun
        other.execute("COMMIT")
        other.close()
        waiting.join(60)
        assert store.enrolments() == [enrolment(1)]


def test_a_place_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with contextlib.closing(open_certificates(tmp_path / "file")) as store:
        for use in (store.certificates, store.revocations, lambda: store.put_enrolment(enrolment(1))):
            with pytest.raises(StateError, match=r"the state folder .*/file cannot be used"):
                use()
    (tmp_path / "state").mkdir()
    (tmp_path / "state/fazai.sqlite3").write_bytes(b"no database" * 500)
    with contextlib.closing(open_certificates(tmp_path / "state")) as store:
        with pytest.raises(StateError, match=r"fazai\.sqlite3 is damaged"):
            store.certificates()
        (tmp_path / "state/fazai.sqlite3").unlink()  # and once it is mended it goes on
        assert store.certificates() == []
