"""`agent enrol`: the listener is proven before the token leaves, and what comes back is kept whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fazai.agent.link import identity, keys
from fazai.agent.link.errors import LinkError
from tests.agent.link.authority import Authority
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon

ROOT = Path(__file__).parents[3]
SECRET = "fza_" + "A" * 32


def _run(*arguments: str, token: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fazai.agent.main", "enrol", *arguments],
        input=f"{token}\n",
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


class Registrar:
    """Answers POST /southbound/enrol as SPEC.md says."""

    def __init__(self, authority: Authority, name: str = "edge-7") -> None:
        self.authority = authority
        self.name = name
        self.seen: list[dict[str, Any]] = []

    def __call__(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[HTTPStatus, dict[str, Any]]:
        self.seen.append(body)
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        assert csr.is_signature_valid
        if csr.subject.rfc4514_string() != f"CN={self.name}":
            text = f"the token is for {self.name}"
            return HTTPStatus.FORBIDDEN, {"ok": False, "code": "forbidden", "error": text}
        key = csr.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        made = self.authority.sign(self.name, key).decode()
        ca = self.authority.file.read_text()
        return HTTPStatus.OK, {"ok": True, "agent_id": self.name, "certificate": made, "ca": ca}


@pytest.fixture
def registrar(authority: Authority) -> Registrar:
    return Registrar(authority)


@pytest.fixture
def enrolling(start_daemon: Callable[..., Daemon], registrar: Registrar) -> Daemon:
    return start_daemon(posts={"/southbound/enrol": registrar})


def test_a_new_machine_enrols_and_connects(
    tmp_path: Path, agent: Agent, enrolling: Daemon, registrar: Registrar
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    config = folder / "agent.yml"
    arguments = ["--config", str(config), "--daemon", f"wss://localhost:{enrolling.port}", "--name", "edge-7"]
    token = f"{SECRET}.{registrar.authority.mark}"
    done = _run(*arguments, token=token, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "enrolled as edge-7" in done.stdout
    assert "it allows nothing yet" in done.stdout
    assert registrar.seen[0]["token"] == token
    assert {path.name for path in (folder / "agent").iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
    assert (folder / "agent").stat().st_mode & 0o777 == 0o700
    assert (folder / "agent/key.pem").stat().st_mode & 0o777 == 0o600
    assert config.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" not in str(registrar.seen)
    agent.config.write_text(config.read_text() + f"state: {agent.state}\n")
    agent.start()
    assert enrolling.accept().hello()["agent_id"] == "edge-7"


def test_a_configured_machine_enrols_again(
    agent: Agent, enrolling: Daemon, registrar: Registrar, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{enrolling.port}")
    before = agent.pair.key.read_bytes()
    done = _run("--config", str(agent.config), token=f"{SECRET}.{registrar.authority.mark}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert agent.pair.key.read_bytes() != before
    agent.start()
    enrolling.accept().hello()


def test_one_that_runs_takes_its_new_certificate_after_sighup(
    agent: Agent, enrolling: Daemon, registrar: Registrar, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{enrolling.port}")
    agent.start()
    enrolling.accept().hello()
    agent.wait_said("connected to")
    done = _run("--config", str(agent.config), token=f"{SECRET}.{registrar.authority.mark}", cwd=tmp_path)
    assert "an agent that runs takes it after SIGHUP" in done.stdout
    agent.process.send_signal(signal.SIGHUP)
    enrolling.accept().hello()
    agent.wait_said("connected to", times=2)
    agent.process.send_signal(signal.SIGHUP)  # and not another time
    agent.wait_said("the configuration was read again", times=2)
    assert agent.said().count("connected to") == 2


def test_the_token_does_not_leave_for_a_listener_that_is_not_its(
    agent: Agent, enrolling: Daemon, registrar: Registrar, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{enrolling.port}")
    before = agent.pair.key.read_bytes()
    done = _run("--config", str(agent.config), token=f"{SECRET}.{'0' * 16}", cwd=tmp_path)
    assert done.returncode == 7
    assert "does not show the authority that the token names; the token was not sent" in done.stderr
    assert SECRET not in done.stderr
    assert registrar.seen == []
    assert enrolling.requests == []
    assert agent.pair.key.read_bytes() == before


def test_a_listener_that_only_shows_the_authority_does_not_get_the_token(
    agent: Agent, start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Anybody can show the authority's certificate; the handshake that follows proves the listener by it."""
    other = Authority(tmp_path / "other")
    pair = other.listener()
    pair.certificate.write_bytes(pair.certificate.read_bytes() + agent.authority.file.read_bytes())
    registrar = Registrar(other)
    liar = start_daemon(pair=pair, posts={"/southbound/enrol": registrar})
    agent.configure(f"wss://localhost:{liar.port}")
    done = _run("--config", str(agent.config), token=f"{SECRET}.{agent.authority.mark}", cwd=tmp_path)
    assert done.returncode == 4
    assert "the certificate of localhost is not trusted" in done.stderr
    assert registrar.seen == []


def test_a_refusal_is_said_in_the_daemons_words(
    agent: Agent, enrolling: Daemon, registrar: Registrar, tmp_path: Path
) -> None:
    registrar.name = "somebody-else"
    agent.configure(f"wss://localhost:{enrolling.port}")
    before = agent.pair.key.read_bytes()
    done = _run("--config", str(agent.config), token=f"{SECRET}.{registrar.authority.mark}", cwd=tmp_path)
    assert done.returncode == 7
    assert "refused: the token is for somebody-else" in done.stderr
    assert agent.pair.key.read_bytes() == before


def test_a_certificate_for_another_key_is_not_kept(
    agent: Agent, start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], headers: dict[str, str]) -> tuple[HTTPStatus, dict[str, Any]]:
        other = agent.authority.agent("other").certificate.read_text()
        return HTTPStatus.OK, {"ok": True, "agent_id": "edge-7", "certificate": other, "ca": "-"}

    daemon = start_daemon(posts={"/southbound/enrol": answer})
    agent.configure(f"wss://localhost:{daemon.port}")
    with agent.authority.file.open("a") as file:
        file.write("\n")  # as it came by another way
    files = (agent.authority.file, agent.pair.certificate, agent.pair.key)
    before = [path.read_bytes() for path in files]
    done = _run("--config", str(agent.config), token=f"{SECRET}.{agent.authority.mark}", cwd=tmp_path)
    assert done.returncode == 7
    assert "does not belong to the certificate" in done.stderr
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize("token", ["", "x", "fza_abc", "fza_abc.zzzzzzzzzzzzzzzz", "abc.0123456789abcdef"])
def test_what_is_no_token_is_refused(agent: Agent, daemon: Daemon, tmp_path: Path, token: str) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    done = _run("--config", str(agent.config), token=token, cwd=tmp_path)
    assert done.returncode == 7
    assert "that is no enrolment token (fazai pki enrol NAME makes one)" in done.stderr


def test_without_a_configuration_the_daemon_must_be_named(tmp_path: Path) -> None:
    done = _run("--config", str(tmp_path / "none.yml"), token="x", cwd=tmp_path)
    assert done.returncode == 3
    assert "say --daemon wss://HOST:3121" in done.stderr
    words = ("--config", str(tmp_path / "none.yml"), "--daemon", "https://localhost:1", "--name", "edge-7")
    done = _run(*words, token="x", cwd=tmp_path)  # what it would write, no agent could read
    assert done.returncode == 3
    assert "https:// needs `signing_key`" in done.stderr
    done = _run("--config", str(tmp_path / "none.yml"), "--daemon", "localhost:1", token="x", cwd=tmp_path)
    assert done.returncode == 3
    assert '--daemon "localhost:1" names no daemon' in done.stderr


def test_a_chain_in_pieces_is_read() -> None:
    """The handshake of TLS 1.2: records of any size, several messages in one, a message over several."""
    one, two = b"\x30" + b"a" * 300, b"\x30" + b"b" * 70_000
    listed = b"".join(len(der).to_bytes(3, "big") + der for der in (one, two))
    body = len(listed).to_bytes(3, "big") + listed
    messages = b"\x02\x00\x00\x02hi" + b"\x0b" + len(body).to_bytes(3, "big") + body
    stream = b""
    for at in range(0, len(messages), 5000):
        piece = messages[at : at + 5000]
        stream += b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece
    assert identity.parse_chain(stream) == [one, two]
    assert identity.parse_chain(stream[:-1]) is None
    assert identity.parse_chain(b"\x15\x03\x03\x00\x02\x02\x28") is None
    assert identity.parse_chain(b"") is None


@pytest.fixture(params=["openssl", "cryptography"])
def with_tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Keys by the program, and by the library where the program is not."""
    if request.param == "cryptography":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        assert shutil.which("openssl")
    return str(request.param)


def test_keys_requests_and_signatures(with_tool: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    keys.write_private(str(path), keys.make_key())
    keys.check_private(str(path))
    private = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp256r1"
    csr = x509.load_pem_x509_csr(keys.make_request(str(path), "edge-7").encode())
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "CN=edge-7"
    from cryptography.hazmat.primitives import hashes

    private.public_key().verify(keys.sign(str(path), b"text"), b"text", ec.ECDSA(hashes.SHA256()))


def test_a_key_of_ed25519_signs_too(with_tool: str, tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    csr = x509.load_pem_x509_csr(keys.make_request(str(path), "edge-7").encode())
    assert csr.is_signature_valid
    private.public_key().verify(keys.sign(str(path), b"text"), b"text")


def test_a_broken_key_is_told(with_tool: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key")
    with pytest.raises(LinkError, match=r"openssl req failed|the key cannot be used"):
        keys.make_request(str(path), "edge-7")


def test_a_private_file_is_never_half_there(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("before")
    (tmp_path / "key.pem.new").symlink_to(tmp_path / "planted")
    keys.write_private(str(path), b"after")
    assert path.read_text() == "after"
    assert not (tmp_path / "planted").exists()
    assert path.stat().st_mode & 0o777 == 0o600
