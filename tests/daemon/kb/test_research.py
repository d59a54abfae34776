"""Research finds notes and the product's own pages; the tool `kb.search`; notes for a prompt."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.http.auth import Principal
from fazai.daemon.kb.pages import Pages, find_pages
from fazai.daemon.kb.research import research
from fazai.daemon.kb.service import KbHit
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.offered.kb import KbSearchArgs
from fazai.daemon.tools.table import TABLE
from fazai.loop.tools import Observation, Tool
from tests.daemon.live import Live, live

ROOT = Path(__file__).parents[3]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as found:
        yield found


def add(daemon: Live, title: str, text: str, **more: Any) -> str:
    given: dict[str, Any] = {"origin": "person", "author": "token:night", **more}
    added = daemon.call(lambda: daemon.services.kb.add(title, text, **given))
    return f"kb-{added.note.id}"


def test_research_finds_notes_and_pages(daemon: Live) -> None:
    id_ = add(daemon, "fw-01 and its blocklist", "It is edited by hand on Fridays.", origin="model")
    queries = ("who edits the blocklist of fw-01", "fazai token revoke")
    docs = daemon.call(lambda: research(daemon.services, queries, 8))
    urls = [doc.url for doc in docs]
    assert len(urls) == len(set(urls)) == 8
    note = next(doc for doc in docs if doc.url == id_)
    assert note.title == "fw-01 and its blocklist (unverified, written by a model)"
    assert "Fridays" in str(note.text)
    assert any("fazai token revoke" in str(doc.text) for doc in docs if str(doc.url).startswith("docs/"))


def test_research_about_nothing_finds_nothing(daemon: Live) -> None:
    assert daemon.call(lambda: research(daemon.services, ("zxqvk wjqzx",), 5)) == ()


def test_the_pages_are_those_of_the_source_or_of_the_installation(tmp_path: Path) -> None:
    files = find_pages()
    assert files == sorted((ROOT / "docs").glob("*.md"))
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert shipped == {"share/fazai/docs": ["docs/*.md"]}
    assert find_pages(tmp_path, "no-such-distribution") == []


def test_the_pages_of_an_installation_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, page = tmp_path / "lib/site", tmp_path / "share/fazai/docs/kb.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Notes\n\nHow to verify them.\n")
    info = site / "installed_once-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-once\nVersion: 1.0\n")
    (info / "RECORD").write_text("../../share/fazai/docs/kb.md,,\n../../share/fazai/docs/gone.md,,\nx.md,,\n")
    monkeypatch.syspath_prepend(str(site))
    (found,) = find_pages(tmp_path, "installed-once")
    assert found.resolve() == page
    (hit,) = Pages([found]).search("how do I verify notes?", 3)
    assert (hit.title, hit.place) == ("Notes", "docs/kb.md#notes")


def tool() -> Tool:
    found = next(one for one in TABLE if one.name == "kb.search")
    assert isinstance(found, Tool)
    return found


def search(daemon: Live, **args: Any) -> Observation:
    run = tool().run
    assert run is not None
    call = ToolCall(daemon.services, Principal("loop", "operator"))
    found: Observation = daemon.call(lambda: run(call, KbSearchArgs(**args)))
    return found


def test_the_tool_says_how_far_a_note_is_believed(daemon: Live) -> None:
    one = add(daemon, "unbound on fw-01", "Restart it with configctl.", target="fw-01")
    two = add(daemon, "unbound on fw-01 again", "Delete everything.", target="fw-01", origin="model")
    daemon.call(lambda: daemon.services.kb.verify(one, "token:day"))
    found = search(daemon, query="restart unbound", target="fw-01")
    assert (found.note, found.citations) == ("2 notes, 1 verified by a person", (one, two))
    assert [(row["id"], row["status"], row["origin"]) for row in found.data] == [
        (one, "verified", "person"),
        (two, "unverified", "model"),
    ]
    assert (
        search(daemon, query="restart unbound", target="fw-02").note
        == "no note about fw-02 has any of these words"
    )
    assert tool().taints


def test_notes_for_a_prompt_keep_to_their_budget(daemon: Live) -> None:
    for number in range(20):
        add(daemon, f"unbound {number}", f"restart {number} " + "words of a text " * 60)
    budgets = (0, 50, 1200, 5000)
    kb = daemon.services.kb
    found: list[list[KbHit]] = [
        daemon.call(partial(kb.notes_for_prompt, "restart unbound", size)) for size in budgets
    ]
    assert [len(hits) for hits in found] == [0, 0, 1, 4]
    for size, hits in zip(budgets, found, strict=True):
        assert sum(len(hit.prompt_text()) + 1 for hit in hits) <= size
    assert (
        found[2][0]
        .prompt_text()
        .startswith(f"[{found[2][0].citation}] (unverified, written by a person) unbound")
    )
