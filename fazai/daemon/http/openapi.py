"""/openapi.json, made from the table of routes and the types of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fazai import __version__
from fazai.daemon.http.routing import Route
from fazai.wire.base import ErrorAnswer, Message
from fazai.wire.daemon import HTTP_STATUS
from fazai.wire.opn import OpnError
from fazai.wire.schema import to_ecma_patterns

_REF = "#/components/schemas/{name}"
_COMMON = ("bad_query", "not_found", "method_not_allowed", "internal", "timeout")
_GUARDED = ("unauthorized", "forbidden", "overloaded")
_BODY = ("bad_json", "bad_request", "too_large", "unsupported_media_type")


def build_openapi(table: Sequence[Route]) -> bytes:
    """Return the description of the routes, OpenAPI 3.1 as JSON."""
    types: set[type[Message]] = {ErrorAnswer, OpnError}
    for route in table:
        named = (route.body, route.takes, route.answer, route.query, *(one for _, one in route.others))
        types |= {one for one in named if one is not None}
    ordered: list[type[Message]] = sorted(types, key=lambda one: one.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=_REF)
    for one in ordered:
        _add_constants(one, schemas)
    to_ecma_patterns(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "fazai daemon",
            "version": __version__,
            "description": "The HTTP routes of the agent contract (SPEC.md, section 2).",
            "license": {"name": "MIT"},
        },
        "security": [],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "From: fazai token create"}
            },
        },
    }
    return msgspec.json.encode(found)


def _add_constants(one: type[Message], schemas: dict[str, Any]) -> None:
    """Add the fields that the class itself fixes (`ok`), which are not among those of the struct."""
    schema = schemas.get(one.__name__)
    if schema is None or not one.constants:
        return
    properties = {name: {"const": value} for name, value in one.constants.items()}
    schema["properties"] = {**properties, **schema.get("properties", {})}
    schema["required"] = sorted({*schema.get("required", ()), *one.constants})


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    words = re.sub(r"[{}]", "", route.path).strip("/").replace(".", "/").split("/")
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "summary": route.summary,
        "responses": _responses(route),
    }
    if route.role is not None:
        operation["security"] = [{"token": []}, {}]  # the local socket and a bare loopback need none
        or_signed = ", or a signature of the sender" if route.signed else ""
        operation["description"] = f"Role: {route.role}{or_signed}."
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += _query_parameters(route, schemas)
    if parameters:
        operation["parameters"] = parameters
    body = _body(route)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _body(route: Route) -> dict[str, Any] | None:
    if route.takes is not None:
        one = _ref(route.takes)
        return {"oneOf": [one, {"type": "array", "items": one}]}
    return _ref(route.body) if route.body is not None else None


def _ref(of: type[Message]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=of.__name__)}


def _responses(route: Route) -> dict[str, Any]:
    """Return the answers by status; a status that has several has one of their schemas."""
    found = {str(route.status): _answer(route), **_refusals(route)}
    if route.cached:
        found["304"] = {"description": "It is what the client has (`If-None-Match`)."}
    for status, of in route.others:
        before = found.get(str(status))
        if before is None:
            said = (of.__doc__ or "").partition("\n")[0].strip()
            found[str(status)] = _content(said or "Another answer.", _ref(of))
            continue
        content = before["content"]["application/json"]
        content["schema"] = {"anyOf": [content["schema"], _ref(of)]}
    return dict(sorted(found.items()))


def _content(description: str, schema: dict[str, Any], *medias: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {media: {"schema": schema} for media in medias or ("application/json",)},
    }


def _answer(route: Route) -> dict[str, Any]:
    medias = (route.media,) if isinstance(route.media, str) else route.media
    schema: dict[str, Any] = {}
    if route.answer is not None:
        schema = _ref(route.answer)
    elif medias == ("text/event-stream",):
        schema = {"description": "Events of `id`, `event` and `data`, which is JSON (SPEC.md, 2.2)."}
    elif medias != ("application/json",):
        schema = {"type": "string"}
    return _content("The answer.", schema, *medias)


def _refusals(route: Route) -> dict[str, Any]:
    codes = [*_COMMON, *route.codes]
    if route.role is not None:
        codes += _GUARDED
    if route.body is not None:
        codes += _BODY
    by_status: dict[str, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(str(HTTP_STATUS[code]), []).append(code)
    schema = _ref(OpnError if route.path.startswith("/opn/") else ErrorAnswer)
    return {
        status: _content(", ".join(f"`{code}`" for code in found), schema)
        for status, found in by_status.items()
    }


def _query_parameters(route: Route, schemas: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if route.query is None:
        return
    schema = schemas[route.query.__name__]
    for name, one in schema["properties"].items():
        one = _without_null(one)
        found: dict[str, Any] = {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in one.items() if key != "default" or value is not None},
        }
        if one.get("type") == "array":
            found |= {"style": "form", "explode": False}
        yield found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without null: in a query, what may be left out is left out."""
    others = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return others[0] if len(others) == 1 else schema
