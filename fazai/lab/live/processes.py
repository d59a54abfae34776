"""Processes that run on a firewall of the lab: the rows of `scripts/system/activity.py` of opnsense/core, of
the services that run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fazai.lab.box import Box
from fazai.lab.live.chance import chance_of

#: Service -> user and command; what is not here is no process (pf, routing) or its own daemon.
_COMMANDS = {
    "configd": ("root", "/usr/local/bin/python3 /usr/local/opnsense/service/configd.py console (python3.13)"),
    "webgui": ("root", "/usr/local/sbin/lighttpd -f /var/etc/lighty-webConfigurator.conf"),
    "unbound": ("unbound", "/usr/local/sbin/unbound -c /var/unbound/unbound.conf"),
    "syslog-ng": (
        "root",
        "/usr/local/sbin/syslog-ng -f /usr/local/etc/syslog-ng.conf -p /var/run/syslog-ng.pid",
    ),
    "cron": ("root", "/usr/sbin/cron -s"),
    "suricata": ("root", "/usr/local/bin/suricata --netmap --pidfile /var/run/suricata.pid"),
    "monit": ("root", "/usr/local/bin/monit -c /usr/local/etc/monitrc"),
    **dict.fromkeys(("login", "pf", "routing", "sysctl", "wireguard")),
}
_KERNEL = (("[idle{idle: cpu0}]", "CPU0"), ("[idle{idle: cpu1}]", "CPU1"), ("[kernel{if_io_tqg_0}]", "-"))


def list_activity(box: Box, services: Iterable[str]) -> dict[str, Any]:
    """Return the heads and rows of `top`; `services`: the names of those that run."""
    threads: list[tuple[str, str, str, float]] = [
        ("root", command, state, 97.0 if "idle" in command else 0.0) for command, state in _KERNEL
    ]
    for name in services:
        known = _COMMANDS.get(name, ("root", f"/usr/local/sbin/{name}"))
        if known is not None:
            chance = chance_of(box, name)
            busy = round(chance.random() * 4, 2) if box.settings.traffic else 0.0
            threads.append((known[0], known[1], "select", busy))
    up = int(box.clock() - box.started_at)
    clock = f"{up // 3600:d}+{up % 3600 // 60:02d}:{up % 60:02d}"
    return {
        "headers": [
            f"last pid: {2000 + len(threads)};  load averages:  0.21,  0.18,  0.15  up {clock}",
            f"{len(threads)} threads:   3 running, {len(threads) - 3} sleeping",
            "CPU:  1.2% user,  0.0% nice,  1.6% system,  0.2% interrupt, 97.0% idle",
            "Mem: 164M Active, 512M Inact, 620M Wired, 2704M Free",
        ],
        "details": [_row(number, *thread) for number, thread in enumerate(threads)],
    }


def _row(number: int, user: str, command: str, state: str, busy: float) -> dict[str, str]:
    return {
        "C": str(number % 2),
        "PID": str(11 if "idle" in command else 1000 + number),
        "THR": str(100_000 + number),
        "USERNAME": user,
        "PRI": "20",
        "NICE": "0",
        "SIZE": f"{20 + number}M",
        "RES": f"{8 + number}M",
        "STATE": state,
        "TIME": f"{number}:{number % 60:02d}",
        "WCPU": f"{busy:.2f}%",
        "COMMAND": command,
    }
