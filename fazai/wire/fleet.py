"""Section 2.6 of SPEC.md: what the operators' page asks for beside runs and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from fazai.outcome import TargetStatus
from fazai.wire.base import (
    AnswerMessage,
    Count,
    Ident,
    Label,
    Message,
    RequestMessage,
    Timestamp,
    convert_query,
)
from fazai.wire.changes import ChangeRecord


class WhoAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /whoami: as whom the daemon knows the client. Without `role` it needs a token."""

    name: str
    role: Literal["viewer", "operator", "admin"] | None = None


class FleetDrift(Message, frozen=True, kw_only=True, omit_defaults=False):
    """The state of a target as the newest run found or left it."""

    status: TargetStatus
    pending: Count
    run_id: Ident
    time: Timestamp


class FleetRow(Message, frozen=True, kw_only=True):
    """A firewall, a host that reports, or a target that only runs know. Without `up`: nobody knows. Ratios
    are 0 to 1; a figure that was not reported is left out."""

    name: Label
    kind: Literal["firewall", "host", "target"]
    up: bool | None = None
    id: Ident | None = None
    last_seen: Timestamp | None = None
    interval_s: float | None = None
    version: str | None = None
    drift: FleetDrift | None = None
    error: str | None = None
    load1: float | None = None
    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None


class FleetAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /fleet, ordered by name. `time` is the daemon's clock."""

    time: Timestamp
    rows: tuple[FleetRow, ...]


#: What GET /telemetry has of a host over time; the metric is `fazai_host_` and the name.
GAUGE_NAMES = (
    *("load1", "load5", "load15", "cpu_busy_ratio"),
    *("memory_total_bytes", "memory_free_bytes", "memory_available_bytes"),
    *("disk_total_bytes", "disk_free_bytes"),
    *("network_receive_bytes_total", "network_transmit_bytes_total", "uptime_seconds"),
)
#: Described as one of them; the daemon refuses others in its own words.
GaugeName = Annotated[Ident, Meta(extra_json_schema={"enum": list(GAUGE_NAMES)})]


class TelemetryQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /telemetry. Nothing but `host` given: the last hour, all fields."""

    host: Label
    since: Timestamp | None = None
    until: Timestamp | None = None
    fields: tuple[GaugeName, ...] = ()
    points: Annotated[int, Meta(ge=1, le=5000)] = 500


class TelemetryAnswer(AnswerMessage, frozen=True, kw_only=True, omit_defaults=False):
    """Figures of a host: at most `points` points, each of `step_s` seconds. `times` (seconds since the epoch)
    is the newest record's in it; a gauge's value is the mean, a counter's (`…_total`) the newest, null where
    none was reported. `interval_s` is the time between two records, 0 while unknown."""

    host: Label
    interval_s: float
    step_s: float
    times: tuple[float, ...]
    fields: dict[str, tuple[float | None, ...]]


class RunChangesQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /runs/{id}/changes."""

    target: Label | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class ChangeRow(ChangeRecord, frozen=True, kw_only=True):
    """One difference, as in the event `change`: `before` and `after` hold the fields that differ, secrets as
    `***`."""

    target: Label
    action_id: Ident | None = None


class RunChangesAnswer(AnswerMessage, frozen=True, kw_only=True, omit_defaults=False):
    """The changes of a run, in their order; `total` counts those past the limit, too."""

    total: Count
    changes: tuple[ChangeRow, ...]


def decode_telemetry_query(query: Mapping[str, str]) -> TelemetryQuery:
    """Read the query of GET /telemetry; `fields` is a list with commas. Raises WireError(bad_query)."""
    values: dict[str, Any] = dict(query)
    if "fields" in values:
        values["fields"] = values["fields"].split(",") if values["fields"] else []
    points = values.get("points")
    if isinstance(points, str) and points.isascii() and points.isdigit() and len(points) <= 9:
        values["points"] = int(points)
    return convert_query(values, TelemetryQuery)
