"""Builds the remote agent as one file out of this package: for machines that have a Python and none of our
packages.

What goes in is computed: all modules of the package that the agent's entry imports, and those that these
import. Only the standard library is needed.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

#: The folder that holds the package.
TOP: Final = Path(__file__).resolve().parents[5]
ENTRY: Final = "fazai.agent.main"
_FIRST_LINE: Final = b"#!/usr/bin/env python3\n"
_MAIN = f"""import sys

if sys.version_info < (3, 9):
    sys.exit("the agent needs Python 3.9 or newer, and this is " + sys.version.split()[0])

from {ENTRY} import main

sys.exit(main())
"""


def find_modules(top: Path) -> dict[str, Path]:
    """Return the modules of the package by name."""
    paths = sorted((top / "fazai").rglob("*.py"))
    return {".".join(p.relative_to(top).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def find_closure(top: Path, entry: str) -> dict[str, Path]:
    """Return the modules that an entry imports, itself and the packages around them with it. Raises
    FileNotFoundError where the entry is not there."""
    modules = find_modules(top)
    if entry not in modules:
        raise FileNotFoundError(f"there is no module {entry}")
    found: set[str] = set()
    left = [entry]
    while left:
        name = left.pop()
        if name in found or name not in modules:
            continue
        found.add(name)
        left += [name.rpartition(".")[0], *find_imports(modules[name], name, modules)]
    return {name: modules[name] for name in sorted(found)}


def find_imports(path: Path, name: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Iterate over what a module imports when it runs, also inside of functions; a package that looks for its
    own modules imports all of them."""
    tree = ast.parse(path.read_text())
    for node in walk_at_run_time(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif find_called_name(node) == "iter_modules":
            yield from (other for other in modules if other.rpartition(".")[0] == name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in modules:
            yield node.value  # the name of a module that is loaded when it is first needed


def walk_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Iterate over the nodes of a tree but those that only a type checker sees."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from walk_at_run_time(child)


def find_called_name(node: ast.AST) -> str:
    """Return the last name of what a node calls; empty: it calls nothing."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def find_data(closure: Mapping[str, Path], top: Path) -> dict[str, Path]:
    """Return the files beside modules that are read as `importlib.resources.files("PACKAGE")`, by name."""
    found = {}
    for path in closure.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if find_called_name(node) == "files" and isinstance(node, ast.Call) and len(node.args) == 1:
                package = node.args[0]
                if isinstance(package, ast.Constant) and isinstance(package.value, str):
                    folder = top.joinpath(*package.value.split("."))
                    data = (each for each in folder.iterdir() if each.is_file())
                    named = (each for each in data if each.suffix not in (".py", ".pyc", ".pyz"))
                    found.update({str(each.relative_to(top)): each for each in named})
    return dict(sorted(found.items()))


def build_program(top: Path = TOP, entry: str = ENTRY, main: str = _MAIN) -> bytes:
    """Return the file. The same source makes the same bytes. Raises FileNotFoundError without its source."""
    closure = find_closure(top, entry)
    files = {str(path.relative_to(top)): path for path in closure.values()}
    files = {**files, **find_data(closure, top)}
    out = io.BytesIO()
    out.write(_FIRST_LINE)
    with zipfile.ZipFile(out, "w") as archive:
        _add(archive, "__main__.py", main.encode())
        for name, path in sorted(files.items()):
            _add(archive, name, path.read_bytes())
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data, compresslevel=9)
