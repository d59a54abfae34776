"""Routes as values, and how each is served: identify the sender, read the request, call the handler, answer.

A handler is an async function below its `@Route(…)`: of a RouteCall, and of `query` and `body` where the
request has one. It returns a Message (JSON), an HttpReply (anything else), or None when it has written to the
connection itself (a stream).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args, get_type_hints, runtime_checkable
from urllib.parse import parse_qsl

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.server import CONNECTION, HttpConnection
from fazai.errors import FazaiError
from fazai.store.daemon import Role
from fazai.wire.base import MAX_BODY_BYTES, ErrorAnswer, Message, WireError, decode_body, encode
from fazai.wire.daemon import HTTP_STATUS
from fazai.wire.opn import OpnError

if TYPE_CHECKING:
    from fazai.daemon.services import Services

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
#: A `fastpath.FastHandler` that hands over an error instead of its answer, or raises WireError or StateError.
FastPathHandler = Callable[[bytes, Callable[["tuple[int, bytes] | FazaiError"], None]], bool]


@runtime_checkable
class FastPathApp(Protocol):
    """An ASGI application whose requests may take the fast path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def fast_handler(self, scope: Scope) -> FastPathHandler | None:
        """Return the handler for all requests with this head; None where they must not take the fast path."""
        ...


#: Headers that all answers have.
SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
#: Of a stream of events.
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect them
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
NO_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
ANSWER_S = 30.0
_JSON = b"application/json"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer that is no Message."""

    body: bytes
    media: str = "application/json"
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)
class RouteCall:
    """One request to a route. `body` and `query` are of the types that the route names."""

    services: Services
    scope: Scope
    receive: Receive
    send: Send
    who: Principal
    path: Mapping[str, str]
    query: Any = None
    body: Any = None

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return cast("Sequence[tuple[bytes, bytes]]", self.scope["headers"])

    def header(self, name: bytes) -> str | None:
        """Return the first value of a header; `name` in lower case."""
        return next((v.decode("latin-1") for n, v in self.headers if n == name), None)

    @property
    def connection(self) -> HttpConnection:
        return connection_of(self.scope)


Handler = Callable[..., Awaitable[Message | HttpReply | None]]
RawFactory = Callable[["Services"], AsgiApp]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table in `routes.py`: how it is served, and the description of it in `/openapi.json`.
    As a decorator it takes its handler, and the types of query, body and answer from that.

    `role` None: everybody. `raw` instead of `handler`: an ASGI application that does everything itself,
    ahead of all else (`/ingest`); then `takes` says what it reads, one of it or a list. `media` is what a
    good answer is, `codes` the refusals beside the common ones, `others` answers that are neither.
    """

    method: str
    path: str
    summary: str
    _: KW_ONLY
    handler: Handler | None = None
    raw: RawFactory | None = None
    role: Role | None = "viewer"
    body: type[Message] | None = None
    query: type[Message] | None = None
    read_query: Callable[[Mapping[str, str]], Message] | None = None
    takes: type[Message] | None = None
    answer: type[Message] | None = None
    media: str | tuple[str, ...] = "application/json"
    cached: bool = False  # it answers 304 to one who has it
    codes: tuple[str, ...] = ()
    others: tuple[tuple[int, type[Message]], ...] = ()
    timeout_s: float | None = ANSWER_S  # which `Limits.answer_s` stands for
    limit_bytes: int = MAX_BODY_BYTES
    status: int = 200  # of a good answer
    by_hand: bool = False  # the handler reads the body itself
    signed: bool = False  # a signature (SPEC.md, 3.3) may stand in for the token; the handler verifies it

    def __call__(self, handler: Handler) -> Route:
        """Return the route with this handler."""
        types = get_type_hints(handler)
        result = types["return"]
        answer = next((one for one in get_args(result) or (result,) if issubclass(one, Message)), None)
        brought = [name for name in ("query", "body") if name in types]

        async def handle(call: RouteCall) -> Message | HttpReply | None:
            return await handler(call, **{name: getattr(call, name) for name in brought})

        return replace(self, handler=handle, answer=answer, **{name: types[name] for name in brought})


class RouteEndpoint:
    """Serves one route as an ASGI application."""

    def __init__(self, route: Route, services: Services) -> None:
        assert route.handler is not None
        self.route = route
        self._handler = route.handler
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.route
        timeout_s = route.timeout_s
        if timeout_s == ANSWER_S:
            timeout_s = self._services.settings.limits.answer_s
        try:
            async with deadline(timeout_s):
                await self._services.guard.refresh()
                who = identify(self._services, scope)
                if route.role is not None and not route.signed:
                    require_role(who, route.role)
                call = RouteCall(self._services, scope, receive, send, who, scope.get("path_params", {}))
                call.query = read_query(scope, route)
                if route.body is not None and not route.by_hand:
                    call.body = decode_body(await read_body(call, route), route.body, limit_bytes=1 << 40)
                result = await self._handler(call)
        except TimeoutError:
            raise Refusal("timeout", f"it took more than {timeout_s:g} s") from None
        if isinstance(result, Message):
            result = HttpReply(encode(result), status=route.status)
        if result is not None:
            await reply(send, result)


def identify(services: Services, scope: Scope) -> Principal:
    """Return who sent this request, by the tokens as the guard knows them. Raises Refusal."""
    return services.guard.identify(connection_of(scope), scope["headers"], str(scope["http_version"]))


def require_role(who: Principal, role: Role) -> None:
    """Refuse a principal that has not at least this role. Raises Refusal: unauthorized, forbidden."""
    if who.has_role(role):
        return
    if who.role is None:
        raise Refusal(
            "unauthorized",
            "a token is needed",
            hint="Authorization: Bearer …, from: fazai token create NAME --role " + role,
            headers=((b"www-authenticate", b"Bearer"),),
        )
    raise Refusal("forbidden", f"{who.name} is {who.role}, this needs {role}")


def read_query(scope: Scope, route: Route) -> Message | None:
    """Return the query as the route's type. Raises WireError(bad_query)."""
    try:
        pairs = parse_qsl(scope["query_string"].decode(), keep_blank_values=True, strict_parsing=False)
    except (UnicodeDecodeError, ValueError):
        raise WireError("bad_query", "the query is not URL-encoded UTF-8") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise WireError("bad_query", "a parameter occurs twice")
    if route.read_query is not None:
        return route.read_query(values)
    if route.query is None:
        if values:
            raise WireError("bad_query", f"there is no parameter {next(iter(values))[:64]!r}")
        return None
    try:
        found: Message = msgspec.convert(values, route.query, strict=False)
    except msgspec.ValidationError as error:
        raise WireError("bad_query", str(error)[:300]) from None
    for field in msgspec.structs.fields(route.query):
        # Words are read as numbers and flags, and so is this one as nothing: it is no value.
        if field.encode_name in values and getattr(found, field.name) is None:
            raise WireError("bad_query", f"`{field.encode_name}`: null is no value; leave it out")
    return found


def epoch_us(moment: datetime) -> int:
    """Return microseconds since the epoch, for every moment that can be written."""
    return (moment - _EPOCH) // _MICROSECOND


async def read_body(call: RouteCall, route: Route) -> bytes:
    """Return the body, at most `limit_bytes`. Raises Refusal: too_large, unsupported_media_type."""
    media = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Refusal("unsupported_media_type", f"the content type is {media[:64]!r}, not application/json")
    length = call.header(b"content-length")
    if length is not None and length.isdigit() and int(length) > route.limit_bytes:
        raise _refuse_large_body(route)
    parts: list[bytes] = []
    size = 0
    budget = call.services.bodies
    try:
        while True:
            message = await call.receive()  # deadline: the route's, RouteEndpoint
            if message["type"] == "http.disconnect":
                raise Refusal("bad_request", "the client went away")
            part = message.get("body", b"")
            if size + len(part) > route.limit_bytes:
                raise _refuse_large_body(route)
            if part:
                budget.hold("", len(part))
                size += len(part)
                parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)
    finally:
        if size:
            budget.release("", size)


def _refuse_large_body(route: Route) -> Refusal:
    closing = ((b"connection", b"close"),)  # nobody reads the rest
    return Refusal("too_large", f"a body has at most {route.limit_bytes} bytes", headers=closing)


def reply_headers(answer: HttpReply) -> list[tuple[bytes, bytes]]:
    """Return the answer's headers, with those that all answers have."""
    own = {name for name, _ in answer.headers}
    return [
        (b"content-type", answer.media.encode()),
        *([] if answer.status in (204, 304) else [(b"content-length", str(len(answer.body)).encode())]),
        *(header for header in (*SAFE, NO_PAGE) if header[0] not in own),
        *answer.headers,
    ]


async def reply(send: Send, answer: HttpReply) -> None:
    """Send an answer."""
    # deadline: the connection's, HttpConnection.pause_writing
    await send({"type": "http.response.start", "status": answer.status, "headers": reply_headers(answer)})
    # deadline: the connection's, HttpConnection.pause_writing
    await send({"type": "http.response.body", "body": answer.body})


def refusal_reply(path: str, error: WireError) -> HttpReply:
    """Return the error in the shape of the contract."""
    answer = ErrorAnswer.of(error)
    message: Message = OpnError(error=answer.error, code=error.code) if path.startswith("/opn/") else answer
    status = HTTP_STATUS.get(error.code, 500)
    headers: Sequence[tuple[bytes, bytes]] = ()
    if isinstance(error, Refusal):
        status = error.status or status
        headers = error.headers
    return HttpReply(encode(message), status=status, headers=tuple(headers))


def connection_of(scope: Scope) -> HttpConnection:
    """Return the connection of a request."""
    return cast("HttpConnection", scope["extensions"][CONNECTION])
