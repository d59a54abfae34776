"""A browser for all tests of a worker, a page for each; the page must end without a fault."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.ui.browser import Browser, Page, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        missing = "there is no Chromium; ./tools/ui-tools installs it"
        if os.environ.get("FAZAI_NEED_TOOLS"):
            pytest.fail(missing)
        pytest.skip(missing)
    found = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.page() as found:
        yield found
        found.run("new Promise((next) => setTimeout(next, 0))")  # what it has to say has been said
        assert [one for one in found.faults if not any(text in one for text in found.expected)] == []
