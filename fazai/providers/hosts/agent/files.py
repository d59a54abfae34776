"""The files of the telemetry agent: where they are, and what is in them (docs/telemetry-agent.md)."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from fazai.providers.hosts.agent.layout import AgentLayout, InstallSite, ServiceFile
from fazai.providers.hosts.agent.scripts import Proving
from fazai.providers.hosts.shell.quoting import quote

_SERVICE: Final = "fazai-telemetry"
HOST_NAME_FILE: Final = "/proc/sys/kernel/hostname"  # which the agent takes where none is declared


TELEMETRY: Final = AgentLayout(
    user="fazai-agent",
    service=_SERVICE,
    words={"/opt/fazai/agent/telemetry.sh": "script", "/etc/fazai/telemetry.env": "settings"},
    services={
        "systemd": ServiceFile(f"/etc/systemd/system/{_SERVICE}.service", f"{_SERVICE}.service", "0644"),
        "openrc": ServiceFile(f"/etc/init.d/{_SERVICE}", f"{_SERVICE}.openrc", "0755"),
        "cron": ServiceFile(f"/etc/cron.d/{_SERVICE}", f"{_SERVICE}.cron", "0644"),
    },
    service_word="service",
    state="/var/lib/fazai-agent",
    log="/var/log/fazai-telemetry.log",
    pid_file="/var/lib/fazai-agent/status",
)


@cache
def agent_script() -> bytes:
    """Return the agent, one bash file."""
    from importlib.resources import files

    return files("fazai.agent").joinpath("telemetry.sh").read_bytes()


@cache
def shipped_version() -> str:
    found = re.search(rb"^readonly VERSION=(\S+)$", agent_script(), re.MULTILINE)
    assert found is not None
    return found[1].decode()


def service_file(init: str, interval_s: float) -> bytes:
    """Return the file for the service manager. The interval is rounded to minutes for cron."""
    from importlib.resources import files

    text = files("fazai.agent").joinpath(TELEMETRY.services[init].template).read_text()
    if init == "cron":
        minutes = cron_minutes(interval_s)
        text = text.replace("\n* * * * * ", f"\n*/{minutes} * * * * " if minutes > 1 else "\n* * * * * ")
    return text.encode()


def cron_minutes(interval_s: float) -> int:
    """Return the longest step of cron, in minutes, that is no longer than the interval and divides the
    hour."""
    return max(n for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30) if n == 1 or n * 60 <= interval_s)


def delivery_proving(site: InstallSite, version: str) -> Proving:
    """Return what a telemetry agent has to show: that it passes its self-test, and that it comes up with this
    version. The wait that a failure imposed ends: what it waited for may be what changes."""
    test = f"{site.beside(TELEMETRY.program)} --selftest --config {site.beside(TELEMETRY.settings)}"
    passes = (
        f"fz_said=$(as_agent {quote(test)} </dev/null 2>&1) || {{\n"
        "printf 'the new agent does not pass its self-test, the old one stays:\\n%s\\n' \"$fz_said\" "
        "| grep -v '^ok ' >&2; exit 1; }"
    )
    backoff = site.word(f"{TELEMETRY.state}/backoff")
    return Proving(
        _comes_up_function(site, version),
        test="" if site.folder else passes,
        placing=f"fz_status | grep -q '^last_error=status \\(429\\|503\\)' || rm -f {backoff}",
    )


def _comes_up_function(site: InstallSite, version: str) -> str:
    """Return a function that waits for a status of this version by the agent that was just started."""
    wanted = quote(f"version={version}")
    early = ""
    if site.init == "systemd" and not site.folder:  # it will not try again
        early = (
            f"case $(systemctl is-active {TELEMETRY.service}.service) in failed | inactive) return 1;; esac\n"
        )
    running = "" if site.init == "cron" and not site.folder else "fz_status | grep -qx state=running && "
    return (
        'fz_comes_up() {\n[ -n "$fz_wait" ] || return 0\nfz_k=0\nwhile [ $fz_k -lt 100 ]; do\n'
        f"if fz_status | grep -qxF {wanted} && {running}"
        '! fz_status | grep -qxF "pid=$fz_old"\n'
        f"then return 0; fi\n{early}"
        "sleep 0.1 2>/dev/null || { sleep 1; fz_k=$((fz_k + 9)); }\nfz_k=$((fz_k + 1))\ndone\nreturn 1; }"
    )
