"""The compiled bridge to llama.cpp; `fazai.worker.bridge` is its only user."""

from fazai_gemma._bridge import ffi, lib

__all__ = ["ffi", "lib"]
