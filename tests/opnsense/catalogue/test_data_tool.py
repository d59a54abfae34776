"""The tool that makes the catalogue's facts, and rows for the lab, of the recordings."""

from __future__ import annotations

import json
import runpy
from typing import Any

import pytest

from fazai.lab.engine.schema import load_release
from fazai.providers.opnsense.catalogue.table import FAMILIES, Family
from tests.opnsense.helpers import ROOT, recordings


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "opnsense_data.py"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.facts)
def test_the_facts_of_the_catalogue_are_what_the_tool_makes(tool: dict[str, Any], family: Family) -> None:
    made = tool["make_fields"](recordings(), tool["wider_recordings"](), family)
    kept = (tool["CATALOGUE"] / family.facts).read_text()
    assert made == kept, "run: python tools/opnsense_data.py fields"


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        ("/^[a-z]{1,4}$/", "[a-z]{1,4}"),
        ("/^(?:a|b)[|]\\|$/u", "(?:a|b)[|]\\|"),
        ("/^((a|b)+|c)$/", "((a|b)+|c)"),
        ("/^(\\/[^\\/ ]*)+\\/?|syslog.*$/", ""),  # begins so, or ends so
        ("/[0-9]+[kmg]?/i", ""),  # stands anywhere
        ("/^\\pL+$/u", ""),
    ],
)
def test_a_mask_of_the_product_is_taken_where_python_means_the_same(
    tool: dict[str, Any], mask: str, pattern: str
) -> None:
    assert tool["python_pattern"](mask) == pattern


def test_the_rows_of_the_lab_have_the_fields_that_the_tool_prints(
    tool: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tool["print_lab_rows"](recordings(), ("firewall/category", "unbound/settings Acl"))
    printed = json.loads("{" + capsys.readouterr().out.replace(']}\n"', ']},\n"') + "}")
    items = load_release("26.7.2").items
    for (title, rows), path in zip(
        printed.items(), ("Firewall.Category.categories.category", "Unbound.acls.acl"), strict=True
    ):
        known = {field.name: field for field in items[path].fields}
        assert [row["name"] for row in rows["fields"]] == list(known), title
        assert [row.get("required", False) for row in rows["fields"]] == [f.required for f in known.values()]
