"""Parts of the worker that need neither a model nor a server."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from pathlib import Path

import httpx
import pytest

from fazai.errors import InputError
from fazai.service import systemd
from fazai.service.log import Log
from fazai.service.prometheus import Histogram, render_metrics
from fazai.worker import bridge, metrics


def test_without_the_native_module_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(InputError) as refused:
        bridge.NativeEngine(tmp_path / "x.gguf", bridge.Options())
    assert "pip install ./native" in str(refused.value)


def test_the_socket_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with systemd.listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(InputError, match="another worker answers"):
            systemd.listen(path)
    with systemd.listen(path):  # the one before left its file behind
        pass
    path.unlink()
    path.write_text("something else")
    with pytest.raises(InputError, match="no socket stands there"):
        systemd.listen(path)
    assert path.read_text() == "something else"
    with pytest.raises(InputError, match="there is no folder"):
        systemd.listen(tmp_path / "none" / "a.sock")
    with pytest.raises(InputError, match="107 bytes"):
        systemd.listen(tmp_path / ("x" * 120))


def test_systemd_is_told_where_it_listens(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        systemd.notify({"NOTIFY_SOCKET": address}, "READY=1")
        assert ear.recv(100) == b"READY=1"
    systemd.notify({"NOTIFY_SOCKET": address}, "READY=1")  # nobody listens any more
    systemd.notify({}, "READY=1")
    assert systemd.inherited_unix_socket({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, 2) is None
    with pytest.raises(InputError, match="hands over 2 sockets"):
        systemd.inherited_unix_socket({"LISTEN_PID": "2", "LISTEN_FDS": "2"}, 2)


def test_histograms_are_cumulative() -> None:
    found = Histogram("x_seconds", "Text.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        found.observe(value)
    found.observe(0.2, 2)
    assert render_metrics([found.family()]).decode().splitlines()[2:] == [
        'x_seconds_bucket{le="0.1"} 2.0',
        'x_seconds_bucket{le="1"} 5.0',
        'x_seconds_bucket{le="+Inf"} 6.0',
        "x_seconds_count 6.0",
        "x_seconds_sum 8.05",
    ]


def test_metrics_over_http() -> None:
    async def run() -> None:
        found = metrics.Metrics()
        found.errors["bad_json"] += 3
        server = await metrics.serve_metrics(0, lambda: found.text(None))
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{port}/metrics")
            assert answer.status_code == 200
            assert 'fazai_worker_errors_total{code="bad_json"} 3.0' in answer.text
            assert "fazai_worker_first_token_seconds_count 0.0" in answer.text
            assert (await http.get(f"http://127.0.0.1:{port}/other")).status_code == 404
        server.close()

    asyncio.run(run())


def test_the_log_is_reopened(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.say("info", "one", session_id="s-1")
    (tmp_path / "log").rename(tmp_path / "old")
    log.reopen()
    log.say("error", "two")
    log.close()
    assert json.loads((tmp_path / "old").read_text())["session_id"] == "s-1"
    assert json.loads((tmp_path / "log").read_text())["message"] == "two"
