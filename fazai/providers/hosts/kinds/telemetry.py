"""host.telemetry_agent"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.agent.files import (
    TELEMETRY,
    agent_script,
    delivery_proving,
    service_file,
    shipped_version,
)
from fazai.providers.hosts.agent.health import AgentReport, look_script, read_report
from fazai.providers.hosts.agent.layout import AgentFile, InstallSite
from fazai.providers.hosts.agent.scripts import install_script, removal_script, restart_script
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
from fazai.providers.hosts.kinds.shared.supervising import (
    ask_files,
    files_to_keep,
    is_left_standing,
    owner_difference,
    read_files,
    remembered_init,
    running_difference,
    service_differences,
)
from fazai.providers.hosts.shell.questions import (
    KEPT_BYTES,
    ContentOf,
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
        FieldSpec(
            "init", "choice", "who keeps it running, if not what the host has", choices=TELEMETRY.inits
        ),
        FieldSpec(
            "grace", "integer", "seconds without a delivery that are no drift yet", minimum=0, default=120
        ),
        FieldSpec("not_pid", "integer", "an agent that runs as this process is restarted"),
        PRESENCE,
    )
    proves = True
    asked = True
    account: ClassVar[str] = TELEMETRY.user  # whose the settings are

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
        yield from ask_files(TELEMETRY, want)
        yield ContentOf(at(TELEMETRY.settings), _LIMIT_BYTES)
        yield ContentOf(at(TELEMETRY.status), _LIMIT_BYTES)
        yield self._look(want)

    def _look(self, want: Want) -> OutputOf:
        return OutputOf(look_script(want.fields.get("init"), want.at, folder=self.in_folder(want.at)))

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        """Ask for the contents that are there, to be put back when a run is undone."""
        have = self.read(want, answers)
        if have is not None and "settings" in have and self.compare(want, have) is not None:
            yield ContentOf(want.at(TELEMETRY.program), KEPT_BYTES)
            yield from (ContentOf(want.at(path), KEPT_BYTES) for path in TELEMETRY.service_paths)

    def read(self, want: Want, answers: Answers) -> Have | None:
        paths = read_files(TELEMETRY, want, answers)
        said = find_output(answers, self._look(want))
        status = want.output(answers, ContentOf(want.at(TELEMETRY.status), _LIMIT_BYTES))
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
        settings = want.output(answers, ContentOf(want.at(TELEMETRY.settings), _LIMIT_BYTES))
        if TELEMETRY.settings in present and settings.exit:
            raise want.error(f"{TELEMETRY.settings} may not be read", "become: true")
        return {
            "report": report,
            "settings": settings.out,
            "paths": paths,
            "kept": files_to_keep(TELEMETRY, want, answers, paths, settings.out),
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
        if have is None or have["paths"][TELEMETRY.program].type == "missing":
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
        yield from _version_difference(report, paths[TELEMETRY.program])
        _, settings, *services = self.wanted_files(want.fields, report.init)
        text, old = settings.data, with_current_head(have["settings"])
        if old != text:
            before, after = read_agent_settings(old), read_agent_settings(text)
            names = [n for n in {**after, **before} if before.get(n) != after.get(n)]
            yield from ((name, (before.get(name, ""), after.get(name, ""))) for name in names)
            if not names:
                yield "settings", ("changed by hand", "as declared")
        yield from owner_difference(self.account, paths[TELEMETRY.settings], folder)
        yield from service_differences(TELEMETRY, services, paths, report)

    def wanted_files(self, fields: Mapping[str, Value], init: str) -> list[AgentFile]:
        """Return the files as they are to be: script, settings, and the service's where there is one."""
        files = [
            AgentFile(TELEMETRY.program, agent_script(), "0755"),
            AgentFile(
                TELEMETRY.settings, settings_text(settings_of_fields(fields, init)), "0600", owned=True
            ),
        ]
        if init in TELEMETRY.services:
            service, interval_s = TELEMETRY.services[init], fields.get("interval", INTERVAL_S)
            files.append(AgentFile(service.path, service_file(init, interval_s), service.mode))
        return files

    def is_left(self, want: Want, wrote: Mapping[str, Value], after: object, found: Have | None) -> bool:
        return is_left_standing(want, wrote, found, _STARTED, self._files)

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, act: Act) -> Iterator[Block]:
        site = InstallSite(TELEMETRY, act.at, self.in_folder(act.at), remembered_init(act), act.token)
        memory = ("kept", self.name, act.identity)
        if act.undone:
            yield from _restore_blocks(site, act, act.memory.get(memory, ()))
            return
        kept: tuple[AgentFile, ...] = act.have.get("kept", ())
        act.memory[memory] = () if act.verb is Verb.CREATE else kept
        if act.verb is Verb.DELETE:
            yield Block(removal_script(site), timeout_s=_SECONDS)
        elif act.verb is Verb.UPDATE and act.after.keys() <= _STARTED:
            yield Block(restart_script(site, delivery_proving(site, shipped_version())), timeout_s=_SECONDS)
        else:
            files = self.wanted_files(act.options, site.init)
            proving = delivery_proving(site, shipped_version())
            yield Block(install_script(site, files, proving), timeout_s=_SECONDS)

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
    yield from running_difference(TELEMETRY, report)
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
        yield Block(install_script(site, kept, None), timeout_s=_SECONDS)


KINDS = (AgentKind(),)
