"""Does what the agent does for command.exec: forks the process that runs programs, and prints its answers.

    runner.py CONFIG < REQUESTS

Prints the child's process id, a line with its answer for each line of requests (JSON, nothing where it died),
and the most memory that it had, in KiB. Runs under each Python that the agent runs under.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from fazai.agent.children import Unpacker, pack
from fazai.agent.config.reading import load_config
from fazai.agent.execution.limits import settle_in_cgroup
from fazai.agent.execution.serving import serve_commands


def main() -> None:
    config_path, text = sys.argv[1], sys.stdin.read()
    settle_in_cgroup()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        serve_commands(theirs.detach(), load_config(config_path))
        os._exit(0)
    theirs.close()
    print(pid, flush=True)
    unpacker = Unpacker()
    for line in text.splitlines():
        ours.sendall(pack(json.loads(line)))
        found: list[dict[str, Any]] = []
        while not found and (data := ours.recv(65_536)):
            found = unpacker.feed(data)
        print(json.dumps(found[0]) if found else "", flush=True)
    ours.close()
    _, _, usage = os.wait4(pid, 0)
    print(usage.ru_maxrss, flush=True)


if __name__ == "__main__":
    main()
