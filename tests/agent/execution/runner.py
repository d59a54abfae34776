"""Does what the agent does for one command.exec: forks a child that runs it, and prints its answer.

    runner.py CONFIG < REQUEST

Prints three lines: the child's process id, its answer as JSON (nothing where it died), and the most memory
that it had, in KiB. Runs under each Python that the agent runs under.
"""

from __future__ import annotations

import json
import os
import sys

from fazai.agent.config.reading import load_config
from fazai.agent.errors import Refused
from fazai.agent.execution.running import prepare_commands, run_command


def answer(config_path: str, text: str) -> dict[str, object]:
    """Answer one request."""
    try:
        return {"ok": True, **run_command(json.loads(text), load_config(config_path))}
    except Refused as error:
        return {"ok": False, "code": error.code, "error": str(error), **error.fields}


def main() -> None:
    config_path, text = sys.argv[1], sys.stdin.read()
    prepare_commands()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        found = answer(config_path, text)
        with os.fdopen(write, "w") as file:
            json.dump(found, file)
        os._exit(0)
    os.close(write)
    print(pid, flush=True)
    with os.fdopen(read) as file:
        print(file.read(), flush=True)
    _, _, usage = os.wait4(pid, 0)
    print(usage.ru_maxrss, flush=True)


if __name__ == "__main__":
    main()
