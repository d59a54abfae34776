"""Install, upgrade, a failed upgrade, waves, removal: with a service manager that runs the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.model import Resource
from fazai.outcome import RunOutcome, TargetStatus
from fazai.providers.hosts.agent.files import shipped_version
from tests.agent.receiver import Receiver
from tests.hosts.helpers import resource
from tests.supervisor.conftest import until
from tests.supervisor.machines import Lan

OLD = "0.0.9"


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    found = Lan(tmp_path)
    yield found
    found.end()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serve() as found:
        yield found


def agent(receiver: Receiver, state: str = "present", **more: Any) -> Resource:
    settings = {"backoff_min_s": "0.05", "backoff_max_s": "0.1"}
    fields = {"server": receiver.url, "interval": 60, "sample": ["uptime"], "settings": settings}
    return resource("host.telemetry_agent", {**fields, "init": "systemd", **more}, state)


def apply(lan: Lan, *wanted: Resource, **more: Any) -> RunOutcome:
    return asyncio.run(lan.apply({"web": wanted}, **more))


def words(outcome: RunOutcome) -> str:
    return " ".join(str(error) for target in outcome.targets for error in target.errors)


def older(lan: Lan, name: str) -> Path:
    """The host has an earlier version, which runs."""
    script = lan.host(name) / "root/opt/fazai/agent/telemetry.sh"
    script.write_text(script.read_text().replace(f"VERSION={shipped_version()}", f"VERSION={OLD}"))
    return script


def test_the_life_of_an_agent(lan: Lan, receiver: Receiver) -> None:
    first = apply(lan, agent(receiver))
    assert first.exit_code == 0, words(first)
    assert [str(a.change.verb) for a in first.targets[0].actions] == ["create"]
    assert len(receiver.store) >= 1  # it proved that it delivers before the run said so
    host = lan.host("web")
    assert (host / "user").exists()
    assert (host / "enabled").exists()
    assert "NoNewPrivileges=yes" in (host / "root/etc/systemd/system/fazai-telemetry.service").read_text()
    assert apply(lan, agent(receiver)).targets[0].unchanged == 1

    pid = lan.status("web")["pid"]
    changed = apply(lan, agent(receiver, interval=30))
    (action,) = changed.targets[0].actions
    assert (dict(action.change.before), dict(action.change.after)) == ({"interval": "60"}, {"interval": "30"})
    assert lan.status("web")["interval_s"] == "30.000"
    assert lan.status("web")["pid"] != pid

    asyncio.run(_stop(lan))
    drift = apply(lan, agent(receiver, interval=30), check=True)
    assert drift.targets[0].actions[0].change.before["running"] == "inactive"
    assert apply(lan, agent(receiver, interval=30)).exit_code == 0
    until(lambda: lan.status("web").get("state") == "running")

    older(lan, "web")
    upgraded = apply(lan, agent(receiver, interval=30))
    assert upgraded.targets[0].actions[0].change.before == {"version": OLD}
    assert lan.status("web")["version"] == shipped_version()

    gone = apply(lan, resource("host.telemetry_agent", {"init": "systemd"}, "absent"))
    assert gone.exit_code == 0, words(gone)
    assert not (host / "user").exists()
    assert not (host / "enabled").exists()
    assert [p for p in (host / "root").rglob("*") if p.is_file()] == []


async def _stop(lan: Lan) -> None:
    child = await asyncio.create_subprocess_exec(
        lan.folder / "bin/systemctl",
        "disable",
        env={"PATH": "/usr/bin:/bin", "HOST": str(lan.host("web"))},
    )
    assert await child.wait() == 0


def test_one_block_when_nothing_differs(lan: Lan, receiver: Receiver) -> None:
    wanted = agent(receiver)
    assert apply(lan, wanted).exit_code == 0

    async def look() -> int:
        from fazai.model import Target

        async with lan.connect(Target("web", "local", "write", {})) as session:
            diff = session.diff([wanted], await session.observe([wanted]))
            assert (diff.changes, diff.errors) == ((), ())
            return session.shell.blocks

    assert asyncio.run(look()) == 1


def test_a_new_agent_that_fails_its_self_test_is_not_installed(lan: Lan, receiver: Receiver) -> None:
    assert apply(lan, agent(receiver)).exit_code == 0
    script = older(lan, "web")
    pid = lan.status("web")["pid"]
    failed = apply(lan, agent(receiver, ca_file="/nowhere/ca.pem"))
    assert failed.targets[0].status is TargetStatus.FAILED
    assert "does not pass its self-test, the old one stays" in words(failed)
    assert "/nowhere/ca.pem cannot be read" in words(failed)
    assert f"VERSION={OLD}" in script.read_text()
    assert "nowhere" not in (lan.host("web") / "root/etc/fazai/telemetry.env").read_text()
    assert lan.status("web")["pid"] == pid  # it was not even stopped
    assert list((lan.host("web") / "root").rglob(".fazai-*")) == []


def test_an_upgrade_that_does_not_come_up_gives_way_to_the_old_version(
    lan: Lan, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apply(lan, agent(receiver)).exit_code == 0
    script = older(lan, "web")
    (lan.host("web") / "refuses").write_text(f"VERSION={shipped_version()}")
    failed = apply(lan, agent(receiver, interval=30))
    assert failed.targets[0].status is TargetStatus.FAILED
    assert "did not come up\nwhat was there before is put back" in words(failed)
    assert f"VERSION={OLD}" in script.read_text()
    assert 'INTERVAL_S="60"' in (lan.host("web") / "root/etc/fazai/telemetry.env").read_text()
    until(lambda: (lan.status("web").get("version"), lan.status("web").get("state")) == (OLD, "running"))
    assert list((lan.host("web") / "root").rglob(".fazai-*")) == []


@pytest.mark.slow
def test_an_upgrade_is_taken_back_with_the_run(lan: Lan, receiver: Receiver) -> None:
    """A failure later on the host takes the new version with it."""
    assert apply(lan, agent(receiver)).exit_code == 0
    script = older(lan, "web")
    late = resource("host.command", {"argv": ["false"], "creates": "/nothing"})
    failed = apply(lan, agent(receiver), late)
    assert failed.targets[0].status is TargetStatus.FAILED
    assert [a.status for a in failed.targets[0].actions] == ["undone", "failed"]
    assert f"VERSION={OLD}" in script.read_text()
    until(lambda: lan.status("web").get("version") == OLD)


@pytest.mark.in_turn("other")
@pytest.mark.parametrize(
    "other",
    [
        "echo '# theirs' >>etc/fazai/telemetry.env",
        "echo '# theirs' >>opt/fazai/agent/telemetry.sh",
        "echo '# theirs' >>etc/systemd/system/fazai-telemetry.service",
        "chmod 0644 etc/fazai/telemetry.env",
        "systemctl disable fazai-telemetry",
    ],
)
def test_what_somebody_changed_of_an_agent_after_us_stays(other: str, lan: Lan, receiver: Receiver) -> None:
    """Neither the old version nor nothing takes the place of what another hand left."""
    late = resource("host.command", {"shell": f"{other}; false", "creates": "/nothing", "chdir": "/"})
    for upgrade in (False, True):
        if upgrade:
            assert apply(lan, agent(receiver)).exit_code == 0
            older(lan, "web")
        failed = apply(lan, agent(receiver), late)
        (target,) = failed.targets
        assert (target.status, [a.status for a in target.actions]) == (
            TargetStatus.FAILED,
            ["done", "failed"],
        )
        said = "host.telemetry_agent telemetry: it is not as this run left it: it stays as it is"
        assert said in target.notes, target.notes
        root = lan.host("web") / "root"
        assert f"VERSION={shipped_version()}" in (root / "opt/fazai/agent/telemetry.sh").read_text()
        if "theirs" in other:
            assert "# theirs" in (root / other.rpartition(">>")[2]).read_text()


def test_who_does_not_deliver_is_said_and_stays(lan: Lan, receiver: Receiver) -> None:
    receiver.keys = (b"another key, of 32 characters...",)
    failed = apply(lan, agent(receiver, key="k" * 32))
    assert failed.targets[0].status is TargetStatus.FAILED
    assert "status 401" in words(failed)
    assert [a.status for a in failed.targets[0].actions] == ["done"]
    assert lan.status("web")["state"] == "running"
    assert "k" * 32 not in words(failed)


def test_two_hosts_that_call_themselves_the_same_are_not_one_to_the_daemon(
    lan: Lan, receiver: Receiver
) -> None:
    """The second one is refused before it is written to; with names of their own both are let in."""
    names = ("web-1", "web-2")
    for name, own in zip(names, ("debian", "debian"), strict=True):
        kernel = lan.host(name) / "root/proc/sys/kernel/hostname"
        kernel.parent.mkdir(parents=True)
        kernel.write_text(f"{own}\n")
    for check in (True, False):
        outcome = asyncio.run(
            lan.apply({name: [agent(receiver)] for name in names}, check=check, serial=(1,))
        )
        first, second = outcome.targets
        assert first.status is (TargetStatus.PENDING if check else TargetStatus.CHANGED), words(outcome)
        said = f'web-1 and web-2 would both be the agent "debian" of {receiver.url}'
        assert [e.message for e in second.errors] == [f"{said}, which could not tell them apart"]
        assert (
            second.errors[0].hint == 'give each a name of its own there, such as "{{ inventory_hostname }}"'
        )
        assert not (lan.host("web-2") / "user").exists()
    named = {name: [agent(receiver, hostname=name)] for name in names}
    assert asyncio.run(lan.apply(named)).exit_code == 0
    mixed = {"web-1": named["web-1"], "web-2": [agent(receiver, hostname="web-1")]}
    assert "would both be the agent" in words(asyncio.run(lan.apply(mixed, check=True)))


@pytest.mark.slow
def test_waves_stop_where_too_many_fail(lan: Lan, receiver: Receiver) -> None:
    names = ["web-1", "web-2", "web-3"]
    assert asyncio.run(lan.apply({name: [agent(receiver)] for name in names})).exit_code == 0
    for name in names:
        older(lan, name)
    (lan.host("web-1") / "refuses").write_text(f"VERSION={shipped_version()}")
    wanted = {name: [agent(receiver)] for name in names}
    outcome = asyncio.run(lan.apply(wanted, serial=(1, 2), max_fail=0))
    assert [t.status for t in outcome.targets] == [
        TargetStatus.FAILED,
        TargetStatus.SKIPPED,
        TargetStatus.SKIPPED,
    ]
    scripts = [lan.host(name) / "root/opt/fazai/agent/telemetry.sh" for name in names]
    assert all(f"VERSION={OLD}" in script.read_text() for script in scripts)
    (lan.host("web-1") / "refuses").unlink()
    assert asyncio.run(lan.apply(wanted, serial=(1, 2), max_fail=0)).exit_code == 0
    assert {lan.status(name)["version"] for name in names} == {shipped_version()}
