"""The token that enrols an agent is seen by nobody but the agent; whose name is on a certificate is."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fazai.store.factory import open_certificates
from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import Fleet, Keeper


@contextlib.contextmanager
def watched_processes() -> Iterator[set[bytes]]:
    """The words and the environment of every process that there is meanwhile."""
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        seen.add((path / name).read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_the_token_is_on_no_command_line_and_in_no_file(
    fleet: Fleet, keeper: Callable[[Path], Keeper], tmp_path: Path
) -> None:
    root = fleet.host()
    with watched_processes() as seen:
        done = fleet.fazai("apply", "-v")
        keeper(root)
        until(lambda: fleet.hub.hellos)
    (enrolment,) = (json.loads(line) for line in fleet.hub.seen if "enrol" in json.loads(line))
    token = enrolment["enrol"]
    assert re.fullmatch(r"fza_[A-Za-z0-9_-]{32}\.[0-9a-f]{16}", token)
    secret = token.partition(".")[0].encode()
    assert any(b"fazai-agent.pyz" in words or b".fazai-" in words for words in seen)  # it was looked at
    assert not [words for words in seen if secret in words]
    assert secret.decode() not in done.out + done.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pem" for path in files)
    assert not [path for path in files if secret in path.read_bytes()]


@pytest.mark.slow
def test_a_refused_token_leaves_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fazai.cli.agents.registry.make_token_here", lambda name: "fza_stale." + "0" * 16)
    root = fleet.host()
    done = fleet.fazai("apply")
    assert done.code == 1
    assert "it cannot enrol: error: " in done.out
    assert "fza_stale" not in done.out + done.err
    assert [str(path) for path in root.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_certificate_that_is_lost_or_of_another_name_is_had_anew(
    fleet: Fleet, keeper: Callable[[Path], Keeper]
) -> None:
    root = fleet.host()
    assert fleet.fazai("apply").code == 0
    agent = keeper(root)
    until(lambda: agent.status().get("state") == "connected")
    (root / "etc/fazai/agent/cert.pem").unlink()
    drift = fleet.fazai("drift", "--output", "json").document["targets"][0]["changes"][0]
    assert drift["before"]["certificate"] == "none"
    assert fleet.fazai("apply").code == 0
    assert "RESULT 0 changed" in fleet.fazai("apply").out
    renamed = fleet.fazai("apply", agent_id="rack-7")
    assert renamed.code == 0, renamed.out
    assert fleet.hub.rows["rack-7"]["state"] == "observation"
    assert "RESULT 0 changed" in fleet.fazai("apply", agent_id="rack-7").out


@pytest.mark.slow
def test_who_is_revoked_is_drift_with_the_reason_and_stays_out(
    fleet: Fleet, keeper: Callable[[Path], Keeper], tmp_path: Path
) -> None:
    from fazai.cli.agents.registry import revoke_here

    root = fleet.host()
    assert fleet.fazai("apply").code == 0
    agent = keeper(root)
    until(lambda: agent.status().get("state") == "connected")
    revoke_here("edge-1")
    fleet.hub.cut()
    until(lambda: agent.status().get("state") == "refused")
    until(lambda: fleet.fazai("drift").code == 2)
    drift = fleet.fazai("drift")
    assert "revoked" in drift.out, drift.out.split()
    status = fleet.fazai("agents", "status")
    assert (status.code, "revoked" in status.out) == (2, True)
    again = fleet.fazai("apply")
    assert again.code == 1, again.out  # a run does not let in who was shut out on purpose
    assert "revoked" in again.out
    with contextlib.closing(open_certificates(tmp_path / "state")) as store:
        assert len(store.enrolments()) == 1


def test_removal_revokes_the_certificate(
    fleet: Fleet, keeper: Callable[[Path], Keeper], tmp_path: Path
) -> None:
    root = fleet.host()
    assert fleet.fazai("apply").code == 0
    keeper(root)
    until(lambda: fleet.hub.hellos)
    assert fleet.fazai("apply", "--yes", state="absent").code == 0
    with contextlib.closing(open_certificates(tmp_path / "state")) as store:
        assert [one.name for one in store.certificates() if one.revoked is None] == []
        revoked = store.revocations()
    assert revoked is not None
    assert "edge-1" in revoked.names


def test_a_host_without_a_name_says_what_to_declare(fleet: Fleet) -> None:
    fleet.host()
    del fleet.fields["agent_id"]
    found = fleet.fazai("plan")
    assert found.code == 1
    assert "the host has no name" in found.out
    assert "agent_id: NAME says how the agent is called" in found.out
