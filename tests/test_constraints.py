"""constraints*.txt pin all that pyproject.toml and native/pyproject.toml lead to, each file by its hash; no
known hole is let in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NATIVE = tomllib.loads((ROOT / "native/pyproject.toml").read_text())
FILES = (
    "constraints.txt",
    "constraints-mcp.txt",
    "constraints-dev.txt",
    "constraints-fuzz.txt",
    "constraints-gemma.txt",
    "constraints-gemma-build.txt",
)
#: The last releases with the holes that were known when this was written, and the first without.
FLOORS = {
    "cryptography": ("46.0.4", "46.0.5"),
    "h11": ("0.15.0", "0.16.0"),
    "jinja2": ("3.1.5", "3.1.6"),
    "starlette": ("0.49.0", "0.49.1"),
}


def _pins(file: str) -> dict[str, Version]:
    """Releases by name, for the Python that runs this."""
    text = (ROOT / file).read_text()
    wanted = [Requirement(line) for line in re.findall(r"^([\w.-]+==[^\\\n]+)", text, re.M)]
    return {
        canonicalize_name(one.name): Version(next(iter(one.specifier)).version)
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    }


def _required(*names: str) -> list[Requirement]:
    lists = {
        **PROJECT["project"]["optional-dependencies"],
        "": PROJECT["project"]["dependencies"],
        "build": PROJECT["build-system"]["requires"],
        "native": NATIVE["project"]["dependencies"],
        "native-build": NATIVE["build-system"]["requires"],
        "native-demo": NATIVE["project"]["optional-dependencies"]["demo"],
        "llama-build": NATIVE["dependency-groups"]["llama-build"],
    }
    return [Requirement(text) for name in names for text in lists[name]]


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("constraints.txt", ("", "build")),
        ("constraints-mcp.txt", ("", "build", "mcp")),
        ("constraints-dev.txt", ("", "dev", "mcp")),
        ("constraints-fuzz.txt", ("fuzz",)),
        ("constraints-gemma.txt", ("native", "native-build", "native-demo")),
        ("constraints-gemma-build.txt", ("llama-build",)),
    ],
)
def test_what_is_required_is_pinned(file: str, names: tuple[str, ...]) -> None:
    pins = _pins(file)
    for wanted in _required(*names):
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue  # another Python's
        found = pins.get(canonicalize_name(wanted.name))
        assert found is not None, f"{file} lacks {wanted}: tools/constraints"
        assert found in wanted.specifier, f"{file} has {wanted.name} {found}: tools/constraints"


@pytest.mark.parametrize("file", FILES)
def test_every_pin_has_hashes_and_no_index_is_named(file: str) -> None:
    text = (ROOT / file).read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"https?://|--(?:extra-)?index|--find-links|--trusted-host", text) == []


@pytest.mark.parametrize("file", ["constraints-mcp.txt", "constraints-dev.txt", "constraints-gemma.txt"])
def test_one_environment_has_one_release_of_each(file: str) -> None:
    """The tests run with what is shipped, and the worker beside it."""
    shipped, others = _pins("constraints.txt"), _pins(file)
    assert {name: version for name, version in shipped.items() if others.get(name, version) != version} == {}


def test_floors_are_above_known_holes() -> None:
    wanted = {canonicalize_name(one.name): one.specifier for one in _required("")}
    for name, (last_bad, first_good) in FLOORS.items():
        found = wanted[canonicalize_name(name)]
        assert last_bad not in found, name
        assert first_good in found, name


def test_everything_installs_from_them() -> None:
    """No command of ours asks pip for what is not pinned."""
    for name in ("Makefile", "tools/install", "tools/pinned", ".ci/run"):
        for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
            if "pip install" in line and not line.lstrip().startswith("#"):
                assert "--require-hashes" in line or line.startswith("pip="), (name, line)
    for line in (ROOT / "tools/worker_install.py").read_text().splitlines():
        if '"install"' in line:
            assert '"--require-hashes"' in line or '"--no-deps"' in line, line
