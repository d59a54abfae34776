"""Whole runs as a user types them, against the lab over HTTP."""

from __future__ import annotations

import copy
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fazai.lab import Fault
from fazai.report.document import Document

from .conftest import RESOURCES, Result, World


def document(result: Result) -> Document:
    """The JSON output, held to its schema."""
    return msgspec.json.decode(result.out, type=Document)


def test_apply_twice_changes_once(world: World) -> None:
    firewall = world.firewall()
    inventory = world.inventory()
    first = world.fazai("apply", inventory)
    assert (first.code, first.err) == (0, "")
    assert "RESULT 3 changed, 0 unchanged, 0 failed" in first.out
    rows = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    assert [row["content"] for row in rows if row["name"] == "dns_servers"] == ["192.0.2.53\n192.0.2.54"]
    world.forget()
    second = world.fazai("apply", inventory)
    assert second.code == 0
    assert "RESULT 0 changed, 3 unchanged, 0 failed" in second.out
    assert world.writes() == []
    assert len(firewall.requests) <= 3 + 2


def test_piped_output_is_a_line_a_target(world: World) -> None:
    world.firewall()
    world.firewall("fw-02")
    lines = world.fazai("apply", world.inventory()).out.splitlines()
    assert sorted(line.split()[:3] for line in lines if line.startswith("  fw-")) == [
        ["fw-01", "~", "changed"],
        ["fw-02", "~", "changed"],
    ]


def test_quiet_says_nothing_when_converged(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    assert world.fazai("apply", inventory, "--quiet").out != ""
    again = world.fazai("apply", inventory, "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")


def test_plan_and_check_and_drift_write_nothing_and_exit_2(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    for words in (("plan",), ("apply", "--check"), ("drift",)):
        result = world.fazai(*words, inventory)
        assert result.code == 2
        assert "RESULT 3 to change" in result.out
        assert "+ alias dns_servers" in result.out
    assert world.writes() == []


def test_drift_is_found_after_somebody_changed_the_firewall(world: World) -> None:
    firewall = world.firewall()
    inventory = world.inventory()
    world.fazai("apply", inventory)
    rows = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    uuid = next(row["uuid"] for row in rows if row["name"] == "dns_servers")
    firewall.call(
        "POST", f"/api/firewall/alias/setItem/{uuid}", {"alias": {"content": "192.0.2.53\n203.0.113.7"}}
    )
    drift = world.fazai("drift", inventory)
    assert drift.code == 2
    assert "content: +192.0.2.54 -203.0.113.7" in drift.out
    diff = world.fazai("plan", inventory, "--diff", "--color", "never").out
    assert "-  - 203.0.113.7" in diff
    assert "+  - 192.0.2.54" in diff
    assert world.fazai("apply", inventory).code == 0
    assert world.fazai("drift", inventory).code == 0


def test_read_only_is_the_default(world: World) -> None:
    world.firewall()
    host = world.host(resources=RESOURCES)
    del host["mode"]
    result = world.fazai("apply", world.inventory({"fw-01": host}))
    assert result.code == 7
    assert "fw-01 is read-only, 3 changes pending" in result.out
    assert world.writes() == []


def test_explain_says_where_each_field_comes_from(world: World) -> None:
    world.firewall()
    (world.folder / "base.yml").write_text(
        "- hosts: all\n  resources:\n"
        "    - opnsense.alias: {name: dns_servers, type: host, description: resolvers}\n"
    )
    inventory = world.inventory(playbooks=["base.yml"], resources=RESOURCES[:2])
    out = world.fazai("plan", inventory, "--explain").out
    assert f"from {world.folder}/base.yml:3:" in out
    assert f"from {inventory}:" in out


@pytest.mark.parametrize("output", ["json", "junit", "markdown"])
def test_machine_output_is_whole_in_every_case(world: World, output: str) -> None:
    from xml.etree import ElementTree

    world.firewall()
    inventory = world.inventory()
    broken = world.folder / "broken.yml"
    broken.write_text("all: {hosts: {a: {provider: nowhere, resources: [{x.y: {}}]}}}\n")
    cases = [("plan", inventory, 2), ("apply", inventory, 0), ("apply", inventory, 0), ("plan", broken, 3)]
    for command, path, code in cases:
        result = world.fazai(command, path, "--output", output)
        assert result.code == code
        if output == "json":
            assert document(result).exit_code == code
        elif output == "junit":
            assert ElementTree.fromstring(result.out).tag == "testsuites"
        else:
            assert result.out.startswith("### fazai")
    usage = world.fazai("plan", inventory, "--nonsense", "--output", output)
    assert usage.code == 3
    assert "there is no option --nonsense" in usage.out
    assert "there is no option --nonsense" in usage.err


def test_json_says_everything(world: World) -> None:
    world.firewall()
    found = document(world.fazai("apply", world.inventory(), "--output", "json"))
    assert found.totals is not None
    assert (found.totals.changed, found.totals.targets) == (3, 1)
    (target,) = found.targets
    assert [change.status for change in target.changes] == ["done"] * 3
    alias = next(c for c in target.changes if c.kind == "opnsense.alias")
    assert alias.origins["content"].startswith(f"{world.folder}/inventory.yml:")
    assert target.activated


def test_deletions_are_asked_about(world: World) -> None:
    firewall = world.firewall()
    world.fazai("apply", world.inventory())
    gone = [copy.deepcopy(item) for item in RESOURCES[:2]] + [
        {**copy.deepcopy(RESOURCES[2]), "state": "absent"}
    ]
    inventory = world.inventory(resources=gone)
    world.forget()
    refused = world.fazai("apply", inventory)
    assert refused.code == 3
    assert "1 item on 1 target would be deleted and there is no terminal to ask at" in refused.err
    assert world.writes() == []
    assert world.fazai("apply", inventory, "--yes").code == 0
    rules = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    assert not [rule for rule in rules if rule["description"] == "allow dns"]


class TestNothingMatches:
    """What exits 0 elsewhere is exit 3 here, with did-you-mean, before any contact."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("all:", "the inventory has no hosts"),
            ("all: {hosts: {a: , b: }}", "write provider: opnsense, ssh or local among the variables"),
            ("all: {hosts: {a: {providr: opnsense}}}", "no host that was chosen has a provider"),
        ],
    )
    def test_no_target_at_all(self, world: World, text: str, said: str) -> None:
        inventory = world.folder / "inventory.yml"
        inventory.write_text(text)
        result = world.fazai("drift", inventory, "--quiet")
        assert result.code == 3
        assert said in result.err

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (("--limit", "fw-10"), "fw-01"),
            (("--tags", "dsn"), "dns"),
            (("--skip-tags", "dsn"), "dns"),
            (("--kind", "opnsense.alais"), "opnsense.alias"),
        ],
    )
    def test_exit_3(self, world: World, words: tuple[str, ...], text: str) -> None:
        world.firewall()
        resources: list[dict[str, Any]] = [{**RESOURCES[0], "tags": ["dns"]}, *RESOURCES[1:]]
        result = world.fazai("apply", world.inventory(resources=resources), *words)
        assert result.code == 3
        assert text in result.err
        assert list(world.firewalls["fw-01"].requests) == []


def test_selection(world: World) -> None:
    world.firewall()
    world.firewall("fw-02")
    resources: list[dict[str, Any]] = [{**RESOURCES[0], "tags": ["cat"]}, *RESOURCES[1:]]
    inventory = world.inventory(resources=resources)
    found = document(world.fazai("plan", inventory, "--limit", "fw-02", "--tags", "cat", "--output", "json"))
    assert [(t.name, len(t.changes)) for t in found.targets] == [("fw-02", 1)]
    found = document(world.fazai("plan", inventory, "--kind", "opnsense.cat*", "--output", "json"))
    assert {c.kind for t in found.targets for c in t.changes} == {"opnsense.category"}


def test_all_errors_at_once_and_nothing_contacted(world: World) -> None:
    world.firewall()
    broken = copy.deepcopy(RESOURCES)
    broken[0]["opnsense.category"]["colour"] = "2e7d32"
    broken[1]["opnsense.alias"]["content"] = ["{{ nowhere }}"]
    broken.append({"opnsense.rul": {}})
    result = world.fazai("apply", world.inventory(resources=broken))
    assert result.code == 3
    assert 'did you mean "color"?' in result.err
    assert "nowhere" in result.err
    assert 'did you mean "opnsense.rule"?' in result.err
    assert result.err.count("inventory.yml:") >= 3
    assert "errors, nothing was contacted" in result.err
    assert list(world.firewalls["fw-01"].requests) == []


def test_secrets_are_nowhere(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    said = [
        world.fazai("apply", inventory, "--diff", "--explain", "-v"),
        world.fazai("plan", inventory, "--output", "json"),
        world.fazai("inventory", "-i", inventory, "--list"),
        world.fazai("inventory", "-i", inventory, "--host", "fw-01"),
        world.fazai("show", json.loads(world.fazai("history", "--output", "json").out)[0]["run_id"]),
    ]
    secret = world.firewalls["fw-01"].api_secret
    assert all(secret not in one.out + one.err for one in said)
    for path in (world.folder / "state").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


class TestCutOff:
    """A process that ends in the middle: the next one says what it found, and converges."""

    def many(self, world: World, latency_s: float = 0.05) -> Path:
        world.firewall(latency_s=latency_s)
        aliases = [
            {"opnsense.alias": {"name": f"a{n}", "type": "host", "content": [f"192.0.2.{n}"]}}
            for n in range(30)
        ]
        return world.inventory(resources=aliases)

    def wait_for_writes(self, world: World, count: int) -> None:
        import time

        deadline = time.monotonic() + 60
        while len(world.writes()) < count:
            assert time.monotonic() < deadline, "no writes arrived"
            time.sleep(0.005)

    def test_kill_9(self, world: World) -> None:
        inventory = self.many(world)
        process = world.start("apply", inventory)
        self.wait_for_writes(world, 5)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        check = world.fazai("drift", inventory)
        assert check.code == 2
        assert "never activated" in check.out
        again = world.fazai("apply", inventory)
        assert again.code == 0
        assert "saved changes" in again.out
        assert "was cut off during create" in again.out
        final = world.fazai("apply", inventory)
        assert "RESULT 0 changed, 30 unchanged" in final.out
        assert "note" not in final.out
        assert "cut off" in world.fazai("history").out

    def test_ctrl_c_once(self, world: World) -> None:
        inventory = self.many(world)
        process = world.start("apply", inventory, "-v")
        self.wait_for_writes(world, 5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "RESULT" in out
        assert "are saved and not yet activated" in out
        assert "Traceback" not in out + err
        assert world.fazai("apply", inventory).code == 0

    def test_ctrl_c_twice_stops_now(self, world: World) -> None:
        inventory = self.many(world, latency_s=3.0)
        process = world.start("apply", inventory)
        self.wait_for_writes(world, 1)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "interrupted" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "interrupted" in out
        assert "run it again: what was in flight is looked at first" in out
        assert "interrupted: stopping now" in err
        assert "again: stop now" not in err
        assert "Traceback" not in err

    def test_two_runs_at_once(self, world: World) -> None:
        inventory = self.many(world)
        process = world.start("apply", inventory)
        self.wait_for_writes(world, 2)
        second = world.fazai("apply", inventory)
        assert second.code == 5
        assert f"pid {process.pid}" in second.out
        assert "holds fw-01 since" in second.out
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0, out


class TestState:
    def test_folder_that_cannot_be_used(self, world: World) -> None:
        world.firewall()
        inventory = world.inventory()
        env = {**os.environ, "FAZAI_STATE_DIR": "/proc/fazai"}
        result = world.child("apply", inventory, env=env)
        assert result.code == 3
        assert "/proc/fazai cannot be used" in result.err
        assert list(world.firewalls["fw-01"].requests) == []
        plan = world.child("plan", inventory, env=env)
        assert plan.code == 2
        assert "this run is not recorded" in plan.err
        assert "fazai show" not in plan.out

    def test_a_file_in_place_of_the_folder(self, world: World) -> None:
        (world.folder / "state").write_text("")
        for state in (world.folder / "state", world.folder / "state" / "below"):
            env = {**os.environ, "FAZAI_STATE_DIR": str(state)}
            result = world.child("history", env=env)
            assert result.code == 3
            assert f"{state} cannot be used: it is a file, or lies below one" in result.err
            assert "Errno" not in result.err

    def test_disk_full_in_the_middle(self, world: World) -> None:
        """The state file may not grow beyond what a run of one target needs at its start."""
        world.firewall()
        inventory = world.inventory(
            resources=[
                {
                    "opnsense.alias": {
                        "name": f"a{n}",
                        "type": "host",
                        "content": [f"10.{n}.0.{k}" for k in range(150)],
                    }
                }
                for n in range(60)
            ]
        )

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

        result = world.child("apply", inventory, preexec_fn=limited)
        assert result.code == 1, result.out + result.err
        assert "Traceback" not in result.out + result.err
        assert "takes no more data" in result.out
        rows = world.firewalls["fw-01"].call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        assert not [row for row in rows if row["name"].startswith("a")]
        assert world.fazai("apply", inventory).code == 0
        assert "RESULT 0 changed" in world.fazai("apply", inventory).out

    def test_clock_jumping_back(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        world.firewall()
        inventory = world.inventory()
        real = time.time
        assert world.fazai("plan", inventory).code == 2
        monkeypatch.setattr("time.time", lambda: real() - 400 * 86400)
        assert world.fazai("apply", inventory).code == 0
        assert "RESULT 0 changed" in world.fazai("apply", inventory).out
        assert world.fazai("history").code == 0

    def test_history_and_show(self, world: World) -> None:
        world.firewall()
        world.fazai("apply", world.inventory())
        line = world.fazai("history").out.splitlines()[0]
        assert "exit 0" in line
        shown = world.fazai("show", line[:13])
        assert shown.code == 0
        assert "dns_servers" in shown.out
        unknown = world.fazai("show", "NOPE")
        assert unknown.code == 3
        assert "NOPE" in unknown.err
        assert "fazai history" in unknown.err


def test_one_bad_firewall_leaves_the_others_alone(world: World) -> None:
    world.firewall()
    world.firewall("fw-02").inject(Fault(kind="cut", at="before"))
    result = world.fazai("apply", world.inventory())
    assert result.code == 4
    assert "1 unreachable" in result.out
    assert world.fazai("drift", world.inventory(), "--limit", "fw-01").code == 0


def test_lab_addresses_need_nothing_but_a_name(world: World) -> None:
    inventory = world.folder / "lab.yml"
    host = {"provider": "opnsense", "mode": "write", "base_url": "lab://edge", "resources": RESOURCES}
    inventory.write_text(json.dumps({"all": {"hosts": {"edge": host}}}))
    assert "RESULT 3 changed" in world.fazai("apply", inventory).out
    assert "RESULT 0 changed" in world.fazai("apply", inventory).out
