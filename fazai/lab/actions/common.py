"""The generic handlers of a release: those of collections, models and services, and constant answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from fazai.lab.actions.daemons import service_handlers
from fazai.lab.box import ActionCall, Box, Handler, failure_like, posted_only
from fazai.lab.engine.schema import Catalogue, Controller, read_json
from fazai.lab.engine.verbs import (
    add_item,
    del_item,
    get_item,
    get_model,
    search_items,
    set_item,
    set_model,
    toggle_item,
)

VERBS: Final[Mapping[str, Callable[..., Any]]] = {
    "search": search_items,
    "get": get_item,
    "add": add_item,
    "set": set_item,
    "del": del_item,
    "toggle": toggle_item,
}


def recorded_answer(box: Box, name: str) -> Any:
    """Return a constant answer of data/answers.json, with the version of the box's release."""

    def build() -> Any:
        text = msgspec.json.encode(read_json("answers.json")[name]).decode()
        release = box.settings.release
        return msgspec.json.decode(text.replace("26.7.2", release).replace("26.7", release[:4]))

    return box.derived(f"answer {name}", (), build)


def _answer_constant(answer: Any, call: ActionCall) -> Any:
    return answer


def _answer_recorded(name: str, call: ActionCall) -> Any:
    return recorded_answer(call.box, name)


def _model_handlers(catalogue: Catalogue, controller: Controller) -> dict[str, Handler]:
    """Return get and set of a whole model, and the verbs of its collections."""
    model = catalogue.models[controller.model]
    found: dict[str, Handler] = {
        "get": partial(get_model, controller=controller, model=model),
        "set": partial(set_model, controller=controller, model=model),
    }
    for suffix, inner in controller.items.items():
        items = msgspec.structs.replace(model.items[inner], overlay=controller.overlay.get(suffix, {}))
        for verb, function in VERBS.items():
            for ending in (suffix, f"{suffix}s"):
                found[verb + ending] = partial(function, model=items)
    return found


def generic_handlers(controller: Controller, catalogue: Catalogue) -> dict[str, Handler]:
    """Return the handlers that the row of a controller asks for, by action."""
    found: dict[str, Handler] = {}
    if controller.model:
        found |= _model_handlers(catalogue, controller)
    if controller.service:
        found |= service_handlers(controller)
    for action, answer in controller.answers.items():
        found[action] = partial(_answer_constant, answer)
    for action, name in controller.recorded.items():
        found[action] = partial(_answer_recorded, name)
    for action, answer in controller.posted.items():
        found[action] = posted_only(failure_like(answer))(partial(_answer_constant, answer))
    return found
