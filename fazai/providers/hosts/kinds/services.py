"""host.service"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fazai.model import FieldSpec, Problem, Value
from fazai.providers.hosts.kind import Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.shell.questions import OutputOf, Question, find_output
from fazai.providers.hosts.shell.quoting import quote

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@.:\\+-]*")
_RUNS: Final = ("restarted", "reloaded")
_TIMEOUT_S: Final = 300.0
#: What runs services. `systemctl` alone is no sign: it stands in containers and images as well, where it can
#: enable, and not start.
_INIT: Final = """if [ -d /run/systemd/system ]; then fz_init=systemd
elif command -v rc-service >/dev/null 2>&1; then fz_init=openrc
elif [ -f /etc/rc.subr ] && command -v service >/dev/null 2>&1; then fz_init=rc
elif command -v systemctl >/dev/null 2>&1; then fz_init=offline
else fz_init=none; fi
"""
#: Each prints lines `name=value`; exit status 1: there is no such service (yet).
_ASK: Final = """case $fz_init in
systemd) fz_o=$(systemctl show -p LoadState -p ActiveState -p SubState -p UnitFileState -- $fz_s) || exit 2
echo "$fz_o"
case $fz_o in *UnitFileState=generated*) # a script in /etc/init.d: others know
echo "UnitFileState=$(systemctl is-enabled -- $fz_s 2>/dev/null)" ;; esac ;;
offline) echo "UnitFileState=$(systemctl is-enabled -- $fz_s 2>/dev/null)" ;;
openrc) rc-service -e $fz_s || exit 1
rc-service $fz_s status >/dev/null 2>&1; echo "status=$?"
for fz_l in /etc/runlevels/*/$fz_s; do [ ! -e "$fz_l" ] || echo enabled=yes; done ;;
rc) service $fz_s rcvar >/dev/null 2>&1 || exit 1
service $fz_s onestatus >/dev/null 2>&1; echo "status=$?"
if service $fz_s enabled >/dev/null 2>&1; then echo enabled=yes; fi ;;
esac
"""
_REREAD: Final = "[ $fz_init != systemd ] || systemctl daemon-reload >&2"
#: systemd goes on with the old file of a unit until it is told.
_REREAD_CHANGED: Final = f"""if [ $fz_init = systemd ]; then
case $(systemctl show -p NeedDaemonReload -- $fz_s) in *=yes) {_REREAD} ;; esac; fi"""
_ON: Final = ("enabled", "enabled-runtime", "linked", "linked-runtime")
#: `rc-update -a` fails for each runlevel that the service is not in.
_OPENRC_OFF: Final = """for fz_l in /etc/runlevels/*/$fz_s; do fz_l=${fz_l%/*}
[ ! -h "$fz_l/$fz_s" ] || rc-update delete $fz_s "${fz_l##*/}" || exit 1; done"""
#: Units that are started by others, or not at all: there is nothing to enable.
_FIXED: Final = ("static", "indirect", "alias", "transient")


class ServiceKind(HostKind):
    """A service under systemd, OpenRC or FreeBSD's rc."""

    name = "host.service"
    summary = "A service: whether it runs, now and after the next start; as a handler: restarts it"
    example = "host.service: {name: nginx, state: started, enabled: true}"
    identity = ("name",)
    options = frozenset(("daemon_reload",))
    specs = (
        FieldSpec("name", "text", "its name, as systemctl, rc-service or service say it", required=True),
        FieldSpec("enabled", "boolean", "is started with the machine"),
        FieldSpec(
            "state",
            "choice",
            "restarted and reloaded: in handlers only",
            choices=("started", "stopped", *_RUNS),
        ),
        FieldSpec(
            "daemon_reload",
            "boolean",
            "systemd: read all unit files anew before; that of the service, if it changed, always is",
            default=False,
        ),
    )
    machine = True
    runs = True
    asked = True

    def normalise(self, fields: Mapping[str, Value], state: str) -> tuple[dict[str, Value], list[Problem]]:
        found, problems = HostKind.normalise(self, fields, state)
        wanted = found.get("state")
        if problems:
            return found, problems
        if state == "notified" and wanted not in _RUNS:
            problems.append(Problem("state", "of a handler is restarted or reloaded", "state: restarted"))
        elif state == "absent":
            text = "a service cannot be absent; what brings it can"
            problems.append(Problem(None, text, "state: stopped, enabled: false"))
        elif state == "present" and wanted in _RUNS:
            text = f"{wanted} would do it every time"
            problems.append(Problem("state", text, "state: started, and a handler that is notified"))
        elif state == "present" and wanted is None and "enabled" not in found:
            problems.append(Problem(None, "says nothing of the service", "state: started, enabled: true"))
        return found, problems

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        if not _NAME.fullmatch(fields["name"]):
            yield Problem("name", f'is no name of a service: "{fields["name"]}"')

    def ask(self, want: Want) -> Iterable[Question]:
        yield _service_question(want.fields["name"])

    def read(self, want: Want, answers: Answers) -> Have | None:
        answer = find_output(answers, _service_question(want.fields["name"]))
        said = answer.text
        words = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        init = words.get("init")
        if answer.exit > 1:
            last = said.strip().splitlines()[-1:] or [f"exit status {answer.exit}"]
            raise want.error(f"systemd does not answer: {last[0]}")
        if init == "none":
            text = "there is no systemd, OpenRC or rc"
            raise want.error(text, "host.command does what another supervisor needs")
        if init == "offline" and "state" in want.fields:
            text = "systemd does not run here, so nothing can be started or stopped"
            raise want.error(text, "declare enabled: alone")
        if answer.exit or words.get("LoadState") == "not-found":
            # it may come with a package in this run; if it does not, the host says so when it is started
            return {"enabled": False, "state": "stopped"}
        if init in ("systemd", "offline"):
            return _of_systemd(want, words)
        running = "started" if words.get("status") == "0" else "stopped"
        return {"enabled": words.get("enabled") == "yes", "state": running}

    def differing(self, want: Want, have: Have) -> dict[str, Any]:
        after = HostKind.differing(self, want, have)
        if after.get("state") == "stopped" and have["state"] == "failed":
            del after["state"]
        return after

    def is_left(self, want: Want, wrote: Mapping[str, Value], after: object, found: Have | None) -> bool:
        """Judge by what was written alone. A service that fell down did so by itself: that is nobody else's
        doing."""
        assert found is not None
        fell = found["state"] == "failed"
        return all(found[name] == value or (fell and name == "state") for name, value in wrote.items())

    def write(self, act: Act) -> Iterator[Block]:
        lines = ["set -e", _INIT, f"fz_s={quote(act.identity)}"]
        lines.append(_REREAD if act.options.get("daemon_reload") else _REREAD_CHANGED)
        enabled, state = act.after.get("enabled"), act.after.get("state")
        if enabled is True:
            lines.append(_by_init("enable", "rc-update add $fz_s default", "service $fz_s enable"))
        if state is not None:
            lines.append(_STATES.get(state, _STATES["stopped"]))
        if enabled is False:
            lines.append(_by_init("disable", _OPENRC_OFF, "service $fz_s disable"))
        yield Block("\n".join(lines), timeout_s=_TIMEOUT_S)


def _service_question(name: str) -> OutputOf:
    return OutputOf(f'{_INIT}echo "init=$fz_init"\nfz_s={quote(name)}\n{_ASK}')


def _of_systemd(want: Want, words: Mapping[str, str]) -> Have:
    active, unit = words.get("ActiveState", ""), words.get("UnitFileState", "")
    masked = words.get("LoadState") == "masked" or unit.startswith("masked")
    if masked and (want.fields.get("enabled") or want.fields.get("state") == "started"):
        raise want.error("it is masked", f"systemctl unmask {want.fields['name']}")
    enabled = want.fields.get("enabled", True) if unit in _FIXED else unit in _ON
    running = active in ("active", "reloading", "refreshing")
    if active == "activating":  # also between two attempts, after it failed
        running = words.get("SubState") != "auto-restart"
    state = "started" if running else "failed" if active in ("failed", "activating") else "stopped"
    return {"enabled": enabled, "state": state}


def _by_init(systemd: str, openrc: str, rc: str, *, tell: bool = False) -> str:
    """Return lines with a command for each init; `tell`: with what the service said last, if it fails."""
    told = ' || { systemctl status --no-pager -l -n 10 -- "$fz_s" >&2; exit 1; }' if tell else ""
    return (
        f'case $fz_init in systemd|offline) systemctl {systemd} -- "$fz_s" >&2{told} ;;\n'
        f"openrc) {openrc} >&2 ;; rc) {rc} >&2 ;; *) echo 'there is no init system' >&2; exit 1 ;; esac"
    )


_STATES: Final[Mapping[str, str]] = {
    "started": _by_init("start", "rc-service $fz_s start", "service $fz_s onestart", tell=True),
    "stopped": _by_init("stop", "rc-service $fz_s stop", "service $fz_s onestop"),
    "restarted": _by_init("restart", "rc-service $fz_s restart", "service $fz_s onerestart", tell=True),
    # what does not run has nothing to reload, and is started with the new configuration
    "reloaded": (
        "case $fz_init in systemd) systemctl -q is-active -- $fz_s;; openrc) rc-service $fz_s status;;"
        " *) service $fz_s onestatus;; esac >/dev/null 2>&1 && fz_c=reload || fz_c=start\n"
        + _by_init("$fz_c", "rc-service $fz_s $fz_c", "service $fz_s one$fz_c", tell=True)
    ),
}

KINDS = (ServiceKind(),)
