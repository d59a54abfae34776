"""A host's report on its agent, and the judgement of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Final

from fazai.compat.language import dataclass
from fazai.providers.hosts.agent.files import HOST_NAME_FILE, TELEMETRY
from fazai.providers.hosts.agent.looking import read_seconds, read_status, standing_script
from fazai.providers.hosts.shell.answers import whole_number
from fazai.providers.hosts.shell.quoting import quote

#: Seconds that an agent has for its first delivery, and for one that is late, at least.
GRACE_S: Final = 120
_LATE_INTERVALS: Final = 3
_LEAST_S: Final = 5  # the status has whole seconds, and the host may be busy
#: Failed deliveries in a row from which on the server, and not chance, is the reason.
_FAILURES: Final = 3
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, repr=False)
class AgentReport:
    """The state of the agent on one host. `folder`: a folder (`root:`), where nothing runs that we could see.
    Times are seconds of the host's clock.

    The text form holds what counts as the managed state: neither the clock nor the counters.
    """

    folder: bool
    now: int
    init: str = "none"
    active: str = ""  # as the service manager says it
    enabled: bool = True
    version: str = ""
    hostname: str = ""  # the host's own
    user: bool = True
    unfinished: bool = False  # files of an installation that was killed lie about
    remains: bool = False  # its user, its state folder, or such files
    installed_at: int | None = None
    status: Mapping[str, str] = field(default_factory=dict)
    interval_s: float = 60.0
    grace_s: float = GRACE_S

    @property
    def running(self) -> bool | None:
        """Tell whether the agent runs; None where that is not known: in a folder, or under `init: none`
        without a status file."""
        if self.init in TELEMETRY.services and not self.folder:
            return self.active == "active"
        if self.status:
            return self.status.get("state") == "running" and self._silent_s() <= self._late_s
        return None

    @property
    def restartable(self) -> bool:
        """Tell whether a restart can be asked for: of a service manager, or of an agent that runs."""
        return bool(self.running) if self.folder or self.init == "none" else True

    @property
    def pid(self) -> int | None:
        return self.number("pid")

    def number(self, name: str) -> int | None:
        text = self.status.get(name, "")
        number = whole_number(text.removeprefix("-"))
        return number if number is None or not text.startswith("-") else -number

    def age(self, name: str) -> int | None:
        """Return the seconds since a time of the status file; None where it has no such time."""
        then = self.number(name)
        return None if then is None else max(0, self.now - then)

    @property
    def _late_s(self) -> float:
        return max(self.grace_s, _LATE_INTERVALS * self.interval_s, _LEAST_S)

    def _silent_s(self) -> float:
        return self.age("written_at") or 0

    def trouble(self) -> str | None:
        """Return why the agent does not deliver; None when it does, has just begun, or it cannot be told."""
        if not self.status:
            return self._why_never_ran()
        late_s = self._late_s
        if self._silent_s() > late_s:
            return f"no sign of life for {self._silent_s():.0f} s{self._error_and_spool()}"
        delivered = self.age("last_delivery_at")
        began = self.age("started_at") or 0
        failures = self.number("failures") or 0
        if self.init == "cron" and not self.folder:  # every run begins anew; only its failures are remembered
            return f"not delivering{self._error_and_spool()}" if failures >= _FAILURES else None
        waited = began if delivered is None else delivered
        refused = failures >= _FAILURES and began > self.grace_s
        return (
            f"not delivering for {waited} s{self._error_and_spool()}" if refused or waited > late_s else None
        )

    def _why_never_ran(self) -> str | None:
        if self.folder or self.init == "none" or self.installed_at is None:
            return None
        waited = self.now - self.installed_at
        return f"it never ran, {waited} s after it was installed" if waited > self._late_s else None

    def _error_and_spool(self) -> str:
        error = self.status.get("last_error", "")
        spool = self.number("spool_depth")
        text = f": {error}" if error else ""
        return text + (f", spool {spool}" if spool is not None else "")

    def proof(self) -> str | None:
        """Return None when the agent has delivered since it was started, else why not (empty: not yet)."""
        if self.number("last_delivery_at") is not None:
            return None
        error = self.status.get("last_error", "")
        if error and ((self.number("failures") or 0) > 1 or "status 4" in error):
            return error
        return ""

    def __repr__(self) -> str:
        return f"Report({self.init} {self.running} {self.enabled} {self.version} {self.trouble() is None})"


def look_script(init: str | None, at: Callable[[str], str], *, folder: bool) -> str:
    """Return POSIX shell that prints what `read_report` reads. `init` None: found out on the host."""
    version = f"echo version=$(sed -n 's/^readonly VERSION=//p' {quote(at(TELEMETRY.program))} 2>/dev/null)"
    name = f"echo hostname=$(cat {quote(at(HOST_NAME_FILE))} 2>/dev/null)"
    return "\n".join(
        [version, *([] if folder else [name]), standing_script(TELEMETRY, init, at, folder=folder)]
    )


def read_report(
    said: bytes, status: bytes, *, folder: bool, interval_s: float, grace_s: float | None
) -> AgentReport:
    """Build the report from what `look_script` printed (`said`) and the status file. Raises KeyError or
    ValueError when an answer is missing or is no number."""
    found = read_status(said)
    live = read_status(status)
    text = live.get("interval_s", "")
    return AgentReport(
        folder=folder,
        now=read_seconds(found["now"]),
        init=found.get("init", "none"),
        active=found.get("active", ""),
        enabled=folder or found.get("init") not in TELEMETRY.services or found.get("enabled") == "enabled",
        version=found.get("version", ""),
        hostname=re.sub("[^!-~]", "_", found.get("hostname", ""))[:253],
        user=folder or found.get("user") == "yes",
        unfinished="unfinished" in found,
        remains=not {"unfinished", "remains", "user"}.isdisjoint(found),
        installed_at=read_seconds(found["installed_at"]) if found.get("installed_at") else None,
        status=live,
        interval_s=max(interval_s, float(text) if _SECONDS.fullmatch(text) else 0.0),
        grace_s=GRACE_S if grace_s is None else grace_s,
    )
