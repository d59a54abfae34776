"""The application: one ASGI callable over the table of routes, and the border where failures are answered."""

from __future__ import annotations

import asyncio
import functools
import traceback
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from fazai.daemon.http.audit import RefusalLog
from fazai.daemon.http.auth import address_of
from fazai.daemon.http.fastpath import FastHandler, FastPathOpener, Respond, response_tail
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import (
    AsgiApp,
    FastPathApp,
    FastPathHandler,
    Receive,
    Route,
    RouteEndpoint,
    Scope,
    Send,
    connection_of,
    refusal_reply,
    reply,
    reply_headers,
)
from fazai.daemon.services import Services
from fazai.errors import FazaiError, StateError
from fazai.wire.base import WireError


class App:
    """Serves the table of routes. Those that are `raw` are found by their path before anything else;
    Starlette routes the others."""

    def __init__(self, services: Services, table: Sequence[Route]) -> None:
        self._services = services
        self._refusals = RefusalLog(services.log)
        self._raw: dict[str, AsgiApp] = {
            route.path: route.raw(services) for route in table if route.raw is not None
        }
        #: The routes with a fast path (`fastpath.py`), by path.
        self.openers: dict[bytes, FastPathOpener] = {
            path.encode(): functools.partial(self._open_fast_path, path, raw)
            for path, raw in self._raw.items()
            if isinstance(raw, FastPathApp)
        }
        methods: dict[str, dict[str, RouteEndpoint]] = {}
        for route in table:
            if route.handler is not None:
                methods.setdefault(route.path, {})[route.method] = RouteEndpoint(route, services)
        self._router = Router(
            [StarletteRoute(path, _ByMethod(found)) for path, found in methods.items()],
            redirect_slashes=False,
            default=_refuse_unknown_path,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: dict[str, object]) -> None:
            nonlocal started
            started = True
            await send(message)  # deadline: the connection's, HttpConnection.pause_writing

        path = str(scope["path"])
        try:
            self._services.guard.check_host(connection_of(scope), path, scope["headers"])
            raw = self._raw.get(path)
            await (raw or self._router)(scope, receive, watched)  # type: ignore[arg-type]
        except (WireError, StateError) as error:
            refusal: WireError | None = self._refusal(scope, error)
        except HTTPException as error:
            refusal = Refusal("bad_request", str(error.detail), status=error.status_code)
        except asyncio.CancelledError:  # by the server alone, when it stops
            again = ((b"retry-after", b"2"), (b"connection", b"close"))
            refusal = Refusal("unavailable", "the daemon stops, and did not wait for this", headers=again)
        except Exception as error:  # noqa: BLE001 - the border: a defect in one request must not be another's
            self._log(path, "".join(traceback.format_exception(error)))
            refusal = Refusal("internal", "a fault of fazai; the log has more")
        else:
            refusal = None
        if refusal is None:
            return
        if started:
            connection_of(scope).close()
        else:
            connection_of(scope).prepare_refusal()
            await reply(send, refusal_reply(path, refusal))

    def _refusal(self, scope: Scope, error: FazaiError) -> WireError:
        path = str(scope["path"])
        if isinstance(error, WireError):
            asked = f"{scope['method']} {path[:200]}"
            self._refusals.note(asked, address_of(connection_of(scope)), error)
            return error
        self._log(path, str(error))
        return Refusal("unavailable", "the store cannot take it now", headers=((b"retry-after", b"5"),))

    # -- the fast path

    def _open_fast_path(self, path: str, raw: FastPathApp, scope: Scope) -> FastHandler | None:
        try:
            self._services.guard.check_host(connection_of(scope), path, scope["headers"])
        except WireError:
            return None
        handler = raw.fast_handler(scope)
        return functools.partial(self._handle_fast, scope, handler) if handler is not None else None

    def _handle_fast(self, scope: Scope, handler: FastPathHandler, body: bytes, answer: Respond) -> bool:
        try:
            return handler(body, functools.partial(self._respond, scope, answer))
        except (WireError, StateError) as error:
            self._respond(scope, answer, error)
            return True

    def _respond(self, scope: Scope, answer: Respond, result: tuple[int, bytes] | FazaiError) -> None:
        if isinstance(result, FazaiError):
            said = refusal_reply(str(scope["path"]), self._refusal(scope, result))
            result = said.status, response_tail(reply_headers(said), said.body)
        answer(*result)

    def _log(self, path: str, text: str) -> None:
        self._services.log.say("error", f"{path}: {text}", logger="fazai.daemon")


class _ByMethod:
    """Serves one path by the methods that it has."""

    def __init__(self, endpoints: dict[str, RouteEndpoint]) -> None:
        self._endpoints = dict(endpoints)
        if "GET" in endpoints:
            self._endpoints.setdefault("HEAD", endpoints["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            allowed = ", ".join(sorted(self._endpoints))
            raise Refusal(
                "method_not_allowed",
                f"{scope['path']} knows {allowed}",
                headers=((b"allow", allowed.encode()),),
            )
        await endpoint(scope, receive, send)


async def _refuse_unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refusal("not_found", f"there is no route {str(scope['path'])[:200]!r}", hint="see: /openapi.json")
