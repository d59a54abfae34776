"""python -m bench.llama_peers: llama-bench and llama-server of the llama.cpp release that the worker uses.

The sdist of the installed llama-cpp-python carries llama.cpp's source, so the peers are of the commit of
the libllama that is installed; they are compiled with the flags of its build: CPU, native, Release, shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Answer", "LlamaServer", "bench", "build", "free_port", "peer", "running", "stop"]

FOLDER = Path(__file__).parent.parent / ".bench" / "llama"
_NAMES = ("llama-bench", "llama-server")
_INCLUDE = Path(__file__).parent.parent / "native" / "llama.cmake"
_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    # Neither other programs nor anything that would be fetched.
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


def peer(name: str) -> Path:
    """The path of a program. Raises RuntimeError when it was not built."""
    path = FOLDER / release() / "build" / "bin" / name
    if not path.exists():
        raise RuntimeError(f"{name} is not built; `python -m bench.llama_peers` does it")
    return path


def release() -> str:
    """Of llama-cpp-python, as installed. Raises RuntimeError when it is not."""
    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        raise RuntimeError("llama-cpp-python is not installed; `pip install ./native` brings it") from None


def build(jobs: int = 2) -> None:
    """Both programs, about ten minutes on two cores; does nothing when they are there."""
    if all((FOLDER / release() / "build" / "bin" / name).exists() for name in _NAMES):
        return
    source, target = _source(), FOLDER / release() / "build"
    _run(
        "cmake",
        "-S",
        str(source),
        "-B",
        str(target),
        *(("-G", "Ninja") if shutil.which("ninja") else ()),
        *_FLAGS,
        f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={_INCLUDE}",
    )
    _run("cmake", "--build", str(target), "-j", str(jobs), "--target", *_NAMES)


def _source() -> Path:
    """llama.cpp, out of the sdist of the installed version."""
    folder = FOLDER / release()
    source = folder / f"llama_cpp_python-{release()}" / "vendor" / "llama.cpp"
    if not (source / "CMakeLists.txt").exists():
        name = "llama-cpp-python"
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name)
        _run(*pip, "--dest", str(folder), f"{name}=={release()}")
        (archive,) = folder.glob(f"llama_cpp_python-{release()}.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return source


@dataclass(slots=True)
class Answer:
    """One generation as its client sees it; times count from the request."""

    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reason: str = ""
    first_s: float = 0.0
    last_s: float = 0.0  # of the last text
    end_s: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second, from the first to the last."""
        return (self.tokens - 1) / (self.end_s - self.first_s)


def bench(model: Path, threads: int, *arguments: str, **env: str) -> float:
    """Tokens a second of one test of llama-bench."""
    command = [str(peer("llama-bench")), "-m", str(model), "-t", str(threads), "-fa", "on", "-r", "1"]
    command += ["-o", "json", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **env})
    (test,) = json.loads(done.stdout)
    return float(test["avg_ts"])


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A running llama-server."""

    port: int
    pid: int

    async def complete(self, prompt: str, **params: Any) -> Answer:
        """One streamed completion over a connection of its own, as lean as a client can be. Raises
        RuntimeError with what the server said when it refuses."""
        body = json.dumps({"prompt": prompt, "stream": True, **params}).encode()
        head = f"POST /completion HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        answer, pieces = Answer(), []
        try:
            writer.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
            status = await reader.readline()
            if b" 200 " not in status:
                raise RuntimeError(f"llama-server: {(status + await reader.read()).decode(errors='replace')}")
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    continue
                now = time.perf_counter() - begun
                event = json.loads(line[6:])
                if event["content"]:
                    pieces.append(event["content"])
                    answer.first_s, answer.last_s = answer.first_s or now, now
                if event["stop"]:
                    answer.end_s = now
                    answer.tokens, answer.prompt_tokens = event["tokens_predicted"], event["tokens_evaluated"]
                    answer.cached_tokens = event["timings"]["cache_n"]
                    answer.reason = event["stop_type"]
        finally:
            writer.close()
        if not answer.end_s:
            raise RuntimeError("llama-server ended its stream early")
        answer.text = "".join(pieces)
        return answer


@contextlib.contextmanager
def running(model: Path, *, threads: int, slots: int, context: int, log: Path) -> Iterator[LlamaServer]:
    """A llama-server on a free port of loopback."""
    port = free_port()
    command = [
        str(peer("llama-server")),
        "-m",
        str(model),
        "-t",
        str(threads),
        "-np",
        str(slots),
        "-fa",
        "on",
    ]
    command += ["-c", str(context), "--host", "127.0.0.1", "--port", str(port), "--offline"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            until = time.monotonic() + 60
            while not _healthy(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(
                        f"llama-server does not start: {log.read_text(errors='replace')[-2000:]}"
                    )
                time.sleep(0.1)
            yield LlamaServer(port, process.pid)
        finally:
            stop(process)


def _healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as asked:
            asked.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return b" 200 " in asked.recv(64)
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """It may be taken before it is used; then the server says so and does not start."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    build()
