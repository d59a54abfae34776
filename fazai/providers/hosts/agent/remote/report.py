"""A host's and the daemon's report on a remote agent, and the judgement of it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final

from fazai.compat.language import dataclass
from fazai.providers.hosts.agent.files import HOST_NAME_FILE
from fazai.providers.hosts.agent.layout import AgentLayout
from fazai.providers.hosts.agent.looking import read_seconds, read_status, standing_script
from fazai.providers.hosts.agent.remote.certificate import CertificateDates, read_certificate
from fazai.providers.hosts.agent.remote.places import TRIAL
from fazai.providers.hosts.agent.remote.starting import FIND_PYTHON
from fazai.providers.hosts.shell.answers import whole_number
from fazai.providers.hosts.shell.quoting import quote

#: Seconds that an agent has to connect, after it was started and after the daemon was.
GRACE_S: Final = 90
_LEAST_S: Final = 5  # the status has whole seconds, and the host may be busy
_SHOWN: Final = 300  # characters of a reason
_DAY_S: Final = 86_400
#: States of the registry in which an agent is connected and was accepted.
_CONNECTED: Final = frozenset(("handshake", "execution", "observation"))
#: What installs a Python, by the manager of packages that is there.
_PACKAGES: Final[Mapping[str, str]] = {
    "apt-get": "apt-get install python3",
    "dnf": "dnf install python3.11",
    "yum": "yum install python39",
    "zypper": "zypper install python311",
    "apk": "apk add python3",
    "pacman": "pacman -S python",
    "pkg": "pkg install python311",
}


@dataclass(frozen=True, slots=True, repr=False)
class RemoteReport:
    """The state of the remote agent on one host. `row`: its entry in the daemon's registry, None where it has
    none; `unasked`: why the daemon could not be asked. Times are seconds of the host's clock.

    The text form holds what counts as the managed state: neither the clock nor the counters.
    """

    folder: bool
    now: int
    init: str = "none"
    active: str = ""  # as the service manager says it
    enabled: bool = True
    hostname: str = ""  # the host's own
    user: bool = True
    python: str = ""  # one that can run the agent
    older_python: str = ""  # the version of one that cannot
    packages: str = ""  # the manager of packages
    unfinished: bool = False  # files of an installation that was killed lie about
    remains: bool = False  # its user, its state folder, or such files
    running: bool | None = None  # whether its process is there
    pid: int | None = None
    trial: str = ""  # what the mark of a trial says
    has_old: bool = False  # what the last update replaced stands by
    installed_at: int | None = None
    started_at: int | None = None
    status: Mapping[str, str] = field(default_factory=dict)
    certificate: CertificateDates | None = None
    row: Mapping[str, Any] | None = None
    unasked: str = ""
    grace_s: float = GRACE_S

    @property
    def version(self) -> str:
        """The version that runs, as the daemon or the agent itself says."""
        row = self.row or {}
        return str((row.get("version") if self.is_connected else "") or self.status.get("version", ""))

    @property
    def is_connected(self) -> bool:
        if self.row is not None:
            return self.row.get("state") in _CONNECTED
        return bool(self.unasked) and self.status.get("state") == "connected"

    @property
    def failed_trial(self) -> str:
        """The reason why the program that was installed last was taken back; empty: it was not."""
        return self.trial.removeprefix("failed: ")[:_SHOWN] if self.trial.startswith("failed") else ""

    @property
    def cut_off(self) -> bool:
        """True when an update was placed and never tried: who placed it was killed before he started it."""
        return self.has_old and self.trial.startswith("open")

    @property
    def days_left(self) -> int | None:
        """The whole days that its certificate is still good for, by the host's clock."""
        return None if self.certificate is None else (self.certificate.not_after - self.now) // _DAY_S

    @property
    def restartable(self) -> bool:
        """Tell whether a restart can be asked for: of a service manager, or of an agent that runs."""
        return bool(self.running) if self.folder or self.init == "none" else True

    def certificate_trouble(self, agent_id: str) -> str | None:
        """Return what is wrong with the certificate that it has; None: nothing that a new one would mend."""
        if self.certificate is None:
            return "none"
        if self.certificate.name != agent_id:
            return f"of {self.certificate.name[:64]}"
        return "expired" if self.certificate.not_after <= self.now and not self.is_connected else None

    def reason(self) -> str:
        """Return why it is not connected, as the agent says, or the daemon."""
        row = self.row or {}
        return " ".join(str(self.status.get("last_error") or row.get("last_error") or "").split())[:_SHOWN]

    def trouble(self) -> str | None:
        """Return why it is not connected; None when it is, has just begun, or it cannot be told."""
        if self.is_connected or (not self.status and (self.folder or self.init == "none")):
            return None
        began = self._read_time("started_at") or self.started_at or self.installed_at
        waited = None if began is None else max(0, self.now - began)
        if waited is not None and waited <= max(self.grace_s, _LEAST_S):
            return None
        if self.running is False:
            return "it does not run"
        return self.reason() or self.unasked or "the daemon knows of no connection"

    def _read_time(self, name: str) -> int | None:
        return whole_number(self.status.get(name, ""))

    def proof(self, version: str) -> str | None:
        """Return None when this version is connected since it was started, else why not (empty: not yet)."""
        if self.failed_trial:
            return f"the new program was taken back, the one before runs: {self.failed_trial}"
        if self.unasked:
            return f"the daemon cannot be asked whether it is connected: {self.unasked}"
        if self.is_connected and self.row is not None:
            fresh = self.row.get("fresh", True) and self.row.get("version") == version
            return None if fresh else ""
        return self.reason() if self.status.get("state") == "refused" else ""

    def python_hint(self) -> tuple[str, str]:
        """Return that no usable Python is there, and what installs one."""
        older = f" (there is {self.older_python})" if self.older_python else ""
        text = f"no Python 3.9 or newer is there{older}, and the agent needs one"
        return text, _PACKAGES.get(self.packages, "install the package python3")

    def __repr__(self) -> str:
        standing = (self.init, self.running, self.enabled, self.version, self.failed_trial)
        return f"Report({standing} {self.trouble() is None})"


def look_script(layout: AgentLayout, init: str | None, at: Callable[[str], str], *, folder: bool) -> str:
    """Return POSIX shell that prints what `read_report` reads. `init` None: found out on the host."""
    pid, runs = quote(at(layout.pid_file)), " ".join(f"-e {quote(at(path))}" for path in layout.runs)
    found = " ".join(_PACKAGES)
    return "\n".join(
        [
            f"echo hostname=$(cat {quote(at(HOST_NAME_FILE))} 2>/dev/null{'' if folder else ' || hostname'})",
            f"fz_f={quote(at(TRIAL))}",
            '[ -h "$fz_f" ] || [ ! -f "$fz_f" ] || echo trial=$(head -c 1024 "$fz_f")',
            f"[ ! -e {quote(at(layout.program + '.old'))} ] || echo old=yes",
            f'fz_f={pid}; fz_k=; [ -h "$fz_f" ] || [ ! -f "$fz_f" ] || fz_k=$(head -c 64 "$fz_f" |'
            " sed -n 's/^pid=\\([1-9][0-9]\\{0,9\\}\\)$/\\1/p')",
            f"echo started_at=$(stat -c %Y {pid} 2>/dev/null || stat -f %m {pid} 2>/dev/null)",
            # without /proc the process is known by its number alone
            'if [ -n "$fz_k" ]; then if [ -d /proc/self ]; then'
            f" tr '\\0' '\\n' <\"/proc/$fz_k/cmdline\" 2>/dev/null | grep -qxF {runs}"
            '; else kill -0 "$fz_k" 2>/dev/null; fi && echo pid=$fz_k; fi',
            f"[ -e {quote(at(layout.program))} ] || {{ {FIND_PYTHON}\necho python=$fz_python",
            '[ -n "$fz_python" ] || echo older_python=$(python3 -V 2>/dev/null | cut -d " " -f 2)',
            f"for fz_p in {found}; do command -v $fz_p >/dev/null && echo packages=$fz_p && break; done; }}",
            standing_script(layout, init, at, folder=folder),
        ]
    )


def read_report(
    said: bytes,
    status: bytes,
    certificate: bytes,
    asked: bytes,
    *,
    layout: AgentLayout,
    folder: bool,
    grace_s: float | None,
) -> RemoteReport:
    """Build the report from what `look_script` printed (`said`), the status file, the certificate, and the
    daemon's answer. Raises KeyError or ValueError when an answer is missing or is no number."""
    found = read_status(said)
    init = found.get("init", "none")
    managed = init in layout.services and not folder
    pid = whole_number(found.get("pid", ""))
    answer: Mapping[str, Any] = json.loads(asked) if asked else {}
    row = answer.get("row")
    own_user = folder or layout.user == "root" or found.get("user") == "yes"
    return RemoteReport(
        folder=folder,
        now=read_seconds(found["now"]),
        init=init,
        active=found.get("active", ""),
        enabled=not managed or found.get("enabled") == "enabled",
        hostname=re.sub("[^!-~]", "_", found.get("hostname", ""))[:64],
        user=own_user,
        python=found.get("python", ""),
        older_python=found.get("older_python", "")[:20],
        packages=found.get("packages", ""),
        unfinished="unfinished" in found,
        remains=bool({"unfinished", "remains"} & found.keys()) or (layout.user != "root" and "user" in found),
        running=found.get("active") == "active" if managed else (pid is not None if status or pid else None),
        pid=pid,
        trial=found.get("trial", ""),
        has_old="old" in found,
        installed_at=read_seconds(found["installed_at"]) if found.get("installed_at") else None,
        started_at=whole_number(found.get("started_at", "")),
        status=read_status(status),
        certificate=read_certificate(certificate) if certificate else None,
        row=row if isinstance(row, Mapping) else None,
        unasked=str(answer.get("unasked", "")),
        grace_s=GRACE_S if grace_s is None else grace_s,
    )
