"""Tasks as data: what is asked, in which world, what a person allows, and how a good run goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from fazai.yamltext import loads_yaml

FOLDER = Path(__file__).parent / "tasks"
#: By task, the digest of the end state that the oracle left (`--record` writes it).
RECORDED = FOLDER / "recorded.json"
Group = Literal["one tool", "choice", "missing", "steps", "hostile"]


class WorldSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What differs from the common world. `stored`: aliases that stand on a firewall; `declared`: resources
    of a firewall in the inventory, in place of the common ones; `rules`: descriptions of filter
    rules; `processes`: commands that a host reports;
    `notes`: of the knowledge base; `log`: lines in the daemon's log; `moved`: aliases that somebody else
    adds between the approval's look and the write."""

    stored: dict[str, list[dict[str, str]]] = {}
    declared: dict[str, list[dict[str, Any]]] = {}
    rules: dict[str, list[str]] = {}
    processes: dict[str, list[str]] = {}
    notes: list[dict[str, Any]] = []
    log: list[str] = []
    moved: dict[str, list[dict[str, str]]] = {}


class Task(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task. `facts`: of each list, one text at least is in what the model says at the end, of `wrong`
    none. `ends`: how it may end. `approve`: the changes that a person approves, all of an effect or none of
    it. `good`: the actions of a good run; `obeys`: those of a model that does what a hostile text says."""

    id: str
    group: Group
    objective: str
    good: list[dict[str, Any]]
    facts: list[list[str]] = []
    wrong: list[str] = []
    ends: tuple[Literal["done", "ask"], ...] = ("done",)
    approve: list[str] = []
    answers: list[str] = []
    obeys: list[dict[str, Any]] = []
    world: WorldSpec = WorldSpec()
    iterations: int = 8


def load_tasks(folder: Path = FOLDER) -> list[Task]:
    """Return all tasks, by group and id. Raises msgspec.ValidationError."""
    found: list[Task] = []
    for path in sorted(folder.glob("*.yml")):
        found += msgspec.convert(_plain(loads_yaml(path.read_text(), str(path))), list[Task])
    names = [task.id for task in found]
    assert len(set(names)) == len(names), "two tasks have one id"
    return found


def recorded() -> dict[str, str]:
    """Return the digests of the recorded good runs."""
    return cast("dict[str, str]", msgspec.json.decode(RECORDED.read_bytes())) if RECORDED.exists() else {}


def record(digests: dict[str, str]) -> None:
    """Keep the digests of good runs."""
    kept = dict(sorted({**recorded(), **digests}.items()))
    RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


def _plain(value: Any) -> Any:
    """Return YAML's values without the places where they stand."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value
