"""The scripts that install, restart and remove the agent, for any POSIX shell.

Everything is checked before anything takes its place: the new files lie beside the old ones, the new agent
tests itself with the new settings as the user that will run it. Only then do they take their names. Whatever
fails from then on (a file, the service manager, an agent that does not come up) gives way to what was there
before, in the same block: also when it is cut off.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fazai.providers.hosts.agent.files import (
    AGENT_PATHS,
    LOG_PATH,
    SCRIPT_PATH,
    SERVICE,
    SERVICES,
    SETTINGS_PATH,
    STATE_FOLDER,
    STATUS_PATH,
    USER,
    AgentFile,
    short_name,
    temporary_names,
)
from fazai.providers.hosts.shell.quoting import append_commands, encode_script, quote


@dataclass(frozen=True, slots=True)
class InstallSite:
    """The place of an installation. `at` maps a path to the host's; `folder`: it has no users and runs
    nothing; `init` names what keeps the agent running; `token` names temporary files."""

    at: Callable[[str], str]
    folder: bool
    init: str
    token: str

    def word(self, path: str) -> str:
        return quote(self.at(path))

    @property
    def temporary(self) -> str:
        """Shell patterns of what an installation that was killed left."""
        return temporary_names(self.at)

    def beside(self, path: str, what: str = "") -> str:
        return quote(f"{posixpath.dirname(self.at(path))}/.fazai-{self.token}-{short_name(path)}{what}")


#: Runs a command as the agent's user, with an environment like that of a service.
_AS_USER: Final = f'as_agent() {{ (cd / && su -s /bin/sh -c "$1" {USER}) </dev/null; }}\n'
_USER: Final = f"""id -u {USER} >/dev/null 2>&1 || {{
fz_shell=/bin/false; for fz_s in /sbin/nologin /usr/sbin/nologin; do [ ! -x $fz_s ] || fz_shell=$fz_s; done
fz_user=made
if command -v useradd >/dev/null; then
fz_group=-U; grep -q '^{USER}:' /etc/group && fz_group="-g {USER}"
useradd -r $fz_group -d {STATE_FOLDER} -M -s $fz_shell {USER}
elif command -v adduser >/dev/null; then
grep -q '^{USER}:' /etc/group || addgroup -S {USER}
adduser -S -D -H -h {STATE_FOLDER} -s $fz_shell -G {USER} {USER}
else echo 'neither useradd nor adduser is there to make the user {USER}' >&2; exit 1; fi
}}
"""


#: Removes the agent's user. That is refused while a process of the user runs, and whatever kept the agent
#: running may take a moment to see that it is gone: tried for some seconds, and why not is said then.
_GONE_USER: Final = f"""{{
fz_gone() {{ if command -v userdel >/dev/null; then userdel {USER}; else deluser {USER}; fi; }}
fz_c=0
until [ $fz_c -ge 25 ] || fz_gone 2>/dev/null || ! id -u {USER} >/dev/null 2>&1; do
fz_c=$((fz_c + 1)); sleep 0.2 2>/dev/null || sleep 1
done
[ $fz_c -lt 25 ] || fz_gone
}}"""


def install_script(
    site: InstallSite, files: Sequence[AgentFile], *, tested: bool, version: str
) -> tuple[bytes, ...]:
    """Return one block that puts the files in place and starts the agent. `tested`: only if its self-test
    succeeds. `version`: what the agent that comes up must say it is; empty: that is not waited for."""
    temporary = " ".join(site.beside(file.path) for file in files)
    old = " ".join(site.beside(file.path, "-old") for file in files)
    head = [
        "set -e; umask 022; fz_user= fz_state= fz_placing=",
        _check_own_ways(site),
        _status_function(site),
        f"fz_away() {{\n{_restore_lines(site, files)}\nrm -f {temporary} {old}; }}",
        # once it began it comes to its end; a signal that is ignored, programs that it starts would ignore
        "trap 'fz_code=$?; trap : HUP PIPE TERM; set +e; fz_away $fz_code; exit $fz_code' EXIT",
        "trap 'exit 129' HUP; trap 'exit 141' PIPE; trap 'exit 143' TERM",
        *(f"mkdir -p {quote(posixpath.dirname(site.at(file.path)))}" for file in files),
        f"rm -f {site.temporary}",
    ]
    if not site.folder:
        head.append(_USER + _AS_USER)
    head.append(f"[ -d {site.word(STATE_FOLDER)} ] || fz_state=made")
    head.append(f"mkdir -p {site.word(STATE_FOLDER)}; chmod 0750 {site.word(STATE_FOLDER)}")
    if not site.folder:
        head.append(f"chown {USER}:{USER} {site.word(STATE_FOLDER)}")
    chunks = [encode_script("\n".join(head) + "\n")]
    for file in files:
        place = site.beside(file.path)
        chunks.append(encode_script(f'fz_tmp={place}; (umask 077; set -C; : >"$fz_tmp")\n'))
        chunks += append_commands(file.data)
        owner = f'chown {USER}:{USER} "$fz_tmp"; ' if file.owned and not site.folder else ""
        chunks.append(encode_script(f'{owner}chmod {file.mode} "$fz_tmp"\nfz_sync "$fz_tmp"\n'))
    chunks.append(encode_script("fz_tmp=\n" + _take_place(site, files, tested, version)))
    return tuple(chunks)


def _check_own_ways(site: InstallSite) -> str:
    """Return a line that ends the script where somebody else can lead one of the agent's paths elsewhere.
    Nobody but root may write to the agent's folders; in its state folder, where its user may, only names
    are removed."""
    return f"fz_own_ways {' '.join(map(site.word, (*AGENT_PATHS, STATE_FOLDER)))}"


def _status_function(site: InstallSite) -> str:
    """Return a function that prints the status. The agent's user writes it: what is no file is not opened,
    as nobody need ever write into a pipe."""
    status = site.word(STATUS_PATH)
    return f"fz_status() {{ [ -h {status} ] || [ ! -f {status} ] || head -c 65536 {status} 2>/dev/null; }}"


def _take_place(site: InstallSite, files: Sequence[AgentFile], tested: bool, version: str) -> str:
    test = f"{site.beside(SCRIPT_PATH)} --selftest --config {site.beside(SETTINGS_PATH)}"
    passes = (
        f"fz_said=$(as_agent {quote(test)} 2>&1) || {{\n"
        "printf 'the new agent does not pass its self-test, the old one stays:\\n%s\\n' \"$fz_said\" "
        "| grep -v '^ok ' >&2; exit 1; }"
    )
    places = [
        (site.word(file.path), site.beside(file.path), site.beside(file.path, "-old")) for file in files
    ]
    lines = [
        *([_comes_up_function(site, version)] if version else ()),
        *([passes] if tested and not site.folder else ()),
        *(f"[ ! -e {path} ] || cp -p {path} {old}" for path, _, old in places),
        f"fz_placing=1\n{_end_backoff(site)}",
        *(f"mv -f {new} {path}" for path, new, _ in places),
        _start_lines(site),
        *([_await_agent(site, "the new agent")] if version else ()),
        "fz_placing=",
    ]
    return "\n".join(lines)


def _await_agent(site: InstallSite, noun: str) -> str:
    """Return a line that ends the script when the agent that was just started does not come up."""
    return f"fz_comes_up || {{ echo '{noun} did not come up' >&2; {_show_log_end(site)}\nexit 1; }}"


def _start_lines(site: InstallSite) -> str:
    """Return lines that start the agent anew, without the status file of the one before."""
    gone = f"fz_wait=1; fz_old=$({_pid_command()}); rm -f {site.word(STATUS_PATH)}"
    if site.folder or site.init == "none":
        return _end_running(site, gone)
    if site.init == "systemd":
        return (
            f"systemctl daemon-reload\nsystemctl enable -q {SERVICE}.service\n{gone}\n"
            f"systemctl restart {SERVICE}.service || :"
        )
    if site.init == "openrc":
        return f"rc-update -q add {SERVICE} default\n{gone}\nrc-service {SERVICE} restart || :"
    command = f"{site.word(SCRIPT_PATH)} --once --config {site.word(SETTINGS_PATH)}"
    return f"{gone}\nas_agent {quote(command)} >/dev/null 2>&1 || [ $? = 1 ] || :"


def _pid_command() -> str:
    """Return a command that prints the number of the agent's process. Its user writes that file: digits are
    taken, and nothing else."""
    return "fz_status | sed -n 's/^pid=\\([1-9][0-9]\\{0,9\\}\\)$/\\1/p;/^pid=/q'"


def _end_running(site: InstallSite, gone: str) -> str:
    """Return lines that end an agent that runs: whoever keeps it running, which we do not know, starts it
    anew."""
    whose = f'"$(fz_own {site.word(STATE_FOLDER)})"' if site.folder else f'"$(id -u {USER}):$(id -g {USER})"'
    return (  # when what was there is put back, the status may be removed already
        f"fz_p=$({_pid_command()}); fz_pid=${{fz_p:-${{fz_pid-}}}}; fz_wait=\n"
        f'if [ -n "$fz_pid" ] && [ "$(fz_own "/proc/$fz_pid")" = {whose} ] &&'
        f" tr '\\0' '\\n' <\"/proc/$fz_pid/cmdline\" 2>/dev/null"
        f' | grep -qxF {site.word(SCRIPT_PATH)}\nthen {gone}; kill -TERM "$fz_pid"; fi'
    )


def _comes_up_function(site: InstallSite, version: str) -> str:
    """Return a function that waits for a status of this version by the agent that was just started."""
    wanted = quote(f"version={version}")
    early = ""
    if site.init == "systemd" and not site.folder:  # it will not try again
        early = f"case $(systemctl is-active {SERVICE}.service) in failed | inactive) return 1;; esac\n"
    running = "" if site.init == "cron" and not site.folder else "fz_status | grep -qx state=running && "
    return (
        'fz_comes_up() {\n[ -n "$fz_wait" ] || return 0\nfz_k=0\nwhile [ $fz_k -lt 100 ]; do\n'
        f"if fz_status | grep -qxF {wanted} && {running}"
        '! fz_status | grep -qxF "pid=$fz_old"\n'
        f"then return 0; fi\n{early}"
        "sleep 0.1 2>/dev/null || { sleep 1; fz_k=$((fz_k + 9)); }\nfz_k=$((fz_k + 1))\ndone\nreturn 1; }"
    )


def _restore_lines(site: InstallSite, files: Sequence[AgentFile]) -> str:
    """Return lines for the end of a block, however it came: what was there before runs again; or nothing,
    where there was nothing. Its user and folder go as well, where they were made here and nothing is in them.
    """
    lines = [
        "if [ -n \"$fz_placing\" ]; then\necho 'what was there before is put back' >&2",
        f"if [ ! -e {site.beside(SCRIPT_PATH, '-old')} ]; then {_stop_lines(site)}; fi",
    ]
    for file in files:
        old, path = site.beside(file.path, "-old"), site.word(file.path)
        lines.append(f"if [ -e {old} ]; then mv -f {old} {path}; fz_back=1; else rm -f {path}; fi")
    lines += [
        f'if [ -n "${{fz_back-}}" ]; then {_start_lines(site)}; fi\nfi\nif [ "$1" != 0 ]; then',
        f'[ -z "$fz_state" ] || (fz_rmtree {site.word(STATE_FOLDER)}) 2>/dev/null',
        *([] if site.folder else [f'[ -z "$fz_user" ] || {_GONE_USER}']),
        ":\nfi",
    ]
    return "\n".join(lines)


def _show_log_end(site: InstallSite) -> str:
    """Return a line that shows the end of the agent's log."""
    if site.init == "systemd":
        return f"journalctl -u {SERVICE}.service -n 5 --no-pager -o cat >&2 2>/dev/null || :"
    # where others may write to its folder, it may be a link to what is not to be shown
    seen = '[ -z "$fz_who" ] && [ -f "./$fz_name" ] && tail -n 5 "./$fz_name"'
    return f"(fz_enter {site.word(LOG_PATH)} && {seen}) >&2 2>/dev/null || :"


#: Until the agent that was told to end has gone: it still delivers what waits.
_ENDED: Final = (
    '[ -z "$fz_wait" ] || { fz_k=0; while [ $fz_k -lt 200 ] && kill -0 "$fz_pid" 2>/dev/null; do\n'
    "sleep 0.1 2>/dev/null || { sleep 1; fz_k=$((fz_k + 9)); }\nfz_k=$((fz_k + 1)); done; }"
)


def _stop_lines(site: InstallSite) -> str:
    if site.folder or site.init == "none":
        return _end_running(site, "fz_wait=1") + "\n" + _ENDED
    if site.init == "systemd":
        return (
            f"systemctl disable -q --now {SERVICE}.service 2>/dev/null || :\nsystemctl daemon-reload || :\n"
            f"systemctl reset-failed {SERVICE}.service 2>/dev/null || :"
        )
    if site.init == "openrc":
        return f"rc-service {SERVICE} stop || :\nrc-update -q del {SERVICE} default || :"
    return ":"


def _end_backoff(site: InstallSite) -> str:
    """Return a line that ends the wait which a failure imposed: what it waited for may be what changes."""
    backoff = site.word(f"{STATE_FOLDER}/backoff")
    return f"fz_status | grep -q '^last_error=status \\(429\\|503\\)' || rm -f {backoff}"


def restart_script(site: InstallSite, version: str) -> str:
    """Return a script that starts the agent anew, without the wait that a failure imposed, unless the server
    asked for it."""
    lines = [
        "set -e",
        _AS_USER,
        _status_function(site),
        _end_backoff(site),
        _comes_up_function(site, version),
        _start_lines(site),
        _await_agent(site, "the agent"),
    ]
    return "\n".join(lines)


def tail_script(root: str, lines: int, most_bytes: int) -> str:
    """Return a script that prints the end of the agent's log: the journal's, else the file's, else what its
    status says last."""
    log, status = quote(root.rstrip("/") + LOG_PATH), quote(root.rstrip("/") + STATUS_PATH)
    journal = f"journalctl -u {SERVICE}.service -n {lines} --no-pager -o cat"
    first = "if false; then :" if root else f"if [ -d /run/systemd/system ]; then {journal}"
    return (
        f"{{ {first}\nelif [ -r {log} ]; then fz_with {log} tail -n {lines}\n"
        f"elif [ -r {status} ]; then fz_with {status} grep '^last_error'; fi; }} | tail -c {most_bytes}"
    )


def removal_script(site: InstallSite) -> str:
    """Return a script that removes everything of the agent, with its spool and its user."""
    if site.folder or site.init == "none":  # whoever keeps it running would start it anew
        stop = f"rm -f {site.word(SCRIPT_PATH)}\n{_stop_lines(site)}"
    else:
        stop = f"if [ -e {site.word(SERVICES[site.init].path)} ]; then {_stop_lines(site)}; fi"
    folder = posixpath.dirname(site.at(SCRIPT_PATH))
    lines = [
        "set -e",
        _check_own_ways(site),
        _status_function(site),
        stop,
        f"rm -f {' '.join(map(site.word, AGENT_PATHS))} {site.temporary}",
        f"(fz_rm {site.word(LOG_PATH)})",  # others may write to its folder
        f"[ ! -e {site.word(STATE_FOLDER)} ] || (fz_rmtree {site.word(STATE_FOLDER)})",
        *(f"rmdir {quote(each)} 2>/dev/null || :" for each in (folder, posixpath.dirname(folder))),
    ]
    if site.init == "systemd" and not site.folder:
        lines.append("systemctl daemon-reload || :")
    if not site.folder:
        lines.append(f"! id -u {USER} >/dev/null 2>&1 || {_GONE_USER}")
    return "\n".join(lines)
