"""The agent's process: puts its parts together, and ends them in order."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time

from fazai import __version__
from fazai.agent.actions import Actions
from fazai.agent.children import LifePipe
from fazai.agent.connecting import Connector
from fazai.agent.link.errors import LinkError
from fazai.agent.link.keys import write_private
from fazai.agent.loop import READ, Loop
from fazai.agent.messages import write_json
from fazai.agent.serving import Agent
from fazai.errors import FazaiError
from fazai.faults import no_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from fazai.agent.actions import Handler, Server
    from fazai.agent.config.settings import AgentConfig
    from fazai.agent.journal import Journal
    from fazai.agent.serving import Conversation
    from fazai.agent.telemetry import Telemetry

#: From SIGTERM on: to end the action that runs, and to tell its outcome.
STOP_S = 8.0
SETTLE_S = 10.0


def load(module: str, name: str) -> Callable[[], Any]:
    """Return what loads a function when it is first needed: an agent that only runs programs has no use for
    what reconciles."""
    import importlib

    return lambda: getattr(importlib.import_module(module), name)


#: What carries out a method in a child of its own, and what serves methods in a process that goes on.
HANDLERS: Mapping[str, Callable[[], Handler]] = {
    "file.diff": load("fazai.agent.files.diffing", "diff_file"),
    "file.read": load("fazai.agent.files.reading", "read_file"),
    "file.list": load("fazai.agent.files.listing", "list_folder"),
    "file.apply": load("fazai.agent.files.applying", "apply_file"),
}
SERVERS: Mapping[str, Callable[[], Server]] = {
    "command.exec": load("fazai.agent.execution.serving", "serve_commands"),
    "state": load("fazai.agent.state.worker", "serve_state"),
}
SETTLE_IN_CGROUP = load("fazai.agent.execution.limits", "settle_in_cgroup")
END_LEFTOVERS = load("fazai.agent.execution.limits", "end_orphaned_leaves")


class Log:
    """Writes one line to stderr for each thing that happened: JSON (SPEC.md, section 5), or text."""

    def __init__(self, *, text: bool) -> None:
        self._text = text

    def __call__(self, level: str, message: str, **ids: str) -> None:
        """Write one line; `ids` are those of the contract. A log that cannot be written stops nothing."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        shown = message
        if not message.isprintable():
            shown = "".join(c if c.isprintable() else "?" for c in message)
        if self._text:
            more = "".join(f"  {name}={value}" for name, value in ids.items())
            line = f"{stamp} {level:8} {shown}{more}"
        else:
            fields = {"timestamp": stamp, "level": level, "logger": "agent", "message": shown, **ids}
            line = write_json(fields)
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return


class Status:
    """The file STATE/status: NAME=VALUE lines, replaced whole at each change, for people and for who looks
    after agents over another way than the agent's own."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "status")
        self._started = int(time.time())
        self._connected = 0
        self._error = ""

    def write(self, state: str, *, daemon: str, not_after: float | None, error: str | None) -> None:
        """Write the file; where that cannot be, nothing else suffers."""
        now = int(time.time())
        self._connected = now if state == "connected" else self._connected
        self._error = "".join(c if c.isprintable() else "?" for c in error or self._error)
        lines = {
            "pid": os.getpid(),
            "version": __version__,
            "state": state,
            "written_at": now,
            "started_at": self._started,
            "connected_at": self._connected or "",
            "daemon": daemon,
            "not_after": "" if not_after is None else int(not_after),
            "last_error": self._error,
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        try:
            write_private(self._path, text.encode("utf-8", "replace"), sync=False)
        except OSError:
            return


def _random() -> float:
    """Return a number from 0 up to 1; the module of that name costs a megabyte."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def _give_memory_back() -> None:
    """Return to the system what only the start took, most of all compiling the one-file agent; where the C
    library can do that, and `ctypes` is loaded anyhow, which costs as much."""
    gc.collect()
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None:
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):  # not the GNU C library
            return


def _end_trial() -> None:
    """Tell who updated this agent that it is let in: the file that he named goes, once."""
    path = os.environ.pop("FAZAI_AGENT_TRIAL", None)
    if path:
        try:
            os.unlink(path)
        except OSError:
            return


class Process:
    """One agent, from its configuration to its end."""

    def __init__(
        self,
        config: AgentConfig,
        journal: Journal,
        *,
        log: Log,
        handlers: Mapping[str, Callable[[], Handler]] = HANDLERS,
        servers: Mapping[str, Callable[[], Server]] = SERVERS,
        reload: Callable[[], AgentConfig] | None = None,
        fault: Callable[[str], None] = no_fault,
    ) -> None:
        self._log = log
        self._reload = reload
        self._loop = Loop()
        self._life = LifePipe()
        self._journal = journal
        self._actions = Actions(
            *(self._loop, self._life, handlers, servers),
            fault=fault,
            end_leftovers=lambda: END_LEFTOVERS()(),
        )
        self._agent = Agent(
            self._loop,
            config,
            journal,
            self._actions,
            log=log,
            instance=os.urandom(8).hex(),
            platform=f"{os.uname().sysname} {os.uname().release} {os.uname().machine}"[:256],
            fault=fault,
        )
        self._stopping = False
        self._status = Status(config.state)
        self._connector = Connector(
            self._agent,
            self._life,
            random=_random,
            now=time.time,
            on_change=self._changed,
            on_ready=self._ready,
        )
        self._telemetry: Telemetry | None = None

    def run(self) -> int:
        """Serve until SIGTERM."""
        self._prepare()
        gc.collect()
        gc.freeze()  # a collection writes to each page that it looks at, and children share these
        self._log("info", f"agent {self._agent.config.agent_id} {__version__} begins")
        self._watch_signals()
        self._changed("connecting", None)
        self._start_telemetry()
        self._settle()
        self._connector.start()
        self._loop.run()
        if self._telemetry is not None:
            self._telemetry.stop()
        if self._agent.conversation is not None:
            self._agent.conversation.close(LinkError("closed", "the agent ends"), 1001)
        self._actions.close()
        self._journal.close()
        self._life.close()
        self._loop.close()
        self._changed("stopped", None)
        self._log("info", "the agent ended")
        return 0

    def _changed(self, state: str, error: LinkError | None) -> None:
        """Keep what the agent knows of its connection where an administrator can read it."""
        if state == "connected":
            _end_trial()
            _give_memory_back()
            self._start_runner()
        self._status.write(
            state,
            daemon=self._connector.address.url,
            not_after=self._connector.certificate.ends,
            error=None if error is None else str(error),
        )

    def _prepare(self) -> None:
        """Load what runs programs, where there are any; a child that has to do that takes longer."""
        if self._agent.config.programs:
            SETTLE_IN_CGROUP()()
            self._actions.load("command.exec")

    def _start_runner(self) -> None:
        """Start what runs programs, where there are any, so that the first one need not wait for that; not
        before the agent is connected: what it writes to later is no longer shared with it."""
        if self._agent.config.programs:
            self._actions.prepare("command.exec", self._agent.config)

    def _settle(self) -> None:
        """Write from time to time what the journal holds in memory: acknowledgements, and outcomes for which
        the disk had no room."""
        try:
            self._journal.settle()
        except OSError as error:
            self._log("error", f"the journal cannot be written: {error.strerror}")
        self._loop.later(SETTLE_S, self._settle)

    def _ready(self, conversation: Conversation) -> None:
        if self._telemetry is not None:
            self._telemetry.connected(conversation)

    def _start_telemetry(self) -> None:
        """Report, where the configuration says so; what was started with an older one ends."""
        if self._telemetry is not None:
            self._telemetry.stop()
            self._telemetry = None
        config = self._agent.config
        if config.telemetry is None:
            return
        from fazai.agent.telemetry import Telemetry

        self._telemetry = Telemetry(self._loop, self._life, config, log=self._log, random=_random)
        if self._agent.conversation is not None:
            self._telemetry.connected(self._agent.conversation)

    def _watch_signals(self) -> None:
        """Let signals wake the loop: their handlers only write a byte into a pipe."""
        ours, theirs = os.pipe()
        for fd in (ours, theirs):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, _note)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

        def ready(events: int) -> None:
            for number in os.read(ours, 64):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop()
                elif number == signal.SIGHUP:
                    self._read_again()

        self._loop.watch(ours, READ, ready)

    def _stop(self) -> None:
        """End in order: no new connection, the running action is ended and told, then the rest."""
        if not self._stopping:
            self._stopping = True
            self._connector.stop()
            self._loop.later(STOP_S, self._loop.stop)
            self._agent.stop(self._loop.stop)

    def _read_again(self) -> None:
        """Take the configuration anew; a wrong one changes nothing."""
        if self._reload is None:
            return
        try:
            config = self._reload()
        except FazaiError as error:
            mistakes = "; ".join(map(str, error.errors))
            self._log("error", f"the configuration stays as it was: {mistakes}")
            return
        before, self._agent.config = self._agent.config, config
        self._actions.forget_workers()
        self._prepare()
        if self._agent.conversation is not None:
            self._start_runner()
        if (before.state, before.limits) != (config.state, config.limits):
            self._log("warning", "`state` and `limits.journal` take effect at the next start")
        if before.telemetry != config.telemetry:
            self._start_telemetry()
        self._log("info", "the configuration was read again")
        enrolled = self._connector.certificate.is_replaced()
        if enrolled or _concerns_connection(before) != _concerns_connection(config):
            self._connector.reconnect()


def _concerns_connection(config: AgentConfig) -> tuple[object, ...]:
    """Return what the daemon was told in hello, and where and how it was reached."""
    files = (config.ca, config.certificate, config.key, config.signing_key)
    serves = (config.reconcile.mode, any(root.read for root in config.files))
    return (config.agent_id, config.name, config.daemon, config.proxy, files, serves)


def _note(number: int, frame: object) -> None:
    return
