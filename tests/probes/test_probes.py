"""What probes find at servers that are well, wrong, slow, or mean harm."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from fazai.errors import InputError, Refused
from fazai.lab.server.tls import LabAuthority
from fazai.probes import ping, tls
from fazai.probes.http import BODY_BYTES, HttpQuestion, probe_http
from fazai.probes.ping import probe_ping
from fazai.probes.reach import Anywhere
from fazai.probes.result import clean_text
from fazai.probes.tcp import probe_tcp
from fazai.probes.tls import probe_tls
from tests.probes.servers import answer_http, serve_tcp, server_context

HEAD = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\n"


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of loopback that refuses: a socket that is bound and does not listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


# -- TCP


def test_an_open_port_is_open() -> None:
    async def ask() -> None:
        async with serve_tcp(say_nothing) as port:
            found = await probe_tcp("127.0.0.1", port)
            assert (found.ok, found.why, found.address) == (True, "it is open", "127.0.0.1")
            assert found.latency_ms is not None
            assert found.target == f"127.0.0.1:{port}"

    asyncio.run(ask())


def test_a_port_of_ipv6_is_open() -> None:
    async def ask() -> None:
        async with serve_tcp(say_nothing, host="::1") as port:
            found = await probe_tcp("::1", port)
            assert (found.ok, found.address) == (True, "::1")
            with pytest.raises(InputError, match="::1 is no IPv4 address"):
                await probe_tcp("::1", port, family=4)

    asyncio.run(ask())


def test_a_closed_port_is_a_finding() -> None:
    with closed_port() as port:
        found = asyncio.run(probe_tcp("127.0.0.1", port))
    assert not found.ok
    assert found.why == "it is not open: connection refused"
    assert found.latency_ms is None
    assert found.facts["tried"] == ["127.0.0.1"]


def test_a_web_server_that_is_not_there_is_a_finding() -> None:
    with closed_port() as port:
        found = asyncio.run(probe_http(f"http://127.0.0.1:{port}/"))
    assert (found.ok, found.why) == (False, "no usable answer: connection refused")


def test_a_name_that_is_not_there_is_a_finding() -> None:
    found = asyncio.run(probe_tcp("nowhere.invalid", 80))
    assert not found.ok
    assert found.why.startswith("it is not open: ")


def test_a_banner_cannot_steer_a_terminal() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-Open\x1b[2J\x1b]0;owned\x07\r\n\xff\xfe\xe2\x80\xaeevil" + b"A" * 10_000)
        await reader.read()

    async def ask() -> None:
        async with serve_tcp(greet) as port:
            found = await probe_tcp("127.0.0.1", port, banner=True)
            banner = found.facts["banner"]
            assert banner.startswith("SSH-2.0-Open [2J ]0;owned ")
            assert banner.isprintable()
            assert len(banner) <= 301

    asyncio.run(ask())


def test_a_server_that_waits_for_the_client_has_no_banner() -> None:
    async def ask() -> None:
        async with serve_tcp(say_nothing) as port:
            found = await probe_tcp("127.0.0.1", port, banner=True, timeout_s=0.2)
            assert (found.ok, found.facts["banner"]) == (True, "")

    asyncio.run(ask())


@pytest.mark.parametrize("host", ["0x7f.1", "127.1", "a b", "-x.example", "x" * 64, "a..b", "", "é\ud800"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="is no host"):
        asyncio.run(probe_tcp(host, 80))


def test_a_port_or_time_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="70000 is no port"):
        asyncio.run(probe_tcp("127.0.0.1", 70000))
    with pytest.raises(InputError, match="from above 0 to 60 s"):
        asyncio.run(probe_tcp("127.0.0.1", 80, timeout_s=0))


# -- HTTP


def test_a_web_server_is_asked() -> None:
    async def ask() -> None:
        body = HEAD + b"Content-Length: 5\r\n\r\nhello"
        async with serve_tcp(answer_http(body)) as port:
            url = f"http://127.0.0.1:{port}/x?y=1"
            found = await probe_http(url, HttpQuestion(contains="ell"))
            assert (found.ok, found.why) == (True, "it answers 200")
            assert found.facts["server"] == "nginx"
            assert found.facts["bytes"] == 5
            wrong = await probe_http(url, HttpQuestion(status=204))
            assert (wrong.ok, wrong.why) == (False, "it answers 200, not 204")
            missing = await probe_http(url, HttpQuestion(contains="bye"))
            assert (missing.ok, missing.why) == (False, "it answers 200, and 'bye' is not in the body")

    asyncio.run(ask())


def test_a_redirect_is_not_followed_unless_asked_for() -> None:
    async def ask() -> None:
        async with serve_tcp(answer_http(HEAD + b"Content-Length: 0\r\n\r\n")) as there:
            move = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{there}/\r\nContent-Length: 0\r\n\r\n"
            async with serve_tcp(answer_http(move.encode())) as port:
                found = await probe_http(f"http://127.0.0.1:{port}/")
                assert (found.ok, found.facts["status"]) == (True, 302)
                assert found.facts["location"] == f"http://127.0.0.1:{there}/"
                found = await probe_http(f"http://127.0.0.1:{port}/", HttpQuestion(redirects=1))
                assert (found.facts["status"], found.facts["redirects"]) == (
                    200,
                    [f"http://127.0.0.1:{there}/"],
                )

    asyncio.run(ask())


@pytest.mark.parametrize(
    "location", ["ftp://x/", "http://a b/", "http://u:p@127.0.0.1/", "gopher:", "http://[::g]/"]
)
def test_a_redirect_to_nonsense_is_a_finding(location: str) -> None:
    async def ask() -> None:
        move = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        async with serve_tcp(answer_http(move.encode())) as port:
            found = await probe_http(f"http://127.0.0.1:{port}/", HttpQuestion(redirects=3))
            assert not found.ok
            assert "no URL to ask" in found.why or "Invalid URL in location header" in found.why

    asyncio.run(ask())


def test_a_body_without_end_is_cut() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def ask() -> None:
        async with serve_tcp(pour) as port:
            found = await probe_http(f"http://127.0.0.1:{port}/")
            assert (found.ok, found.facts["cut"], found.facts["bytes"]) == (True, True, BODY_BYTES)

    asyncio.run(ask())


def test_a_head_without_end_is_refused() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Y: " + b"z" * 4000 + b"\r\n")
            await writer.drain()

    async def ask() -> None:
        async with serve_tcp(pour) as port:
            found = await probe_http(f"http://127.0.0.1:{port}/")
            assert not found.ok
            assert found.why.startswith("no usable answer: ")

    asyncio.run(ask())


def test_slow_bytes_end_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in HEAD * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async def ask() -> None:
        async with serve_tcp(drip) as port:
            found = await probe_http(f"http://127.0.0.1:{port}/", timeout_s=0.3)
            assert (found.ok, found.why) == (False, "no answer in time")

    asyncio.run(ask())


def test_no_password_stands_in_a_url() -> None:
    with pytest.raises(InputError, match="no user and no password") as raised:
        asyncio.run(probe_http("http://admin:geheim@127.0.0.1/"))
    assert "geheim" not in str(raised.value)
    with pytest.raises(InputError, match="is no URL of a web server"):
        asyncio.run(probe_http("file:///etc/passwd"))


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("valid", "it answers 200"),
        ("expired", "its certificate is refused: certificate has expired"),
        ("self_signed", "its certificate is refused: self-signed certificate"),
        ("wrong_host", "its certificate is refused: "),
    ],
)
def test_https_is_verified(tmp_path: Path, variant: str, why: str) -> None:
    authority = LabAuthority.create()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)

    async def ask() -> None:
        handle = answer_http(HEAD + b"Content-Length: 0\r\n\r\n")
        async with serve_tcp(handle, server_context(authority, variant)) as port:
            found = await probe_http(f"https://localhost:{port}/", HttpQuestion(ca=ca, family=4))
            assert found.ok is (variant == "valid")
            assert found.why.startswith(why)
            trusting = await probe_http(f"https://localhost:{port}/", HttpQuestion(verify=False, family=4))
            assert trusting.ok

    asyncio.run(ask())


# -- TLS


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("valid", "the certificate is good for 299 days"),
        ("expired", "the certificate is refused: certificate has expired"),
        ("self_signed", "the certificate is refused: self-signed certificate"),
        ("wrong_host", "the certificate is refused: Hostname mismatch"),
    ],
)
def test_a_certificate_is_a_finding_with_facts(tmp_path: Path, variant: str, why: str) -> None:
    authority = LabAuthority.create()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)

    async def ask() -> None:
        async with serve_tcp(say_nothing, server_context(authority, variant)) as port:
            found = await probe_tls("localhost", port, ca=ca, family=4)
            assert found.ok is (variant == "valid")
            assert found.why.startswith(why)
            assert found.facts["subject"] == "CN=OPNsense.internal"
            assert found.facts["self_signed"] is (variant == "self_signed")
            assert found.facts["trusted"] is (variant == "valid")
            assert found.facts["version"] == "TLSv1.3"
            assert (found.facts["days_left"] < 0) is (variant == "expired")
            assert len(found.facts["sha256"]) == 64
            name = "elsewhere.example.org" if variant == "wrong_host" else "localhost"
            assert found.facts["names"][0] == name

    asyncio.run(ask())


def test_a_certificate_that_expires_soon_is_a_finding(tmp_path: Path) -> None:
    authority = LabAuthority.create()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)

    async def ask() -> None:
        async with serve_tcp(say_nothing, server_context(authority)) as port:
            later = datetime.now(UTC) + timedelta(days=290)
            found = await probe_tls("localhost", port, ca=ca, family=4, now=later, warn_days=14)
            assert (found.ok, found.why) == (False, "the certificate expires in 9 days")
            found = await probe_tls("localhost", port, ca=ca, family=4, now=later, warn_days=5)
            assert found.ok
            name = "elsewhere.example.org"
            found = await probe_tls("localhost", port, ca=ca, family=4, server_name=name)
            assert not found.ok
            assert found.why.startswith("the certificate is refused: Hostname mismatch")

    asyncio.run(ask())


def test_a_server_without_tls_is_a_finding() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ESMTP\r\n" * 100)
        await reader.read()

    async def ask() -> None:
        async with serve_tcp(rude) as port:
            found = await probe_tls("127.0.0.1", port)
            assert not found.ok
            assert found.why.startswith("no TLS connection: ")
        async with serve_tcp(say_nothing) as port:
            found = await probe_tls("127.0.0.1", port, timeout_s=0.2)
            assert (found.ok, found.why) == (False, "no TLS connection: no answer in time")

    asyncio.run(ask())


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82\xff\xff" + b"A" * 100, b"\x00" * 4096])
def test_what_is_no_certificate_is_a_finding(der: bytes) -> None:
    facts, days_left = tls._certificate_facts(der, datetime.now(UTC))
    assert (list(facts), days_left) == (["sha256"], None)
    assert tls._date_problem(None, 14) == "the certificate cannot be read"


def test_a_file_of_authorities_that_is_none_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no CA file"):
        asyncio.run(probe_tls("127.0.0.1", ca=tmp_path / "none.pem"))
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(InputError, match="no certificate is in it"):
        asyncio.run(probe_tls("127.0.0.1", ca=tmp_path / "bad.pem"))


# -- ping


def _can_ping() -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP):
            return True
    return False


@pytest.mark.skipif(not _can_ping(), reason="this user may send no ICMP")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_loopback_answers_echo_requests(host: str) -> None:
    found = asyncio.run(probe_ping(host, count=2))
    assert (found.ok, found.why) == (True, "2 of 2 echo requests were answered")
    assert found.facts["loss"] == 0
    assert found.facts["min_ms"] <= found.facts["avg_ms"] <= found.facts["max_ms"]


def test_only_its_own_answer_counts() -> None:
    packet = ping._pack(8, 7, 3, b"c" * 16)
    answer = b"\0" + packet[1:]
    assert ping._is_answer(answer, 0, 3, b"c" * 16)
    assert not ping._is_answer(packet, 0, 3, b"c" * 16)  # the request itself, as loopback shows it
    assert not ping._is_answer(answer, 0, 2, b"c" * 16)
    assert not ping._is_answer(answer, 0, 3, b"d" * 16)
    assert not ping._is_answer(b"\0\0", 0, 3, b"")
    words = [int.from_bytes(packet[at : at + 2]) for at in range(0, len(packet), 2)]
    total = sum(words)
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    assert total == 0xFFFF  # RFC 792


def test_who_may_not_ping_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    kernel = SimpleNamespace(**{**vars(socket), "socket": refuse})  # as it answers others than root
    monkeypatch.setattr("fazai.probes.ping.socket", kernel)
    with pytest.raises(Refused, match="lets this user send no echo requests") as raised:
        asyncio.run(probe_ping("192.0.2.1"))
    assert "net.ipv4.ping_group_range" in (raised.value.hint or "")


def test_texts_of_strangers_are_one_line() -> None:
    assert clean_text("a\x00b\n\x1b[31mc\u202ed") == "a b [31mc d"
    assert clean_text("x" * 1000) == "x" * 300 + "…"
    assert Anywhere().locate("x") == "x"
