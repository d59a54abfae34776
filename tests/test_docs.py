"""Pages are true: links lead somewhere, generated pages are as the code says, examples of kinds validate."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fazai
from fazai.registry import Registry
from fazai.yamltext import loads

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_generated_pages_are_what_the_code_says() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "tools/reference.py"), "--check"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("kind", list(Registry().kinds()), ids=lambda k: str(k.name))
def test_the_example_of_every_kind_validates(kind: object) -> None:
    registry = Registry()
    found = registry.kind(kind.name)  # type: ignore[attr-defined]
    resource = loads(found.example, "example")
    assert isinstance(resource, dict)
    fields = resource[found.name]
    assert isinstance(found.identify(fields), str)
    _, problems = found.normalise(fields, "present")
    assert problems == []


def test_every_setting_is_in_a_page() -> None:
    code = "".join(path.read_text() for path in (ROOT / "fazai").rglob("*.py"))
    pages = "".join(path.read_text() for path in PAGES)
    names = set(re.findall(r"\bFAZAI_[A-Z_]+\b", code)) - {"FAZAI_COMPLETE"}
    assert names
    assert {name for name in names if name not in pages} == set()


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    (version,) = re.findall(r"^## \[(\d[^\]]*)\]", text, re.M)[:1]
    assert version == fazai.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs/adr/README.md").read_text()
    assert [p.name for p in (ROOT / "docs/adr").glob("0*.md") if p.name not in listed] == []
