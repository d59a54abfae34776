"""A crowd of agents in a process of its own: `python -m tests.daemon.southbound.crowd PORT CA FOLDER COUNT`.
Each connects again with full jitter when its connection ends; what is asked for is answered at once."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from pathlib import Path

import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.daemon.southbound.client import done, hello


class Crowd:
    """Prints a line of JSON each 0.2 s: how many are connected."""

    def __init__(self, port: int, ca: str, folder: Path) -> None:
        self.url, self.ca, self.folder = f"wss://127.0.0.1:{port}/southbound", ca, folder
        self.connected = 0

    def context(self, name: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.ca)
        made.load_cert_chain(self.folder / f"agent-{name}.pem", self.folder / f"agent-{name}.key")
        return made

    async def live(self, name: str) -> None:
        context, pause_s = self.context(name), 1.0
        await asyncio.sleep(random.random())
        while True:
            try:
                async with connect(
                    self.url, ssl=context, compression=None, ping_interval=None, proxy=None, open_timeout=60
                ) as opened:
                    await opened.send(json.dumps(hello(name, instance="one")))
                    if not json.loads(await opened.recv())["ok"]:
                        raise ConnectionError
                    self.connected += 1
                    pause_s = 1.0
                    try:
                        async for message in opened:
                            request = json.loads(message)
                            if request.get("method") == "command.exec":
                                await opened.send(json.dumps(done(request)))
                    finally:
                        self.connected -= 1
            except (OSError, WebSocketException, EOFError, TimeoutError):
                pass
            await asyncio.sleep(random.uniform(0, pause_s))
            pause_s = min(60.0, pause_s * 2)

    async def ping(self) -> None:
        while True:
            print(json.dumps({"connected": self.connected, "time": time.time()}), flush=True)
            await asyncio.sleep(0.2)


async def main() -> None:
    port, ca, folder, count = sys.argv[1:]
    crowd = Crowd(int(port), ca, Path(folder))
    names = [f"m-{number}" for number in range(int(count))]
    await asyncio.gather(crowd.ping(), *(crowd.live(name) for name in names))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
