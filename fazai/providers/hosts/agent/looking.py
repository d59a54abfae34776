"""The script that prints how an agent stands on a host, whichever sort it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fazai.providers.hosts.agent.layout import AgentLayout
from fazai.providers.hosts.shell.answers import whole_number
from fazai.providers.hosts.shell.quoting import quote


def standing_script(layout: AgentLayout, init: str | None, at: Callable[[str], str], *, folder: bool) -> str:
    """Return POSIX shell that prints, as NAME=VALUE lines, the clock, since when the agent is installed, what
    keeps it running and whether it does. `init` None: found out on the host."""
    settings, user = quote(at(layout.settings)), layout.user
    lines = [
        "echo now=$(date +%s)",
        f"echo installed_at=$(stat -c %Y {settings} 2>/dev/null || stat -f %m {settings} 2>/dev/null)",
        f'for fz_f in {layout.temporary_names(at)}; do [ ! -e "$fz_f" ] || echo unfinished=yes; done',
        f"[ ! -e {quote(at(layout.state))} ] || echo remains=yes",
    ]
    if folder:
        return "\n".join([*lines, f"echo init={init or next(iter(layout.services))}"])
    lines.append(f"id -u {user} >/dev/null 2>&1 && echo user=yes")
    lines.append(f"fz_init={init}" if init else _find_init_line(layout))
    cases = (f"{name})\n{_active_lines(name, layout.service)};;" for name in layout.services)
    lines.append("\n".join(["echo init=$fz_init\ncase $fz_init in", *cases, "esac"]))
    return "\n".join(lines)


def _active_lines(init: str, service: str) -> str:
    return _ACTIVE[init].replace("SERVICE", service.replace("-", "_") if init == "rc" else service)


def _find_init_line(layout: AgentLayout) -> str:
    tests = [(name, test) for name, test in _FOUND.items() if name in layout.services]
    words = [
        f"{'el' if number else ''}if {test}; then fz_init={name}" for number, (name, test) in enumerate(tests)
    ]
    return "\n".join([*words, "else fz_init=none; fi"])


_FOUND: Final = {
    "systemd": "[ -d /run/systemd/system ]",
    "openrc": "[ -d /run/openrc ] || command -v openrc-run >/dev/null",
    "cron": "[ -d /etc/cron.d ]",
    "rc": "[ -d /usr/local/etc/rc.d ] && [ -e /etc/rc.subr ]",
}
_ACTIVE: Final = {
    "systemd": (
        "echo active=$(systemctl is-active SERVICE.service 2>/dev/null)\n"
        "echo enabled=$(systemctl is-enabled SERVICE.service 2>/dev/null)\n"
    ),
    "openrc": (
        "rc-service SERVICE status >/dev/null 2>&1 && echo active=active || echo active=inactive\n"
        "rc-update show default 2>/dev/null | grep -q 'SERVICE ' && echo enabled=enabled\n"
    ),
    "cron": (
        "if pgrep -x cron >/dev/null 2>&1 || pgrep -x crond >/dev/null 2>&1; then echo active=active\n"
        "else echo active='cron does not run'; fi; echo enabled=enabled\n"
    ),
    "rc": (
        "service SERVICE onestatus >/dev/null 2>&1 && echo active=active || echo active=inactive\n"
        "service SERVICE enabled >/dev/null 2>&1 && echo enabled=enabled\n"
    ),
}


def read_seconds(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise ValueError("no time")
    return number


def read_status(data: bytes) -> dict[str, str]:
    """Return the NAME=VALUE lines of a status file as a mapping."""
    lines = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
    return {name.strip(): value.strip() for name, equals, value in lines if equals}
