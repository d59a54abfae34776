#!/usr/bin/env python3
"""Changes a module in one place after another; lists the changes that no test notices (docs/testing.md).

.venv/bin/python tools/mutate.py fazai/plan.py tests/cli/test_plan_files.py [tests] [--every 3] [--line 105]

pytest collects once. Each change is put into the code of the functions of a forked process, which runs the
tests that reach the changed line. What a test does in a new process is therefore not changed;
nor are defaults of arguments, decorators, bodies of classes; constants of the module only for itself.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

import pytest

_PAIRS: tuple[tuple[type[ast.AST], type[ast.AST]], ...] = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn), (ast.Is, ast.IsNot)),
    *((ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv), (ast.Continue, ast.Break)),
)
_SWAPPED = {**dict(_PAIRS), **{new: old for old, new in _PAIRS}, ast.Mod: ast.Mult, ast.Div: ast.Mult}
_OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LEFT_OUT = {"sorted", "reversed", "lower", "casefold", "strip", "rstrip", "lstrip"}
_ASSIGNMENTS = ast.Assign | ast.AnnAssign
_SURVIVED, _KILLED, _UNFIT, _DIED = range(4)
_VERDICTS = {_SURVIVED: "survived", _KILLED: "killed", _UNFIT: "cannot be made", None: "killed"}
_GRACE_S = 10


def find_replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of a node."""
    fields = dict(ast.iter_fields(node))
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _SWAPPED:
            yield ast.Compare(**{**fields, "ops": [_SWAPPED[type(operator)]()]})
        case ast.BoolOp() | ast.BinOp() if type(node.op) in _SWAPPED:
            yield type(node)(**{**fields, "op": _SWAPPED[type(node.op)]()})
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Constant(value=bool() as truth):
            yield ast.Constant(not truth)
        case ast.Constant(value=int() | float() as number):
            yield ast.Constant(number + 1)
        case ast.Constant(value=str() as text):
            yield ast.Constant(f"XX{text}")
        case ast.Continue() | ast.Break():
            yield _SWAPPED[type(node)]()
        case ast.Return(value=ast.expr()) | ast.Assign() if not isinstance(node.value, ast.Constant):
            yield type(node)(**{**fields, "value": ast.Constant(None)})
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
            yield ast.Pass()
        case ast.Call(func=ast.Name(id=name)) if name in _OPPOSITE:
            yield ast.Call(**{**fields, "func": ast.Name(_OPPOSITE[name], ast.Load())})
        case ast.Call(func=ast.Name(id=name), args=[kept]) if name in _LEFT_OUT:
            yield kept
        case ast.Call(func=ast.Attribute(attr=name, value=kept)) if name in _LEFT_OUT:
            yield kept
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(
        node.test, ast.Compare | ast.UnaryOp
    ):
        yield type(node)(**{**fields, "test": ast.UnaryOp(ast.Not(), node.test)})
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            yield ast.Call(**{**fields, "keywords": [one for one in node.keywords if one is not keyword]})


@dataclass(frozen=True)
class Mutant:
    """One change: of `parent.name` (or an item of it) in the statement at `lines` of the function `top`."""

    parent: ast.AST
    name: str
    index: int | None
    old: ast.AST
    new: ast.AST
    top: ast.stmt
    lines: range

    def __str__(self) -> str:
        before, after = (" ".join(ast.unparse(each).split()) for each in (self.old, self.new))
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        first = max(0, same - 40)
        return f"{self.line}: {before[first:][:90]}  →  {after[first:][:90]}"

    @property
    def line(self) -> int:
        """The line of the old node, or where it has none (an operator) of its statement."""
        return getattr(self.old, "lineno", self.lines.start)

    def change_tree(self) -> None:
        """Put the new node in place of the old one."""
        if self.index is None:
            setattr(self.parent, self.name, self.new)
        else:
            getattr(self.parent, self.name)[self.index] = self.new


def find_mutants(tree: ast.Module) -> list[Mutant]:
    """Return every change of the functions of a module and of the values of its names."""
    found: list[Mutant] = []

    def walk(node: ast.AST, top: ast.stmt, lines: range) -> None:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list") or isinstance(value, ast.arguments):
                continue
            for index, each in enumerate(value) if isinstance(value, list) else ((None, value),):
                if not isinstance(each, ast.AST) or (
                    isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)  # a docstring
                ):
                    continue
                inner = _own_lines(each) if isinstance(each, ast.stmt) else lines
                for new in find_replacements(each):
                    ast.fix_missing_locations(ast.copy_location(new, each))
                    found.append(Mutant(node, name, index, each, new, top, inner))
                walk(each, top, inner)

    def enter(body: Sequence[ast.stmt], *, constants: bool) -> None:
        for top in body:
            if isinstance(top, ast.ClassDef):
                enter(top.body, constants=False)
            elif isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef) or (
                constants and isinstance(top, _ASSIGNMENTS) and "__all__" not in ast.unparse(top)
            ):
                walk(top, top, _own_lines(top))

    enter(tree.body, constants=True)
    return found


def _own_lines(statement: ast.stmt) -> range:
    """Return the lines of a statement without those of the statements in it."""
    inner: list[ast.stmt] = getattr(statement, "body", [])
    last = inner[0].lineno - 1 if inner else statement.end_lineno or 0
    return range(statement.lineno, max(statement.lineno, last) + 1)


def _find_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from _find_codes(each)


def run_forked(work: Callable[[], int], limit_s: float) -> int | None:
    """Return what `work` returns in a process of its own; None: it was not done in time, or it died."""
    process = os.fork()
    if not process:
        code = _DIED
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            code = work()
        except BaseException:  # noqa: BLE001 # nothing may go on to what the other process does
            traceback.print_exc()
        finally:
            os._exit(code)
    watched = os.pidfd_open(process)
    select.select([watched], [], [], limit_s)
    os.close(watched)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # it, and what its tests left behind
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if code in (_SURVIVED, _KILLED, _UNFIT) else None


class MutantRunner:
    """A plugin of pytest that runs the collected tests for one mutant after another."""

    def __init__(self, path: Path, every: int, lines: Sequence[int]) -> None:
        self.path, self.every, self.lines = str(path), every, lines
        self.module = ".".join(path.relative_to(Path.cwd()).with_suffix("").parts)
        self.tree = ast.parse(path.read_text())

    def pytest_sessionstart(self) -> None:
        """Let hypothesis stop at a failure: it need not become small."""
        import hypothesis

        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile("mutate", phases=phases, derandomize=True, database=None)
        hypothesis.settings.load_profile("mutate")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run every change that is chosen; print those that survive, and how many there were."""
        began = time.monotonic()
        importlib.import_module(self.module)  # tests may do so late
        session.items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))  # slow: last
        gc.freeze()  # what is there stays shared among the processes
        reached = self._find_reached_lines(session)
        limit_s = _GRACE_S + 3 * (time.monotonic() - began)
        mutants = find_mutants(self.tree)
        chosen = [each for each in mutants[:: self.every] if not self.lines or each.line in self.lines]
        print(f"\n{len(session.items)} tests; {len(chosen)} of {len(mutants)} changes", flush=True)
        counts: Counter[str] = Counter()
        for mutant in chosen:
            lines = reached if isinstance(mutant.top, _ASSIGNMENTS) else mutant.lines
            numbers = sorted(set().union(*(reached.get(line, ()) for line in lines)))
            items = [session.items[number] for number in numbers]
            verdict = "not reached"
            if items:
                verdict = _VERDICTS[run_forked(partial(self._try_mutant, session, mutant, items), limit_s)]
            counts[verdict] += 1
            if verdict != "killed":
                print(f"{verdict:11} {mutant}", flush=True)
        print(*(f"{number} {verdict}" for verdict, number in counts.items()), sep=", ")
        return True

    def _find_reached_lines(self, session: pytest.Session) -> dict[int, set[int]]:
        """Run the tests as they are; return by line the numbers of the tests that run it."""
        with tempfile.NamedTemporaryFile() as kept:
            if run_forked(partial(self._trace_tests, session, kept.name), 3600) != _SURVIVED:
                raise pytest.UsageError("the tests fail without any change")
            return {int(line): set(numbers) for line, numbers in json.load(kept).items()}

    def _trace_tests(self, session: pytest.Session, kept: str) -> int:
        reached: dict[int, set[int]] = defaultdict(set)
        current = 0

        def enter(frame: types.FrameType, _event: str, _value: object) -> Callable[..., Any] | None:
            return note if frame.f_code.co_filename == self.path else None

        def note(frame: types.FrameType, _event: str, _value: object) -> Callable[..., Any]:
            reached[frame.f_lineno].add(current)
            return note

        def begin(number: int) -> None:
            nonlocal current
            current = number
            sys.settrace(enter)

        threading.settrace(enter)
        passed = _run_tests(session, session.items, begin)
        sys.settrace(None)
        Path(kept).write_text(json.dumps({line: sorted(numbers) for line, numbers in reached.items()}))
        return _SURVIVED if passed else _KILLED

    def _try_mutant(self, session: pytest.Session, mutant: Mutant, items: Sequence[pytest.Item]) -> int:
        mutant.change_tree()
        try:
            whole = compile(self.tree, self.path, "exec")
            if isinstance(mutant.top, _ASSIGNMENTS):
                constant = compile(ast.Module([mutant.top], []), self.path, "exec")
                exec(constant, sys.modules[self.module].__dict__)  # noqa: S102
        except Exception:  # noqa: BLE001 # the module could not be loaded
            return _KILLED
        if not isinstance(mutant.top, _ASSIGNMENTS) and not self._change_functions(whole):
            return _UNFIT
        return _SURVIVED if _run_tests(session, items) else _KILLED

    def _change_functions(self, whole: types.CodeType) -> bool:
        codes = {(code.co_qualname, code.co_firstlineno): code for code in _find_codes(whole)}
        done = False
        gc.unfreeze()
        for each in gc.get_objects():
            if isinstance(each, types.FunctionType) and each.__code__.co_filename == self.path:
                code = codes.get((each.__code__.co_qualname, each.__code__.co_firstlineno), each.__code__)
                if code != each.__code__ and code.co_freevars == each.__code__.co_freevars:
                    each.__code__ = code
                    done = True
        return done


def _run_tests(
    session: pytest.Session, items: Sequence[pytest.Item], begin: Callable[[int], None] | None = None
) -> bool:
    """Run tests until one fails; return whether all passed."""
    for number, (item, following) in enumerate(zip_longest(items, items[1:])):
        if begin is not None:
            begin(number)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            session._setupstate.teardown_exact(None)
            if begin is not None:
                os.write(2, f"{item.nodeid} fails\n".encode())
            return False
    return True


def main() -> int:
    """Parse the command line and run pytest with the plugin."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+", help="files or node ids, as pytest takes them")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every N-th change only")
    parser.add_argument("--line", type=int, action="append", default=[], help="try changes of this line only")
    options = parser.parse_args()
    words = [
        "-x",
        "-q",
        "-s",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not slow and not gemma",
    ]
    with tempfile.TemporaryDirectory() as folder:
        runner = MutantRunner(options.module.resolve(), options.every, options.line)
        return pytest.main([*words, f"--basetemp={folder}/t", *options.tests], plugins=[runner])


if __name__ == "__main__":
    sys.exit(main())
