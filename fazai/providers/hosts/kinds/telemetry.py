"""host.telemetry_agent"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

from fazai.errors import did_you_mean
from fazai.model import FieldSpec, Problem, Value, Verb
from fazai.providers.hosts.agent.files import (
    INITS,
    OWN,
    OWN_NAME,
    SCRIPT,
    SERVICES,
    SETTINGS,
    STATE,
    STATUS,
    USER,
    agent_version,
    fields_of,
    keys_of,
    names_known,
    pairs_of,
    script,
    service,
    setting_text,
    settings_text,
    with_current_head,
    wrong_setting,
)
from fazai.providers.hosts.agent.health import Report, look_script, read_report
from fazai.providers.hosts.agent.scripts import Placed, Site, install, remove, restart
from fazai.providers.hosts.kind import Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.shell.questions import (
    KEPT_BYTES,
    ContentOf,
    FileAt,
    Output,
    PathState,
    Question,
    Shell,
)
from fazai.providers.hosts.shell.writing import denied, refuse_unsafe, unlike

__all__ = ["KINDS", "AgentKind"]

_NAME: Final = "telemetry"
_INTERVAL_S: Final = 60.0
_SHORTEST_S: Final = 0.05
_OPTIONS: Final = frozenset(("grace", "init", "not_pid", "state"))
_LIMIT_BYTES: Final = 64 * 1024
_SECONDS: Final = 120.0  # for the self-test, the start, and the way back
#: What is written by starting it again, and needs no file.
_STARTED: Final = frozenset(("running", "delivery", "process"))


class AgentKind(HostKind):
    """The telemetry agent of a host: its files, its user, its service, and that it delivers."""

    proves: ClassVar[bool] = True
    asked: ClassVar[bool] = True
    account: ClassVar[str] = USER  # whose the settings are

    # -- before any contact -----------------------------------------------------------------------------

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        return _NAME  # a host has one

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        if absent:
            return
        for index, key in enumerate(keys_of(fields.get("key"))):
            if index > 1:
                yield Problem("key", "has more than two lines", "the key, and the previous one")
            elif not (16 <= len(key) <= 256 and key.isascii() and key.isprintable()) or '"' in key:
                yield Problem("key", 'is 16 to 256 printable ASCII characters, no "', "openssl rand -hex 32")
        if fields.get("interval", _INTERVAL_S) < _SHORTEST_S:
            yield Problem("interval", f"must be from {_SHORTEST_S} on")
        yield from _check_settings(fields.get("settings", {}))
        if "hostname" in fields and (wrong := wrong_setting("HOSTNAME", fields["hostname"])) is not None:
            yield Problem("hostname", wrong)
        for name, value in fields_of({k: v for k, v in fields.items() if k != "key"}, "none").items():
            if "\n" in value:
                yield Problem(name.lower(), "must be one line")

    # -- questions and answers --------------------------------------------------------------------------

    def in_folder(self, at: Callable[[str], str]) -> bool:
        """Tell whether the host is a folder (`root:`), which holds files, has no users and runs nothing."""
        return at("/") != "/"

    def ask(self, want: Want) -> Iterable[Question]:
        at = want.at
        yield FileAt(at(SCRIPT), True)
        yield FileAt(at(SETTINGS))
        yield from (FileAt(at(path), True) for path, _, _ in SERVICES.values())
        yield ContentOf(at(SETTINGS), _LIMIT_BYTES)
        yield ContentOf(at(STATUS), _LIMIT_BYTES)
        yield self._look(want)

    def _look(self, want: Want) -> Shell:
        paths = {path: want.at(path) for path in (SCRIPT, SETTINGS, STATE, OWN_NAME, *_service_paths())}
        return Shell(look_script(want.fields.get("init"), paths, folder=self.in_folder(want.at)))

    def more(self, want: Want, answers: Answers) -> Iterable[Question]:
        """Ask for the contents that are there, to be put back when a run is undone."""
        have = self.read(want, answers)
        if have is not None and "settings" in have and self.compare(want, have) is not None:
            yield ContentOf(want.at(SCRIPT), KEPT_BYTES)
            yield from (ContentOf(want.at(path), KEPT_BYTES) for path, _, _ in SERVICES.values())

    def read(self, want: Want, answers: Answers) -> Have | None:
        paths = {path: _path(want, answers, path) for path in (SCRIPT, SETTINGS, *_service_paths())}
        said, status = answers[self._look(want)], answers[ContentOf(want.at(STATUS), _LIMIT_BYTES)]
        assert isinstance(said, Output)
        assert isinstance(status, Output)
        refuse_unsafe(want, status)
        interval_s, grace_s = want.fields.get("interval", _INTERVAL_S), want.fields.get("grace")
        try:
            report = read_report(
                said.out,
                status.out if status.exit == 0 else b"",
                folder=self.in_folder(want.at),
                interval_s=float(interval_s),
                grace_s=grace_s,
            )
        except (KeyError, ValueError):
            text = "the host does not say how its agent is"
            raise unlike(want, text, "it needs a POSIX sh and date") from None
        present = [path for path, state in paths.items() if state.type != "missing"]
        if not present:  # what keeps things running there is known all the same
            gone = want.absent and not report.remains
            return None if gone else {"report": report, "paths": paths}
        settings = answers[ContentOf(want.at(SETTINGS), _LIMIT_BYTES)]
        assert isinstance(settings, Output)
        refuse_unsafe(want, settings)
        if SETTINGS in present and settings.exit:
            raise unlike(want, f"{SETTINGS} may not be read", "become: true")
        return {
            "report": report,
            "settings": settings.out,
            "paths": paths,
            "kept": _kept(want, answers, paths, settings.out),
        }

    def claim(self, want: Want, have: Have | None) -> str:
        """Return the name under which the daemon knows the agent: as declared, else the host's own."""
        name = want.fields.get("hostname") or (have["report"].hostname if have is not None else "")
        return f'the agent "{name}" of {want.fields["server"]}' if name and not want.absent else ""

    # -- comparing --------------------------------------------------------------------------------------

    def compare(
        self, want: Want, have: Have | None
    ) -> tuple[Verb, Mapping[str, Value], Mapping[str, Value]] | None:
        if want.absent:
            if have is None:
                return None
            return Verb.DELETE, {"version": have["report"].version or "unknown"}, {}
        if have is None or have["paths"][SCRIPT].type == "missing":
            declared = {k: v for k, v in want.fields.items() if k not in _OPTIONS}
            return Verb.CREATE, {}, {"version": agent_version(), **declared}
        differing = dict(self._files(want, have))
        differing.update(_running(want, have["report"]))
        if not differing:
            return None
        before = {name: old for name, (old, _) in differing.items()}
        return Verb.UPDATE, before, {name: new for name, (_, new) in differing.items()}

    def _files(self, want: Want, have: Have) -> Iterator[tuple[str, tuple[Value, Value]]]:
        """Iterate over the fields that differ, with their values before and after."""
        report: Report = have["report"]
        paths, folder = have["paths"], self.in_folder(want.at)
        yield from _version(report, paths[SCRIPT])
        wanted = self.placed(want.fields, report.init)
        text, old = wanted[1].data, with_current_head(have["settings"])
        if old != text:
            before, after = pairs_of(old), pairs_of(text)
            names = [n for n in {**after, **before} if before.get(n) != after.get(n)]
            yield from ((name, (before.get(name, ""), after.get(name, ""))) for name in names)
            if not names:
                yield "settings", ("changed by hand", "as declared")
        state = paths[SETTINGS]
        if state.type == "file" and (state.mode, folder or state.user) != (0o600, folder or self.account):
            yield "settings_of", (f"{state.mode:04o} {state.user}", f"0600 {self.account}")
        for file in wanted[2:]:
            found = paths[file.path]
            if found.type != "file" or found.sha256 != _sha256(file.data):
                yield "service", ("none" if found.type == "missing" else "altered", report.init)
        if not report.user:
            yield "user", ("none", USER)
        if report.unfinished:  # what runs may be older than its files
            yield "installation", ("cut", "whole")

    def placed(self, fields: Mapping[str, Value], init: str) -> list[Placed]:
        """Return the files as they are to be: script, settings, and the service's where there is one."""
        files = [
            Placed(SCRIPT, script(), "0755"),
            Placed(SETTINGS, settings_text(fields_of(fields, init)), "0600", owned=True),
        ]
        if init in SERVICES:
            path, _, mode = SERVICES[init]
            files.append(Placed(path, service(init, fields.get("interval", _INTERVAL_S)), mode))
        return files

    def is_left(self, want: Want, wrote: Mapping[str, Value], after: object, found: Have | None) -> bool:
        """Judge by its files, its account, and that nobody stopped it; whether it delivers does not matter."""
        if want.absent:
            return found is None
        if wrote.keys() <= _STARTED:  # of which nothing is taken back
            return True
        if found is None or "settings" not in found:
            return False
        report: Report = found["report"]
        stopped = report.active == "inactive" or not report.enabled  # one that fell down has "failed"
        return not stopped and {name for name, _ in self._files(want, found)} <= {"installation"}

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, act: Act) -> Iterator[Block]:
        site = Site(act.at, self.in_folder(act.at), self._init(act), act.token)
        memory = ("kept", self.name, act.identity)
        if act.undone:
            yield from _taken_back(site, act, act.memory.get(memory, ()))
            return
        kept: tuple[Placed, ...] = act.have.get("kept", ())
        act.memory[memory] = () if act.verb is Verb.CREATE else kept
        if act.verb is Verb.DELETE:
            yield Block(remove(site), timeout_s=_SECONDS)
        elif act.verb is Verb.UPDATE and act.after.keys() <= _STARTED:
            yield Block(restart(site, agent_version()), timeout_s=_SECONDS)
        else:
            files = self.placed(act.options, site.init)
            yield Block(install(site, files, tested=True, version=agent_version()), timeout_s=_SECONDS)

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
        report: Report | None = None if have is None else have["report"]
        if want.absent or report is None or (not report.status and report.running is None):
            return None
        found = report.proof()
        return None if found is True else str(found)


def _version(report: Report, path: PathState) -> Iterator[tuple[str, tuple[Value, Value]]]:
    if path.sha256 != _sha256(script()):
        old = report.version or "unknown"
        same = old == agent_version()
        yield "version", (f"{old} (altered)" if same else old, agent_version())
    elif path.mode != 0o755:
        yield "script_mode", (f"{path.mode:04o}", "0755")


def _running(want: Want, report: Report) -> Iterator[tuple[str, tuple[Value, Value]]]:
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


def _taken_back(site: Site, act: Act, kept: tuple[Placed, ...]) -> Iterator[Block]:
    """Iterate over blocks that put back the files that were there, and start them."""
    if act.verb is Verb.DELETE:
        yield Block(remove(site), timeout_s=_SECONDS)
    elif kept and not (act.verb is Verb.UPDATE and act.after.keys() <= _STARTED):
        yield Block(install(site, kept, tested=False, version=""), timeout_s=_SECONDS)


def _kept(
    want: Want, answers: Answers, paths: Mapping[str, PathState], settings: bytes
) -> tuple[Placed, ...]:
    found = []
    for path, state in paths.items():
        answer = answers.get(ContentOf(want.at(path), KEPT_BYTES))
        data = settings if path == SETTINGS else answer.out if isinstance(answer, Output) else b""
        if state.type == "file" and data:
            found.append(Placed(path, data, f"{state.mode:04o}", owned=path == SETTINGS))
    return tuple(found)


def _path(want: Want, answers: Answers, path: str) -> PathState:
    found = answers[FileAt(want.at(path), path != SETTINGS)]
    assert isinstance(found, PathState)
    refuse_unsafe(want, found)
    if found.type == "denied":
        raise denied(want)
    return found


def _service_paths() -> list[str]:
    return [path for path, _, _ in SERVICES.values()]


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _check_settings(settings: Mapping[str, Value]) -> Iterator[Problem]:
    for name, value in settings.items():
        if name.upper() not in names_known():
            hint = did_you_mean(name, [each.lower() for each in names_known()]) or "docs/telemetry-agent.md"
            yield Problem("settings", f'"{name}" is no setting of the agent', hint)
        elif name.upper() in OWN:
            yield Problem("settings", f'"{name}" is a field of its own')
        elif "\n" in str(value):
            yield Problem("settings", f'"{name}" must be one line')
        elif (wrong := wrong_setting(name.upper(), setting_text(value))) is not None:
            yield Problem("settings", f'"{name}" {wrong}')


KINDS = (
    AgentKind(
        name="host.telemetry_agent",
        summary="The telemetry agent: installed, configured, running, delivering",
        specs=(
            FieldSpec("server", "text", "the daemon: https://HOST[:PORT][/PREFIX]", required=True),
            FieldSpec("interval", "number", "seconds between samples", minimum=0, maximum=86_400, default=60),
            FieldSpec(
                "key",
                "secret",
                "signs the records; the daemon has the same in secrets/hosts/NAME.key. A second line is the"
                " previous key, while it changes: see `fazai agents rotate-key`",
            ),
            FieldSpec("token", "secret", "bearer token, where the daemon asks for one"),
            FieldSpec(
                "hostname", "text", "the name in the records; the host's own when not given", unique=True
            ),
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
            FieldSpec("state", "choice", choices=("present", "absent")),
        ),
        identity=(),
        options=_OPTIONS,
        example="host.telemetry_agent: {server: https://fazai.example.net:3120, interval: 60, "
        'hostname: "{{inventory_hostname}}"}',
    ),
)
