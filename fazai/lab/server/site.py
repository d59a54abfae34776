"""One firewall behind its port: routing, authentication, privileges, bodies, errors, faults."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from fazai.lab.access import Access, find_access
from fazai.lab.actions.common import build_handlers
from fazai.lab.box import UNEXPECTED, ActionCall, Box, Unexpected, UserError
from fazai.lab.engine.schema import Catalogue, ControllerAction, action_key, controller_key
from fazai.lab.models.rules import RULES
from fazai.lab.server.faults import ArmedFaults, carry_out
from fazai.lab.server.http import BAD_REQUEST_PAGE, TOO_LARGE, Answer, LabConnection
from fazai.lab.server.wire import ERROR_TYPE, LabReply, LabRequest, make_json_reply, parse_form
from fazai.lab.settings import Fault

JSON_BODY: Final = ("application/json", "application/json; charset=utf-8")
FORM_BODY: Final = "application/x-www-form-urlencoded"
KEPT: Final = 10_000
APPLIES: Final = ("apply", "reconfigure")


class FirewallSite:
    """The application behind the connections of one firewall."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.secure = box.settings.tls is not None
        self.keepalive_requests = box.settings.keepalive_requests
        self.idle_s = box.settings.idle_s
        self.handlers = build_handlers(box.catalogue)
        self.faults = ArmedFaults(box.settings.faults)
        self.requests: deque[tuple[str, str, int]] = deque(maxlen=KEPT)
        self.counters: Counter[str] = Counter()
        self.connections: set[LabConnection] = set()
        self.locked: Fault | None = None
        self.locked_rules: Mapping[str, Any] | None = None
        self.on_lock: Callable[[bool], None] = lambda refused: None
        self._writing = asyncio.Lock()
        box.reloaded = self._end_lockout

    # the connections

    def opened(self, connection: LabConnection) -> bool:
        """Note a new connection; False when it will never be answered."""
        self.counters["connections"] += 1
        self.connections.add(connection)
        return self.locked is None

    def closed(self, connection: LabConnection) -> None:
        self.connections.discard(connection)

    def answer(self, connection: LabConnection, request: LabRequest) -> Answer:
        """Return the answer, at once where nothing delays it."""
        path = request.path.removeprefix("/api/")
        striking = self.faults.striking(request.method, path)
        settings = self.box.settings
        wait_s = settings.latency_s
        if settings.apply_latency_s and path.rpartition("/")[2].lower() in APPLIES:
            wait_s += settings.apply_latency_s

        if not striking and not wait_s:
            reply = self.handle(request)
            return _delay_reply(reply) if reply.delay_s else reply
        return self._answer_slowly(connection, request, striking, wait_s)

    async def _answer_slowly(
        self, connection: LabConnection, request: LabRequest, striking: list[Fault], wait_s: float
    ) -> LabReply | None:
        """Answer with faults and latency; slow writes wait for each other, as on the real one."""
        carried_out = False

        def dispatch() -> LabReply:
            nonlocal carried_out
            carried_out = True
            return self.handle(request)

        work = carry_out(striking, connection, request.path, dispatch, wait_s, self.faults.delay)
        if wait_s and request.method == "POST":
            async with self._writing:
                reply = await work
        else:
            reply = await work
        if not carried_out:
            self._note_request(request, 0 if reply is None else reply.status)
        return reply

    def _note_request(self, request: LabRequest, status: int) -> None:
        self.counters["requests"] += 1
        self.requests.append((request.method, request.target, status))

    # one request

    def handle(self, request: LabRequest) -> LabReply:
        """Answer one request, whatever it is."""
        writes = self.box.config.writes
        reply = self._answer_request(request)
        self.counters["writes"] += self.box.config.writes - writes
        self._note_request(request, reply.status)
        return reply

    def _answer_request(self, request: LabRequest) -> LabReply:
        if request.target == TOO_LARGE:
            return LabReply(413, b"", "text/html", session=False)
        if request.method == "GET" and request.body:
            return LabReply(400, BAD_REQUEST_PAGE, "text/html", session=False)
        route = route_path(self.box.catalogue, request.path, self.box.settings.absent)
        if route.endpoint is None:
            known = route.controller is not None
            return make_json_reply(
                {"errorMessage": "Endpoint not found"}, 404, content_type=ERROR_TYPE, session=known
            )
        access = self._authenticate(request)
        if isinstance(access, LabReply):
            return access
        if not access.allows(request.path):
            return make_json_reply({"status": 403, "message": "Forbidden"}, 403)
        body = self._decode_body(request)
        if body is None:
            return make_json_reply({"status": 400, "message": "Invalid JSON syntax"}, 400)
        return self._run_handler(request, route, access, body)

    def _authenticate(self, request: LabRequest) -> Access | LabReply:
        header = request.headers.get("authorization")
        if header is None:
            location = [("location", f"/?url={request.path}")]
            return LabReply(302, b"", "text/html; charset=UTF-8", headers=location)
        access = find_access(self.box, header)
        if isinstance(access, Access):
            return access
        delay_s = self.box.settings.auth_delay_s if access == "refused" else 0.0
        return make_json_reply({"status": 401, "message": "Authentication Failed"}, 401, delay_s=delay_s)

    @staticmethod
    def _decode_body(request: LabRequest) -> Mapping[str, Any] | None:
        """Return the body as the API sees it; None where it refuses the request."""
        kind = request.headers.get("content-type", "").lower()
        if kind in JSON_BODY:
            if not request.body:
                return None
            try:
                value = msgspec.json.decode(request.body)
            except msgspec.DecodeError:
                return {}
            return value if isinstance(value, dict) else {}
        if kind == FORM_BODY:
            return parse_form(request.body.decode("utf-8", "replace"))
        return {}

    def _run_handler(
        self, request: LabRequest, route: ResolvedPath, access: Access, body: Mapping[str, Any]
    ) -> LabReply:
        assert route.endpoint is not None
        endpoint = route.endpoint
        key = f"{endpoint.controller}/{action_key(endpoint.action)}"
        handler = self.handlers.get(key)
        if handler is None:
            text = f"the lab does not model {endpoint.controller}/{endpoint.action}"
            return make_json_reply({"errorMessage": text, "errorTitle": "lab"}, 501)
        uri = f"/api/{endpoint.controller}/{'/'.join((endpoint.action, *route.params))}"
        call = ActionCall(
            self.box,
            endpoint,
            request.method,
            list(route.params),
            body,
            request.query(),
            access.user,
            access.readonly,
            uri,
        )
        try:
            value = handler(call)
        except UserError as error:
            return make_json_reply(error.body, 500, content_type=ERROR_TYPE)
        except Unexpected:
            self.box.running.crashed_at = self.box.clock()
            return make_json_reply({"errorMessage": UNEXPECTED}, 500, content_type=ERROR_TYPE)
        if call.posted and action_key(endpoint.action) in APPLIES:
            self._after_apply(request, endpoint.action)
        return value if isinstance(value, LabReply) else make_json_reply(value)

    # lockout

    def _after_apply(self, request: LabRequest, action: str) -> None:
        self.counters["reconfigures"] += 1
        if action_key(action) != "apply":
            return
        rules = self.box.running.items("filter", RULES)
        if self.locked is not None:
            self._end_lockout()
            return
        fault = self.faults.lockout(request.method, request.path.removeprefix("/api/"))
        if fault is not None and any(fault.rule in rule["description"] for rule in rules.values()):
            self.locked, self.locked_rules = fault, rules
            self.on_lock(fault.refuse)

    def _end_lockout(self) -> None:
        """Open the door again when other rules run, unless it is locked for ever."""
        rules = self.box.running.items("filter", RULES)
        if self.locked is not None and not self.locked.forever and rules != self.locked_rules:
            self.unlock()

    def unlock(self) -> None:
        """Let new connections through again."""
        self.locked = self.locked_rules = None
        self.on_lock(False)


async def _delay_reply(reply: LabReply) -> LabReply:
    await asyncio.sleep(reply.delay_s)
    return reply


@dataclass(frozen=True, slots=True)
class ResolvedPath:
    """The controller, action and parameters of a path; no `endpoint` for an unknown action."""

    controller: str | None
    endpoint: ControllerAction | None
    params: tuple[str, ...] = ()


def route_path(catalogue: Catalogue, path: str, absent: tuple[str, ...] = ()) -> ResolvedPath:
    """Resolve a path; doubled and trailing slashes, letter case and further parameters do not matter.

    A module, controller or action that is unknown (or absent), and a missing parameter, have no endpoint.
    """
    parts = [unquote(part) for part in path.split("/") if part]
    if len(parts) < 3 or parts[0].lower() != "api":
        return ResolvedPath(None, None)
    module, controller = parts[1].lower(), controller_key(parts[2])
    name = f"{module}/{controller}"
    actions: Mapping[str, ControllerAction] | None = catalogue.endpoints.get(name)
    if actions is None or module in absent or name in absent:
        return ResolvedPath(None, None)
    if "*" in actions:
        return ResolvedPath(name, actions["*"], tuple(parts[3:]))
    if len(parts) < 4:
        return ResolvedPath(name, None)
    endpoint = actions.get(action_key(parts[3]))
    params = tuple(parts[4:])
    if endpoint is None or len(params) < endpoint.needed:
        return ResolvedPath(name, None)
    return ResolvedPath(name, endpoint, params)
