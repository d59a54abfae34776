"""Each channel against a real receiver: what arrives, and each way to fail."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fazai.errors import SecretError
from fazai.lab.server.tls import LabAuthority
from fazai.notify.message import DeliveryError, Notice
from fazai.notify.smtp import SmtpChannel
from fazai.notify.telegram import TelegramChannel
from fazai.notify.webhook import WebhookChannel
from fazai.wire.base import WireError
from fazai.wire.signature import decode_signed_headers, verify_signature
from tests.notify.receivers import Hook, Mailbox, serve_hook, serve_mail, status
from tests.probes.servers import Handler, serve_tcp, server_context

NOTICE = Notice(
    id="01KDA8Y0000000000000000000",
    kind="silent_host",
    subject="web-01 is silent: no record for 90 s ☎",
    lines=("one", "two"),
    time=1_796_000_000.0,
    target="web-01",
)
KEY = "0123456789abcdef0123456789abcdef"
BOT = "12345:AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


def secret(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def hook_channel(folder: Path, port: int, **more: object) -> WebhookChannel:
    scheme = more.pop("scheme", "http")
    return WebhookChannel(
        name="ops",
        url=f"{scheme}://localhost:{port}/hooks/x?y=1",
        secret_file=secret(folder, KEY),
        **more,  # type: ignore[arg-type]
    )


def bot_channel(folder: Path, port: int, **more: object) -> TelegramChannel:
    return TelegramChannel(
        name="phone",
        chat="-100",
        token_file=secret(folder, BOT),
        base_url=f"http://127.0.0.1:{port}",
        **more,  # type: ignore[arg-type]
    )


def mail_channel(port: int, **more: object) -> SmtpChannel:
    fields = {"tls": "none", "host": "localhost", **more}
    return SmtpChannel(
        name="mail",
        port=port,
        sender="fazai@example.net",
        recipients=more.pop("recipients", ("ops@example.net",)),  # type: ignore[arg-type]
        **{name: value for name, value in fields.items() if name != "recipients"},  # type: ignore[arg-type]
    )


def fails(send: Awaitable[object]) -> DeliveryError:
    async def run() -> DeliveryError:
        with pytest.raises(DeliveryError, match=r".") as raised:
            await send
        return raised.value

    return asyncio.run(run())


# -- the webhook


def test_a_webhook_is_signed_as_requests_of_agents_are(tmp_path: Path) -> None:
    hook = Hook()

    async def run() -> None:
        async with serve_hook(hook) as port:
            await hook_channel(tmp_path, port).send(NOTICE)
            await hook_channel(tmp_path, port).send(NOTICE)

    asyncio.run(run())
    (post, again) = hook.posts
    assert post.path == "/hooks/x?y=1"
    assert json.loads(post.body) == {
        "format": "fazai-notice/1",
        "id": NOTICE.id,
        "kind": "silent_host",
        "time": "2026-11-30T00:53:20Z",
        "subject": NOTICE.subject,
        "lines": ["one", "two"],
        "urgent": False,
        "target": "web-01",
    }
    headers = decode_signed_headers(post.headers)
    assert headers.agent == "fazai-daemon"
    asked = {"method": "POST", "path": post.path, "now_s": time.time()}
    verify_signature(headers, [KEY.encode()], body=post.body, **asked)  # type: ignore[arg-type]
    with pytest.raises(WireError, match="the signature does not fit"):
        verify_signature(headers, [KEY.encode()], body=post.body + b" ", **asked)  # type: ignore[arg-type]
    assert headers.nonce != decode_signed_headers(again.headers).nonce


@pytest.mark.parametrize(
    ("answer", "text", "permanent", "again_s"),
    [
        (status(500, body="oops"), "it answers 500: oops", False, None),
        (status(503, "Retry-After: 120"), "it answers 503", False, 120.0),
        (status(429, "Retry-After: 999999"), "it answers 429", False, 3600.0),
        (status(503, "Retry-After: Tue, 01 Dec 2026 00:00:00 GMT"), "it answers 503", False, None),
        (status(404), "it answers 404", True, None),
        (status(302, "Location: http://127.0.0.1:1/"), "it answers 302", True, None),
        (status(403, body=f"bad key {KEY} \x1b[2J"), "it answers 403: bad key *** [2J", True, None),
        ("half", "it is not reached: RemoteProtocolError", False, None),
        (b"nonsense\r\n\r\n", "it is not reached: RemoteProtocolError", False, None),
        ("silence", "no answer in time", False, None),
    ],
)
def test_answers_that_are_no_delivery(
    tmp_path: Path, answer: bytes | str, text: str, permanent: bool, again_s: float | None
) -> None:
    hook = Hook(script=[answer])

    async def run() -> None:
        async with serve_hook(hook) as port:
            channel = hook_channel(tmp_path, port, timeout_s=0.5 if answer == "silence" else 15.0)
            with pytest.raises(DeliveryError, match=r".") as raised:
                await channel.send(NOTICE)
            error = raised.value
            assert (str(error), error.permanent, error.again_s) == (text, permanent, again_s)

    asyncio.run(run())


def test_a_status_of_success_is_a_delivery_whatever_its_body_does(tmp_path: Path) -> None:
    async def run() -> None:
        for answer in (b"HTTP/1.1 204 X\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nx"):
            hook = Hook(script=[answer])
            async with serve_hook(hook) as port:
                await hook_channel(tmp_path, port, timeout_s=0.5).send(NOTICE)
            assert len(hook.posts) == 1

    asyncio.run(run())


def test_an_answer_without_end_is_not_read(tmp_path: Path) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 X\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def run() -> None:
        async with serve_tcp(pour) as port:
            with pytest.raises(DeliveryError, match="it answers 500: x"):
                await hook_channel(tmp_path, port).send(NOTICE)

    asyncio.run(run())


def test_nobody_there(tmp_path: Path) -> None:
    assert str(fails(hook_channel(tmp_path, 1).send(NOTICE))) == "it is not reached: ConnectError"
    assert "it is not reached" in str(fails(bot_channel(tmp_path, 1).send(NOTICE)))
    assert "the mail server did not take it" in str(fails(mail_channel(1).send(NOTICE)))


@pytest.mark.parametrize("variant", ["valid", "expired", "self_signed", "wrong_host"])
def test_a_certificate_is_verified(tmp_path: Path, variant: str) -> None:
    authority = LabAuthority.create()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)
    hook, mailbox = Hook(), Mailbox()

    async def run() -> None:
        context = server_context(authority, variant)
        async with (
            serve_hook(hook, context) as web,
            serve_mail(mailbox, context) as mail,
            serve_mail(mailbox, context, implicit=True) as secure,
        ):
            channels: list[WebhookChannel | SmtpChannel] = [
                hook_channel(tmp_path, web, scheme="https", ca=ca),
                mail_channel(mail, tls="starttls", ca=ca, host="127.0.0.1"),
                mail_channel(secure, tls="tls", ca=ca, host="127.0.0.1"),
            ]
            for channel in channels:
                if variant == "valid":
                    await channel.send(NOTICE)
                else:
                    with pytest.raises(DeliveryError, match="the certificate is refused: "):
                        await channel.send(NOTICE)

    asyncio.run(run())
    took = variant == "valid"
    assert (len(hook.posts), mailbox.encrypted) == ((1, [True, True]) if took else (0, []))


# -- mail


def test_a_mail_arrives(tmp_path: Path) -> None:
    authority = LabAuthority.create()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)
    mailbox = Mailbox()

    async def run() -> None:
        async with serve_mail(mailbox, server_context(authority), password="geheim") as port:
            channel = mail_channel(
                port,
                tls="starttls",
                ca=ca,
                host="127.0.0.1",
                user="fazai",
                password_file=secret(tmp_path, "geheim"),
                recipients=("a@example.net", "b@example.net"),
            )
            await channel.send(NOTICE)

    asyncio.run(run())
    (mail,) = mailbox.mails
    assert mailbox.envelopes == [("fazai@example.net", ["a@example.net", "b@example.net"])]
    assert mail["Subject"] == f"[fazai] {NOTICE.subject}"
    assert (mail["From"], mail["To"]) == ("fazai@example.net", "a@example.net, b@example.net")
    assert mail["Date"] == "Mon, 30 Nov 2026 00:53:20 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().splitlines() == [NOTICE.subject, "one", "two"]


def test_a_wrong_password_is_tried_again_and_not_shown(tmp_path: Path) -> None:
    authority = LabAuthority.create()
    ca = tmp_path / "ca.pem"
    ca.write_text(authority.pem)

    async def run() -> None:
        async with serve_mail(Mailbox(), server_context(authority), password="right") as port:
            wrong = secret(tmp_path, "wrong-word")
            more = {"user": "fazai", "password_file": wrong, "ca": ca, "host": "127.0.0.1"}
            with pytest.raises(DeliveryError, match="535") as raised:
                await mail_channel(port, tls="starttls", **more).send(NOTICE)
            assert not raised.value.permanent
            assert "wrong-word" not in str(raised.value)

    asyncio.run(run())


def test_a_server_without_starttls_gets_nothing(tmp_path: Path) -> None:
    mailbox = Mailbox()

    async def run() -> None:
        async with serve_mail(mailbox) as port:
            with pytest.raises(DeliveryError, match="STARTTLS"):
                await mail_channel(port, tls="starttls").send(NOTICE)

    asyncio.run(run())
    assert mailbox.mails == []


@pytest.mark.parametrize(
    ("answer", "permanent"), [("451 try later", False), ("554 spam", True), ("552 too big", True)]
)
def test_what_a_mail_server_says_decides_whether_it_is_tried_again(answer: str, permanent: bool) -> None:
    async def run() -> None:
        async with serve_mail(Mailbox(script=[answer])) as port:
            with pytest.raises(DeliveryError, match=answer) as raised:
                await mail_channel(port).send(NOTICE)
            assert raised.value.permanent is permanent

    asyncio.run(run())


def test_who_of_several_was_refused_is_said() -> None:
    async def run() -> None:
        async with serve_mail(Mailbox(refused=("b@example.net",))) as port:
            channel = mail_channel(port, recipients=("a@example.net", "b@example.net"))
            assert await channel.send(NOTICE) == "the mail server refused b@example.net"
        async with serve_mail(Mailbox(refused=("b@example.net",))) as port:
            with pytest.raises(DeliveryError, match="550 no such user") as raised:
                await mail_channel(port, recipients=("b@example.net",)).send(NOTICE)
            assert raised.value.permanent

    asyncio.run(run())


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"2")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ")


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (_say_nothing, "the mail server does not answer in time"),
        (_drip, "the mail server does not answer in time"),
        (_hang_up, "the mail server did not take it"),
    ],
)
def test_a_mail_server_that_stops_in_the_middle(server: Handler, text: str) -> None:
    async def run() -> None:
        async with serve_tcp(server) as port:
            with pytest.raises(DeliveryError, match=text):
                await mail_channel(port, timeout_s=0.5).send(NOTICE)

    asyncio.run(run())


def test_a_subject_cannot_add_a_header() -> None:
    mailbox = Mailbox()
    evil = Notice(id="x", kind="test", subject="a\r\nBcc: evil@example.org\r\n\r\nbody", time=0.0)

    async def run() -> None:
        async with serve_mail(mailbox) as port:
            await mail_channel(port).send(evil)

    asyncio.run(run())
    assert mailbox.mails[0]["Bcc"] is None
    assert mailbox.mails[0]["Subject"] == "[fazai] a Bcc: evil@example.org body"


# -- Telegram


def test_a_message_of_telegram_is_plain_text(tmp_path: Path) -> None:
    hook = Hook()

    async def run() -> None:
        async with serve_hook(hook) as port:
            await bot_channel(tmp_path, port).send(NOTICE)
            long = Notice(id="x", kind="test", subject="😀" * 5000, time=0.0)
            await bot_channel(tmp_path, port).send(long)

    asyncio.run(run())
    assert [post.path for post in hook.posts] == [f"/bot{BOT}/sendMessage"] * 2
    first, second = (json.loads(post.body) for post in hook.posts)
    assert (first["chat_id"], first["text"]) == ("-100", f"{NOTICE.subject}\none\ntwo")
    assert "parse_mode" not in first
    assert len(second["text"].encode("utf-16-le")) // 2 <= 4096


@pytest.mark.parametrize(
    "answer",
    [
        status(401, body=f'{{"ok":false,"description":"Unauthorized {BOT}"}}'),
        status(500, body=f"bot{BOT}"),
        status(200, body="not JSON"),
        status(200, body='{"ok":false}'),
        "half",
    ],
)
def test_no_error_shows_the_token(tmp_path: Path, answer: bytes | str) -> None:
    async def run() -> None:
        async with serve_hook(Hook(script=[answer])) as port:
            with pytest.raises(DeliveryError, match=r"it answers|its answer is not|not reached") as raised:
                await bot_channel(tmp_path, port).send(NOTICE)
            assert BOT not in str(raised.value)
            assert raised.value.__suppress_context__ or raised.value.__context__ is None

    asyncio.run(run())


def test_a_secret_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    makers: list[Callable[[Path, int], WebhookChannel | TelegramChannel]] = [hook_channel, bot_channel]
    for make in makers:
        channel = make(tmp_path, 1)
        (tmp_path / "secret").chmod(0o644)
        with pytest.raises(SecretError, match="others may read it"):
            asyncio.run(channel.send(NOTICE))
    wrong = bot_channel(tmp_path, 1)
    secret(tmp_path, "no-token")
    with pytest.raises(SecretError, match="it holds no token of a bot"):
        asyncio.run(wrong.send(NOTICE))
