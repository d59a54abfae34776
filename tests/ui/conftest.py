"""A browser for all tests of a worker, a page for each; the page must end without a fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ui.browser import Browser, Page, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("there is no Chromium; ./tools/ui-tools installs it")
    found = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.page() as found:
        yield found
        assert found.faults == []
