"""`fazai doctor`: a line for each thing, what mends it, and whether something has to be mended."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from pathlib import Path

import pytest

from fazai.cli.commands import doctor
from fazai.cli.main import main
from fazai.lab import LabSettings, LabThread
from tests.daemon.live import live, token


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    monkeypatch.setenv("FAZAI_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("FAZAI_GEMMA_SOCK", str(tmp_path / "worker.sock"))
    for name in ("FAZAI_URL", "FAZAI_INVENTORY", "FAZAI_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """The exit code, and by name the state and text of each check."""
    code = main(["doctor", *words, "--output", "json"])
    found: dict[str, list[tuple[str, str]]] = {}
    for one in json.loads(capsys.readouterr().out)["checks"]:
        found.setdefault(one["name"], []).append((one["state"], one["text"]))
    return code, found


def test_a_machine_with_nothing_has_nothing_to_mend(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, found = lines(capsys)
    assert code == 0
    assert {name: state for name, [(state, _)] in found.items() if name != "clock"} == {
        "store": "skip",
        "secrets": "skip",
        "daemon": "skip",
        "worker": "skip",
        "firewalls": "skip",
    }
    assert not (tmp_path / "state").exists()  # it only looks
    assert main(["doctor"]) == 0
    assert (
        "skip  daemon: none runs here, and FAZAI_URL names none\n      fazai daemon\n"
        in capsys.readouterr().out
    )


def test_secrets_that_others_can_read_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "secrets/opnsense"
    folder.mkdir(mode=0o700, parents=True)
    (tmp_path / "secrets").chmod(0o700)
    for number in range(12):
        (folder / f"{number:02}.json").write_text("{}")
        (folder / f"{number:02}.json").chmod(0o600)
    assert lines(capsys)[1]["secrets"] == [("ok", f"nobody else can read what is in {tmp_path}/secrets")]
    (folder / "03.json").chmod(0o640)
    code, found = lines(capsys)
    assert (code, found["secrets"]) == (1, [("fail", f"others can read {folder}/03.json (mode 0640)")])
    assert main(["doctor"]) == 1
    assert f"      chmod 600 {folder}/03.json\n" in capsys.readouterr().out
    for path in folder.iterdir():
        path.chmod(0o644)
    assert lines(capsys)[1]["secrets"][-1] == ("fail", "and 2 more files")


def test_a_store_that_is_open_or_damaged_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["history"]) == 0
    capsys.readouterr()
    assert lines(capsys)[1]["store"][0][0] == "ok"
    (tmp_path / "state").chmod(0o755)
    code, found = lines(capsys)
    assert code == 1
    assert "is open to others (mode 0755): chmod 700" in found["store"][0][1]
    (tmp_path / "state").chmod(0o700)
    file = tmp_path / "state/fazai.sqlite3"
    file.write_bytes(b"no database" * 1000)
    for more in ("-wal", "-shm"):
        file.with_name(file.name + more).unlink(missing_ok=True)
    code, found = lines(capsys)
    assert (code, found["store"][0][0]) == (1, "fail")
    assert "is damaged: file is not a database" in found["store"][0][1]


def test_a_daemon_and_its_firewalls_are_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = token(tmp_path, "reader", "viewer")
    with live(tmp_path) as daemon:
        (tmp_path / "token").write_text(reader)
        (tmp_path / "token").chmod(0o600)
        monkeypatch.setenv("FAZAI_URL", daemon.url)
        monkeypatch.setenv("FAZAI_TOKEN_FILE", str(tmp_path / "token"))
        code, found = lines(capsys)
        assert (code, found["firewalls"]) == (0, [("skip", "the daemon knows none")])
        assert found["daemon"][0][1].startswith(f"{daemon.url} answers, version ")
        (tmp_path / "token").write_text("wrong")
        code, found = lines(capsys)
        assert (code, found["daemon"]) == (1, [("fail", f"{daemon.url} answers 401")])
        (tmp_path / "token").chmod(0o644)
        wrong = ("fail", f"others can read {tmp_path}/token (mode 0644)")
        assert wrong in lines(capsys)[1]["secrets"]
    (tmp_path / "token").chmod(0o600)
    code, found = lines(capsys)
    assert (code, found["daemon"]) == (1, [("fail", f"{daemon.url} does not answer: ConnectError")])


def test_each_firewall_of_an_inventory_is_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with LabThread() as lab:
        firewall = lab.start("fw-01", LabSettings(auth_delay_s=0.0))
        good = {
            "provider": "opnsense",
            "base_url": firewall.base_url,
            "secret": {"api_key": firewall.api_key, "api_secret": firewall.api_secret},
        }
        hosts = {"fw-01": good, "fw-02": {**good, "base_url": "https://127.0.0.1:1"}, "web-01": None}
        (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        code, found = lines(capsys, str(tmp_path / "inventory.json"))
    assert code == 1
    assert found["firewall fw-01"][0][0] == "ok"
    assert found["firewall fw-01"][0][1].startswith("it answers, OPNsense 2")
    assert found["firewall fw-02"][0][0] == "fail"
    assert "firewall web-01" not in found


def test_an_inventory_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "none.yml"]) == 3
    assert 'there is no inventory "none.yml"' in capsys.readouterr().err


def test_a_worker_that_says_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ANSWER_S", 0.2)
    path = tmp_path / "worker.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        found = asyncio.run(doctor.check_worker(path))
    assert (found.state, found.text) == ("fail", f"{path} does not answer in 0.2 s")
    found = asyncio.run(doctor.check_worker(path))  # its socket is there, and nobody behind it
    assert found.state == "fail"


def test_a_clock_that_differs_from_the_daemons_fails() -> None:
    def fleet(seconds: float, local: bool) -> dict[str, object]:
        from fazai.timestamps import timestamp

        return {"time": timestamp(time.time() + seconds).isoformat(), "local": local, "rows": []}

    found = doctor.check_clock(fleet(600, local=False))
    assert (found.state, found.text) == ("fail", "it differs by 600 s from the daemon's")
    assert doctor.check_clock(fleet(600, local=True)).state != "fail"
    assert doctor.check_clock(fleet(5, local=False)).state != "fail"
    assert doctor.check_clock({"local": False, "time": "nonsense"}).state != "fail"
    assert os.environ.get("FAZAI_URL") is None


def test_what_the_daemon_knows_of_firewalls_is_shown() -> None:
    rows = [
        {"kind": "firewall", "name": "fw-01", "up": True, "version": "26.1"},
        {"kind": "firewall", "name": "fw-02", "up": False, "error": "timeout"},
        {"kind": "firewall", "name": "fw-03"},
        {"kind": "host", "name": "web-01"},
        "nonsense",
    ]
    assert [(one.name, one.state, one.text) for one in doctor.check_known_firewalls({"rows": rows})] == [
        ("firewall fw-01", "ok", "it answers the daemon, version 26.1"),
        ("firewall fw-02", "fail", "it does not answer the daemon: timeout"),
        ("firewall fw-03", "warn", "the daemon did not ask it yet"),
    ]
