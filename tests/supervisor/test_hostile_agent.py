"""Files that the agent's own user leaves in its folder, and others beside its log: none holds root up nor
is it shown."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from fazai.providers.hosts.agent import scripts
from fazai.providers.hosts.agent.files import TELEMETRY
from fazai.providers.hosts.agent.layout import InstallSite
from tests.hosts.conftest import World
from tests.hosts.helpers import Host, shell_environ

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can plant for others")


def agent(**more: Any) -> dict[str, Any]:
    fields = {"server": "https://fazai.example.net:3120", "hostname": "box", "init": "none", "key": "a" * 64}
    return {"host.telemetry_agent": {**fields, **more}}


@pytest.mark.in_turn("what")
@pytest.mark.parametrize("what", ["pipe", "link to a pipe"])
def test_a_pipe_in_place_of_the_status(what: str, world: World) -> None:
    root = world.local()
    assert world.fazai("apply", resources=[agent(interval=60)]).code == 0
    status = root / TELEMETRY.status[1:]
    os.mkfifo(status if what == "pipe" else status.with_name("other"))
    if what != "pipe":
        status.symlink_to("other")
    found = world.fazai("apply", resources=[agent(interval=30)])
    assert (found.code, "1 updated" in found.out) == (0, True), found
    gone = {"host.telemetry_agent": {"state": "absent"}}
    found = world.fazai("apply", "--yes", resources=[gone])
    assert (found.code, "1 deleted" in found.out, (root / TELEMETRY.state[1:]).exists()) == (
        0,
        True,
        False,
    ), found


@ROOT
@pytest.mark.parametrize("mode", [0o755, 0o775])
def test_a_log_in_a_folder_to_which_others_may_write_is_not_shown(mode: int, tmp_path: Path) -> None:
    """A group of the system's may, on some: it can put a link there."""
    log = tmp_path / TELEMETRY.log[1:]
    log.parent.mkdir(parents=True)
    log.parent.chmod(mode)
    if mode == 0o755:
        log.write_text("what it said last\n")
    else:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/shadow").write_text("root:$6$SECRETHASH:19000::::::\n")
        log.symlink_to("../../etc/shadow")
    site = InstallSite(TELEMETRY, lambda path: f"{tmp_path}{path}", True, "none", "token")

    async def run() -> str:
        host = Host.local(tmp_path, shell_environ("dash", tmp_path))
        async with host.session:
            result = await host.session.shell.run(scripts._show_log_end(site))
            return result.out.decode()

    said = asyncio.run(run())
    assert ("what it said last" in said, "SECRETHASH" in said) == (mode == 0o755, False), said
