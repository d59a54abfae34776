"""The table of docs/faults.md: what goes wrong between fazai and a firewall, seen from the command line.

In each case: the exit code of the table, a sentence and no traceback, the other firewall unaffected, and once
the fault is over the next run converges.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from fazai.lab import Fault, LabSettings, Tls

from .conftest import RESOURCES, World

DOC = Path(__file__).parent.parent.parent / "docs" / "faults.md"


@dataclass(frozen=True)
class Case:
    """`settings` of the firewall, `faults` injected into it, `host` variables that differ."""

    name: str
    code: int
    text: str  # a pattern in what is said
    faults: tuple[Fault, ...] = ()
    settings: dict[str, Any] | None = None
    host: Callable[[World, Any], dict[str, Any]] | None = None


def _closed_port(world: World, host: Any) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"base_url": f"http://127.0.0.1:{probe.getsockname()[1]}"}


def _no_name(world: World, host: Any) -> dict[str, Any]:
    return {"base_url": "https://fw-01.invalid"}


def _wrong_key(world: World, host: Any) -> dict[str, Any]:
    return {"secret": {"api_key": host["secret"]["api_key"], "api_secret": "wrong"}}


def _trusting(world: World, host: Any) -> dict[str, Any]:
    ca = world.firewalls["fw-01"].ca_pem
    return {"ca": ca} if ca else {}


CASES = (
    Case("refused", 4, r"refused", host=_closed_port),
    Case("DNS failure", 4, r"fw-01\.invalid", host=_no_name),
    Case(
        "no answer in time", 4, r"1 s", (Fault(kind="delay", delay_s=30.0),), host=lambda w, h: {"timeout": 1}
    ),
    Case("slow drip", 4, r"1 s", (Fault(kind="drip", bytes_per_s=10),), host=lambda w, h: {"timeout": 1}),
    Case("TLS: expired", 4, r"expired", settings={"tls": Tls("expired")}, host=_trusting),
    Case("TLS: wrong host", 4, r"(name|host)", settings={"tls": Tls("wrong_host")}, host=_trusting),
    Case("TLS: self-signed", 4, r"self-signed", settings={"tls": Tls("self_signed")}),
    Case("TLS: unknown authority", 4, r"(authority|ca:)", settings={"tls": Tls("valid")}),
    Case("wrong key (401)", 1, r"does not know this API key or its secret", host=_wrong_key),
    Case("redirect to login (302)", 1, r"API key", (Fault(kind="login"),)),
    Case(
        "missing privilege (403)",
        1,
        r"privilege",
        (Fault(kind="status", status=403, body='{"status":403,"message":"Forbidden"}'),),
    ),
    Case(
        "plugin absent (404)", 1, r"not on this firewall", (Fault(kind="not_found", path="firewall/alias/*"),)
    ),
    Case("server error (500)", 4, r"500", (Fault(kind="status", status=500),)),
    Case("HTML instead of JSON", 4, r"web page", (Fault(kind="html"),)),
    Case("truncated JSON", 4, r"not whole JSON", (Fault(kind="truncate"),)),
    Case("connection cut", 4, r"closed the connection", (Fault(kind="cut"),)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault_while_observing(world: World, case: Case) -> None:
    world.firewall("fw-01", **(case.settings or {}))
    world.firewall("fw-02")
    good = world.host("fw-01", resources=RESOURCES)
    bad = good | (case.host(world, good) if case.host else {})
    for fault in case.faults:
        world.firewalls["fw-01"].inject(fault)
    hosts = {"fw-01": bad, "fw-02": world.host("fw-02", resources=RESOURCES)}
    result = world.fazai("apply", world.inventory(hosts), "-v")
    said = result.out + result.err
    assert result.code == case.code, said
    assert re.search(case.text, said), said
    assert "Traceback" not in said
    assert "defect in fazai" not in said
    assert "RESULT 3 changed" in said
    assert world.writes() == []
    world.firewalls["fw-01"].clear_faults()
    if case.settings is None:
        again = world.fazai("apply", world.inventory({"fw-01": good, "fw-02": hosts["fw-02"]}))
        assert again.code == 0, again.out
        assert "RESULT 3 changed" in again.out


@pytest.mark.in_turn("fault")
@pytest.mark.parametrize("fault", ["cut before", "cut middle", "cut after", "truncate", "html"])
@pytest.mark.parametrize("path", ["firewall/alias/setItem/*", "cron/settings/addJob*"])
def test_cut_in_the_middle_of_a_write_is_looked_at_and_repeated(world: World, fault: str, path: str) -> None:
    """Was it done? It is there once, whatever the answer was."""
    firewall = world.firewall()
    kind, _, at = fault.partition(" ")
    job = {"opnsense.cron_job": {"description": "poll", "command": "firmware poll", "minutes": "5"}}
    firewall.inject(Fault(kind=cast(Any, kind), at=cast(Any, at or "before"), path=path, times=1))
    result = world.fazai("apply", world.inventory(resources=[*RESOURCES, job]))
    assert result.code == 0, result.out
    aliases = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    jobs = firewall.call("POST", "/api/cron/settings/searchJobs", {})["rows"]
    assert [row["name"] for row in aliases].count("dns_servers") == 1
    assert len(jobs) == 1
    assert "RESULT 0 changed" in world.fazai("apply", world.inventory(resources=[*RESOURCES, job])).out


def test_cut_for_good_in_the_middle_of_the_writes(world: World) -> None:
    firewall = world.firewall()
    firewall.inject(Fault(kind="cut", at="after", path="firewall/filter/*"))
    inventory = world.inventory()
    result = world.fazai("apply", inventory)
    assert result.code == 4, result.out
    assert "1 unreachable" in result.out
    firewall.clear_faults()
    assert world.fazai("apply", inventory).code == 0
    assert "RESULT 0 changed" in world.fazai("apply", inventory).out


@pytest.mark.parametrize("shut", [True, False])
def test_a_firewall_that_says_it_took_something_back_and_has_not(world: World, shut: bool) -> None:
    """Deleting an alias is answered and not done: after a lockout, which is undone over the connections that
    were kept, and after a refusal, when nothing has taken effect yet."""
    deaf = Fault(kind="status", path="firewall/alias/delItem/*", status=200, body='{"result":"deleted"}')
    lockout = Fault(kind="lockout", rule="allow dns")
    refused = Fault(kind="status", path="firewall/filter/apply*", status=200, body='{"status":"no"}', times=1)
    firewall = world.firewall(faults=(deaf, lockout if shut else refused))
    alias = {**RESOURCES[1]["opnsense.alias"], "categories": []}
    inventory = world.inventory(
        {"fw-01": world.host(resources=[{"opnsense.alias": alias}, RESOURCES[2]], probe_timeout=1)}
    )
    result = world.fazai("apply", inventory)
    assert result.code == 1, result.out
    said = "opnsense.alias dns_servers: fw-01 said that it was taken back, and it was not"
    assert said in result.out
    assert "1 of 2 changes could not be taken back" in result.out
    assert "1 change taken back" in result.out
    assert not firewall.locked_out
    aliases = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    assert "dns_servers" in [one["name"] for one in aliases]
    run = world.fazai("history").out.split()[0]
    events = json.loads(world.fazai("show", run, "--output", "json").out)["events"]
    assert [(e["undone"], e["kept"]) for e in events if e["type"] == "undo"] == [(1, 1)]
    firewall.clear_faults()
    again = world.fazai("apply", inventory)
    assert (again.code, "never activated" in again.out) == (0, True), again.out


def test_lockout_after_apply_is_taken_back(world: World) -> None:
    """The new rules shut out new connections; what was written is undone over the ones that were kept."""
    firewall = world.firewall(faults=(Fault(kind="lockout", rule="allow dns"),))
    result = world.fazai(
        "apply", world.inventory({"fw-01": world.host(resources=RESOURCES, probe_timeout=1)})
    )
    assert result.code == 4, result.out
    assert "does not answer new connections" in result.out
    assert "3 changes taken back" in result.out
    assert not firewall.locked_out
    rules = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    assert not [rule for rule in rules if rule["description"] == "allow dns"]


def test_rejected_by_the_device_names_field_and_place(world: World) -> None:
    firewall = world.firewall()
    rule = {"opnsense.rule": {"description": "bad", "interface": ["lan"], "source_net": "no_such_alias"}}
    inventory = world.inventory(resources=[*RESOURCES, rule])
    result = world.fazai("apply", inventory)
    assert result.code == 1
    assert re.search(rf"{re.escape(str(inventory))}:\d+:\d+: .*source_net", result.out), result.out
    assert "nothing is written to it" in result.out
    rows = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    assert "dns_servers" not in [row["name"] for row in rows]


def test_every_fault_is_in_the_table_of_the_page() -> None:
    text = DOC.read_text()
    for case in CASES:
        assert f"| {case.name} | {case.code} |" in text, case.name


def test_settings_are_the_labs(world: World) -> None:
    """The table would prove nothing if the lab ignored what is injected."""
    assert LabSettings(faults=(Fault(kind="cut"),)).faults
