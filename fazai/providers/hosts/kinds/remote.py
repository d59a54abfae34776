"""host.agent"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

from fazai import __version__
from fazai.errors import InputError
from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.agent.layout import AgentFile, AgentLayout, InstallSite
from fazai.providers.hosts.agent.remote import places
from fazai.providers.hosts.agent.remote.places import REMOTE
from fazai.providers.hosts.agent.remote.policy import (
    find_policy_problems,
    is_agent_id,
    needs_root,
    policy_text,
    written_folders,
)
from fazai.providers.hosts.agent.remote.proving import hello_proving, restart_proving
from fazai.providers.hosts.agent.remote.report import GRACE_S, RemoteReport, look_script, read_report
from fazai.providers.hosts.agent.remote.starting import start_file
from fazai.providers.hosts.agent.scripts import install_script, removal_script, restart_script, return_script
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Difference, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared.supervising import (
    Differing,
    ask_files,
    is_left_standing,
    owner_difference,
    read_files,
    remembered_init,
    running_difference,
    service_differences,
)
from fazai.providers.hosts.shell.questions import ContentOf, OutputOf, Question, RegisteredAgent, find_output

_OPTIONS: Final = frozenset(("file", "grace", "init", "not_pid", "state", "trial", "version"))
_LIMIT_BYTES: Final = 256 * 1024
_TRIAL_S: Final = 60
_SECONDS: Final = 120.0  # beside the trial: for the checks, the start, and the way back
#: What is written by starting it again, and needs no file.
_STARTED: Final = frozenset(("running", "connection", "process"))


class RemoteAgentKind(HostKind):
    """The remote agent of a host: its files, its user, its certificate, its service, and that it is
    connected."""

    name = "host.agent"
    summary = "The remote agent: installed, enrolled, running, connected to the daemon"
    example = (
        "host.agent: {daemon: 'wss://fazai.example.net:3121', agent_id: edge-7, "
        "reconcile: look, programs: [{path: /bin/df, args: [-h]}]}"
    )
    identity = ()
    options = _OPTIONS
    specs = (
        FieldSpec("daemon", "data", "wss://HOST:3121, or a list that is tried in order", required=True),
        FieldSpec(
            "agent_id", "text", "the name in its certificate; the host's own when not given", unique=True
        ),
        FieldSpec(
            "signing_key", "path", "the host's file with the key of signed HTTP, for a daemon at https://"
        ),
        FieldSpec("proxy", "text", "http://HOST:PORT: the HTTP proxy through which it connects"),
        FieldSpec("proxy_credentials", "path", "the host's file with USER:PASSWORD for the proxy (0600)"),
        FieldSpec("label", "text", "its name for people"),
        FieldSpec("version", "text", "what the single-file agent must be; any when not given"),
        FieldSpec("file", "source", "the single-file agent, when not that of this fazai (make agent)"),
        FieldSpec("programs", "data", "what it may run: see docs/agents.md; nothing when not given"),
        FieldSpec("files", "data", "which folders' files it may compare and replace; none when not given"),
        FieldSpec(
            "reconcile", "data", "whether the machine is reconciled through it: no, look, yes; or a mapping"
        ),
        FieldSpec("telemetry", "data", "what it reports, and how often; nothing when not given"),
        FieldSpec("limits", "data", "bounds of the agent itself: journal, output"),
        FieldSpec("init", "choice", "who keeps it running, if not what the host has", choices=REMOTE.inits),
        FieldSpec(
            "trial",
            "integer",
            "seconds that an update has for an accepted hello, before what it replaced comes back",
            minimum=1,
            maximum=3600,
            default=_TRIAL_S,
        ),
        FieldSpec(
            "grace",
            "integer",
            "seconds without a connection that are no drift yet",
            minimum=0,
            default=GRACE_S,
        ),
        FieldSpec("not_pid", "integer", "an agent that runs as this process is restarted"),
        PRESENCE,
    )
    proves = True
    asked = True
    by_agent = False  # it is installed from outside, and asks the registry
    account: ClassVar[str] = ""  # whose its files are, where that is no user that it makes

    # -- before any contact -----------------------------------------------------------------------------

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        return "agent"  # a host has one

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from find_policy_problems(fields)
        if absent:
            return
        found = self.version(fields)
        wanted = fields.get("version", found)
        if found is None:
            yield Problem(
                "file", "is no single-file agent of fazai", "make agent writes build/fazai-agent.pyz"
            )
        elif wanted != found:
            yield Problem("version", f"is {wanted}, and the single-file agent is of version {found}")

    def program(self, fields: Mapping[str, Value]) -> bytes:
        """Return the single-file agent. Raises InputError where it was not built."""
        file = fields.get("file")
        return file.data if isinstance(file, Blob) and file.data is not None else places.shipped_program()

    def version(self, fields: Mapping[str, Value]) -> str | None:
        """Return the version of the single-file agent, None where the file is none. The shipped one is not
        made for that, which takes a second."""
        file = fields.get("file")
        given = isinstance(file, Blob) and file.data is not None
        return places.program_version(self.program(fields)) if given else __version__

    def layout(self, fields: Mapping[str, Value]) -> AgentLayout:
        return places.layout_of("root") if needs_root(fields) else REMOTE

    # -- questions and answers --------------------------------------------------------------------------

    def in_folder(self, at: Callable[[str], str]) -> bool:
        """Tell whether the host is a folder (`root:`), which holds files, has no users and runs nothing."""
        return at("/") != "/"

    def ask(self, want: Want) -> Iterable[Question]:
        yield from ask_files(REMOTE, want)
        yield ContentOf(want.at(REMOTE.settings), _LIMIT_BYTES)
        yield ContentOf(want.at(REMOTE.status), _LIMIT_BYTES)
        yield ContentOf(want.at(places.CERTIFICATE), _LIMIT_BYTES)
        yield self._look(want)
        if "agent_id" in want.fields:
            yield RegisteredAgent(agent_id=want.fields["agent_id"])

    def _look(self, want: Want) -> OutputOf:
        layout, folder = self.layout(want.fields), self.in_folder(want.at)
        return OutputOf(look_script(layout, want.fields.get("init"), want.at, folder=folder))

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        """Ask for the entry of an agent that is named as its host is."""
        if "agent_id" not in want.fields and (name := self._report(want, answers).hostname):
            yield RegisteredAgent(agent_id=name)

    def _report(self, want: Want, answers: Answers) -> RemoteReport:
        """Build the report. Raises DeviceError where the host does not say how its agent is."""
        status, certificate = (
            want.output(answers, ContentOf(want.at(path), _LIMIT_BYTES))
            for path in (REMOTE.status, places.CERTIFICATE)
        )
        asked = [find_output(answers, each) for each in answers if isinstance(each, RegisteredAgent)]
        try:
            return read_report(
                find_output(answers, self._look(want)).out,
                b"" if status.exit else status.out,
                b"" if certificate.exit else certificate.out,
                asked[0].out if asked else b"",
                layout=self.layout(want.fields),
                folder=self.in_folder(want.at),
                grace_s=want.fields.get("grace"),
            )
        except (KeyError, ValueError):
            text = "the host does not say how its agent is"
            raise want.error(text, "it needs a POSIX sh and date") from None

    def read(self, want: Want, answers: Answers) -> Have | None:
        paths, report = read_files(REMOTE, want, answers), self._report(want, answers)
        if not want.absent:
            try:
                self.program(want.fields)
            except InputError as error:
                raise want.error(error.message, error.hint) from None
        have: dict[str, Value] = {"report": report, "paths": paths, "agent_id": self._name(want, report)}
        if all(state.type == "missing" for state in paths.values()):
            if want.absent:
                return have if report.remains else None
            if not report.python:
                raise want.error(*report.python_hint())
            return have
        settings = want.output(answers, ContentOf(want.at(REMOTE.settings), _LIMIT_BYTES))
        if paths[REMOTE.settings].type != "missing" and settings.exit:
            raise want.error(f"{REMOTE.settings} may not be read", "become: true")
        return {**have, "settings": settings.out}

    def _name(self, want: Want, report: RemoteReport) -> str:
        """Return the agent's name: as declared, as its certificate says, or as its host is called. Raises
        DeviceError where none of these can be one."""
        known = report.certificate.name if report.certificate is not None and want.absent else ""
        name = str(want.fields.get("agent_id") or known or report.hostname)
        if not want.absent and not is_agent_id(name):
            called = (
                f'"{name}", as the host is called, is no name for an agent'
                if name
                else "the host has no name"
            )
            raise want.error(called, "agent_id: NAME says how the agent is called")
        return name

    def claim(self, want: Want, have: Have | None) -> str:
        """Return the name under which the daemon knows the agent."""
        return f'the agent "{have["agent_id"]}"' if have is not None and not want.absent else ""

    # -- comparing --------------------------------------------------------------------------------------

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        if want.absent:
            if have is None:
                return None
            report: RemoteReport = have["report"]
            return Verb.DELETE, {"agent_id": have["agent_id"], "version": report.version or "unknown"}, {}
        assert have is not None  # without files it has its report
        if have["paths"][REMOTE.program].type == "missing":
            program = self.program(want.fields)
            declared = {k: v for k, v in want.fields.items() if k not in _OPTIONS}
            version = places.program_version(program)
            made = {"version": version, "sha256": Blob.of(program).sha256, "agent_id": have["agent_id"]}
            return Verb.CREATE, {}, {**made, **declared}
        differing = dict(self._files(want, have))
        differing.update(self._running(want, have["report"], have["agent_id"]))
        if not differing:
            return None
        before = {name: old for name, (old, _) in differing.items()}
        return Verb.UPDATE, before, {name: new for name, (_, new) in differing.items()}

    def _files(self, want: Want, have: Have) -> Iterator[Differing]:
        """Iterate over the fields that differ, with their values before and after."""
        report: RemoteReport = have["report"]
        paths, folder = have["paths"], self.in_folder(want.at)
        program, settings, *others = self.wanted_files(want.fields, have["agent_id"], report.init, want.at)
        sha256 = Blob.of(program.data).sha256
        version = str(places.program_version(program.data))
        if report.failed_trial:
            yield "version", (f"{report.version or 'an older one'}, as {report.failed_trial}", version)
        elif paths[REMOTE.program].sha256 != sha256:
            old = report.version or "unknown"
            yield "version", (f"{old} (another file)" if old == version else old, version)
            yield "sha256", (paths[REMOTE.program].sha256, sha256)
        elif report.version not in ("", version):  # another one still runs, or runs again
            yield "version", (report.version, version)
        elif paths[REMOTE.program].mode != 0o755:
            yield "program_mode", (f"{paths[REMOTE.program].mode:04o}", "0755")
        if have["settings"] != settings.data:
            yield "policy", (Blob.of(have["settings"]), Blob.of(settings.data))
        if report.cut_off:
            yield "installation", ("cut", "whole")
        layout = self.layout(want.fields)
        yield from owner_difference(self.account or layout.user, paths[REMOTE.settings], folder)
        yield from service_differences(layout, others, paths, report)

    def _running(self, want: Want, report: RemoteReport, agent_id: str) -> Iterator[Differing]:
        """Iterate over what keeps the agent from running and being connected."""
        certificate = report.certificate_trouble(agent_id)
        if certificate is not None:
            yield "certificate", (certificate, f"of {agent_id}")
        yield from running_difference(REMOTE, report)
        trouble = report.trouble()
        if trouble is not None:
            yield "connection", (trouble, "connected")
        if report.pid is not None and report.pid == want.fields.get("not_pid"):
            yield "process", (report.pid, "another")

    def wanted_files(
        self, fields: Mapping[str, Value], agent_id: str, init: str, at: Callable[[str], str]
    ) -> list[AgentFile]:
        """Return the files as they are to be: program, policy, what starts it, and the service's where there
        is one."""
        files = [
            AgentFile(REMOTE.program, self.program(fields), "0755"),
            AgentFile(REMOTE.settings, policy_text(fields, agent_id, at), "0600", owned=True),
            AgentFile(places.STARTER, start_file(at), "0755"),
        ]
        if init in REMOTE.services:
            service, user, written = REMOTE.services[init], self.layout(fields).user, written_folders(fields)
            files.append(AgentFile(service.path, places.service_file(init, user, written), service.mode))
        return files

    def is_left(self, want: Want, wrote: Mapping[str, Value], after: object, found: Have | None) -> bool:
        return is_left_standing(want, wrote, found, _STARTED, self._files)

    # -- writing ----------------------------------------------------------------------------------------

    def is_lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        """A removal lasts: its certificate is revoked."""
        return verb is Verb.DELETE

    def write(self, act: Act) -> Iterator[Block]:
        remembered = ("fields", self.name)
        fields = act.memory.setdefault(remembered, act.options) if act.undone else act.options
        act.memory[remembered] = fields
        layout, folder = self.layout(fields), self.in_folder(act.at)
        site = InstallSite(layout, act.at, folder, remembered_init(act), act.token)
        agent_id = str(act.have["agent_id"])
        trial_s = int(fields.get("trial", _TRIAL_S))
        seconds = 2 * trial_s + _SECONDS
        if act.verb is Verb.DELETE:
            yield Block(removal_script(site), timeout_s=_SECONDS, revokes=agent_id)
        elif act.undone:
            if not act.after.keys() <= _STARTED:
                yield Block(return_script(site), timeout_s=seconds)
        elif act.verb is Verb.UPDATE and act.after.keys() <= _STARTED:
            yield Block(restart_script(site, restart_proving()), timeout_s=_SECONDS)
        else:
            enrols = act.verb is Verb.CREATE or "certificate" in act.after
            files = self.wanted_files(fields, agent_id, site.init, act.at)
            proving = hello_proving(site, enrols=enrols, trial_s=trial_s)
            script = install_script(site, files, proving)
            yield Block(script, timeout_s=seconds, enrols=agent_id if enrols else "")

    def proof(self, want: Want, have: Have | None) -> str | None:
        """Return why what was started is not connected; None when it is, "" while that is open."""
        report: RemoteReport | None = None if have is None else have["report"]
        if want.absent or report is None or (not report.status and report.running is None):
            return None
        return report.proof(str(self.version(want.fields)))

    def describe_unproven(self, have: Have | None) -> str:
        """Return that it is not connected, and what is known of why."""
        report: RemoteReport | None = None if have is None else have["report"]
        reason = "" if report is None else report.reason()
        return f"it is not connected{f' ({reason})' if reason else ''}"


KINDS = (RemoteAgentKind(),)
