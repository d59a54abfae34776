"""The units in deploy/, as systemd reads them, and the worker under what they restrict."""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import Unreachable
from fazai.providers.gemma.client import GemmaClient
from fazai.wire.worker import SessionParams
from fazai.worker.demo import find_demo_model
from tests.worker.process import ROOT, Process, with_model, without_model, worker_metrics
from tests.worker.restricted import NOBODY, wrapper

DEPLOY = ROOT / "deploy"
UNITS = ("fazai-gemma-worker.service", "fazai-gemma-worker.socket")


def _unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string((DEPLOY / name).read_text())
    return parser


def test_the_worker_is_a_user_of_its_own_with_nothing_of_the_daemons_in_reach() -> None:
    """Who takes it over must not be admin by the daemon's socket, nor read secrets."""
    service, sock = (_unit(name) for name in UNITS)
    daemon, port = (_unit(name) for name in ("fazai.service", "fazai.socket"))
    own = service["Service"]
    assert own["User"] == own["Group"] == sock["Socket"]["SocketUser"] == "fazai-worker"
    assert own["User"] not in (daemon["Service"]["User"], port["Socket"]["SocketUser"])
    assert own["Group"] != port["Socket"]["SocketGroup"]  # whose members are operators
    assert "SupplementaryGroups" not in own
    hidden = own["InaccessiblePaths"].replace("-/", "/").split()
    assert hidden == ["/run/fazai/daemon.sock", "/var/lib/fazai", "/etc/fazai"]
    for path in (port["Socket"]["ListenStream"], daemon["Service"]["Environment"]):
        for word in path.split():
            place = word.partition("=")[2] or word
            if place.startswith("/"):
                assert any(place == one or place.startswith(f"{one}/") for one in hidden), place
    assert sock["Socket"]["SocketGroup"] == daemon["Service"]["Group"] == "fazai"  # the daemon may ask it
    assert sock["Socket"]["ListenStream"] == "/run/fazai/gemma.sock"
    assert sock["Socket"]["SocketMode"] == "0660"
    assert sock["Socket"]["DirectoryMode"] == "0755"  # made by root: clients must pass it
    users = (DEPLOY / "fazai.sysusers.conf").read_text()
    assert "\nu fazai " in users
    assert "\nu fazai-worker " in users
    assert "\nm " not in users  # nobody is made a member of another's group


def test_the_drop_in_opens_loopback_and_nothing_else() -> None:
    found = _unit("fazai-gemma-worker-metrics.conf")["Service"]
    assert found["RestrictAddressFamilies"] == "AF_UNIX AF_INET"
    assert (found["IPAddressDeny"], found["IPAddressAllow"]) == ("any", "127.0.0.1")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        text = (DEPLOY / name).read_text().replace("/opt/fazai/bin/fazai", sys.executable)
        (tmp_path / name).write_text(text)
    drop_in = tmp_path / "fazai-gemma-worker.service.d"
    drop_in.mkdir()
    shutil.copy(DEPLOY / "fazai-gemma-worker-metrics.conf", drop_in / "metrics.conf")

    def analyze(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)

    checked = analyze("verify", *(str(tmp_path / name) for name in UNITS))
    assert (checked.returncode, checked.stderr) == (0, "")
    shutil.rmtree(drop_in)
    rated = analyze("security", "--offline=true", "--threshold=10", str(tmp_path / UNITS[0]))
    assert rated.returncode == 0, rated.stdout  # exposure of at most 1.0 of 10


def _can_restrict() -> bool:
    return (
        os.geteuid() == 0
        and shutil.which("setpriv") is not None
        and subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode == 0
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the worker's user; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="fazai-") as name:
        os.chown(name, NOBODY, NOBODY)
        Path(name).chmod(0o755)
        yield Path(name)


restricted = pytest.mark.skipif(not _can_restrict(), reason="needs root, setpriv and namespaces")


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _serves(process: Process, **asked: Any) -> None:
    """It answers, says its metrics on the socket, and is what the unit makes of it."""
    process.told("READY=1")
    status = _status(process.child.pid)
    assert set(status["Uid"].split()) == {str(NOBODY)}
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    async def run() -> None:
        client = GemmaClient(process.socket)
        async with client.session(SessionParams(max_tokens=6, **asked)) as session:
            assert await session.generate("Is it?")
        text = await worker_metrics(client)
        assert re.search(r'fazai_worker_generations_total\{reason="\w+"\} 1.0$', text, re.M)

    asyncio.run(run())
    process.child.terminate()
    assert process.ended() == (0, "")
    assert not process.socket.exists()


@restricted
def test_it_runs_as_the_unit_restricts_it(folder: Path) -> None:
    model = folder / "none.gguf"
    model.write_bytes(b"")
    with Process(without_model(), model, folder, wrapper=wrapper(folder, [socket.AF_UNIX])) as process:
        _serves(process)


@restricted
def test_a_metrics_port_without_the_drop_in_is_refused_with_the_way_out(folder: Path) -> None:
    model = folder / "none.gguf"
    model.write_bytes(b"")
    words = ("--metrics-port", "9103")
    with Process(
        without_model(), model, folder, *words, wrapper=wrapper(folder, [socket.AF_UNIX])
    ) as process:
        code, said = process.ended()
        assert code == 3
        assert "Address family not supported" in said
        assert "fazai-gemma-worker-metrics.conf" in said
    with pytest.raises(Unreachable, match="does not answer: No such file or directory"):
        asyncio.run(GemmaClient(process.socket, connect_timeout_s=0.05).status())
    families = [socket.AF_UNIX, socket.AF_INET]
    with Process(without_model(), model, folder, *words, wrapper=wrapper(folder, families)) as process:
        process.told("READY=1")  # with the drop-in


@restricted
@pytest.mark.gemma
@pytest.mark.xdist_group("model")
def test_the_real_model_runs_as_the_unit_restricts_it(folder: Path) -> None:
    model = find_demo_model(folder)
    with Process(with_model(), model, folder, wrapper=wrapper(folder, [socket.AF_UNIX])) as process:
        _serves(process, json_schema={"type": "boolean"})
