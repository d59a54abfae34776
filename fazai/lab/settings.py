"""Settings of a firewall of the lab: its release, TLS, latency and faults."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from fazai.errors import UsageError

Release = Literal["26.7.2", "26.1.11"]
RELEASES: tuple[Release, ...] = ("26.7.2", "26.1.11")

TlsVariant = Literal["valid", "expired", "wrong_host", "self_signed"]

FaultKind = Literal[
    "delay",  # answer after delay_s, or when the faults are cleared
    "status",  # answer with `status` (500, 429, 503, ...), Retry-After when retry_after_s is set
    "cut",  # close the connection: before or after the call was carried out, or in the middle of the answer
    "drip",  # send the answer bytes_per_s slowly
    "truncate",  # an answer whose JSON ends early, with a matching Content-Length
    "html",  # an HTML page where JSON is expected, status 200
    "login",  # 302 to the login page
    "unauthorized",  # 401, as after a key was revoked
    "not_found",  # 404, as when a plugin is absent
    "lockout",  # after an apply no new connection gets through
]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that goes wrong.

    It hits calls whose method and path match (`path` is a shell pattern on the part after `/api/`, any
    letter case), leaves the first `after` of them alone and then hits `times` calls (0 = for ever).
    """

    kind: FaultKind
    path: str = "*"
    method: str = "*"
    after: int = 0
    times: int = 0
    delay_s: float = 0.0
    status: int = 500
    body: str = '{"errorMessage":"Unexpected error, check log for details"}'
    retry_after_s: int | None = None
    at: Literal["before", "middle", "after"] = (
        "before"  # cut: before or after the effect, or in the middle of the answer
    )
    bytes_per_s: int = 1000  # drip
    refuse: bool = True  # lockout: refused at once, or never answered
    forever: bool = False  # lockout: not even other rules open the door again
    rule: str = ""  # lockout: only when an applied rule's description contains this

    def __post_init__(self) -> None:
        if self.after < 0 or self.times < 0 or self.delay_s < 0 or self.bytes_per_s < 1:
            raise ValueError("after, times and delay_s are not negative, bytes_per_s is at least 1")
        if not 100 <= self.status <= 599:
            raise ValueError("status is an HTTP status")

    def matches(self, method: str, path: str) -> bool:
        """Return whether the fault concerns the call; `path` is what follows `/api/`, without the query."""
        return self.method in ("*", method) and fnmatch.fnmatchcase(path.lower(), self.path.lower())


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HTTPS with a certificate of the lab's own authority, or one that a client must refuse."""

    variant: TlsVariant = "valid"


class LabSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one firewall of the lab."""

    release: Release = "26.7.2"
    tls: Tls | None = None
    auth_delay_s: float = 2.0  # the real one waits 2 s before it refuses a key
    latency_s: float = 0.0  # added to every call; writes wait for each other, as on the real one
    apply_latency_s: float = 0.0  # added to every apply and reconfigure
    keepalive_requests: int = 16  # the real one closes a connection after 16 requests; 0 = never
    idle_s: float = 30.0
    rollback_s: float = 60.0  # release 26.1.11: the savepoint timer
    history: int = 100  # how many earlier configurations are kept
    #: 26.1.11: the factory's two LAN rules as on a new box (no items of the API, behind all that are), or
    #: "api": as items, as on a box whose rules were migrated; since 26.7 they always are
    factory_rules: Literal["legacy", "api"] = "legacy"
    #: seed of what goes through it: states, the filter log, counters, tunnels; 0: nothing, as recorded
    traffic: int = 0
    absent: tuple[str, ...] = ()  # controllers ("module/controller") or modules that are not installed
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        times = (self.auth_delay_s, self.latency_s, self.apply_latency_s, self.idle_s, self.rollback_s)
        if min(times) < 0 or self.keepalive_requests < 0 or self.history < 1:
            raise ValueError("times are not negative, and the history keeps at least one entry")

    @property
    def has_legacy_rules(self) -> bool:
        """True when the factory's rules are no items of the API."""
        return self.release.startswith("26.1") and self.factory_rules == "legacy"

    @classmethod
    def parse(cls, mapping: Mapping[str, Any], where: str = "lab") -> LabSettings:
        """Read settings from plain values.

        Raises UsageError naming the field when a value is unknown or of the wrong type.
        """
        try:
            return msgspec.convert(dict(mapping), cls, strict=True)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(
                f"the lab's settings are not valid: {error}",
                where=where,
                hint="docs/lab.md lists the settings and the faults",
            ) from error
