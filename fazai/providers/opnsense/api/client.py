"""The client of the API: the only I/O of this provider.

One kept-open connection per firewall, and reserves around activations. It follows the recorded protocol:
Basic credentials, POST with JSON (an empty body is `{}`), GET without a content type, no cookies, no
redirects; the server closes a connection after 16 requests, so a stale one is replaced silently.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
import msgspec

from fazai.compat.timeouts import deadline
from fazai.errors import DeviceError, FazaiError, Unreachable, Unsure
from fazai.providers.opnsense.api.answers import (
    RETRY_STATUS,
    connect_error,
    decode_json,
    decode_large_json,
    find_raised_error,
    nonsense_error,
    status_error,
)
from fazai.providers.opnsense.api.budget import MIB, AnswerLease, Budget
from fazai.providers.opnsense.api.calls import ApiCall, ApiSettings, controller_of, spell_in_snake_case
from fazai.providers.opnsense.api.clock import RetryClock
from fazai.providers.opnsense.api.losses import Busy, Forbidden, Lost, Stranger
from fazai.providers.opnsense.api.masking import Mask
from fazai.providers.opnsense.api.tls import describe_certificate, tls_context

MAX_RESERVES = 16
WRITES_PER_CONNECTION = 14  # the server closes after 16; one is spent on opening, one on being late
_BACKOFF_S, _BACKOFF_MAX_S, _RETRY_AFTER_MAX_S = 0.5, 15.0, 30.0
_KEEP_S = 25.0  # the server closes an idle connection after 30 s
_FRESH_S = 15.0
_KEPT_LINE_BYTES = 64 * 1024
_ENCODE = msgspec.json.Encoder().encode
#: Statuses after which a firewall is known to answer: a key that may not ask this, or a release without it.
_ANSWERED = frozenset({200, 403, 404})


@dataclass(slots=True)
class _ApiConnection:
    """One connection (opened again when the server closed it) and how much it was used."""

    transport: httpx.AsyncHTTPTransport
    used: int = 0
    last_s: float = 0.0

    async def close(self) -> None:
        await self.transport.aclose()  # deadline: none is needed, httpx waits for no goodbye


class Api:
    """Calls to one firewall; close it with `close`."""

    def __init__(self, settings: ApiSettings, clock: RetryClock, budget: Budget | None = None) -> None:
        self.settings = settings
        self._budget = budget or Budget()
        self._mask = Mask(settings.credentials)
        self._clock = clock
        url = urlsplit(settings.base_url)
        self._host = url.hostname or ""
        self._port = port = url.port or (443 if url.scheme == "https" else 80)
        self._address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"
        self._base = settings.base_url.rstrip("/") + "/api/"
        key = settings.credentials
        token = base64.b64encode(f"{key.key.reveal()}:{key.secret.reveal()}".encode()).decode("ascii")
        self._headers = [
            ("Accept", "application/json"),
            ("Authorization", f"Basic {token}"),
            ("User-Agent", "fazai"),
        ]
        self._secure = url.scheme == "https"
        self._reserves: list[_ApiConnection] = []
        self._may_use_reserves = False
        self._is_main_down = False
        self._snake_case_controllers: set[str] = set()  # controllers whose addresses are sent in snake_case

    @cached_property
    def _main(self) -> _ApiConnection:
        """The connection for most calls; it is made when first used, as that reads the authorities."""
        return self._new_connection()

    async def close(self) -> None:
        for connection in (self._main, *self._reserves):
            await connection.close()
        self._reserves = []

    def _new_connection(self) -> _ApiConnection:
        settings = self.settings
        context: Any = False
        if self._secure:
            context = tls_context(verify=settings.verify_tls, ca_pem=settings.ca_pem, pin=settings.pin)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEP_S)
        return _ApiConnection(httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits))

    async def get(self, path: str, *, privilege: str = "") -> Any:
        """Read by GET. Raises Unreachable, AccessDenied, NotAvailable, DeviceError."""
        return await self.call(ApiCall("GET", path, privilege=privilege))

    async def stream(self, path: str, count: int) -> list[Any]:
        """Return the first `count` events of a stream, and cut it off. Raises as `get`."""
        request = self._build_request(ApiCall("GET", path), self.settings.timeout_s)
        connection = self._new_connection()
        try:
            async with deadline(self.settings.timeout_s):
                response = await connection.transport.handle_async_request(request)
                if response.status_code != 200:
                    async with AnswerLease(self._budget, self.settings.max_answer_bytes) as lease:
                        body = await self._read_body(response, ApiCall("GET", path), lease)
                    target = self.settings.target
                    raise status_error(response.status_code, body, target=target, path=path, privilege="")
                return await self._read_events(response, path, count)
        except (TimeoutError, httpx.TransportError, OSError):
            text = f"the stream {path} did not give {count} events"
            raise DeviceError(text, where=self.settings.target) from None
        finally:
            await connection.close()

    async def _read_events(self, response: httpx.Response, path: str, count: int) -> list[Any]:
        found: list[Any] = []
        rest = b""
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for part in response.stream:  # deadline: `stream`
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    event = self._mask.body(line[5:])
                    found.append(decode_json(event, "application/json", self.settings.target, path))
            if len(found) >= count or len(rest) > _KEPT_LINE_BYTES:
                break
        return found[:count]

    async def download(self, path: str) -> bytes:
        """Return a file of the firewall as it is, whole. Raises as `get`."""
        call = ApiCall("GET", path, verbatim=True)
        async with AnswerLease(self._budget, self.settings.max_answer_bytes) as lease:
            try:
                status, headers, body = await self._send_request(self._main, call, lease)
                if status != 200:
                    self._raise_for_status(call, status, headers, body)
            except (Lost, Busy) as failed:
                raise failed.error from None
        return body

    async def search(self, path: str, *, privilege: str = "") -> list[dict[str, Any]]:
        """Return all rows of a collection in one call. Raises as `get`; Unreachable without rows."""
        body = {"current": 1, "rowCount": -1, "sort": {}, "searchPhrase": ""}
        found = await self.call(ApiCall("POST", path, body, privilege=privilege))
        listed = found.get("rows") if isinstance(found, dict) else None
        if not isinstance(listed, list) or not all(row.__class__ is dict for row in listed):
            raise nonsense_error(self.settings.target, path, "an answer without rows")
        total = found.get("total")
        if isinstance(total, str) and total.isascii() and total.isdigit() and len(total) < 20:
            total = int(total)
        if isinstance(total, int) and total > len(listed):  # what was not sent is not absent
            raise nonsense_error(self.settings.target, path, f"{len(listed)} of {total} rows")
        return listed

    async def call(self, call: ApiCall) -> Any:
        """Return the decoded answer; repeat what may be repeated, with growing and spread pauses.

        The firewall matches privileges with addresses as they are written, a few with snake_case ones: a 403
        is asked again as such. Raises Unreachable, AccessDenied, NotAvailable, DeviceError; Unsure when the
        answer to a call that must not be repeated was lost.
        """
        tries = self.settings.retries if call.attempts is None else call.attempts
        attempt = 0
        fresh = False
        if controller_of(call) in self._snake_case_controllers:
            call = spell_in_snake_case(call)
        while True:
            try:
                return await self._send_anywhere(call)
            except Forbidden:
                call, refused = spell_in_snake_case(call), call
                if call == refused:
                    raise
                self._snake_case_controllers.add(controller_of(call))
                continue
            except Lost as lost:
                if not call.repeatable and lost.sent:
                    raise self._unsure_error(call) from None
                if lost.stale and not fresh:
                    fresh = True  # a kept connection had been closed: no fault, no pause
                    continue
                if attempt >= tries:
                    raise lost.error from None
                pause_s = None
            except Busy as busy:
                if not call.repeatable and busy.uncertain:
                    raise self._unsure_error(call) from None
                if attempt >= tries:
                    raise busy.error from None
                pause_s = busy.after_s
            await self._wait_before_retry(attempt, pause_s)
            attempt += 1

    async def _wait_before_retry(self, attempt: int, asked_s: float | None) -> None:
        if asked_s is not None:
            await self._clock.sleep(min(asked_s, _RETRY_AFTER_MAX_S))
            return
        grown_s = min(_BACKOFF_S * 2**attempt, _BACKOFF_MAX_S)
        await self._clock.sleep(grown_s * (0.5 + self._clock.jitter() / 2))

    def _unsure_error(self, call: ApiCall) -> Unsure:
        return Unsure(
            f"the answer to {call.path} was lost; it may or may not have been done",
            where=self.settings.target,
        )

    async def _send_anywhere(self, call: ApiCall) -> Any:
        """Send on the main connection; on a reserve when no new one can be had after an activation."""
        problem: Lost | None = None
        if not (self._is_main_down and self._reserves):
            try:
                return await self._send_once(self._main, call)
            except Lost as lost:
                if not self._reserves or not self._may_use_reserves or (lost.sent and not call.repeatable):
                    raise
                problem = lost
                self._is_main_down = not lost.stale
        while self._reserves:
            connection = self._reserves[0]
            if connection.used <= WRITES_PER_CONNECTION:
                try:
                    return await self._send_once(connection, call)
                except Lost as lost:
                    if lost.sent and not lost.stale and not call.repeatable:
                        raise
                    problem = lost
            self._reserves.pop(0)
            await connection.close()
        if problem is None:
            return await self._send_once(self._main, call)
        raise problem

    async def _send_once(self, connection: _ApiConnection, call: ApiCall) -> Any:
        async with AnswerLease(self._budget, self.settings.max_answer_bytes) as lease:
            status, headers, body = await self._send_request(connection, call, lease)
            if status != 200:
                self._raise_for_status(call, status, headers, body)
            try:
                type_ = headers.get("content-type", "")
                return await decode_large_json(body, type_, self.settings.target, call.path)
            except Unreachable as unread:
                raise Busy(unread, None, uncertain=True) from None

    def _raise_for_status(self, call: ApiCall, status: int, headers: httpx.Headers, body: bytes) -> NoReturn:
        """Raise what an answer other than 200 means: Busy when it asks us to come again."""
        target, path = self.settings.target, call.path
        error = status_error(status, body, target=target, path=path, privilege=call.privilege)
        if status in RETRY_STATUS and not (status == 500 and find_raised_error(body)):
            polite = status in (429, 503)
            raise Busy(error, _retry_after_s(headers) if polite else None, uncertain=not polite)
        raise error

    async def _send_request(
        self, connection: _ApiConnection, call: ApiCall, lease: AnswerLease
    ) -> tuple[int, httpx.Headers, bytes]:
        limit_s = call.timeout_s or self.settings.timeout_s
        used, connection.used = connection.used, connection.used + 1
        request = self._build_request(call, limit_s)
        stage = "answer"
        try:
            async with deadline(limit_s + self.settings.connect_timeout_s) as until:
                request.extensions["trace"] = _limit_from_connected(until, limit_s)
                response = await connection.transport.handle_async_request(request)
                stage = "read"
                body = await self._read_body(response, call, lease)
        except TimeoutError:
            raise self._timeout_loss(stage, call, limit_s) from None
        except httpx.TimeoutException as error:
            where = _stage_of(error)
            raise self._timeout_loss(stage if where == "answer" else where, call, limit_s) from None
        except (httpx.ConnectError, httpx.ProxyError, OSError) as error:
            failed = connect_error(error, target=self.settings.target, host=self._host, address=self._address)
            assert isinstance(failed, Unreachable)
            if failed.stage == "tls":
                raise await self._with_certificate(failed) from None
            raise Lost(failed, sent=False, stale=False) from None
        except httpx.TransportError:
            raise self._broken_loss(stage, stale=used > 0) from None
        connection.last_s = self._clock.now_s()
        return response.status_code, response.headers, body

    async def _with_certificate(self, failed: Unreachable) -> Unreachable:
        """Add a description of the certificate to an error about it."""
        shown = await describe_certificate(self._host, self._port, self.settings.connect_timeout_s)
        if shown:
            failed.hint = f"{failed.hint}; {shown}" if failed.hint else shown
        return failed

    def _build_request(self, call: ApiCall, limit_s: float) -> httpx.Request:
        headers = self._headers
        content = None
        if call.method == "POST":
            content = _ENCODE(call.body or {})
            headers = [*headers, ("Content-Type", "application/json")]
        connect_s = min(self.settings.connect_timeout_s, limit_s)
        stages = {"connect": connect_s, "read": limit_s, "write": limit_s, "pool": connect_s}
        url, more = self._base + call.path, {"timeout": stages}
        return httpx.Request(call.method, url, headers=headers, content=content, extensions=more)

    async def _read_body(self, response: httpx.Response, call: ApiCall, lease: AnswerLease) -> bytes:
        """Read and mask the body, no more of it than `max_answer` and the budget of all answers allow."""
        parts: list[bytes] = []
        size, limit = 0, self.settings.max_answer_bytes
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        try:
            async for part in stream:  # deadline: the caller's, `_send_request` or `stream`
                size += len(part)
                if size > limit:
                    raise DeviceError(
                        f"the firewall answered {call.path} with more than {limit // MIB} MiB",
                        where=self.settings.target,
                        hint="raise max_answer: if it really has so much to say",
                    )
                await lease.cover(size)
                parts.append(part)
        finally:
            await stream.aclose()  # deadline: the caller's, `_send_request` or `stream`
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return body if call.verbatim and response.status_code == 200 else self._mask.body(body)

    def _timeout_loss(self, stage: str, call: ApiCall, limit_s: float) -> Lost:
        target = self.settings.target
        text = {
            "connect": f"{self._address} did not answer within {self.settings.connect_timeout_s:g} s",
            "write": f"{self._address} did not take the request {call.path} within {limit_s:g} s",
            "read": f"the answer to {call.path} was not complete after {limit_s:g} s",
        }.get(stage, f"{self._address} did not answer {call.path} within {limit_s:g} s")
        hint = "raise timeout: for a slow firewall or line"
        if stage == "connect":
            hint = "is it up, and does a packet filter in between drop the connection?"
        error = Unreachable(text, where=target, stage=stage, hint=hint)
        return Lost(error, sent=stage != "connect", stale=False)

    def _broken_loss(self, stage: str, *, stale: bool) -> Lost:
        when = "in the middle of the answer" if stage == "read" else "before it answered"
        text = f"{self._address} closed the connection {when}"
        error = Unreachable(text, where=self.settings.target, stage=stage)
        return Lost(error, sent=True, stale=stale and stage != "read")

    async def hold(self, writes: int) -> None:
        """Open reserve connections for this many writes; each has carried one cheap call.

        What cannot be opened is left out: the main connection has just worked.
        """
        wanted = min(MAX_RESERVES, max(1, -(-writes // WRITES_PER_CONNECTION)))
        opened = await asyncio.gather(*(self._open_reserve() for _ in range(wanted - len(self._reserves))))
        self._reserves.extend(connection for connection in opened if connection is not None)

    async def _open_reserve(self) -> _ApiConnection | None:
        """Return a connection that has carried a call; None when it cannot be had."""
        connection = self._new_connection()
        try:
            await self._ping(connection)
        except FazaiError:
            await connection.close()
            return None
        return connection

    async def refresh(self) -> None:
        """Prepare the reserves for an activation: use idle ones once, replace used ones if possible."""
        if not self._reserves:
            return
        now_s = self._clock.now_s()
        for place, connection in enumerate(self._reserves):
            if now_s - connection.last_s <= _FRESH_S and connection.used <= 2:
                continue
            if connection.used <= 2:
                with suppress(FazaiError):  # it is tried, and dropped, when it is needed
                    await self._ping(connection)
                continue
            fresh = await self._open_reserve()
            if fresh is not None:
                await connection.close()
                self._reserves[place] = fresh
        self._may_use_reserves = True

    async def _ping(self, connection: _ApiConnection) -> None:
        """Make the cheapest call there is. Raises Lost, Busy, and AccessDenied when the key is not known."""
        call = ApiCall("GET", self.settings.ping)
        async with AnswerLease(self._budget, self.settings.max_answer_bytes) as lease:
            status, headers, body = await self._send_request(connection, call, lease)
        if status not in _ANSWERED:
            self._raise_for_status(call, status, headers, body)
        try:
            answer = decode_json(body, headers.get("content-type", ""), self.settings.target, call.path)
        except Unreachable as unread:
            raise Stranger(unread) from None
        if not isinstance(answer, dict) and answer != []:
            raise Stranger(nonsense_error(self.settings.target, call.path, "what is none of its answers"))

    async def probe(self) -> None:
        """Call over a new connection until an answer comes, for `probe_timeout` at the most.

        Raises Unreachable, AccessDenied, DeviceError.
        """
        deadline_s = self._clock.now_s() + self.settings.probe_timeout_s
        while True:
            connection = self._new_connection()
            try:
                await self._ping(connection)
                return
            except (Lost, Busy) as failed:
                if self._clock.now_s() >= deadline_s:
                    self._is_main_down = bool(self._reserves)  # it would be opened to what is there now
                    raise self._unreachable_error(failed) from None
            finally:
                await connection.close()
            await self._clock.sleep(0.5)

    def _unreachable_error(self, failed: Lost | Busy) -> Unreachable:
        error = failed.error
        stage = error.stage if isinstance(error, Unreachable) else "answer"
        what = "does not answer new connections any more"
        if isinstance(failed, Stranger):
            what += ", something else does"
        elif stage in ("answer", "read"):
            what = "takes new connections and does not answer on them any more"
        return Unreachable(
            f"the firewall {what}: {error.message}", where=self.settings.target, stage=stage, hint=error.hint
        )


def _limit_from_connected(until: asyncio.Timeout, limit_s: float) -> Callable[[str, object], Awaitable[None]]:
    """Return a trace function for httpcore: once connected, the request has `limit_s` and no more."""

    async def trace(step: str, _: object) -> None:
        if step == "http11.send_request_headers.started" and not until.expired():
            until.reschedule(asyncio.get_running_loop().time() + limit_s)

    return trace


def _stage_of(error: httpx.TimeoutException) -> str:
    if isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
        return "connect"
    return "write" if isinstance(error, httpx.WriteTimeout) else "answer"


def _retry_after_s(headers: httpx.Headers) -> float | None:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None
