"""Mounts `POST /ingest` and `GET /metrics` into the daemon."""

from __future__ import annotations

import asyncio

from fazai.daemon.http.routing import AsgiApp, HttpReply, Route, RouteCall, Scope, identify, require_role
from fazai.daemon.ingest.asgi import IngestRoute
from fazai.daemon.services import Services
from fazai.service.prometheus import CONTENT_TYPE, render_metrics
from fazai.wire.telemetry import MAX_INGEST_BYTES, IngestAnswer, IngestPartialAnswer, TelemetryRecord

_CODES = (
    *("bad_json", "bad_request", "too_large", "unsupported_media_type", "overloaded", "unavailable"),
    *("bad_signature", "bad_clock", "replayed"),
)


class _TokenGate:
    """Lets an unsigned report in with a token or from a local client, and any where the operator opened the
    door."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open = services.settings.ingest == "open"

    def renew_in_time(self) -> bool:
        return self._open or self._services.guard.renew_in_time()

    async def refresh(self) -> None:
        if not self._open:
            await self._services.guard.refresh()

    def authorize(self, scope: Scope) -> None:
        if not self._open:
            require_role(identify(self._services, scope), "operator")


def _ingest(services: Services) -> AsgiApp:
    def report(text: str) -> None:
        services.log.say("error", text, logger="fazai.daemon.ingest")

    return IngestRoute(services.ingest, _TokenGate(services), report, services.settings.limits.answer_s)


@Route("GET", "/metrics", "Prometheus text.", media="text/plain")
async def show_metrics(call: RouteCall) -> HttpReply:
    """Return the page for Prometheus."""
    exposition = call.services.ingest.exposition
    families, lines = exposition.families(), exposition.hosts.render()
    text = await asyncio.to_thread(render_metrics, families)  # of many firewalls it takes a while
    return HttpReply(b"".join([text, *lines]), media=CONTENT_TYPE)


ROUTES = (
    Route(
        "POST",
        "/ingest",
        "Telemetry of hosts: an object, an array or NDJSON, gzip allowed; stored when it answers.",
        raw=_ingest,
        role="operator",
        signed=True,
        takes=TelemetryRecord,
        answer=IngestAnswer,
        others=((200, IngestPartialAnswer), (422, IngestPartialAnswer)),
        codes=_CODES,
        limit_bytes=MAX_INGEST_BYTES,
    ),
    show_metrics,
)
