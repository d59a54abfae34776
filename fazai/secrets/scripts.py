"""Inventory scripts, run as secrets' programs are: without a shell, bounded in time and output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fazai.errors import InventoryError, SecretError
from fazai.secrets.commands import run_program

#: Time for `--list`, and again for all questions `--host` together.
SCRIPT_TIMEOUT_S: Final = 60.0
SCRIPT_OUTPUT_MAX_BYTES: Final = 16 * 1024 * 1024


def script_runner(
    environ: Mapping[str, str], *, timeout_s: float = SCRIPT_TIMEOUT_S
) -> Callable[[str, tuple[str, ...]], bytes]:
    """Make the function that runs inventory scripts. Each is run in the current folder, as Ansible does,
    in a session of its own, and all that it started ends with it."""
    spent_s: dict[tuple[str, str], float] = {}

    def run_script(path: str, arguments: tuple[str, ...]) -> bytes:
        key = (path, arguments[0])
        began = time.monotonic()
        try:
            return run_program(
                [str(Path(path).absolute()), *arguments],
                cwd=Path.cwd(),
                environ=environ,
                timeout_s=max(timeout_s - spent_s.get(key, 0.0), 0.0),
                output_max_bytes=SCRIPT_OUTPUT_MAX_BYTES,
                alone=True,
            )
        except SecretError as error:
            hint = f"it is run with {' '.join(arguments)}, and has {timeout_s:g} s in all"
            raise InventoryError(f"the inventory script {error.message}", where=path, hint=hint) from None
        finally:
            spent_s[key] = spent_s.get(key, 0.0) + time.monotonic() - began

    return run_script
