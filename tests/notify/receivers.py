"""Receivers of notifications on loopback, which fail as a test says before they take anything."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.probes.servers import serve_tcp


@dataclass
class Post:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hook:
    """A receiver of HTTP. `script`: what becomes of the next requests (bytes to answer with, `silence`,
    `half`: the connection ends in the middle of the answer's head); after that each is answered with
    `last`."""

    port: int = 0
    last: bytes = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}'
    script: list[bytes | str] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.posts.append(Post(first.split(" ")[1], headers, body))
        answer = self.script.pop(0) if self.script else self.last
        if answer == "silence":
            await reader.read()
        elif answer == "half":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-")
            await writer.drain()
        else:
            assert isinstance(answer, bytes)
            writer.write(answer)
            await writer.drain()
            await reader.read()


@contextlib.asynccontextmanager
async def serve_hook(hook: Hook, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A receiver of HTTP, on a port of its own."""
    async with serve_tcp(hook.handle, context) as port:
        hook.port = port
        yield port


def status(code: int, *headers: str, body: str = "") -> bytes:
    """An answer of HTTP."""
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@dataclass
class Mailbox:
    """A mail server's handler. `script`: answers to the next mails, after which each is taken."""

    script: list[str] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str | None, list[str]]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.script:
            return self.script.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        found = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 taken"


@contextlib.asynccontextmanager
async def serve_mail(
    mailbox: Mailbox,
    context: ssl.SSLContext | None = None,
    *,
    implicit: bool = False,
    password: str | None = None,
) -> AsyncIterator[int]:
    """A mail server: STARTTLS where there is a context, TLS from the first byte with `implicit`. With a
    password user `fazai` has to log in."""

    def authenticate(_s: SMTP, _t: Session, _e: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = data.login == b"fazai" and data.password == (password or "").encode()
        return AuthResult(success=right, handled=right)

    loop = asyncio.get_running_loop()
    made: list[SMTP] = []

    def make() -> SMTP:
        one = SMTP(
            mailbox,
            hostname="mail.example",
            loop=loop,
            tls_context=None if implicit else context,
            require_starttls=context is not None and not implicit,
            auth_required=password is not None,
            auth_require_tls=not implicit,
            authenticator=authenticate if password is not None else None,
        )
        made.append(one)
        return one

    server = await loop.create_server(make, "127.0.0.1", 0, ssl=context if implicit else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in made:
            if one.transport is not None:
                one.transport.close()
            handler = one._handler_coroutine
            if handler is not None:
                handler.cancel()
                await asyncio.gather(handler, return_exceptions=True)
