"""The agent as one file: what goes in, that it is the standard library's alone, and for which Python."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fazai.providers.hosts.agent.remote import bundling

ROOT = Path(__file__).parents[3]
#: Where it is there it makes keys; the program openssl does so as well.
OPTIONAL = {"cryptography"}


WORKER = "fazai.agent.state.worker"
#: All entries of the agent that there are.
ENTRIES = [name for name in (bundling.ENTRY, WORKER) if name in bundling.find_modules(ROOT)]
find_closure = functools.cache(functools.partial(bundling.find_closure, ROOT))


def find_sources() -> set[Path]:
    return {path for entry in ENTRIES for path in find_closure(entry).values()}


@pytest.mark.parametrize("entry", ENTRIES)
def test_nothing_but_the_standard_library_is_imported(entry: str) -> None:
    closure = find_closure(entry)
    wrong = {
        f"{name} imports {imported}"
        for name, path in closure.items()
        for imported in bundling.find_imports(path, name, closure)
        if (top := imported.partition(".")[0]) not in sys.stdlib_module_names
        if top != "fazai" and top not in OPTIONAL
    }
    assert wrong == set()
    kinds = ROOT / "fazai/providers/hosts/kinds"
    assert {path.stem for path in kinds.glob("*.py")} - {"__init__"} <= {
        name.rpartition(".")[2] for name in closure if name.startswith("fazai.providers.hosts.kinds.")
    }
    assert not [name for name in closure if ".ssh." in name or ".daemon." in name or ".cli." in name]


def test_all_of_it_works_with_python_3_9() -> None:
    """Also what of `fazai/agent` nothing imports yet. The slow tests run it."""
    paths = {*find_sources(), *(ROOT / "fazai/agent").rglob("*.py")}
    vermin = Path(sys.executable).with_name("vermin")
    words = [str(vermin), "-t=3.9-", "--no-tips", "--violations", "--processes=1", *sorted(map(str, paths))]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "Minimum required versions: 3" in found.stdout


def test_no_union_is_made_when_it_runs() -> None:
    """`X | Y` of types is fine in an annotation, which nobody evaluates, and a TypeError elsewhere."""
    wrong = []
    for path in find_sources():
        tree = ast.parse(path.read_text())
        for node in bundling.walk_at_run_time(tree):
            if (
                isinstance(node, ast.Call)
                and bundling.find_called_name(node) in ("isinstance", "issubclass")
                and any(isinstance(each, ast.BinOp) for each in node.args[1:])
            ):
                wrong.append(f"{path.name}:{node.lineno}")
        if "from __future__ import annotations" not in path.read_text():
            annotated = [
                n for n in ast.walk(tree) if isinstance(n, ast.AnnAssign | ast.arg | ast.FunctionDef)
            ]
            wrong += [f"{path.name}: annotations are evaluated"] if annotated else []
    assert wrong == []


@pytest.mark.slow
def test_the_same_source_makes_the_same_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.pyz", tmp_path / "other.pyz"
    main = "import sys\nfrom fazai.agent.state.worker import serve_state\nprint(serve_state.__name__)\n"
    for path in (one, other):
        path.write_bytes(bundling.build_program(entry=WORKER, main=main))
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size < 1024 * 1024
    names = zipfile.ZipFile(one).namelist()
    assert {"fazai/__init__.py", "fazai/agent/telemetry.sh", "__main__.py"} <= set(names)
    said = subprocess.run([sys.executable, "-I", one], capture_output=True, text=True, check=True)
    assert said.stdout == "serve_state\n"


def test_an_entry_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no module fazai\.agent\.nothing"):
        bundling.build_program(entry="fazai.agent.nothing")
    assert list(tmp_path.iterdir()) == []
