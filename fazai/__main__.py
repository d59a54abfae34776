"""python -m fazai, and the command fazai."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run this process's command line. Ctrl-C while the modules are read ends it at once, in a word: nothing
    has begun, and there is nobody yet who would catch it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else somebody asked for it to be ignored
        signal.signal(signal.SIGINT, _interrupted)
    from fazai.cli import main as run

    signal.signal(signal.SIGINT, before)
    return run()


def _interrupted(*_: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
