#!/usr/bin/env python3
"""Builds the remote agent as one file: build/fazai-agent.pyz. Needs nothing but Python.

tools/build_agent.py [FILE]    writes the file
tools/build_agent.py --list    prints what is in it
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from fazai.providers.hosts.agent.remote.bundling import (  # noqa: E402
    ENTRY,
    build_program,
    find_closure,
    find_data,
)

TARGET = TOP / "build/fazai-agent.pyz"


def write_program(target: Path, program: bytes) -> None:
    """Write the file, as a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_bytes(program)
    fresh.chmod(0o755)
    fresh.replace(target)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the remote agent as one file.")
    parser.add_argument("file", type=Path, nargs="?", default=TARGET, help="default: build/fazai-agent.pyz")
    parser.add_argument("--list", action="store_true", help="print what would be in it")
    options = parser.parse_args()
    if options.list:
        closure = find_closure(TOP, ENTRY)
        print("\n".join([*closure, *find_data(closure, TOP)]))
        return 0
    write_program(options.file, build_program())
    print(f"{options.file}: {options.file.stat().st_size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
