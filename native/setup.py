"""Compiles the bridge with cffi (API mode) against the header of the installed llama-cpp-python."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shlex
from pathlib import Path

from cffi import FFI
from setuptools import setup

HERE = Path(__file__).parent
SOURCES = (
    "gemma_open.c",
    "gemma_bridge.c",
    "gemma_loop.c",
    "gemma_admit.c",
    "gemma_fair.c",
    "gemma_batch.c",
    "gemma_plan.c",
    "gemma_threads.c",
    "gemma_kv.c",
    "gemma_sample.c",
    "gemma_rows.c",
    "gemma_matrix.c",
    "gemma_draft.c",
    "gemma_text.c",
    "gemma_inspect.c",
)


def llama_cpp() -> Path:
    """The folder of the package, without importing it (that would need numpy)."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise SystemExit(
            "llama-cpp-python is not installed; `pip install ./native` brings the pinned release"
        )
    return Path(found.origin).parent


def headers(package: Path) -> Path:
    for folder in (package.parent / "include", package / "include"):
        if (folder / "llama.h").is_file():
            return folder
    raise SystemExit(f"{package} has no llama.h beside it: is it llama-cpp-python, built from source?")


def says(library: Path, name: str) -> str:
    """Return the release that a library names; the bridge refuses to be loaded with any other."""
    function = getattr(ctypes.CDLL(str(library)), name)
    function.restype = ctypes.c_char_p
    return f'"{bytes(function()).decode()}"'


def declarations(header: Path) -> str:
    """The same file that the compiler reads, without the preprocessor's lines and the C++ guard."""
    lines = header.read_text().splitlines()
    return "\n".join("" if line.startswith("#") or line in ('extern "C" {', "}") else line for line in lines)


def builder() -> FFI:
    package = llama_cpp()
    library = package / "lib" / "libllama.so"
    ffi = FFI()
    ffi.cdef(declarations(HERE / "gemma_bridge.h"))
    ffi.set_source(
        "fazai_gemma._bridge",
        '#include "gemma_bridge.h"',
        sources=list(SOURCES),
        include_dirs=[".", str(headers(package))],
        define_macros=[
            ("_GNU_SOURCE", None),
            ("FZ_LLAMA_VERSION", says(library, "llama_version")),
            ("FZ_GGML_COMMIT", says(library.with_name("libggml-base.so"), "ggml_commit")),
        ],
        libraries=["llama", "ggml", "ggml-base", "ggml-cpu", "m"],
        library_dirs=[str(library.parent)],
        extra_compile_args=[
            "-std=c11",
            "-O3",
            "-fopenmp",
            *shlex.split(os.environ.get("FAZAI_GEMMA_CFLAGS", "-march=native")),
        ],
        # Relative, so that a virtual environment works and can be moved.
        extra_link_args=["-fopenmp", "-Wl,-rpath,$ORIGIN/../llama_cpp/lib"],
    )
    return ffi


setup(ext_modules=[builder().distutils_extension(tmpdir=str(HERE / "build"))])
