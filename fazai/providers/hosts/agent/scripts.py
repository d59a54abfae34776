"""The scripts that install, restart and remove the agent, for any POSIX shell.

Everything is checked before anything takes its place: the new files lie beside the old ones, the new agent
tests itself with the new settings as the user that will run it. Only then do they take their names. Whatever
fails from then on (a file, the service manager, an agent that does not come up) gives way to what was there
before, in the same block: also when it is cut off.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

from fazai.compat.language import dataclass
from fazai.providers.hosts.agent.layout import AgentFile, AgentLayout, InstallSite
from fazai.providers.hosts.shell.quoting import append_commands, encode_script, quote


@dataclass(frozen=True, slots=True)
class Proving:
    """The proof that a new agent has to give, as lines of shell. `prepare` and `test` are run before anything
    takes its place, `placing` when all is to; `comes_up` is a function fz_comes_up that waits for the agent
    that was just started, and fails when it does not come up; `undone` when what was there before is put
    back."""

    comes_up: str
    prepare: str = ""
    test: str = ""
    placing: str = ""
    undone: str = ""


_USER: Final = """id -u USER >/dev/null 2>&1 || {
fz_shell=/bin/false; for fz_s in /sbin/nologin /usr/sbin/nologin; do [ ! -x $fz_s ] || fz_shell=$fz_s; done
fz_user=made
if command -v useradd >/dev/null; then
fz_group=-U; grep -q '^USER:' /etc/group && fz_group="-g USER"
useradd -r $fz_group -d STATE -M -s $fz_shell USER
elif command -v adduser >/dev/null; then
grep -q '^USER:' /etc/group || addgroup -S USER
adduser -S -D -H -h STATE -s $fz_shell -G USER USER
elif command -v pw >/dev/null; then pw useradd USER -d STATE -s $fz_shell
else echo 'neither useradd nor adduser is there to make the user USER' >&2; exit 1; fi
}
"""


#: Removes the agent's user. That is refused while a process of the user runs, and whatever kept the agent
#: running may take a moment to see that it is gone: tried for some seconds, and why not is said then.
_GONE_USER: Final = """{
fz_gone() {
if command -v userdel >/dev/null; then userdel USER; elif command -v pw >/dev/null; then pw userdel USER
else deluser USER; fi; }
fz_c=0
until [ $fz_c -ge 25 ] || fz_gone 2>/dev/null || ! id -u USER >/dev/null 2>&1; do
fz_c=$((fz_c + 1)); sleep 0.2 2>/dev/null || sleep 1
done
[ $fz_c -lt 25 ] || fz_gone
}"""


def _with_user(text: str, site: InstallSite) -> str:
    return text.replace("USER", site.layout.user).replace("STATE", site.layout.state)


def as_agent_function(site: InstallSite) -> str:
    """Return a function that runs a command as the agent's user, with an environment like that of a
    service. Its input is the caller's."""
    run = _with_user('su -s /bin/sh -c "$1" USER', site) if site.makes_user else '/bin/sh -c "$1"'
    return f"as_agent() {{ (cd / && {run}); }}"


def _user_lines(site: InstallSite) -> list[str]:
    """Return lines that make the agent's user and its folders. What root had in them becomes the user's."""
    folders = (site.layout.state, *site.layout.folders)
    names = " ".join(map(site.word, folders))
    lines = [_with_user(_USER, site)] if site.makes_user else []
    lines.append(f"[ -d {site.word(site.layout.state)} ] || fz_state=made")
    lines.append(f"mkdir -p {names}; chmod {site.layout.folder_mode} {names}")
    if site.makes_user:
        account = f"{site.layout.user}:{site.layout.user}"
        lines += [
            f"case $(fz_own {name}) in 0:*) chown -R {account} {name};; *) chown {account} {name};; esac"
            for name in map(site.word, folders)
        ]
    return lines


def install_script(
    site: InstallSite, files: Sequence[AgentFile], proving: Proving | None
) -> tuple[bytes, ...]:
    """Return one block that puts the files in place and starts the agent. `proving` None: they were there
    before, and have nothing to prove."""
    temporary = " ".join(site.beside(file.path) for file in files)
    old = "" if site.layout.kept else " ".join(site.old(file.path) for file in files)
    head = [
        "set -e; umask 022; fz_user= fz_state= fz_placing=",
        _check_own_ways(site),
        pid_function(site),
        as_agent_function(site),
        f"fz_away() {{\n{_restore_lines(site, files, proving)}\nrm -f {temporary} {old}; }}",
        # once it began it comes to its end; a signal that is ignored, programs that it starts would ignore
        "trap 'fz_code=$?; trap : HUP PIPE TERM; set +e; fz_away $fz_code; exit $fz_code' EXIT",
        "trap 'exit 129' HUP; trap 'exit 141' PIPE; trap 'exit 143' TERM",
        *(f"mkdir -p {quote(posixpath.dirname(site.at(file.path)))}" for file in files),
        f"rm -f {site.layout.temporary_names(site.at)}",
        *_user_lines(site),
    ]
    chunks = [encode_script("\n".join(head) + "\n")]
    for file in files:
        place = site.beside(file.path)
        chunks.append(encode_script(f'fz_tmp={place}; (umask 077; set -C; : >"$fz_tmp")\n'))
        chunks += append_commands(file.data)
        user = site.layout.user
        owner = f'chown {user}:{user} "$fz_tmp"; ' if file.owned and site.makes_user else ""
        chunks.append(encode_script(f'{owner}chmod {file.mode} "$fz_tmp"\nfz_sync "$fz_tmp"\n'))
    chunks.append(encode_script("fz_tmp=\n" + _take_place(site, files, proving)))
    return tuple(chunks)


def _check_own_ways(site: InstallSite) -> str:
    """Return a line that ends the script where somebody else can lead one of the agent's paths elsewhere.
    Nobody but root may write to the agent's folders; in those of its user, only names are removed."""
    layout = site.layout
    return f"fz_own_ways {' '.join(map(site.word, (*layout.paths, layout.state, *layout.folders)))}"


def pid_function(site: InstallSite) -> str:
    """Return functions that print what the agent says of itself, and the number of its process. The agent's
    user writes both: what is no file is not opened, as nobody need ever write into a pipe, and of the number
    digits are taken, and nothing else."""
    return (
        'fz_text() { [ -h "$1" ] || [ ! -f "$1" ] || head -c 65536 "$1" 2>/dev/null; }\n'
        f"fz_status() {{ fz_text {site.word(site.layout.status)}; }}\n"
        f"fz_pid_now() {{ fz_text {site.word(site.layout.pid_file)} |"
        " sed -n 's/^pid=\\([1-9][0-9]\\{0,9\\}\\)$/\\1/p;/^pid=/q'; }"
    )


def _take_place(site: InstallSite, files: Sequence[AgentFile], proving: Proving | None) -> str:
    places = [(site.word(file.path), site.beside(file.path), site.old(file.path)) for file in files]
    first = [proving.comes_up, proving.prepare, proving.test] if proving is not None else []
    lines = [
        *filter(None, first),
        *(f"rm -f {old}; [ ! -e {path} ] || cp -p {path} {old}" for path, _, old in places),
        "fz_placing=1",
        *([proving.placing] if proving is not None and proving.placing else ()),
        *(f"mv -f {new} {path}" for path, new, _ in places),
        _start_lines(site),
        *([_await_agent(site, "the new agent")] if proving is not None else ()),
        "fz_placing=",
    ]
    return "\n".join(lines)


def _await_agent(site: InstallSite, noun: str) -> str:
    """Return a line that ends the script when the agent that was just started does not come up."""
    asked = ""
    if not site.managed:  # whoever keeps it running has to start it again
        asked = (
            '[ "$(fz_pid_now)" != "${fz_old-}" ] || echo \'nothing started it again after it was ended;'
            " with init: none that is not for fazai to do' >&2; "
        )
    return f"fz_comes_up || {{ {asked}echo '{noun} did not come up' >&2; {_show_log_end(site)}\nexit 1; }}"


def _start_lines(site: InstallSite) -> str:
    """Return lines that start the agent anew, without the status file of the one before."""
    service = site.layout.service
    gone = f"fz_wait=1; fz_old=$(fz_pid_now); rm -f {site.word(site.layout.status)}"
    if not site.managed:
        return _end_running(site, gone)
    if site.init == "systemd":
        return (
            f"systemctl daemon-reload\nsystemctl enable -q {service}.service\n{gone}\n"
            f"systemctl restart {service}.service || :"
        )
    if site.init == "openrc":
        return f"rc-update -q add {service} default\n{gone}\nrc-service {service} restart || :"
    if site.init == "rc":
        service = service.replace("-", "_")
        return f"service {service} enable >/dev/null\n{gone}\nservice {service} restart || :"
    command = f"{site.word(site.layout.program)} --once --config {site.word(site.layout.settings)}"
    return f"{gone}\nas_agent {quote(command)} </dev/null >/dev/null 2>&1 || [ $? = 1 ] || :"


def _end_running(site: InstallSite, gone: str) -> str:
    """Return lines that end an agent that runs: whoever keeps it running, which we do not know, starts it
    anew."""
    user, state = site.layout.user, site.word(site.layout.state)
    whose = f'"$(fz_own {state})"' if site.folder else f'"$(id -u {user}):$(id -g {user})"'
    names = " ".join(f"-e {site.word(path)}" for path in site.layout.runs)
    return (  # when what was there is put back, the status may be removed already
        "fz_p=$(fz_pid_now); fz_pid=${fz_p:-${fz_pid-}}; fz_wait=\n"
        f'if [ -n "$fz_pid" ] && [ "$(fz_own "/proc/$fz_pid")" = {whose} ] &&'
        " tr '\\0' '\\n' <\"/proc/$fz_pid/cmdline\" 2>/dev/null"
        f' | grep -qxF {names}\nthen {gone}; kill -TERM "$fz_pid"; fi'
    )


def _restore_lines(site: InstallSite, files: Sequence[AgentFile], proving: Proving | None) -> str:
    """Return lines for the end of a block, however it came: what was there before runs again; or nothing,
    where there was nothing. Its user and folder go as well, where they were made here and nothing is in them.
    """
    layout = site.layout
    lines = [
        "if [ -n \"$fz_placing\" ]; then\necho 'what was there before is put back' >&2",
        f"if [ ! -e {site.old(layout.program)} ]; then {_stop_lines(site)}; fi",
    ]
    for file in files:
        old, path = site.old(file.path), site.word(file.path)
        lines.append(f"if [ -e {old} ]; then mv -f {old} {path}; fz_back=1; else rm -f {path}; fi")
    lines += [proving.undone] if proving is not None and proving.undone else []
    folders = [f"(fz_rmtree {site.word(each)})" for each in (layout.state, *layout.folders)]
    lines += [
        f'if [ -n "${{fz_back-}}" ]; then {_start_lines(site)}; fi\nfi\nif [ "$1" != 0 ]; then',
        f'[ -z "$fz_state" ] || {{ {"; ".join(folders)}; }} 2>/dev/null',
        *([f'[ -z "$fz_user" ] || {_with_user(_GONE_USER, site)}'] if site.makes_user else []),
        ":\nfi",
    ]
    return "\n".join(lines)


def _show_log_end(site: InstallSite) -> str:
    """Return a line that shows the end of the agent's log."""
    if site.init == "systemd":
        return f"journalctl -u {site.layout.service}.service -n 5 --no-pager -o cat >&2 2>/dev/null || :"
    # where others may write to its folder, it may be a link to what is not to be shown
    seen = '[ -z "$fz_who" ] && [ -f "./$fz_name" ] && tail -n 5 "./$fz_name"'
    return f"(fz_enter {site.word(site.layout.log)} && {seen}) >&2 2>/dev/null || :"


#: Until the agent that was told to end has gone: it still delivers what waits.
_ENDED: Final = (
    '[ -z "$fz_wait" ] || { fz_k=0; while [ $fz_k -lt 200 ] && kill -0 "$fz_pid" 2>/dev/null; do\n'
    "sleep 0.1 2>/dev/null || { sleep 1; fz_k=$((fz_k + 9)); }\nfz_k=$((fz_k + 1)); done; }"
)


def _stop_lines(site: InstallSite) -> str:
    service = site.layout.service
    if not site.managed:
        return _end_running(site, "fz_wait=1") + "\n" + _ENDED
    if site.init == "systemd":
        return (
            f"systemctl disable -q --now {service}.service 2>/dev/null || :\nsystemctl daemon-reload || :\n"
            f"systemctl reset-failed {service}.service 2>/dev/null || :"
        )
    if site.init == "openrc":
        return f"rc-service {service} stop || :\nrc-update -q del {service} default || :"
    if site.init == "rc":
        service = service.replace("-", "_")
        return f"service {service} onestop || :\nservice {service} disable >/dev/null || :"
    return ":"


def restart_script(site: InstallSite, proving: Proving) -> str:
    """Return a script that starts the agent anew."""
    lines = ["set -e", as_agent_function(site), pid_function(site), proving.placing, proving.comes_up]
    lines += [_start_lines(site), _await_agent(site, "the agent")]
    return "\n".join(filter(None, lines))


def tail_script(layout: AgentLayout, root: str, lines: int, most_bytes: int) -> str:
    """Return a script that prints the end of the agent's log: the journal's, else the file's, else what its
    status says last."""
    log, status = quote(root.rstrip("/") + layout.log), quote(root.rstrip("/") + layout.status)
    journal = f"journalctl -u {layout.service}.service -n {lines} --no-pager -o cat"
    first = "if false; then :" if root else f"if [ -d /run/systemd/system ]; then {journal}"
    return (
        f"{{ {first}\nelif [ -r {log} ]; then fz_with {log} tail -n {lines}\n"
        f"elif [ -r {status} ]; then fz_with {status} grep '^last_error'; fi; }} | tail -c {most_bytes}"
    )


def removal_script(site: InstallSite) -> str:
    """Return a script that removes everything of the agent, with its spool and its user."""
    layout = site.layout
    if site.managed:
        stop = f"if [ -e {site.word(layout.services[site.init].path)} ]; then {_stop_lines(site)}; fi"
    else:  # whoever keeps it running would start it anew
        stop = f"rm -f {' '.join(map(site.word, layout.runs))}\n{_stop_lines(site)}"
    folder = posixpath.dirname(site.at(layout.program))
    kept = [site.old(path) for path in layout.paths] if layout.kept else []
    lines = [
        "set -e",
        _check_own_ways(site),
        pid_function(site),
        stop,
        f"rm -f {' '.join([*map(site.word, layout.paths), *kept])} {layout.temporary_names(site.at)}",
        f"(fz_rm {site.word(layout.log)})",  # others may write to its folder
        *(
            f"[ ! -e {each} ] || (fz_rmtree {each})"
            for each in map(site.word, (layout.state, *layout.folders))
        ),
        *(f"rmdir {quote(each)} 2>/dev/null || :" for each in (folder, posixpath.dirname(folder))),
    ]
    if site.init == "systemd" and not site.folder:
        lines.append("systemctl daemon-reload || :")
    if site.makes_user:
        lines.append(_with_user(f"! id -u USER >/dev/null 2>&1 || {_GONE_USER}", site))
    return "\n".join(lines)


def return_script(site: InstallSite) -> str:
    """Return a script that puts back the files that an update replaced, and starts them."""
    paths = [*site.layout.words, *([site.layout.services[site.init].path] if site.managed else [])]
    lines = [
        "set -e",
        _check_own_ways(site),
        as_agent_function(site),
        pid_function(site),
        *(f"[ ! -e {site.old(path)} ] || mv -f {site.old(path)} {site.word(path)}" for path in paths),
        _start_lines(site),
    ]
    return "\n".join(lines)
