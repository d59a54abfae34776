"""Monit: what a service needs, and the types of its tests. Shaper: numbers and limits of pipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel

PIPES: Final = "TrafficShaper.pipes.pipe"
QUEUES: Final = "TrafficShaper.queues.queue"
SHAPER_RULES: Final = "TrafficShaper.rules.rule"
SERVICES: Final = "Monit.service"
TESTS: Final = "Monit.test"

OWNED: Final = frozenset({"Existence", "UID", "GID", "Custom"})
FILES: Final = OWNED | {"Timestamp", "Permisssion"}

# type of a service -> types of the tests that it may have
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "process": OWNED | {"ProcessResource", "ProcessDiskIO", "PID", "PPID", "Uptime", "Connection"},
    "file": FILES | {"FileChecksum", "FileSize", "FileContent"},
    "fifo": FILES,
    "directory": FILES,
    "filesystem": frozenset(
        {"Existence", "FilesystemMountFlags", "SpaceUsage", "InodeUsage", "DiskIO", "Permisssion", "Custom"}
    ),
    "host": frozenset({"NetworkPing", "Connection", "Custom"}),
    "system": frozenset({"SystemResource", "Uptime", "Custom"}),
    "custom": frozenset({"ProgramStatus", "Custom"}),
    "network": frozenset({"NetworkInterface", "Custom"}),
}

# type of a test -> how its condition begins
BEGINNINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "Existence": ("exist", "not exist"),
    "SystemResource": (
        "loadavg (1min)",
        "loadavg (5min)",
        "loadavg (15min)",
        "cpu usage",
        "cpu user usage",
        "cpu system usage",
        "cpu wait usage",
        "memory usage",
        "swap usage",
    ),
    "ProcessResource": ("cpu", "total cpu", "threads", "children", "total memory usage"),
    "ProcessDiskIO": ("disk read rate", "disk write rate"),
    "FileChecksum": ("failed md5 checksum", "changed md5 checksum", "failed checksum expect"),
    "Timestamp": (
        "access time",
        "modification time",
        "change time",
        "timestamp",
        "changed access time",
        "changed modification time",
        "changed change time",
        "changed timestamp",
    ),
    "FileSize": ("size", "changed size"),
    "FileContent": ("content =", "content !="),
    "FilesystemMountFlags": ("changed fsflags",),
    "SpaceUsage": ("space",),
    "InodeUsage": ("inodes",),
    "DiskIO": ("read rate", "write rate", "service time"),
    "Permisssion": ("failed permission", "changed permission"),
    "UID": ("failed uid",),
    "PID": ("changed pid",),
    "PPID": ("changed ppid",),
    "Uptime": ("uptime",),
    "ProgramStatus": ("status", "changed status"),
    "NetworkInterface": ("failed link", "changed link capacity", "saturation", "upload", "download"),
    "NetworkPing": ("failed ping",),
    "Connection": ("failed host", "failed port", "failed unixsocket"),
}

# bits per second in one unit of a metric, and the most that a pipe takes
UNITS: Final = {"bit": 1, "Kbit": 1_000, "Mbit": 1_000_000, "Gbit": 1_000_000_000}
MOST: Final = 4_294_967_295


def type_of(condition: str) -> str:
    """Return the type that monit's page gives a test: by the longest known beginning, else Custom."""
    words = " ".join(condition.split()) if "  " in condition else condition
    known = ((len(start), kind, start) for kind, starts in BEGINNINGS.items() for start in starts)
    best = max((row for row in known if words.startswith(row[2])), default=(0, "Custom", ""))
    if best[2] == "memory usage" and not words.rstrip().endswith("%") and " percent" not in words:
        return "ProcessResource"
    return best[1]


def _users_of(box: Box, test: str) -> bool:
    return any(test in service["tests"].split(",") for service in box.items(SERVICES).values())


def _set_test_type(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Set the type by the condition, whatever was sent as the type."""
    kind = type_of(new["condition"])
    if kind == "Custom" or not _users_of(call.box, uuid):
        new["type"] = kind


def _check_test(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    """Check that the type of a test that services use stays as it is."""
    old = box.items(TESTS).get(uuid)
    if old is None or not _users_of(box, uuid):
        return
    kind, name = type_of(item["condition"]), item["name"]
    if item["type"] not in (old["type"], "Custom"):
        yield (
            "type",
            f"Cannot change the test type to '{item['type']}'. Test '{name}' is linked to a service.",
        )
    if kind not in ("Custom", item["type"]):
        text = f"Condition '{item['condition']}' would change the type of the test '{name}'"
        yield "condition", f"{text} but it is linked to a service."


def _check_service(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    kind = item["type"]
    tests = box.items(TESTS)
    for key in item["tests"].split(","):
        if key in tests and tests[key]["type"] not in ALLOWED.get(kind, {tests[key]["type"]}):
            text = (
                f"Test {tests[key]['name']} with type {tests[key]['type']} not allowed for this service type"
            )
            yield "tests", text


def _check_pipe(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    metric = item["bandwidthMetric"]
    most = MOST // UNITS.get(metric, 1)
    if item["bandwidth"].isdigit() and int(item["bandwidth"]) > most:
        text = f"{item['bandwidth']} {metric}/s exceeds the maximum bandwidth of {most} {metric}/s."
        for name in ("bandwidth", "bandwidthMetric"):
            yield name, text


def _number_pipe(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Give an added pipe or queue a number from 10000; one that is set brings its own."""
    if call.param(0) is None:
        used = {item["number"] for item in call.box.items(model.path).values()}
        number = next(number for number in range(10_000, 10_000 + len(used) + 1) if str(number) not in used)
        new["number"], new["origin"] = str(number), "TrafficShaper"


def _name_origin(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    if call.param(0) is None:
        new["origin"] = "TrafficShaper"


HOOKS: Final = ModelHooks(
    checks={"monit_service": _check_service, "monit_test": _check_test, "shaper_pipe": _check_pipe},
    collections={
        PIPES: CollectionHooks(before=(_number_pipe,)),
        QUEUES: CollectionHooks(before=(_number_pipe,)),
        SHAPER_RULES: CollectionHooks(before=(_name_origin,)),
        TESTS: CollectionHooks(before=(_set_test_type,)),
    },
)
