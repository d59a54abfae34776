"""docs/agents.md: its example is read, and its tables name every setting."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from fazai.agent.config import programs, reading
from fazai.agent.config.explaining import explain_config
from fazai.agent.config.settings import TelemetryRule

PAGE = (Path(__file__).parents[3] / "docs/agents.md").read_text()


def test_the_example_of_the_page_is_read_and_explained_as_it_says() -> None:
    (text,) = re.findall(r"^```yaml\n(agent_id: .*?)^```$", PAGE, re.M | re.S)
    config = reading.parse_config(text.encode(), "agent.yml")
    shown = "\n".join(explain_config(config))
    (said,) = re.findall(r"^```\n(edge-7 connects.*?)^```$", PAGE, re.M | re.S)
    assert shown.startswith(said.rstrip("\n"))


def test_the_page_names_every_setting() -> None:
    tables = "".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`([a-z_]+)`", tables))
    wanted = {*reading._SETTINGS, *programs._KEYS, "optional", "rest", "dash", "pattern"} - {"pattern"}
    wanted |= {re.sub("_s$", "", field.name) for field in fields(TelemetryRule)}
    assert {name for name in wanted if name not in named and f"`{name}: true`" not in tables} == set()
