"""Tests say why something fails: an error of ours is expected with its words, and so is the exit code of a
command that fails. Else a test passes for whatever went wrong."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tests").rglob("test_*.py"))
#: What went wrong: not OK, PENDING, a wrong word on the command line, INTERRUPTED.
WRONG_CODES = frozenset({1, 3, 4, 5, 6, 7})
WRONG_NAMES = frozenset({"FAILED", "BAD_INPUT", "UNREACHABLE", "LOCKED", "STALE", "REFUSED"})
#: Without one of these words a function expects no failure (a quick look, before its tree is walked).
MAY_FAIL = re.compile(r"raises|code|main|wait")
#: Without it a module has no class of an error (a quick look, before it is parsed).
DERIVES = re.compile(r"^\s*class \w+\((?!Protocol|Struct|StrEnum|Enum)", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@functools.cache
def our_errors() -> frozenset[str]:
    """The names of all classes of ours that are raised."""
    bases: dict[str, set[str]] = {}
    for path in (ROOT / "fazai").rglob("*.py"):
        text = path.read_text()
        if not DERIVES.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(map(name_of, node.bases))
    found = {"Exception"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return frozenset(found - {"Exception"})


def functions(tree: ast.AST) -> Iterator[Function]:
    """Functions that are in no other one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node
        else:
            yield from functions(node)


def raises_without_words(nodes: Sequence[ast.AST]) -> Iterator[int]:
    """Lines of a function that expect an error of ours, whatever it says."""
    used = {node.id for node in nodes if isinstance(node, ast.Name) and is_read(node)}
    for node in nodes:
        for item in node.items if isinstance(node, ast.With | ast.AsyncWith) else ():
            call, caught = item.context_expr, item.optional_vars
            if not isinstance(call, ast.Call) or name_of(call) != "raises" or not call.args:
                continue
            kinds = {name_of(kind) for kind in ast.walk(call.args[0])}
            looked_at = isinstance(caught, ast.Name) and caught.id in used
            if kinds & our_errors() and not looked_at and not any(k.arg == "match" for k in call.keywords):
                yield call.lineno


def without_words(function: Function) -> Iterator[int]:
    """Lines that expect a failure, and not its words."""
    nodes = list(ast.walk(function))
    yield from raises_without_words(nodes)
    yield from codes_without_words(nodes)


def is_read(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def is_code(node: ast.expr) -> bool:
    """`result.code`, `main([…])`, `row["exit_code"]`, …; not that of an exception, which is its class's."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "exit_code"
    if isinstance(node, ast.Call):
        return name_of(node) in ("main", "wait")
    of = name_of(node.value) if isinstance(node, ast.Attribute) else ""
    return name_of(node) in ("code", "exit_code", "returncode") and of not in ("value", "error")


def is_wrong(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) is int and node.value in WRONG_CODES
    return isinstance(node, ast.Attribute) and name_of(node.value) == "ExitCode" and node.attr in WRONG_NAMES


def is_of_codes_alone(test: ast.expr) -> bool:
    """Whether an assertion looks at nothing but exit codes."""
    if isinstance(test, ast.BoolOp):
        return all(map(is_of_codes_alone, test.values))
    return isinstance(test, ast.Compare) and is_code(test.left)


def codes_without_words(nodes: Sequence[ast.AST]) -> Iterator[int]:
    """Lines of a function that expect a wrong exit code, with nothing behind it that looks at what was said
    or done."""
    asserts = sorted((node for node in nodes if isinstance(node, ast.Assert)), key=lambda node: node.lineno)
    looks = [node.lineno for node in asserts if not is_of_codes_alone(node.test)]
    for node in asserts:
        test = node.test
        fails = isinstance(test, ast.Compare) and is_code(test.left) and any(map(is_wrong, test.comparators))
        if fails and not any(line >= node.lineno for line in looks):
            yield node.lineno


def test_failures_are_expected_with_their_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in FILES
        for lines in [path.read_text().split("\n")]
        for function in functions(ast.parse("\n".join(lines)))
        if any(map(MAY_FAIL.search, lines[function.lineno - 1 : function.end_lineno]))
        for line in without_words(function)
    ]
    assert found == [], "say why it fails: match=…, or a look at what was said or done"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("with pytest.raises(UsageError):\n  f()", 1),
        ("with pytest.raises((OSError, StoreFull)):\n  f()", 1),
        ("with pytest.raises(UsageError, match='no'):\n  f()", 0),
        ("with pytest.raises(UsageError) as caught:\n  f()", 1),
        ("with pytest.raises(UsageError) as caught:\n  f()\n assert caught.value.hint", 0),
        ("with pytest.raises(OSError):\n  f()", 0),
        ("assert result.code == 3", 1),
        ("assert main(['x']) == ExitCode.REFUSED", 1),
        ("assert row['exit_code'] in (2, 4)", 0),
        ("assert 'x' in told\n assert result.code == 3", 1),
        ("assert result.code == 3\n assert 'x' in result.err", 0),
        ("assert (result.code, result.err) == (3, 'x')", 0),
        ("assert result.code == 2", 0),
        ("assert answer.code == 'overloaded'", 0),
    ],
)
def test_the_check_finds_what_it_should(code: str, count: int) -> None:
    (function,) = functions(ast.parse(f"def test():\n {code}"))
    assert len([*without_words(function)]) == count
