"""The places of agents on a host: what is common to the telemetry agent and to the remote agent."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping

from fazai.compat.language import dataclass
from fazai.providers.hosts.shell.quoting import quote


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """The file by which a service manager runs an agent. `template`: its name in the package's folder."""

    path: str
    template: str
    mode: str


@dataclass(frozen=True, slots=True)
class AgentFile:
    """A file of an agent with its content and mode."""

    path: str
    data: bytes
    mode: str
    owned: bool = False  # by the agent's user


@dataclass(frozen=True, slots=True)
class AgentLayout:
    """The places of one sort of agent. `words`: its files, the program and the settings first, each with the
    word for it in the name of its temporary; `services`: by what keeps it running, with their word."""

    user: str
    service: str
    words: Mapping[str, str]
    services: Mapping[str, ServiceFile]
    service_word: str
    state: str  # a folder of its user
    log: str
    pid_file: str  # has a line pid=NUMBER, of the process to be ended
    folders: tuple[str, ...] = ()  # further ones of its user
    folder_mode: str = "0750"
    starter: str = ""  # the file that starts the program, where that is not the program itself
    kept: bool = False  # the files before stay beside, as FILE.old, until the next ones come

    @property
    def program(self) -> str:
        return next(iter(self.words))

    @property
    def settings(self) -> str:
        return tuple(self.words)[1]

    @property
    def service_paths(self) -> tuple[str, ...]:
        return tuple(service.path for service in self.services.values())

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that the agent may have."""
        return (*self.words, *self.service_paths)

    @property
    def runs(self) -> tuple[str, ...]:
        """The files of which one stands among the arguments of the agent's process."""
        kept = (f"{self.program}.old",) if self.kept else ()
        return tuple(filter(None, (self.starter, self.program, *kept)))

    @property
    def status(self) -> str:
        """The file in which the agent says how it is."""
        return f"{self.state}/status"

    @property
    def inits(self) -> tuple[str, ...]:
        """The names of what may keep it running."""
        return (*self.services, "none")

    def temporary_name(self, path: str, token: str) -> str:
        return f"{posixpath.dirname(path)}/.fazai-{token}-{self.words.get(path, self.service_word)}"

    def temporary_names(self, at: Callable[[str], str]) -> str:
        """Return shell patterns of the temporary files that installations make; a killed one leaves them.
        `at` maps a path to the host's."""
        found = []
        for path in self.paths:
            folder, name = self.temporary_name(path, "*").rsplit("/", 1)
            found += [f"{quote(at(folder))}/{name}{end}" for end in ("", "-old")]
        return " ".join(found)


@dataclass(frozen=True, slots=True)
class InstallSite:
    """The place of an installation. `at` maps a path to the host's; `folder`: it has no users and runs
    nothing; `init` names what keeps the agent running; `token` names temporary files."""

    layout: AgentLayout
    at: Callable[[str], str]
    folder: bool
    init: str
    token: str

    def word(self, path: str) -> str:
        return quote(self.at(path))

    @property
    def makes_user(self) -> bool:
        """True when the agent has a user of its own there, which comes and goes with it."""
        return not self.folder and self.layout.user != "root"

    @property
    def managed(self) -> bool:
        """True when a service manager that is known runs the agent."""
        return not self.folder and self.init != "none"

    def beside(self, path: str) -> str:
        """Return the word for the temporary file that takes the place of a path."""
        return self.word(self.layout.temporary_name(path, self.token))

    def old(self, path: str) -> str:
        """Return the word for the file that was at a path before."""
        kept = self.layout.kept
        return self.word(f"{path}.old" if kept else f"{self.layout.temporary_name(path, self.token)}-old")
