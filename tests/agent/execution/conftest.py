"""An agent's policy for a test, and its command.exec as the agent runs it: in a forked child."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.execution.landlock import read_abi
from fazai.agent.execution.limits import find_own_cgroup

ROOT = Path(__file__).parents[3]
RUNNER = Path(__file__).with_name("runner.py")
PYTHON = os.path.realpath(sys.executable)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
needs_landlock = pytest.mark.skipif(read_abi() == 0, reason="this kernel has no Landlock")
needs_cgroup = pytest.mark.skipif(find_own_cgroup() is None, reason="no cgroup of version 2 can be made here")
#: Runs a command where no cgroup of version 2 is mounted, as on older systems.
_HIDE = """
while read -r _ _ _ _ mount rest; do
    case $rest in *"- cgroup2 "*) umount -l "$mount" ;; esac
done < /proc/self/mountinfo
exec "$@"
"""
WITHOUT_CGROUP = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")


class RunningCommand:
    """A command.exec that is under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.child = int(process.stdout.readline())

    def answer(self, *, wait: bool = True) -> dict[str, Any]:
        """Wait for the answer, and for the end; empty where the child died without one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if wait:
            self.process.wait()
        return json.loads(line) if line else {}

    def peak_kib(self) -> int:
        """The most memory that the child had, after its answer."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


class ExecAgent:
    """What one agent may run, by the text of `programs`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[RunningCommand] = []
        self.marker = f"marker-{uuid.uuid4().hex}"

    def start(
        self,
        programs: str,
        *,
        wrapper: tuple[str, ...] = (),
        python: str = sys.executable,
        later: Sequence[Mapping[str, Any]] = (),
        **request: Any,
    ) -> RunningCommand:
        """Begin a command; `later` are those that the same process runs after it."""
        config = self.folder / f"agent-{len(self._started)}.yml"
        config.write_text(
            "agent_id: edge-7\ndaemon: wss://fazai.example:3121\nca: /ca\ncertificate: /cert\nkey: /key\n"
            f"programs:\n{programs}"
        )
        process = subprocess.Popen(
            [*wrapper, python, str(RUNNER), str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HIDDEN": "x",
            },
        )
        assert process.stdin is not None
        for each in (request, *later):
            process.stdin.write(json.dumps({"args": [], "timeout": 20_000, **each}) + "\n")
        process.stdin.close()
        process.stdin = None  # communicate() leaves it alone
        running = RunningCommand(process)
        self._started.append(running)
        return running

    def run(self, programs: str, **request: Any) -> dict[str, Any]:
        """Run a command to its answer."""
        return self.start(programs, **request).answer()

    def close(self) -> None:
        """End what a failed test left: by the child, which ends its whole tree, then by hand."""
        for running in self._started:
            if running.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running.child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.communicate(timeout=20)
            running.process.kill()
            running.process.communicate()
        while left := processes_with(self.marker):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ExecAgent]:
    found = ExecAgent(tmp_path)
    yield found
    found.close()


def processes_with(marker: str) -> list[int]:
    """The living processes with a text in their arguments."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                text = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in text:
                found.append(int(path.name))
    return found


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


def program(
    path: str, *, args: str = "[{pattern: '.*', rest: true, optional: true, dash: true}]", **more: str
) -> str:
    """One entry of `programs` that takes any arguments, unless told otherwise."""
    fields: Mapping[str, str] = {"args": args, **more}
    return f"  - path: {path}\n" + "".join(f"    {key}: {value}\n" for key, value in fields.items())
