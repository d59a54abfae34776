"""python -m bench [--install-peers] [NAME…]: prints one table a measurement, as Markdown."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys

from bench.peers import install

NAMES = ("startup", "inventory", "reconcile", "journal", "memory", "agent")
#: Only when asked for: a model, peers, minutes.
ASKED = (
    "gemma",
    "daemon_store",
    "daemon_before",
    "daemon",
    "soak",
    "hosts",
    "agents",
    "fanout",
    "kb",
    "loop",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join((*NAMES, *ASKED))}")
    parser.add_argument("--install-peers", action="store_true", help="install ansible-core into .bench/")
    arguments = parser.parse_args()
    if arguments.install_peers:
        install()
    unknown = [name for name in arguments.names if name not in (*NAMES, *ASKED)]
    if unknown:
        parser.error(f"no such measurement: {unknown[0]}")
    print(f"Python {platform.python_version()}, {platform.machine()}, {len(NAMES)} measurements\n")
    for name in arguments.names or NAMES:
        print(f"### {name}\n\n`python -m bench {name}`\n")
        print("\n".join(importlib.import_module(f"bench.{name}").main()) + "\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
