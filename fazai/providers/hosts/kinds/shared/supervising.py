"""The common part of the kinds of agents: what of an installation differs, and how its init is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from fazai.model import Value
from fazai.providers.hosts.agent.layout import AgentFile, AgentLayout
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.kind import Act, Answers, Have, Want
from fazai.providers.hosts.shell.questions import KEPT_BYTES, ContentOf, FileAt, Output, PathState, Question

#: A field that differs, with its values before and after.
Differing = tuple[str, tuple[Value, Value]]
#: Iterates over what differs of an installation.
Differs = Callable[[Want, Have], Iterator[Differing]]


class StandingReport(Protocol):
    """The part of the reports of both sorts of agents that tells of the service manager."""

    @property
    def folder(self) -> bool: ...
    @property
    def init(self) -> str: ...
    @property
    def active(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def user(self) -> bool: ...
    @property
    def unfinished(self) -> bool: ...


def ask_files(layout: AgentLayout, want: Want) -> Iterator[Question]:
    """Iterate over the questions for the agent's files; its settings may be secret, and are not hashed."""
    yield from (FileAt(want.at(path), path != layout.settings) for path in layout.paths)


def read_files(layout: AgentLayout, want: Want, answers: Answers) -> dict[str, PathState]:
    return {
        path: want.state(answers, FileAt(want.at(path), path != layout.settings)) for path in layout.paths
    }


def owner_difference(account: str, state: PathState, folder: bool) -> Iterator[Differing]:
    """Iterate over what differs of the owner and mode of the settings."""
    if state.type == "file" and (state.mode, folder or state.user) != (0o600, folder or account):
        yield "settings_of", (f"{state.mode:04o} {state.user}", f"0600 {account}")


def service_differences(
    layout: AgentLayout, files: Iterable[AgentFile], paths: Mapping[str, PathState], report: StandingReport
) -> Iterator[Differing]:
    """Iterate over what differs of the files beside program and settings, and of the installation."""
    for file in files:
        found = paths[file.path]
        if found.type != "file" or found.sha256 != Blob.of(file.data).sha256:
            yield "service", ("none" if found.type == "missing" else "altered", report.init)
    if not report.user:
        yield "user", ("none", layout.user)
    if report.unfinished:  # what runs may be older than its files
        yield "installation", ("cut", "whole")


def running_difference(layout: AgentLayout, report: StandingReport) -> Iterator[Differing]:
    """Iterate over what the service manager says, where it is not that the agent runs and is to."""
    if report.init in layout.services and not report.folder:
        if report.active != "active":
            yield "running", (report.active or "no", "active")
        elif not report.enabled:
            yield "running", ("active, not enabled", "active")


def is_left_standing(
    want: Want, wrote: Mapping[str, Value], found: Have | None, started: frozenset[str], differing: Differs
) -> bool:
    """Judge what a run left by its files, its account, and that nobody stopped it; whether the agent delivers
    or is connected does not matter. `started`: the fields of which nothing is taken back."""
    if want.absent:
        return found is None
    if wrote.keys() <= started:
        return True
    if found is None or "settings" not in found:
        return False
    report: StandingReport = found["report"]
    stopped = report.active == "inactive" or not report.enabled  # one that fell down has "failed"
    return not stopped and {name for name, _ in differing(want, found)} <= {"installation"}


def files_to_keep(
    layout: AgentLayout, want: Want, answers: Answers, paths: Mapping[str, PathState], settings: bytes
) -> tuple[AgentFile, ...]:
    """Return the files that are there, of those whose content was asked for."""
    found = []
    for path, state in paths.items():
        answer = answers.get(ContentOf(want.at(path), KEPT_BYTES))
        data = settings if path == layout.settings else answer.out if isinstance(answer, Output) else b""
        if state.type == "file" and data:
            found.append(AgentFile(path, data, f"{state.mode:04o}", owned=path == layout.settings))
    return tuple(found)


def remembered_init(act: Act) -> str:
    """Return what keeps the agent running: as declared, else as the host said."""
    key = ("init", act.identity)
    wanted = act.options.get("init")
    init = wanted or act.memory.get(key) or "systemd"
    report = act.have.get("report")
    if report is not None and not wanted:
        init = report.init
    act.memory[key] = init
    return str(init)
