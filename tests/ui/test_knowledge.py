"""The page's search of the knowledge base, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon.live import Live, live
from tests.ui.browser import Page
from tests.ui.world import HOSTILE, post

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(page: Page, tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as found:
        yield found
        page.go("about:blank")


def note(client: httpx.Client, title: str, text: str, **more: Any) -> str:
    return str(post(client, "/kb", {"title": title, "snippet": text, **more})["id"])


def search(page: Page, text: str) -> None:
    page.run("document.getElementById('query').select()")
    page.type(text)
    page.key("Enter")


def test_notes_are_found_and_read(daemon: Live, page: Page) -> None:
    page.expected = ["status of 404"]
    with daemon.client() as client:
        first = note(
            client, "VPN of Porto", "The tunnel to Porto needs MTU 1400.", tags=["vpn"], source="w/17"
        )
        note(client, "Backups", "They run at night.")
        more = note(client, f"Porto {HOSTILE}", f"{HOSTILE} Porto", parents=[first])
        assert client.post(f"/kb/{first}/verify").status_code == 200
    page.go(f"{daemon.url}/ui#/kb")
    page.until("document.getElementById('query') !== null")
    page.run("document.getElementById('query').focus()")
    search(page, "porto")
    page.until("document.querySelectorAll('.hit').length === 2")
    assert page.text("#summary") == "2 notes, the best first"
    assert page.texts(".hit a") == ["VPN of Porto", f"Porto {HOSTILE}"]  # what is verified comes first
    assert page.texts(".hit .standing") == ["verified", "unverified"]
    assert "w/17, #vpn" in page.texts(".hit .what")[0]
    page.click(".hit a")
    page.until("(id) => location.hash === `#/note/${id}`", first)
    page.until("document.getElementById('note-text') !== null")
    assert page.text("#note-text") == "The tunnel to Porto needs MTU 1400."
    assert page.text("#facts").startswith("Statusverified")
    assert page.run("document.querySelector('nav a[aria-current]').textContent") == "Knowledge"
    page.until(
        "[...document.querySelectorAll('main li a')].some((one) => one.textContent.startsWith('Porto'))"
    )
    page.run("history.back()")
    page.until("document.querySelectorAll('.hit').length === 2")  # the search is still there
    page.go(f"{daemon.url}/ui#/note/{more}")
    page.until("document.getElementById('note-text') !== null")
    assert page.text("#note-text") == f"{HOSTILE} Porto"
    assert page.text("h1") == f"Porto {HOSTILE}"
    page.go(f"{daemon.url}/ui#/kb")
    page.until("document.activeElement !== null && document.getElementById('query') !== null")
    page.run("document.getElementById('query').focus()")
    search(page, "zebra")
    page.until("document.getElementById('summary').textContent === 'No note has these words.'")
    page.go(f"{daemon.url}/ui#/note/n-999999")
    page.until("document.querySelector('main').innerText.includes('does not have this note')")
    assert page.count("main img, main script") == 0
    assert page.run("document.body.dataset.hacked") is None
