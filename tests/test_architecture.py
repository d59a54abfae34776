"""Imports point inward, and no module on the line calls one to its left (docs/architecture.md)."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from fazai.errors import InputError
from fazai.registry import Registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fazai"

NOUNS = {
    "compat",
    "errors",
    "model",
    "findings",
    "wire",
    "config",
    "outcome",
    "ids",
    "timestamps",
    "files",
    "faults",
}
THOUGHT = {
    "yamltext",
    "masking",
    "inventory",
    "template",
    "secrets",
    "playbook",
    "plan",
    "report",
    "loop",
    "policy",
    "kb",
    "rules",
}
HANDS = {"providers", "store", "lab", "probes", "notify"}
ENGINE = {"apply", "registry", "fanout"}
SHELLS = {"cli", "worker", "daemon", "service", "agent", "__main__"}

ALLOWED = {
    **dict.fromkeys(NOUNS, NOUNS),
    **dict.fromkeys(THOUGHT, NOUNS | THOUGHT),
    **{name: NOUNS | {"plan", "masking", name} for name in HANDS},
    **{name: NOUNS | THOUGHT | {"store"} for name in ENGINE},
    "pki": NOUNS | {"yamltext", "secrets", "store"},
}
#: The line of design.md: a module imports nothing that stands to its right.
LINE = ["yamltext", "inventory", "playbook", "plan", "apply", "report"]

#: Folders that may have more than a dozen modules, and why a reader finds his way all the same.
FULL = {
    "fazai": "a noun a module, which all others speak in",
    "fazai/cli": "a step or an output of a run a module; what only one command needs is in commands/",
    "fazai/cli/commands": "a command a module, and its name",
    "fazai/daemon/tools": "a family of tools a module, and its name",
    "fazai/lab/actions": "the actions of a subject a module, found by name",
    "fazai/lab/models": "what the firewall does beside storing, a subject a module",
    "fazai/wire": "a part of the contract a module, named as what it is about",
    "fazai/store/sqlite": "a table or a step of writing a module",
    "fazai/providers/hosts/kinds": "a kind of resource a module, and its name",
}


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SHAPE = load_tool("shape")


@dataclass(frozen=True)
class _Found:
    """What the tests ask of a module, so that each file is read once and no tree is kept."""

    imports: tuple[tuple[str, str], ...]  # module and name, of `from … import`; without a name: `import …`
    broad: tuple[int, ...]  # the lines of `except Exception` and `except BaseException`
    state: tuple[str, ...]  # names of the module's own that are bound to something mutable


@functools.cache
def _found(path: Path) -> _Found:
    imports: list[tuple[str, str]] = []
    broad: list[int] = []
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports += ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name):
            broad += [node.lineno] if node.type.id in ("Exception", "BaseException") else []
    return _Found(tuple(imports), tuple(broad), tuple(_mutable_names(tree)))


def _imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports."""
    for module, name in _found(path).imports:
        yield f"{module}.{name}" if module == "fazai" and name else module


def _tops() -> Iterator[tuple[Path, str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for name in _imports(path):
            if name.startswith("fazai.") and name != "fazai.__version__":
                yield path, parts[0], name.split(".")[1]


def test_imports_point_inward() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {there}"
        for path, here, there in _tops()
        if here not in SHELLS and there != here and there not in ALLOWED[here]
    ]
    assert wrong == []


def test_every_module_has_a_layer() -> None:
    found = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")} - {
        "__init__"
    }
    assert found <= set(ALLOWED) | SHELLS


def test_the_line_is_straight() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {there}"
        for path, here, there in _tops()
        if here in LINE and there in LINE and LINE.index(there) > LINE.index(here)
    ]
    assert wrong == []


def test_no_provider_names_another() -> None:
    folders = [p.name for p in (PACKAGE / "providers").iterdir() if p.is_dir() and p.name != "__pycache__"]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in folders
        for path in (PACKAGE / "providers" / folder).rglob("*.py")
        for name in _imports(path)
        for other in folders
        if other != folder and name.startswith(f"fazai.providers.{other}")
    ]
    assert wrong == []


def _imported_modules() -> dict[str, set[str]]:
    """Each module of fazai -> those that it imports, also for types alone or inside of a function."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for module, imported in _found(path).imports:
            target = f"{module}.{imported}"
            graph[name] |= {target if target in modules else module} & modules.keys() - {name}
    return graph


def _reachable(graph: dict[str, set[str]], name: str) -> set[str]:
    """The modules that a module imports, directly or through others."""
    found: set[str] = set()
    left = [name]
    while left:
        fresh = graph[left.pop()] - found
        found |= fresh
        left += fresh
    return found


def test_no_modules_import_each_other() -> None:
    """No cycle, not even one that only type checkers see."""
    graph = _imported_modules()
    reach = {name: _reachable(graph, name) for name in graph}
    cycles = {
        frozenset(other for other in found if name in reach[other])
        for name, found in reach.items()
        if name in found
    }
    assert cycles == set()


def test_a_package_of_providers_says_what_it_provides() -> None:
    """The registry offers what stands in PROVIDERS; without any, a package is a client and has no kinds."""
    package = importlib.import_module("fazai.providers")
    registry = Registry()
    clients = set()
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"fazai.providers.{found.name}")
        if not module.PROVIDERS:
            clients.add(found.name)
        for name in module.PROVIDERS:
            assert registry.provider(name).name == name
            assert {kind.partition(".")[0] for kind in registry.provider(name).kinds} == {module.KINDS}
    assert clients == {"gemma"}
    for client in clients:
        with pytest.raises(InputError, match="there is no provider"):
            registry.provider(client)
        with pytest.raises(InputError, match="there is no kind"):
            registry.kind(f"{client}.anything")


def test_the_engine_names_no_provider() -> None:
    names = [*Registry().names(), "gemma"]
    for path in (PACKAGE / "apply").rglob("*.py"):
        text = path.read_text()
        assert not [name for name in names if name in text], path


def test_nothing_outside_the_store_knows_what_kind_of_store_it_is() -> None:
    """What lasts is asked of the protocols, and `store/factory.py` opens what a place names."""
    rooms = {
        *("base", "daemon", "certificates", "factory", "null", "preview", "maintenance"),
        *("events", "sessions", "notes", "rules"),
    }
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).parts[0] == "store"
        for name in _imports(path):
            if name == "sqlite3" and not inside:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.startswith("fazai.store.") and not inside and name.split(".")[2] not in rooms:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if inside and path.parent.name == "store" and path.stem in rooms - {"factory", "maintenance"}:
                assert "sqlite" not in name, path
    assert wrong == []


def test_files_have_at_most_500_lines() -> None:
    found = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert {name: count for name, count in found.items() if count > 500} == {}


def test_few_borders_catch_everything() -> None:
    """`except Exception` stands where one failure must not become another's: a target in apply, a job in
    the worker, a request in the daemon (by MCP, too) and in the agent's reconciler; and where a thread of the
    store ends for whom others wait."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in _found(path).broad
    ]
    assert [place.split(":")[0] for place in found] == [
        "fazai/agent/state/worker.py",
        "fazai/apply/engine.py",
        "fazai/daemon/http/app.py",
        "fazai/daemon/tools/mcp.py",
        "fazai/store/sqlite/writer.py",
        "fazai/worker/sessions.py",
    ]


def test_one_writer_of_metrics() -> None:
    """prometheus-client writes Prometheus' text; only the hosts' lines, of which there are most, are ours."""
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert [name for name, text in texts.items() if "# HELP" in text] == ["fazai/daemon/metrics.py"]
    assert [name for name, text in texts.items() if "REGISTRY" in text] == []


def _mutable_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.List | ast.Dict | ast.Set) or (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and value.func.id in ("list", "dict", "set", "defaultdict", "deque")
        ):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_mutable_module_state() -> None:
    """Nothing ambient: a name bound at module level is a constant, a function, a class or a type."""
    assert [
        (str(path.relative_to(ROOT)), name)
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in _found(path).state
        if not name.lstrip("_").isupper() and name != "__all__"
    ] == []


def test_a_folder_has_a_dozen_modules_or_a_reason() -> None:
    found = {
        str(folder.relative_to(ROOT)): sum(path.name != "__init__.py" for path in folder.glob("*.py"))
        for folder in [PACKAGE, *PACKAGE.rglob("*")]
        if folder.is_dir()
    }
    assert {
        name: count for name, count in found.items() if count > SHAPE.FOLDER_LIMIT and name not in FULL
    } == {}
    assert set(FULL) <= set(found)


def test_cycles_of_types_alone_are_found(tmp_path: Path) -> None:
    package = tmp_path / "fazai"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "one": "from fazai import two\n",
        "two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fazai.three import Three\n",
        "three": "try:\n    import fazai.one\nexcept ImportError:\n    pass\n",
        "four": "def late():\n    from fazai.five import five\n",
        "five": "from fazai.four import late\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert list(SHAPE.cycles(tmp_path)) == [("fazai.one", "fazai.three", "fazai.two")]
