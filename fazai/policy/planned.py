"""Makes an effect of the changes of a plan, of an action that runs a program, or of JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fazai.errors import InputError
from fazai.loop.effects import Effect, EffectChange
from fazai.plan import SavedPlan
from fazai.policy.values import PROGRAM, SHELL
from fazai.wire.actions import ShellAction, decode_action
from fazai.wire.base import WireError

RECONCILE = "reconcile.apply"
#: The tool of event rules that puts addresses into aliases.
RULE_ENTRIES = "rules.entries"
#: Stands among the fields of a change that makes fazai the owner of an item that others made. No kind has a
#: field of that name, so that no rule covers it.
ADOPTS = "(adopts)"


def plan_changes(records: Iterable[Mapping[str, Any]]) -> tuple[EffectChange, ...]:
    """Return the changes of a plan (`SavedPlan.changes`) as an effect has them. Fields that say how something
    is written, such as `validate`, stand among those that are set."""
    found = []
    for record in records:
        adopts = {ADOPTS: True} if record.get("adopts") else {}
        found.append(
            EffectChange(
                target=str(record["target"]),
                kind=str(record["kind"]),
                identity=str(record["identity"]),
                verb=str(record["verb"]),
                before=dict(record["before"]),
                after={**record["after"], **record.get("options", {}), **adopts},
            )
        )
    return tuple(found)


def plan_effect(
    plan: SavedPlan, tool: str, *, policy: str, expires: float, ref: str = "", free: bool = False
) -> Effect:
    """Return the effect of applying a plan."""
    return Effect(
        tool=tool,
        changes=plan_changes(plan.changes),
        base=plan.digest,
        inventory=plan.inventory,
        policy=policy,
        expires=expires,
        free=free,
        ref=ref,
    )


def read_effect(data: bytes, *, policy: str, expires: float) -> Effect:
    """Read an effect, or an action `shell`, from JSON; it is taken to be new under the policy of that
    generation. Raises InputError."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"this is not JSON: {error}") from None
    if isinstance(body, dict) and "changes" in body:
        plain = {"base": "", "inventory": ""}
        try:
            made: Effect = msgspec.convert({**plain, **body, "policy": policy, "expires": expires}, Effect)
        except msgspec.ValidationError as error:
            raise InputError(f"this is no effect: {error}") from None
        return made
    try:
        action = decode_action(data)
    except WireError as error:
        text = f"this is neither an effect nor an action: {error.message}"
        raise InputError(text, hint=error.hint) from None
    if not isinstance(action, ShellAction) or action.target is None:
        hint = "give the effect (the event `action` of a session has it), or the plan: fazai plan -o FILE"
        raise InputError("this action does not say what it changes", hint=hint)
    argv = list(action.argv)
    change = EffectChange(
        target=action.target, kind=PROGRAM, identity=argv[0], verb="run", after={"argv": argv}
    )
    return Effect(
        tool=SHELL, changes=(change,), base="", inventory="", policy=policy, expires=expires, free=True
    )
