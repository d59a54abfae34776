"""fazai pki: as an admin types it, at a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from fazai.cli.main import main
from fazai.pki import Authority, Enrolments, PeerChecker
from fazai.store.certificates import TrustHolder
from fazai.store.factory import open_certificates
from tests.pki.world import DAY_S, Existing, Machine, der_of, openssl, refused

ROOT = Path(__file__).parents[2]


@dataclass
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)

    def run_command(*words: str) -> Said:
        code = main(["pki", *words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run_command


@pytest.fixture
def ready(run: Run) -> Run:
    assert run("init", "--name", "fazai.example.net", "--name", "192.0.2.1").code == 0
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "secrets/pki"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(run: Run, *words: str) -> dict[str, list[dict[str, object]]]:
    said = run("list", "--output", "json", *words)
    assert said.code == 0
    found: dict[str, list[dict[str, object]]] = json.loads(said.out)
    return found


# -- init and listener


def test_init_makes_the_ca_and_the_listener(run: Run, folder: Path) -> None:
    said = run("init", "--name", "fazai.example.net", "--name", "192.0.2.1")
    assert said.code == 0
    assert re.fullmatch(
        r"made: CA fazai CA \w{8} \(p256\), valid until 20.*Z, in .*/secrets/pki\n"
        r"listener fazai\.example\.net, 192\.0\.2\.1, valid until 20.*Z\n",
        said.out,
    )
    assert said.err == f"back it up: {folder} (whoever has ca.key can be every agent)\n"
    assert sorted(contents(folder)) == ["ca.key", "ca.pem", "listener.key", "listener.pem"]
    openssl("verify", "-CAfile", str(folder / "ca.pem"), str(folder / "listener.pem"))


def test_a_second_init_says_what_stands_there_and_changes_nothing(ready: Run, folder: Path) -> None:
    before = contents(folder)
    for words in ((), ("--name", "other.example"), ("--key", "p256"), ("--lifetime", "1d")):
        said = ready("init", *words)
        assert said.code == 0
        assert said.out.startswith("it stands there, nothing was changed: CA fazai CA ")
        assert "listener fazai.example.net, 192.0.2.1, valid until 20" in said.out
        other = "for other names: fazai pki listener, with all of them\n"
        assert said.err == (other if "--name" in words else "")
    said = ready("init", "--key", "ed25519")
    assert (said.code, said.out) == (7, "")
    assert "has a key p256, not ed25519" in said.err
    assert contents(folder) == before


def test_init_of_the_other_sort_and_length(run: Run, folder: Path) -> None:
    said = run("init", "--key", "ed25519", "--lifetime", "365d")
    assert said.code == 0
    assert "(ed25519)" in said.out
    ca = Authority.load(folder).trusted[0]
    assert abs(ca.not_valid_after_utc.timestamp() - time.time() - 365 * DAY_S) < 60
    assert "no certificate yet: fazai pki listener --name HOST" in run("list").out
    assert "agents cannot connect yet; next: fazai pki listener --name HOST" in said.err
    said = run("init", "--name", "a.example")  # what was missing is made
    assert said.out.startswith("it stands there: CA fazai CA ")
    assert "\nmade: listener a.example, valid until 20" in said.out
    assert said.code == 0


def test_the_listener_gets_other_names_and_keeps_its_key(ready: Run, folder: Path) -> None:
    before = contents(folder)
    said = ready("listener", "--name", "new.example", "--name", "::1", "--lifetime", "7d")
    assert said.code == 0
    assert said.out.startswith("listener new.example, ::1, valid until 20")
    after = contents(folder)
    assert [name for name in before if before[name] != after[name]] == ["listener.pem"]
    said = ready("listener", "--name", "no name")
    assert said.code == 7
    assert "'no name' is neither a host name nor an address" in said.err
    assert contents(folder) == after


# -- enrol


def test_enrol_prints_the_token_alone_and_what_to_run(ready: Run, tmp_path: Path, folder: Path) -> None:
    said = ready("enrol", "edge-7")
    assert said.code == 0
    assert re.fullmatch(r"fza_[A-Za-z0-9_-]{32}\.[0-9a-f]{16}\n", said.out)
    assert "fazai agent enrol --daemon wss://fazai.example.net:3121 --name edge-7\n" in said.err
    assert "the token is for edge-7 alone, once, within 1 h; it is shown this once" in said.err
    assert said.out[4:36] not in said.err
    machine = Machine(tmp_path / "machine", "edge-7").make_key()
    store = open_certificates(tmp_path / "state")
    authority = Authority.load(folder)
    issued = Enrolments(authority, store).redeem(said.out.strip(), machine.request())
    PeerChecker(authority, store).check_peer(der_of(issued.pem), "edge-7")
    store.close()
    (row,) = listed(ready)["certificates"]
    assert (row["name"], row["state"], row["origin"]) == ("edge-7", "valid", "enrolled")
    again = ready("enrol", "edge-7", "--expires", "15m")
    assert "within 15 min" in again.err
    assert "warning: edge-7 has a certificate until 20" in again.err
    assert "lost machine? fazai pki revoke edge-7, then enrol it" in again.err


def test_enrol_without_a_listener_says_what_is_missing(run: Run) -> None:
    run("init")
    said = run("enrol", "edge-7")
    assert said.code == 0
    assert "warning: the daemon has no certificate yet, so agents cannot connect" in said.err


# -- issue and renew


def test_issue_makes_a_key_that_is_private(ready: Run, folder: Path) -> None:
    said = ready("issue", "edge-7", "--lifetime", "7d")
    assert said.code == 0
    certificate, key = map(Path, said.out.splitlines())
    assert (certificate, key) == (folder / "issued/edge-7.pem", folder / "issued/edge-7.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert re.fullmatch(r"edge-7: valid until 20.*Z\n", said.err)
    before = contents(folder)
    said = ready("issue", "edge-7")
    assert (said.code, said.out) == (3, "")
    assert "edge-7.pem stands there and was left as it is" in said.err
    assert f"fazai pki renew {certificate}" in said.err
    assert contents(folder) == before


def test_issue_for_a_request_from_a_file_and_a_pipe(ready: Run, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", "edge-7").make_key()
    (tmp_path / "edge-7.csr").write_text(machine.request())
    said = ready("issue", "edge-7", "--csr", "edge-7.csr")
    assert said.code == 0
    assert der_of(said.out)
    words = [sys.executable, "-m", "fazai", "pki", "issue", "edge-7", "--csr", "-"]
    done = subprocess.run(words, input=machine.request().encode(), capture_output=True, cwd=ROOT)
    assert done.returncode == 0
    assert der_of(done.stdout.decode())
    assert [row["origin"] for row in listed(ready, "--all")["certificates"]] == ["issued", "issued"]
    for words_, code, match in (
        (
            ("issue", "edge-8", "--csr", "edge-7.csr"),
            7,
            "the request is for 'edge-7', and edge-8 was expected",
        ),
        (("issue", "edge-7", "--csr", "edge-7.cs"), 3, 'did you mean "edge-7.csr"?'),
        (("issue", "edge-7", "--csr", "machine/edge-7.key"), 7, "this is no certificate request (CSR)"),
        (("issue", "edge-7", "--csr", "edge-7.csr", "--out", "x"), 3, "--csr and --out do not go together"),
        (("issue", "../x"), 3, "'../x' is no name for an agent"),
        (("enrol", "a name"), 3, "'a name' is no name for an agent"),
    ):
        said = ready(*words_)
        assert (said.code, said.out) == (code, "")
        assert match in said.err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("issue edge-7 --lifetime soon", "--lifetime 'soon' is no duration\n  hint: such as 30m, 12h or 90d"),
        ("issue edge-7 --lifetime 30m", "agent_lifetime is out of its limits\n  hint: 1 h to 3650 days"),
        (
            "listener --name a --lifetime 5000d",
            "listener_lifetime is out of its limits\n  hint: 1 h to 3650 days",
        ),
        ("enrol edge-7 --expires 8d", "token_lifetime is out of its limits\n  hint: 1 min to 7 days"),
        ("init --lifetime 1h", "ca_lifetime is out of its limits\n  hint: 1 day to 36500 days"),
    ],
)
def test_lifetimes_have_limits(ready: Run, folder: Path, words: str, match: str) -> None:
    before = contents(folder)
    said = ready(*words.split())
    assert (said.code, said.out) == (3, "")
    assert match in said.err
    assert contents(folder) == before


def test_renew_of_a_pair_keeps_key_and_name(ready: Run, tmp_path: Path, folder: Path) -> None:
    assert ready("issue", "edge-7", "--out", str(tmp_path / "out"), "--lifetime", "1d").code == 0
    certificate, key = tmp_path / "out/edge-7.pem", tmp_path / "out/edge-7.key"
    before, old = key.read_bytes(), certificate.read_text()
    said = ready("renew", str(certificate))
    assert (said.code, said.out) == (0, f"{certificate}\n")
    assert key.read_bytes() == before
    assert certificate.read_text() != old
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o600
    assert [row["origin"] for row in listed(ready)["certificates"]] == ["renewed"]
    assert ready("revoke", "edge-7").code == 0
    left = certificate.read_bytes()
    said = ready("renew", str(certificate))
    assert said.code == 7
    assert "the certificate of edge-7 was revoked at 20" in said.err
    assert certificate.read_bytes() == left
    said = ready("renew", str(folder / "listener.pem"))
    assert said.code == 3
    assert "is not the certificate of an agent" in said.err
    said = ready("renew", str(certificate), "--key", str(folder / "ca.key"))
    assert said.code == 3
    assert "ca.key is not the key of" in said.err


def test_renew_of_the_listener_when_it_is_due(ready: Run, folder: Path) -> None:
    before = (folder / "listener.pem").read_bytes()
    said = ready("renew")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("not due, nothing was changed: listener fazai.example.net, 192.0.2.1, valid")
    assert (folder / "listener.pem").read_bytes() == before
    said = ready("renew", "--force")
    assert said.out.startswith("renewed: listener fazai.example.net, 192.0.2.1, valid")
    assert (folder / "listener.pem").read_bytes() != before
    (folder / "listener.pem").unlink()
    said = ready("renew")
    assert said.code == 3
    assert "the listener has no certificate yet" in said.err


# -- revoke


def test_revoke_acts_on_a_running_checker(ready: Run, tmp_path: Path, folder: Path) -> None:
    ready("issue", "edge-7")
    cert = der_of((folder / "issued/edge-7.pem").read_text())
    store = open_certificates(tmp_path / "state")
    peers = PeerChecker(Authority.load(folder), store)
    peers.check_peer(cert, "edge-7")
    said = ready("revoke", "edge-7", "--reason", "stolen")
    assert (said.code, said.out, said.err) == (0, "", "revoked: edge-7, 1 valid certificate\n")
    assert peers.refresh()
    with refused("revoked", r"\(stolen\)"):
        peers.check_peer(cert, "edge-7")
    store.close()
    said = ready("revoke", "edge-7")
    assert (said.code, said.err) == (0, "revoked: edge-7, 0 valid certificates (it was revoked before)\n")
    (row,) = listed(ready)["revocations"]
    assert (row["name"], row["reason"]) == ("edge-7", "stolen")


def test_a_slip_of_the_pen_revokes_nothing(ready: Run) -> None:
    ready("issue", "edge-7")
    said = ready("revoke", "edge-77")
    assert said.code == 3
    assert 'nothing was issued to "edge-77" here, so nothing is revoked' in said.err
    assert 'did you mean "edge-7"?' in said.err
    assert listed(ready)["revocations"] == []
    assert ready("revoke", "edge-77", "--unknown").code == 0
    assert [row["name"] for row in listed(ready)["revocations"]] == ["edge-77"]
    said = ready("revoke", "edge-7", "--lift")
    assert said.code == 3
    assert "what our CA issued stays revoked" in said.err


def test_one_certificate_is_revoked_by_file_or_fingerprint(ready: Run, tmp_path: Path, folder: Path) -> None:
    ready("issue", "edge-7")
    certificate = folder / "issued/edge-7.pem"
    (tmp_path / "first.pem").write_bytes(certificate.read_bytes())
    ready("renew", str(certificate))
    shown = openssl("x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256").decode()
    said = ready("revoke", "edge-7", "--certificate", "first.pem")
    assert (said.code, said.err) == (0, "revoked: edge-7, 1 valid certificate\n")
    assert [row["state"] for row in listed(ready, "--all")["certificates"]] == ["revoked", "valid"]
    said = ready("revoke", "edge-7", "--certificate", shown.strip().split("=")[1])
    assert (said.code, said.err) == (0, "revoked: edge-7, 1 valid certificate\n")
    for given, match in (
        ("deadbeef", "no certificate of edge-7 begins with deadbeef"),
        ("first.pm", 'did you mean "first.pem"?'),
        (str(folder / "ca.key"), "holds no certificate"),
        (str(folder / "listener.pem"), "is the certificate of fazai.example.net, not of edge-7"),
    ):
        said = ready("revoke", "edge-7", "--certificate", given)
        assert said.code == 3
        assert match in said.err


# -- list


def test_list_shows_all_and_no_secret(ready: Run, folder: Path, tmp_path: Path) -> None:
    said = ready("list")
    assert said.code == 0
    assert "no certificates yet: fazai pki enrol NAME" in said.out
    token = ready("enrol", "edge-7").out.strip()
    ready("enrol", "edge-9")
    ready("issue", "edge-8")
    ready("renew", str(folder / "issued/edge-8.pem"))
    store = open_certificates(tmp_path / "state")
    enrolments = Enrolments(Authority.load(folder), store)
    csr = Machine(tmp_path / "machine", "edge-7").make_key().request()
    enrolments.redeem(token, csr)
    with refused("token_used", "was used before"):
        enrolments.redeem(token, csr)
    store.close()
    ready("revoke", "edge-8", "--reason", "sold")
    said = ready("list")
    for match in (
        r"^CA fazai CA \w{8} \(p256\)  until 20",
        r"^listener fazai\.example\.net, 192\.0\.2\.1  until 20",
        r"^edge-7 +valid +enrolled +until 20",
        r"^edge-8 +revoked +renewed +until 20",
        r"^edge-7 +token used  until 20.*  1 more uses were refused, the last 20",
        r"^edge-9 +token open  until 20",
        r"^edge-8 +revoked  20.*  sold$",
    ):
        assert re.search(match, said.out, re.MULTILINE), match
    assert len([row for row in listed(ready, "--all")["certificates"] if row["name"] == "edge-8"]) == 2
    document = json.dumps(listed(ready, "--all"))
    keys = ["".join(path.read_text().splitlines()[1:-1])[20:60] for path in folder.rglob("*.key")]
    for secret in (token[4:36], *keys, "PRIVATE"):
        assert secret not in document
        assert secret not in said.out


def test_what_an_agent_says_of_the_cas_steers_no_terminal(ready: Run, folder: Path) -> None:
    assert ready("ca", "rotate").code == 0
    mark = Authority.load(folder).bundle_mark
    with closing(open_certificates(folder.parents[1] / "state")) as store:
        text = "no\x1b[2J\n9 of 9 agents ready; next: fazai pki ca switch"
        store.put_trust_holder(TrustHolder("edge-7", mark, time.time(), text))
    lines = ready("ca", "status").out.splitlines()
    (shown,) = (line for line in lines if line.startswith("edge-7"))
    assert r"did not take the CAs: no\x1b[2J\n9 of 9 agents ready" in shown
    assert lines[-1] == "0 of 1 agent ready; wait (fazai pki ca status), then: fazai pki ca switch"


def test_who_is_left_behind_when_the_ca_goes_is_told(ready: Run, folder: Path) -> None:
    assert ready("issue", "edge-7").code == 0
    assert ready("ca", "rotate").code == 0
    assert ready("ca", "switch").code == 7
    assert ready("ca", "switch", "--force").code == 0
    said = ready("ca", "retire", "--force")
    assert said.code == 0
    assert said.err == "edge-7 has to be enrolled anew: fazai pki enrol edge-7\n"
    assert "its CA was retired: fazai pki enrol edge-7" in ready("list").out


def test_list_in_a_pipe_that_is_closed(ready: Run) -> None:
    words = f"{sys.executable} -m fazai pki list | head -1"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("CA fazai CA ")


# -- an existing CA


def test_an_existing_ca_instead_of_ours(run: Run, tmp_path: Path, folder: Path) -> None:
    existing = Existing(tmp_path / "company")
    crl = existing.write_crl()
    ca = existing.folder / "ca.pem"
    said = run("init", "--existing-ca", str(ca), "--existing-crl", str(crl))
    assert said.code == 0
    assert said.out.startswith("trusted from now on: existing CA Example Machines CA (p384), valid until 20")
    before = contents(folder)
    said = run("init", "--existing-ca", str(ca), "--existing-crl", str(crl))
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("nothing was changed: existing CA Example Machines CA")
    for words, what in (
        (("enrol", "edge-7"), "enrolment"),
        (("issue", "edge-7"), "issuing"),
        (("renew",), "renewal"),
        (("listener", "--name", "a.example"), "issuing"),
    ):
        said = run(*words)
        assert (said.code, said.out) == (7, "")
        assert (
            f"{what} is not offered: certificates come from the existing CA Example Machines CA" in said.err
        )
    said = run("init")
    assert said.code == 7
    assert "the existing CA Example Machines CA is trusted here, and no other is made" in said.err
    said = run("init", "--existing-ca", str(ca))
    assert said.code == 7
    assert "pki.yml stands there: put these lines into it" in said.err
    assert contents(folder) == before
    assert run("revoke", "edge-7", "--reason", "lost").code == 0
    assert "existing CA Example Machines CA (p384)" in run("list").out
    assert run("revoke", "edge-7", "--lift").err == "accepted again: edge-7\n"
    said = run("revoke", "edge-7", "--lift")
    assert said.code == 3
    assert '"edge-7" is not revoked' in said.err


def test_an_existing_ca_is_looked_at_before_it_is_trusted(run: Run, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    existing, other = Existing(tmp_path / "company"), Existing(tmp_path / "other")
    ca = str(existing.folder / "ca.pem")
    for words, match in (
        (("--existing-ca", "no.pem"), "no.pem is damaged: it holds no certificate"),
        (("--existing-ca", "no.pm"), 'did you mean "no.pem"?'),
        (("--existing-ca", ca, "--existing-crl", "no.pem"), "no.pem is damaged: it holds no revocation list"),
        (("--existing-ca", ca, "--existing-crl", str(other.write_crl())), "not signed by a trusted CA"),
        (("--existing-crl", "no.pem"), "--existing-crl needs --existing-ca"),
        (("--existing-ca", ca, "--name", "x"), "an existing CA issues the listener's certificate itself"),
    ):
        said = run("init", *words)
        assert (said.code, said.out) == (3, "")
        assert match in said.err
    assert not folder.exists()
    run("init")
    said = run("init", "--existing-ca", ca)
    assert said.code == 7
    assert "our own CA stands in" in said.err


# -- what cannot be


def test_without_a_ca_each_command_says_what_makes_one(run: Run) -> None:
    for words in (
        ("list",),
        ("enrol", "x"),
        ("issue", "x"),
        ("renew",),
        ("revoke", "x"),
        ("listener", "--name", "x"),
    ):
        said = run(*words)
        assert (said.code, said.out) == (3, "")
        assert "there is no folder" in said.err
        assert "make the CA with: fazai pki init" in said.err


def test_a_folder_that_is_open_stops_each_command(ready: Run, folder: Path) -> None:
    folder.chmod(0o750)
    for words in (("list",), ("enrol", "x"), ("init",), ("renew",)):
        said = ready(*words)
        assert (said.code, said.out) == (3, "")
        assert "is open to others (mode 0750)" in said.err
        assert f"chmod 700 {folder}" in said.err


#: It is run as root first: the source may stand where nobody else can read it, and then all of it is loaded.
AS_NOBODY = """\
import contextlib, io, os, sys
sys.path.insert(0, sys.argv[1])
from fazai.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(["pki", "list"])
    main(["pki", "renew", "/nope.pem"])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(["pki", "list"]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebody_else_may_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user without permissions; and as root where the daemon is another user."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o711)
        monkeypatch.setenv("FAZAI_STATE_DIR", str(place / "state"))
        monkeypatch.setenv("FAZAI_SECRETS", str(place / "secrets"))
        assert run("init").code == 0
        run("list")
        words = [sys.executable, "-c", AS_NOBODY, str(ROOT)]
        done = subprocess.run(words, capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stdout) == (3, "")
        assert "cannot be looked at: Permission denied" in done.stderr
        (place / "secrets").chmod(0o755)
        done = subprocess.run(words, capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stdout) == (3, "")
        assert "may not be entered" in done.stderr
        assert "run it as the daemon's user" in done.stderr
        os.chown(place / "secrets/pki", 65533, 65533)
        done = subprocess.run(words, capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stdout) == (3, "")
        assert "belongs to another user" in done.stderr
        assert "sudo -u '#65533'" in run("list").err
        os.chown(place / "state", 65534, 65534)
        said = run("list")
        assert (said.code, said.out) == (3, "")
        assert "belongs to another user, and so should the CA" in said.err
        assert "sudo -u nobody env FAZAI_STATE_DIR=" in said.err


def test_each_command_explains_itself(run: Run) -> None:
    for words in ((), ("init",), ("listener",), ("issue",), ("enrol",), ("renew",), ("revoke",), ("list",)):
        said = run(*words, "--help")
        assert said.code == 0
        assert "Usage: fazai pki" in said.out
    said = run("lsit")
    assert said.code == 3
    assert "No such command 'lsit'" in said.err
