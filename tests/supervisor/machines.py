"""Folders that behave as machines: with accounts, and a service manager that really runs the agent.

What a test cannot have is made of a few lines of shell in PATH: `systemctl`, `su`, `id`, `useradd`,
`userdel`, `chown`, `journalctl`. All else, the kind's scripts and the agent, is the real thing.
"""

from __future__ import annotations

import getpass
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fazai.apply import Engine
from fazai.model import Resource, Target, TargetWork, Work
from fazai.outcome import RunOutcome
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.kinds.telemetry import AgentKind
from fazai.providers.hosts.local.transport import start_local_shell
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.become import Become
from fazai.store.base import Run
from fazai.store.sqlite.ledger import SqliteStore

SYSTEMCTL = r"""#!/bin/sh
alive() { [ -s "$HOST/pid" ] && kill -0 "$(cat "$HOST/pid")" 2>/dev/null; }
halt() {
    ! alive || { kill -TERM "$(cat "$HOST/pid")"; while alive; do sleep 0.02; done; }
    rm -f "$HOST/pid"
}
case $1 in
is-active) if alive; then echo active; else echo inactive; fi ;;
is-enabled) [ -e "$HOST/enabled" ] && echo enabled || echo disabled ;;
enable) : >"$HOST/enabled" ;;
disable) rm -f "$HOST/enabled"; halt ;;
restart)
    halt
    script=$HOST/root/opt/fazai/agent/telemetry.sh
    if [ -e "$HOST/refuses" ] && grep -q "$(cat "$HOST/refuses")" "$script"; then exit 1; fi
    setsid "$script" --config "$HOST/root/etc/fazai/telemetry.env" >/dev/null 2>>"$HOST/log" </dev/null &
    echo $! >"$HOST/pid" ;;
esac
exit 0
"""
PROGRAMS = {
    "systemctl": SYSTEMCTL,
    "su": '#!/bin/sh\nexec /bin/sh -c "$4"\n',  # su -s /bin/sh -c COMMAND USER
    "id": '#!/bin/sh\n[ -e "$HOST/user" ] && echo 999\n',
    "useradd": '#!/bin/sh\n: >"$HOST/user"\n',
    "userdel": '#!/bin/sh\nrm "$HOST/user"\n',
    "chown": "#!/bin/sh\n",
    "journalctl": '#!/bin/sh\ntail -n 5 "$HOST/log"\n',
}


class Machine(AgentKind):
    """The kind on a folder that is a machine."""

    account: ClassVar[str] = getpass.getuser()

    def in_folder(self, at: Callable[[str], str]) -> bool:
        return False


MACHINE = Machine()


class Lan:
    """A provider of such machines, below `folder`."""

    name = "local"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds = {**load_host_kinds(), MACHINE.name: MACHINE}
        self.options: Mapping[str, Any] = {}
        programs = folder / "bin"
        programs.mkdir()
        for name, text in PROGRAMS.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def check(self, target: Target) -> list[Any]:
        return []

    def host(self, name: str) -> Path:
        folder = self.folder / name
        (folder / "root").mkdir(parents=True, exist_ok=True)
        return folder

    def box_of(self, target: Target) -> str:
        return target.name

    def connect(self, target: Target) -> HostSession:
        host = self.host(target.name)
        root = host / "root"
        environ = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "HOST": str(host),
            "FAZAI_AGENT_STATE_DIR": f"{root}/var/lib/fazai-agent",
        }
        return HostSession(
            target,
            self.kinds,
            lambda: start_local_shell(target.name, Become(), str(root), environ),
            timeout_s=20,
            root=str(root),
        )

    async def apply(
        self, resources: Mapping[str, Sequence[Resource]], *, check: bool = False, **waves: Any
    ) -> RunOutcome:
        """A run of the engine over these hosts."""
        targets = tuple(
            TargetWork(Target(name, "local", "read" if check else "write", {}), tuple(wanted))
            for name, wanted in resources.items()
        )
        store = SqliteStore(self.folder / "state")
        self.runs = getattr(self, "runs", 0) + 1
        engine = Engine(
            store=store,
            provider=lambda name: self,
            run=Run(f"{self.runs:026d}", "apply", (), "me", "here", os.getpid(), 1.0),
            emit=lambda event: None,
            finished=lambda outcome: None,
            forks=8,
            check=check,
        )
        try:
            return await engine.carry_out([Work("hosts", targets, **waves)])
        finally:
            store.close()

    def end(self) -> None:
        for pid in self.folder.glob("*/pid"):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                continue

    def status(self, name: str) -> dict[str, str]:
        try:
            text = (self.folder / name / "root/var/lib/fazai-agent/status").read_text()
        except FileNotFoundError:
            return {}
        return dict(line.partition("=")[::2] for line in text.splitlines())
