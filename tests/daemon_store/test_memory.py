"""The daemon's memory does not grow with what it has stored.

By hand for an hour: FAZAI_SOAK_S=3600 python -m pytest -m slow tests/daemon_store/test_memory.py -s
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("FAZAI_SOAK_S", "60"))
RATE = 500
#: A process that takes 500 records of 6 KB a second from 1,000 hosts, each in a request of its own, reads a
#: page of /metrics each second, and says how much memory it has.
LOADER = """
import asyncio, json, random, sys, time
from pathlib import Path
from fazai.daemon.events.announcer import Announcer
from fazai.service.log import Log
from fazai.daemon.ingest.pipeline import Ingest, IngestRules
from fazai.daemon.ingest.deadman import WatchRules
from fazai.store.daemon import StoreLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore

folder, seconds, rate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
text = random.Random(1).randbytes(3000).hex()

def memory_kb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4

def body(number):
    minute, host = divmod(number, 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1.7e9 + 60 * minute))
    part = number * 7919 % 5000
    fields = {"hostname": f"host-{host}", "timestamp": moment, "processes": text[part:] + text[:part],
              "os": {"load": [1, 2, 3], "mem": {"total": 8 << 30, "free": number}}, "uptime": number}
    return json.dumps(fields).encode()

async def main():
    # the index is due every 20 s, the oldest records go all the time
    limits = StoreLimits(upkeep_s=1, index_records=20 * rate, telemetry_bytes=32 << 20)
    store = SqliteDaemonStore(folder, limits)
    ingest = Ingest.create(store, folder, IngestRules(), WatchRules(), Announcer(store, Log()))
    sweeps = asyncio.ensure_future(ingest.run(print, asyncio.sleep))
    begun, number = time.monotonic(), 0
    for second in range(seconds):
        answers = await asyncio.gather(*(ingest.accept(body(number + n)) for n in range(rate)))
        assert all(answer.status == 200 for answer in answers)
        number += rate
        ingest.exposition.render()
        print(memory_kb(), flush=True)
        await asyncio.sleep(max(0, begun + second + 1 - time.monotonic()))
    sweeps.cancel()
    store.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path), str(SECONDS), str(RATE)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    used_mb = [int(line) / 1024 for line in found.stdout.split()]
    assert len(used_mb) == SECONDS
    third = SECONDS // 3
    early, late = max(used_mb[third : 2 * third]), max(used_mb[2 * third :])
    print(f"after {third} s {early:.1f} MB at most, after {2 * third} s {late:.1f} MB")
    assert late <= 300
    assert late - early <= 0.02 * third + 4  # MB: an hour more would add less than 72
