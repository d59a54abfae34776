"""What the worker is asked for under a schema, and whether an answer is one: read by the daemon's own strict
reader of actions, and checked by a validator that knows nothing of the worker's grammars (jsonschema-rs)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.llama_peers import Answer
from fazai.wire.actions import decode_proposal
from fazai.wire.base import WireError

__all__ = ["CASES", "SAMPLED", "Case", "copied", "judge"]

SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 64, "top_p": 0.95}
SYSTEM = "You look after firewalls. Answer the task with one action, as JSON."
TASKS = (
    "The alias of blocked hosts on fw-01 is out of date.",
    "Look at the rules of fw-02; nothing may change.",
    "The gateway of fw-03 loses packets.",
    "Tell whether the certificate of fw-01 expires soon.",
    "The DHCP range of fw-02 is full.",
    "Which interface of fw-03 carries most traffic?",
    "Save the configuration of fw-01 before tonight.",
    "The name server of fw-02 does not answer.",
)


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _action(kind: str, /, **properties: Any) -> dict[str, Any]:
    return _object(type={"const": "action"}, action={"const": kind}, **properties)


def _array(items: Any, least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


_TEXT = {"type": "string", "minLength": 1, "maxLength": 80}
_FIREWALL = {"enum": ["fw-01", "fw-02", "fw-03"]}
# One tool call: mostly names that the schema knows. Then: any of five actions, mostly free text.
TOOL = _action(
    "use_tool",
    name={"enum": ["alias_show", "rule_list", "gateway_status", "certificate_info", "dhcp_leases", "backup"]},
    args=_object(
        target=_FIREWALL,
        mode={"enum": ["read", "propose"]},
        reason={"type": "string", "minLength": 1, "maxLength": 32},
    ),
)
ANY = {
    "anyOf": [
        _action("shell", argv=_array({"type": "string", "pattern": "^[ -~]{1,24}$"}, 1, 5)),
        _action("ask", question=_TEXT),
        _action("observe", summary=_TEXT),
        _action("plan", steps=_array(_TEXT, 1, 3)),
        TOOL,
    ]
}
# Numbers that the schema does not bound: a model may write digits for ever.
READING = _object(
    target=_FIREWALL,
    load={"type": "number"},
    sessions={"type": "integer"},
    others=_array({"type": "number"}, 1, 3),
)
PLACES = ("porto", "faro", "lagos", "braga", "evora", "aveiro", "coimbra", "setubal", "viseu", "beja")
KINDS = ("fw", "edge", "core", "leaf", "mgmt")
HOSTS = [f"{kind}-{place}-{number:03}" for kind in KINDS for place in PLACES for number in range(100)]
ONE_OF_MANY = _action("use_tool", name={"const": "host_show"}, args=_object(host={"enum": HOSTS}))
NESTED = _object(
    rules=_array(
        _object(
            name={"type": "string", "minLength": 1, "maxLength": 16},
            ports=_array({"type": "integer", "minimum": 1, "maximum": 65535}, 1, 3),
            peers=_array(
                _object(place={"enum": list(PLACES)}, note={"type": "string", "maxLength": 12}), 0, 2
            ),
        ),
        1,
        3,
    )
)
COPY = _action(
    "use_tool",
    name={"const": "alias_add"},
    args=_object(hosts=_array({"type": "string", "minLength": 1, "maxLength": 40}, 3, 3)),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A schema, and what is asked under it."""

    title: str
    schema: dict[str, Any]
    task: Callable[[int], str] = lambda number: TASKS[number % len(TASKS)]
    system: str = SYSTEM
    max_tokens: int = 400
    sampling: dict[str, Any] = field(default_factory=lambda: SAMPLED)


def _hosts_to_copy(number: int) -> list[str]:
    return [f"{HOSTS[(number * 577 + step * 1931) % len(HOSTS)]}.example.net" for step in range(3)]


def _example(number: int) -> tuple[str, str]:
    names = _hosts_to_copy(number)
    answer = {"type": "action", "action": "use_tool", "name": "alias_add", "args": {"hosts": names}}
    return f"Block {', '.join(names)}.\n", json.dumps(answer, separators=(",", ":")) + "\n"


def _inventory() -> str:
    """About a thousand tokens: hosts, and how such a task was answered."""
    lines = [f"- {HOSTS[number * 131 % len(HOSTS)]}.example.net is up" for number in range(36)]
    return "\n".join([SYSTEM, "Inventory:", *lines, "".join([*_example(0), *_example(1), *_example(2)])])


CASES = (
    Case("tool call", TOOL),
    Case("any action", ANY),
    Case("numbers", READING),
    Case("one of 5,000 names", ONE_OF_MANY),
    Case("nested arrays", NESTED),
    Case(
        "three names, copied",
        COPY,
        lambda number: _example(3 + number)[0],
        _inventory(),
        sampling={**SAMPLED, "temperature": 0.2},  # a copy is no place for fancies
    ),
)


@functools.cache
def _validator(schema: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(schema)


def judge(answer: Answer, case: Case) -> str:
    """Return "valid", or why the answer ended where it did not end by itself, or what else it is."""
    if answer.reason != "eos":
        return answer.reason
    try:
        value = json.loads(answer.text)
    except ValueError:
        return "no JSON"
    if not _validator(json.dumps(case.schema)).is_valid(value):
        return "does not fit its schema"
    try:
        if "type" in case.schema.get("properties", {}) or "anyOf" in case.schema:
            decode_proposal(answer.text)
    except WireError:
        return "refused by the daemon's reader"
    return "valid"


def copied(answer: Answer, number: int) -> int:
    """How many of the three names that were to be copied the answer has."""
    return sum(name in answer.text for name in _hosts_to_copy(3 + number))
