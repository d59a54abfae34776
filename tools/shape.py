#!/usr/bin/env python3
"""Measures the shape of the package: the figures of docs/architecture.md. Needs nothing but Python and git.

tools/shape.py                 the figures of the work tree, beside those of earlier commits
tools/shape.py --names         the names, docstrings and folders behind the figures of the work tree
tools/shape.py --write         put the table into docs/architecture.md
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs/architecture.md"
#: What the work tree is compared with: a title and a commit.
EARLIER = (("0.1.0 (53be0a2)", "53be0a2"), ("b028219", "b028219"), ("before the rooms (c2ac202)", "c2ac202"))
#: A folder with more modules than this stands in a table of tests/test_architecture.py, with the reason.
FOLDER_LIMIT = 12
_QUESTION = {"what", "whose", "whether", "when", "which", "who", "where", "how", "why"}
_PREPOSITION = {"of", "in", "for", "with", "without", "at", "by", "on", "from", "to", "as", "after", "before"}
_ONLY_RAISES = re.compile(r"Raises?\b[^.]*\.?\s*\Z")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Shape:
    """What was measured in one tree."""

    lines: int
    code_lines: int
    modules: int
    folders: Mapping[str, int]
    cycles: tuple[tuple[str, ...], ...]
    repeated_classes: Mapping[str, tuple[str, ...]]
    repeated_functions: Mapping[str, tuple[str, ...]]
    functions: int
    one_word: int
    docstrings: int
    titles: tuple[str, ...]
    only_raises: tuple[str, ...]


def measure(root: Path) -> Shape:
    """Measure the package `fazai` below a folder."""
    trees = {path: ast.parse(path.read_text()) for path in sorted((root / "fazai").rglob("*.py"))}
    classes: dict[str, list[str]] = defaultdict(list)
    functions: dict[str, list[str]] = defaultdict(list)
    names = [0, 0]
    docstrings = 0
    titles, only_raises = [], []
    for path, tree in trees.items():
        where = str(path.relative_to(root))
        for name, found in (("class", classes), ("function", functions)):
            for defined in _defined(tree, name):
                found[defined].append(where)
        for node in ast.walk(tree):
            if isinstance(node, Function) and not node.name.startswith("__"):
                names[0] += 1
                names[1] += "_" not in node.name.strip("_")
            if isinstance(node, ast.Module | ast.ClassDef | Function) and (text := ast.get_docstring(node)):
                docstrings += 1
                place = f"{where}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"
                if re.split(r"\W", text, maxsplit=1)[0].lower() in _QUESTION | _PREPOSITION:
                    titles.append(place)
                elif _ONLY_RAISES.match(text):
                    only_raises.append(place)
    return Shape(
        lines=sum(len(path.read_text().splitlines()) for path in trees),
        code_lines=sum(_count_code_lines(path.read_text(), tree) for path, tree in trees.items()),
        modules=len(trees),
        folders=Counter(str(p.parent.relative_to(root)) for p in trees if p.name != "__init__.py"),
        cycles=tuple(cycles(root)),
        repeated_classes={name: tuple(found) for name, found in classes.items() if len(found) > 1},
        repeated_functions={name: tuple(found) for name, found in functions.items() if len(found) > 1},
        functions=names[0],
        one_word=names[1],
        docstrings=docstrings,
        titles=tuple(titles),
        only_raises=tuple(only_raises),
    )


def _count_code_lines(text: str, tree: ast.Module) -> int:
    """Count the lines of a module that are neither empty nor a comment nor part of a docstring."""
    documented: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node, clean=False):
            documented.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and line.strip()[0] != "#" and n not in documented for n, line in lines)


def _defined(tree: ast.Module, what: str) -> set[str]:
    """Names of a module's classes or functions, without the underscore of private ones."""
    kinds = ast.ClassDef if what == "class" else Function
    return {node.name.lstrip("_") for node in tree.body if isinstance(node, kinds)}


def cycles(root: Path) -> Iterator[tuple[str, ...]]:
    """Yield each group of modules of the package that import each other when loaded or for types alone.

    Imports inside functions are left out: they are made later, and on purpose.
    """
    modules = {_module_name(path, root): path for path in (root / "fazai").rglob("*.py")}
    graph = {name: set(_imported(path, modules)) - {name} for name, path in modules.items()}
    yield from (group for group in _components(graph) if len(group) > 1)


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a module imports, in its body or below `if` and `try`."""
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If | ast.Try | ast.With):
            waiting += [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in modules or node.module in modules:
                    yield whole if whole in modules else node.module


def _components(graph: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Group the nodes that reach each other."""
    reached = {start: _reach(graph, start) for start in graph}
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]}
    return sorted(groups)


def _reach(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return what can be reached from a node in one step or more."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += graph[name]
    return found


def measure_commit(commit: str) -> Shape:
    """Measure the package as it was at a commit."""
    packed = subprocess.run(
        ["git", "archive", commit, "fazai"],  # noqa: S607 - git is where the shell finds it
        cwd=TOP,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        return measure(Path(folder))


def table(shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Yield the lines of a Markdown table: one column a tree, one row a figure."""
    rows: dict[str, Callable[[Shape], str]] = {
        "lines of Python in `fazai/`; of them code, without docstrings, comments and empty lines": lambda s: (
            f"{s.lines:,}; {s.code_lines:,}"
        ),
        "modules; in the fullest folder": lambda s: f"{s.modules}; {max(s.folders.values())}",
        f"folders with more than {FOLDER_LIMIT} modules": lambda s: (
            f"{sum(count > FOLDER_LIMIT for count in s.folders.values())} of {len(s.folders)}"
        ),
        "modules in import cycles, type-only imports counted": lambda s: str(
            sum(len(group) for group in s.cycles)
        ),
        "names of classes that several modules define": lambda s: str(len(s.repeated_classes)),
        "names of functions that several modules define": lambda s: str(len(s.repeated_functions)),
        "names of functions that four modules or more define": lambda s: str(
            sum(len(found) > 3 for found in s.repeated_functions.values())
        ),
        "functions; of one word": lambda s: (
            f"{s.functions:,}; {s.one_word:,} ({s.one_word / s.functions:.0%})"
        ),
        "docstrings; beginning with a wh-word or a preposition": lambda s: (
            f"{s.docstrings:,}; {len(s.titles)}"
        ),
        "docstrings that say only what is raised": lambda s: str(len(s.only_raises)),
    }
    yield f"| | {' | '.join(shapes)} |"
    yield "|---|" + "---|" * len(shapes)
    for title, figure in rows.items():
        yield f"| {title} | {' | '.join(figure(shape) for shape in shapes.values())} |"


def print_names(shape: Shape) -> None:
    """Print what stands behind the figures."""
    for title, found in (("class", shape.repeated_classes), ("function", shape.repeated_functions)):
        for name, modules in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
            print(f"{title} {name}: {', '.join(modules)}")
    for folder, count in sorted(shape.folders.items(), key=lambda item: -item[1]):
        print(f"folder {folder}: {count}")
    for group in shape.cycles:
        print(f"cycle: {', '.join(group)}")
    print(*(f"title {text}" for text in shape.titles), sep="\n")
    print(*(f"raises {text}" for text in shape.only_raises), sep="\n")


def main() -> int:
    """Print the table, the names behind it, or write it into the page."""
    parser = argparse.ArgumentParser(description="The shape of the package.")
    parser.add_argument("--names", action="store_true", help="what stands behind the figures")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(TOP)}")
    options = parser.parse_args()
    if options.names:
        print_names(measure(TOP))
        return 0
    shapes = {title: measure_commit(commit) for title, commit in EARLIER} | {"now": measure(TOP)}
    lines = "\n".join(table(shapes))
    if not options.write:
        print(lines)
        return 0
    begin, end = "<!-- tools/shape.py --write -->\n", "<!-- end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}{lines}\n{end}{rest.partition(end)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
