"""host.telemetry_agent"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.agent.files import (
    AGENT_PATHS,
    INITS,
    SCRIPT_PATH,
    SERVICE_PATHS,
    SERVICES,
    SETTINGS_PATH,
    STATUS_PATH,
    USER,
    AgentFile,
    agent_script,
    service_file,
    shipped_version,
)
from fazai.providers.hosts.agent.health import AgentReport, look_script, read_report
from fazai.providers.hosts.agent.scripts import InstallSite, install_script, removal_script, restart_script
from fazai.providers.hosts.agent.settings import (
    INTERVAL_S,
    find_setting_problems,
    read_agent_settings,
    settings_of_fields,
    settings_text,
    with_current_head,
)
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Difference, Have, HostKind, Want
from fazai.providers.hosts.shell.questions import (
    KEPT_BYTES,
    ContentOf,
    FileAt,
    Output,
    OutputOf,
    PathState,
    Question,
    find_output,
)

_OPTIONS: Final = frozenset(("grace", "init", "not_pid", "state"))
_LIMIT_BYTES: Final = 64 * 1024
_SECONDS: Final = 120.0  # for the self-test, the start, and the way back
#: What is written by starting it again, and needs no file.
_STARTED: Final = frozenset(("running", "delivery", "process"))


class AgentKind(HostKind):
    """The telemetry agent of a host: its files, its user, its service, and that it delivers."""

    name = "host.telemetry_agent"
    summary = "The telemetry agent: installed, configured, running, delivering"
    example = (
        "host.telemetry_agent: {server: https://fazai.example.net:3120, interval: 60, "
        'hostname: "{{inventory_hostname}}"}'
    )
    identity = ()
    options = _OPTIONS
    specs = (
        FieldSpec("server", "text", "the daemon: https://HOST[:PORT][/PREFIX]", required=True),
        FieldSpec("interval", "number", "seconds between samples", minimum=0, maximum=86_400, default=60),
        FieldSpec(
            "key",
            "secret",
            "signs the records; the daemon has the same in secrets/hosts/NAME.key. A second line is the"
            " previous key, while it changes: see `fazai agents rotate-key`",
        ),
        FieldSpec("token", "secret", "bearer token, where the daemon asks for one"),
        FieldSpec("hostname", "text", "the name in the records; the host's own when not given", unique=True),
        FieldSpec("sample", "list", "what a sample holds; everything when not given"),
        FieldSpec("top", "integer", "processes by CPU, and as many by memory", minimum=0, maximum=100),
        FieldSpec("checks", "path", "the folder of checks", default="/etc/fazai/checks.d"),
        FieldSpec("ca_file", "path", "authorities to trust instead of the system's"),
        FieldSpec("allow_http", "boolean", "plain http to a host other than itself"),
        FieldSpec("settings", "map", "the agent's other settings: backoff_max_s, batch_records…"),
        FieldSpec("init", "choice", "who keeps it running, if not what the host has", choices=INITS),
        FieldSpec(
            "grace", "integer", "seconds without a delivery that are no drift yet", minimum=0, default=120
        ),
        FieldSpec("not_pid", "integer", "an agent that runs as this process is restarted"),
        PRESENCE,
    )
    proves = True
    asked = True
    account: ClassVar[str] = USER  # whose the settings are

    # -- before any contact -----------------------------------------------------------------------------

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        return "telemetry"  # a host has one

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        return () if absent else find_setting_problems(fields)

    # -- questions and answers --------------------------------------------------------------------------

    def in_folder(self, at: Callable[[str], str]) -> bool:
        """Tell whether the host is a folder (`root:`), which holds files, has no users and runs nothing."""
        return at("/") != "/"

    def ask(self, want: Want) -> Iterable[Question]:
        at = want.at
        yield FileAt(at(SCRIPT_PATH), True)
        yield FileAt(at(SETTINGS_PATH))
        yield from (FileAt(at(path), True) for path in SERVICE_PATHS)
        yield ContentOf(at(SETTINGS_PATH), _LIMIT_BYTES)
        yield ContentOf(at(STATUS_PATH), _LIMIT_BYTES)
        yield self._look(want)

    def _look(self, want: Want) -> OutputOf:
        return OutputOf(look_script(want.fields.get("init"), want.at, folder=self.in_folder(want.at)))

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        """Ask for the contents that are there, to be put back when a run is undone."""
        have = self.read(want, answers)
        if have is not None and "settings" in have and self.compare(want, have) is not None:
            yield ContentOf(want.at(SCRIPT_PATH), KEPT_BYTES)
            yield from (ContentOf(want.at(path), KEPT_BYTES) for path in SERVICE_PATHS)

    def read(self, want: Want, answers: Answers) -> Have | None:
        paths = {
            path: want.state(answers, FileAt(want.at(path), path != SETTINGS_PATH)) for path in AGENT_PATHS
        }
        said = find_output(answers, self._look(want))
        status = want.output(answers, ContentOf(want.at(STATUS_PATH), _LIMIT_BYTES))
        try:
            report = read_report(
                said.out,
                status.out if status.exit == 0 else b"",
                folder=self.in_folder(want.at),
                interval_s=float(want.fields.get("interval", INTERVAL_S)),
                grace_s=want.fields.get("grace"),
            )
        except (KeyError, ValueError):
            raise want.error(
                "the host does not say how its agent is", "it needs a POSIX sh and date"
            ) from None
        present = [path for path, state in paths.items() if state.type != "missing"]
        if not present:  # what keeps things running there is known all the same
            gone = want.absent and not report.remains
            return None if gone else {"report": report, "paths": paths}
        settings = want.output(answers, ContentOf(want.at(SETTINGS_PATH), _LIMIT_BYTES))
        if SETTINGS_PATH in present and settings.exit:
            raise want.error(f"{SETTINGS_PATH} may not be read", "become: true")
        return {
            "report": report,
            "settings": settings.out,
            "paths": paths,
            "kept": _files_to_keep(want, answers, paths, settings.out),
        }

    def claim(self, want: Want, have: Have | None) -> str:
        """Return the name under which the daemon knows the agent: as declared, else the host's own."""
        name = want.fields.get("hostname") or (have["report"].hostname if have is not None else "")
        return f'the agent "{name}" of {want.fields["server"]}' if name and not want.absent else ""

    # -- comparing --------------------------------------------------------------------------------------

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        if want.absent:
            if have is None:
                return None
            return Verb.DELETE, {"version": have["report"].version or "unknown"}, {}
        if have is None or have["paths"][SCRIPT_PATH].type == "missing":
            declared = {k: v for k, v in want.fields.items() if k not in _OPTIONS}
            return Verb.CREATE, {}, {"version": shipped_version(), **declared}
        differing = dict(self._files(want, have))
        differing.update(_running_differences(want, have["report"]))
        if not differing:
            return None
        before = {name: old for name, (old, _) in differing.items()}
        return Verb.UPDATE, before, {name: new for name, (_, new) in differing.items()}

    def _files(self, want: Want, have: Have) -> Iterator[tuple[str, tuple[Value, Value]]]:
        """Iterate over the fields that differ, with their values before and after."""
        report: AgentReport = have["report"]
        paths, folder = have["paths"], self.in_folder(want.at)
        yield from _version_difference(report, paths[SCRIPT_PATH])
        _, settings, *services = self.wanted_files(want.fields, report.init)
        text, old = settings.data, with_current_head(have["settings"])
        if old != text:
            before, after = read_agent_settings(old), read_agent_settings(text)
            names = [n for n in {**after, **before} if before.get(n) != after.get(n)]
            yield from ((name, (before.get(name, ""), after.get(name, ""))) for name in names)
            if not names:
                yield "settings", ("changed by hand", "as declared")
        state = paths[SETTINGS_PATH]
        if state.type == "file" and (state.mode, folder or state.user) != (0o600, folder or self.account):
            yield "settings_of", (f"{state.mode:04o} {state.user}", f"0600 {self.account}")
        for file in services:
            found = paths[file.path]
            if found.type != "file" or found.sha256 != Blob.of(file.data).sha256:
                yield "service", ("none" if found.type == "missing" else "altered", report.init)
        if not report.user:
            yield "user", ("none", USER)
        if report.unfinished:  # what runs may be older than its files
            yield "installation", ("cut", "whole")

    def wanted_files(self, fields: Mapping[str, Value], init: str) -> list[AgentFile]:
        """Return the files as they are to be: script, settings, and the service's where there is one."""
        files = [
            AgentFile(SCRIPT_PATH, agent_script(), "0755"),
            AgentFile(SETTINGS_PATH, settings_text(settings_of_fields(fields, init)), "0600", owned=True),
        ]
        if init in SERVICES:
            service, interval_s = SERVICES[init], fields.get("interval", INTERVAL_S)
            files.append(AgentFile(service.path, service_file(init, interval_s), service.mode))
        return files

    def is_left(self, want: Want, wrote: Mapping[str, Value], after: object, found: Have | None) -> bool:
        """Judge by its files, its account, and that nobody stopped it; whether it delivers does not
        matter."""
        if want.absent:
            return found is None
        if wrote.keys() <= _STARTED:  # of which nothing is taken back
            return True
        if found is None or "settings" not in found:
            return False
        report: AgentReport = found["report"]
        stopped = report.active == "inactive" or not report.enabled  # one that fell down has "failed"
        return not stopped and {name for name, _ in self._files(want, found)} <= {"installation"}

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, act: Act) -> Iterator[Block]:
        site = InstallSite(act.at, self.in_folder(act.at), self._init(act), act.token)
        memory = ("kept", self.name, act.identity)
        if act.undone:
            yield from _restore_blocks(site, act, act.memory.get(memory, ()))
            return
        kept: tuple[AgentFile, ...] = act.have.get("kept", ())
        act.memory[memory] = () if act.verb is Verb.CREATE else kept
        if act.verb is Verb.DELETE:
            yield Block(removal_script(site), timeout_s=_SECONDS)
        elif act.verb is Verb.UPDATE and act.after.keys() <= _STARTED:
            yield Block(restart_script(site, shipped_version()), timeout_s=_SECONDS)
        else:
            files = self.wanted_files(act.options, site.init)
            yield Block(
                install_script(site, files, tested=True, version=shipped_version()), timeout_s=_SECONDS
            )

    def _init(self, act: Act) -> str:
        """Return what keeps the agent running: as declared, else as the host said."""
        wanted = act.options.get("init")
        init = wanted or act.memory.get(("init", self.name)) or "systemd"
        report = act.have.get("report")
        if report is not None and not wanted:
            init = report.init
        act.memory["init", self.name] = init
        return str(init)

    def proof(self, want: Want, have: Have | None) -> str | None:
        """Return why what was started does not deliver; None when it does, "" while that is open."""
        report: AgentReport | None = None if have is None else have["report"]
        if want.absent or report is None or (not report.status and report.running is None):
            return None
        return report.proof()


def _version_difference(report: AgentReport, path: PathState) -> Iterator[tuple[str, tuple[Value, Value]]]:
    if path.sha256 != Blob.of(agent_script()).sha256:
        old = report.version or "unknown"
        same = old == shipped_version()
        yield "version", (f"{old} (altered)" if same else old, shipped_version())
    elif path.mode != 0o755:
        yield "script_mode", (f"{path.mode:04o}", "0755")


def _running_differences(want: Want, report: AgentReport) -> Iterator[tuple[str, tuple[Value, Value]]]:
    """Iterate over what keeps the agent from running and delivering, where that can be told."""
    if report.init in ("systemd", "openrc", "cron") and not report.folder:
        if report.active != "active":
            yield "running", (report.active or "no", "active")
        elif not report.enabled:
            yield "running", ("active, not enabled", "active")
    trouble = report.trouble()
    if trouble is not None:
        yield "delivery", (trouble, "delivering")
    pid = report.number("pid")
    if pid is not None and pid == want.fields.get("not_pid"):
        yield "process", (pid, "another")


def _restore_blocks(site: InstallSite, act: Act, kept: tuple[AgentFile, ...]) -> Iterator[Block]:
    """Iterate over blocks that put back the files that were there, and start them."""
    if act.verb is Verb.DELETE:
        yield Block(removal_script(site), timeout_s=_SECONDS)
    elif kept and not (act.verb is Verb.UPDATE and act.after.keys() <= _STARTED):
        yield Block(install_script(site, kept, tested=False, version=""), timeout_s=_SECONDS)


def _files_to_keep(
    want: Want, answers: Answers, paths: Mapping[str, PathState], settings: bytes
) -> tuple[AgentFile, ...]:
    found = []
    for path, state in paths.items():
        answer = answers.get(ContentOf(want.at(path), KEPT_BYTES))
        data = settings if path == SETTINGS_PATH else answer.out if isinstance(answer, Output) else b""
        if state.type == "file" and data:
            found.append(AgentFile(path, data, f"{state.mode:04o}", owned=path == SETTINGS_PATH))
    return tuple(found)


KINDS = (AgentKind(),)
