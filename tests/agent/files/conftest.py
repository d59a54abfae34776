"""A folder that stands for a machine, and calls in forked children as the agent makes them."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.config.settings import AgentConfig, FilesRoot
from fazai.agent.errors import Refused
from fazai.agent.files.applying import apply_file
from fazai.agent.files.diffing import diff_file
from fazai.agent.files.listing import list_folder
from fazai.agent.files.reading import read_file

#: Where each fault of file.apply may end the process, in order.
FAULTS = (
    "temporary.created",
    "temporary.written",
    "temporary.synced",
    "checked",
    "renamed",
    "folder.synced",
)


def no_confinement(_root: int | None) -> None:
    """Leave the tests' own process as it is."""


class Machine:
    """A folder that stands for `/`: /etc/app may be written, /etc/app/fixed and /srv only be compared."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "machine"
        for name in ("etc/app/sub", "etc/app/fixed", "srv", "outside"):
            (self.root / name).mkdir(parents=True)
        self.config = AgentConfig(
            file="/nowhere/agent.yml",
            agent_id="edge-7",
            daemon=(),
            ca="/nowhere/ca.pem",
            certificate="/nowhere/cert.pem",
            key="/nowhere/key.pem",
            state="/nowhere/state",
            root=str(self.root),
            files=(
                FilesRoot("/etc/app", write=True),
                FilesRoot("/etc/app/fixed", write=False),
                FilesRoot("/srv"),
            ),
        )

    def __truediv__(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def diff(self, path: str, want: str | None = None, **fields: Any) -> dict[str, Any]:
        request = {"method": "file.diff", "action_id": "d-1", "path": path, **fields}
        if want is not None:
            request["want"] = want
        return diff_file(request, self.config, confine=no_confinement)

    def read(self, path: str, **fields: Any) -> dict[str, Any]:
        request = {"method": "file.read", "action_id": "f-1", "path": path, **fields}
        return read_file(request, self.config, confine=no_confinement)

    def list(self, path: str) -> dict[str, Any]:
        request = {"method": "file.list", "action_id": "l-1", "path": path}
        return list_folder(request, self.config, confine=no_confinement)

    def apply(self, path: str, options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        request = {"method": "file.apply", "action_id": "p-1", "path": path, **fields}
        return apply_file(request, self.config, confine=no_confinement, **options or {})

    def set_to(self, path: str, want: str, **fields: Any) -> dict[str, Any]:
        """Compare and apply, as a daemon does."""
        found = self.diff(path, want)
        return self.apply(path, patch=found["patch"], base_sha256=found["base_sha256"], **fields)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def in_child(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call in a forked child and return the answer: the fields, or the error as `error` and `code`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                answer = run()
            except Refused as error:
                answer = {"error": str(error), "code": error.code}
            os.write(writing, json.dumps(answer).encode())
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = json.loads(text) if text else {}
    return {**answer, "ended": ended}
