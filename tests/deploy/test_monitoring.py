"""deploy/prometheus and deploy/grafana: real tools take them, and they speak of metrics that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fazai.cli.textfile import METRICS
from fazai.daemon import agent_states
from fazai.lab import LabSettings, LabThread
from fazai.yamltext import loads
from tests.daemon.live import live, token
from tests.ui.world import drifting_run, series

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
BOARD = ROOT / "deploy/grafana/fazai.json"
#: What Prometheus itself says of each scrape.
PROMETHEUS = {"up"}
_WORDS = re.compile(r"\b(?:fazai|process)_[a-z0-9_]+|(?<![\w\"{(=~,])up(?=[{ ])")


def promtool(*words: str) -> str:
    program = shutil.which("promtool")
    if program is None:
        missing = "there is no promtool; ./tools/ui-tools installs it"
        if os.environ.get("FAZAI_NEED_TOOLS"):
            pytest.fail(missing)
        pytest.skip(missing)
    found = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The /metrics of a daemon that knows a host, a target, a worker, and watches a firewall of the lab."""
    folder = tmp_path_factory.mktemp("scraped")
    socket = folder / "gemma.sock"
    socket.touch()  # a worker's place, and nobody there
    admin = token(folder, "prometheus", "admin")
    with LabThread() as lab, live(folder, gemma_socket=socket) as daemon, daemon.client(admin) as client:
        firewall = lab.start("fw-01", LabSettings(auth_delay_s=0.0))
        about = {
            "base_url": firewall.base_url,
            "api_key": firewall.api_key,
            "api_secret": firewall.api_secret,
        }
        assert client.post("/opn/add", json={"name": "fw-01", **about}).json()["tested"] is True
        series(client, "web-1", minutes=2)
        drifting_run(client)
        daemon.call(daemon.services.drift.refresh)
        services = daemon.services
        worker, socket_path = services.sessions.client, services.settings.gemma_socket
        daemon.call(lambda: agent_states.check_worker(services.agent_states, worker, socket_path))
        return client.get("/metrics").text


def exposed(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def rules() -> list[dict[str, Any]]:
    found: Any = loads(RULES.read_text(), str(RULES))
    return [rule for group in found["groups"] for rule in group["rules"]]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD.read_text())
    return found


def panels() -> Iterator[dict[str, Any]]:
    for panel in board()["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_every_metric_of_the_rules_is_there(scraped: str) -> None:
    known = exposed(scraped) | set(METRICS) | PROMETHEUS
    for rule in rules():
        used = set(_WORDS.findall(rule["expr"]))
        assert used, rule["alert"]
        assert used - known == set(), rule["alert"]


def test_every_metric_of_the_board_is_there(scraped: str) -> None:
    known = exposed(scraped)
    used = {name for text in expressions() for name in _WORDS.findall(text)}
    assert len(used) >= 20
    assert used - known == set()


def test_the_scrape_is_valid(scraped: str) -> None:
    """No series twice, no name without its type."""
    series = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
    ]
    assert len(series) == len(set(series))
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
    }
    assert values["fazai_target_pending_changes", "fw-01"] == 2
    assert values["fazai_target_failed", "fw-01"] == 0
    assert values["fazai_target_failed", "fw-02"] == 1
    assert values["fazai_worker_up",] == 0
    (up,) = [value for (name, *_), value in values.items() if name == "fazai_opnsense_up"]
    assert up == 1


def test_every_metric_has_its_line_in_the_page(scraped: str) -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    ours = {name for name in exposed(scraped) if re.match(r"fazai_(target|worker)_|fazai_opnsense_up$", name)}
    ours |= set(METRICS)
    assert len(ours) >= 13
    assert [name for name in sorted(ours) if f"`{name}`" not in page] == []


def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS: 14 rules found" in promtool("check", "rules", str(RULES))


def test_the_alerts_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(Path(__file__).parent / "rules_test.yml"))


def test_every_alert_is_tested_and_documented() -> None:
    tested = (Path(__file__).parent / "rules_test.yml").read_text()
    page = (ROOT / "docs/monitoring.md").read_text()
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) == 14
    for rule in rules():
        assert f"alertname: {rule['alert']}\n" in tested
        assert f"`{rule['alert']}`" in page
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_promtool_takes_the_expressions_of_the_board(tmp_path: Path) -> None:
    """As recording rules; what Grafana fills in is filled in."""
    lines = ["groups:", "- name: board", "  rules:"]
    for number, text in enumerate(expressions()):
        filled = text.replace("$__rate_interval", "5m").replace("$host", ".+").replace("$job", "fazai")
        assert "$" not in filled
        lines += [f"  - record: board:{number}", f"    expr: {json.dumps(filled)}"]
    path = tmp_path / "board.yml"
    path.write_text("\n".join(lines))
    assert "SUCCESS" in promtool("check", "rules", str(path))


def test_the_board_is_one_that_grafana_imports() -> None:
    found = board()
    assert (found["uid"], found["title"]) == ("fazai-fleet", "fazai")
    assert found["schemaVersion"] >= 36
    assert "id" not in found  # Grafana gives it
    variables = {one["name"] for one in found["templating"]["list"]}
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat", "table")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            used = set(re.findall(r"\$([a-z]\w*)", target["expr"]))
            assert used <= variables
