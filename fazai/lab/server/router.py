"""Routes a path to a controller's action, as the product's router does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from fazai.lab.engine.schema import Catalogue, ControllerAction, action_key, controller_key


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
