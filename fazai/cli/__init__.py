"""The command line. `main` is the only entry; each command's module is imported when it is called."""

from fazai.cli.main import main

__all__ = ["main"]
