"""Routes of the port for agents: the clock, enrolment, return after expiry, signed HTTP. The daemon's other
ports have them, too."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fazai.daemon.http.auth import address_of
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import HttpReply, Route, RouteCall, read_body
from fazai.daemon.ingest.asgi import verified_nonce
from fazai.daemon.southbound.messages import read_head
from fazai.daemon.southbound.outcomes import LOGGER
from fazai.daemon.southbound.service import Southbound
from fazai.daemon.southbound.session import POLICY_VIOLATION
from fazai.daemon.southbound.transport.polling import PolledLink
from fazai.daemon.southbound.trust import wire_error
from fazai.errors import SecretError
from fazai.pki import IssuedCertificate, PkiError
from fazai.timestamps import utc_now
from fazai.wire.base import WireError, decode_body, parse_json
from fazai.wire.daemon import HTTP_STATUS
from fazai.wire.southbound import (
    CommandExec,
    EnrolAnswer,
    EnrolBody,
    Hello,
    HelloAnswer,
    PollBody,
    ReturnBody,
    TimeAnswer,
)

_CODES = ("unauthorized", "forbidden", "bad_certificate", "overloaded", "unavailable")
_SIGNED_CODES = (
    *("bad_signature", "bad_clock", "replayed", "hello_required", "bad_version", "conflict"),
    *("unknown_method", "overloaded", "unavailable"),
)


@Route("GET", "/southbound/time", "The daemon's clock, a hint for an agent whose own is wrong.", role=None)
async def show_time(call: RouteCall) -> TimeAnswer:
    """Return the daemon's clock."""
    return TimeAnswer(time=utc_now())


@Route("POST", "/southbound/enrol", "A certificate for an enrolment token.", role=None, codes=_CODES)
async def enrol(call: RouteCall, body: EnrolBody) -> EnrolAnswer:
    """Give an agent its first certificate. Raises Refusal, WireError, StateError."""
    south = _southbound_of(call)
    try:
        issued = await asyncio.to_thread(south.trust.redeem, body.token, body.csr, south.announce)
    except PkiError as error:
        refusal = wire_error(error, "forbidden")
        if refusal.code == "unauthorized":
            call.services.guard.count_wrong_token(call.connection)
        raise refusal from None
    return _answer(south, issued)


@Route(
    "POST",
    "/southbound/return",
    "A certificate for one that has expired, with proof of its key.",
    role=None,
    by_hand=True,
    body=ReturnBody,
    codes=(*_CODES, "bad_signature", "bad_clock"),
)
async def come_back(call: RouteCall) -> EnrolAnswer:
    """Give an agent that was away for long its next certificate. Raises Refusal, WireError, StateError."""
    raw = await read_body(call, come_back)
    body = decode_body(raw, ReturnBody)
    south = _southbound_of(call)
    timestamp = str(parse_json(raw)["timestamp"])  # as it was signed
    given = (body.certificate, body.csr, body.signature, timestamp)
    try:
        issued = await asyncio.to_thread(south.trust.take_back, *given, south.announce)
    except PkiError as error:
        raise wire_error(error, "forbidden") from None
    return _answer(south, issued)


def _answer(south: Southbound, issued: IssuedCertificate) -> EnrolAnswer:
    south.registry.note_names({issued.name: utc_now().timestamp()})
    return EnrolAnswer(agent_id=issued.name, certificate=issued.pem, ca=issued.ca_pem)


def _southbound_of(call: RouteCall) -> Southbound:
    if call.services.southbound is None:
        raise Refusal("not_found", "this daemon has no agents", hint="make an authority: fazai pki init")
    return call.services.southbound


# -- signed HTTP


@Route(
    "POST",
    "/southbound",
    "One message of an agent that cannot hold a connection.",
    role="operator",
    signed=True,
    by_hand=True,
    takes=Hello,
    answer=HelloAnswer,
    codes=_SIGNED_CODES,
)
async def take_message(call: RouteCall) -> HttpReply:
    """Take a message of an agent. Raises Refusal, WireError, StateError."""
    south = _southbound_of(call)
    agent_id, raw = await _read_signed(call, take_message)
    link = south.polled.get(agent_id)
    if read_head(raw).method in ("hello", "time"):
        link = PolledLink(south.session_parts, south.sessions, agent_id, address_of(call.connection))
        reply = await link.take(raw)
        if link.session.is_greeted:
            south.polled[agent_id] = link
            return _reply_of(reply)
        link.close(POLICY_VIOLATION, "hello_required: send hello first")
        code = read_head(reply or b"{}").code
        return replace(_reply_of(reply), status=HTTP_STATUS.get(code or "", 200))
    return _reply_of(await _open_link(link).take(raw))


@Route(
    "POST",
    "/southbound/poll",
    "The next request for an agent that cannot hold a connection; 204 where none comes in time.",
    role="operator",
    signed=True,
    by_hand=True,
    body=PollBody,
    answer=CommandExec,
    codes=_SIGNED_CODES,
)
async def poll(call: RouteCall) -> HttpReply:
    """Wait for the next request for an agent. Raises Refusal, WireError, StateError."""
    south = _southbound_of(call)
    agent_id, raw = await _read_signed(call, poll)
    body = decode_body(raw, PollBody)

    async def gone() -> object:
        while True:
            message = await call.receive()  # deadline: the caller's, PolledLink.poll
            if message["type"] == "http.disconnect":
                return message

    return _reply_of(await _open_link(south.polled.get(agent_id)).poll(body.wait_ms / 1000, gone))


def _open_link(link: PolledLink | None) -> PolledLink:
    if link is None:
        raise WireError("hello_required", "there is no session", hint="send hello first")
    return link


def _reply_of(message: bytes | None) -> HttpReply:
    return HttpReply(b"", status=204) if message is None else HttpReply(message)


async def _read_signed(call: RouteCall, route: Route) -> tuple[str, bytes]:
    """Return who signed a request, and its body. The nonce is used up once the signature fits, and not
    before: who has no key leaves nothing behind. Raises Refusal, WireError, StateError."""
    raw = await read_body(call, route)
    try:
        nonce = verified_nonce(call.services.ingest, call.scope, raw)
    except SecretError as error:  # ours to mend; the client learns only that it is not let in
        call.services.log.say("error", str(error), logger=LOGGER)
        raise WireError("bad_signature", "the daemon cannot read the key of this host") from None
    except WireError as error:
        if error.code == "bad_signature":
            call.services.guard.count_wrong_signature(call.connection)
        raise
    if not await call.services.store.use_nonce(nonce):
        raise WireError("replayed", "this request was sent before", hint="sign it anew with another nonce")
    return nonce.agent, raw


ROUTES = (show_time, enrol, come_back, take_message, poll)
