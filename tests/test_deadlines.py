"""Rule 10 of AGENTS.md: every operation has a timeout. What is awaited of the outside (a socket, a process, a
client, another program) stands below a deadline, or its line says whose deadline holds: `# deadline: …`.

Waits inside the process are not looked at: a future, a lock, a function of ours (its own waits are)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "fazai").rglob("*.py"))

#: Methods and functions whose end somebody outside this process decides, by their last name.
OUTSIDE = frozenset(
    {
        *(
            "open_connection",
            "open_unix_connection",
            "create_connection",
            "create_unix_connection",
            "connect",
        ),
        *(
            "getaddrinfo",
            "create_subprocess_exec",
            "create_subprocess_shell",
            "create_process",
            "communicate",
        ),
        *("read", "readline", "readexactly", "readuntil", "aread"),
        *("aiter_bytes", "aiter_lines", "aiter_raw", "anext", "recv"),
        *("send", "sendall", "receive", "sock_recv", "sock_sendall"),
        *("sock_connect", "sock_accept", "drain", "request", "stream"),
        *("aclose", "wait_closed", "wait", "handle_async_request"),
    }
)
#: These are waits where it is a queue that they are called on.
OF_QUEUES = frozenset({"get", "put", "join"})
#: What is iterated over without a call, by its last name.
STREAMS = frozenset({"stream", "stdout", "stderr", "chunks", "lines"})
#: What makes a deadline, as a context.
CONTEXTS = frozenset({"deadline", "deadline_at"})
#: Coroutines that these are given are awaited, by somebody.
STARTERS = frozenset({"ensure_future", "create_task", "gather", "shield", "wait", "enter_async_context"})
#: Without one of these words a module has no wait (a quick look, before it is parsed).
_MAY_WAIT = re.compile(rf"\b(async|await|{'|'.join(STARTERS)})\b")
_SAID = re.compile(r"# deadline: [\w`]")


def name_of(node: ast.AST) -> str:
    """The last name of what is called, or meant."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_outside(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if name_of(node) in OF_QUEUES and isinstance(node.func, ast.Attribute):
        return "queue" in name_of(node.func.value).lower()
    own_limit = any(k.arg is not None and k.arg.startswith("timeout") for k in node.keywords)
    return name_of(node) in OUTSIDE and not own_limit


def is_deadline(node: ast.AST) -> bool:
    """`deadline(None)` is none."""
    if not isinstance(node, ast.Call) or name_of(node) not in CONTEXTS:
        return False
    return not any(isinstance(found, ast.Constant) and found.value is None for found in node.args)


def waits(node: ast.AST) -> Iterator[ast.expr]:
    """What the node itself waits for."""
    if isinstance(node, ast.Await) and is_outside(node.value):
        yield node.value
    elif isinstance(node, ast.AsyncFor | ast.comprehension):
        over = node.iter
        if isinstance(node, ast.comprehension) and not node.is_async:
            return
        if is_outside(over) or (not isinstance(over, ast.Call) and name_of(over) in STREAMS):
            yield over
    elif isinstance(node, ast.AsyncWith):
        for item in node.items:
            if is_deadline(item.context_expr):
                return
            if is_outside(item.context_expr):
                yield item.context_expr
    elif isinstance(node, ast.Call) and name_of(node) in STARTERS:
        yield from (argument for argument in node.args if is_outside(argument))


def without_deadline(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of each wait for the outside that stands below no deadline and says no other's."""
    lines = text.splitlines()

    def is_said(found: ast.expr) -> bool:
        above = lines[found.lineno - 2].strip() if found.lineno > 1 else ""
        own = lines[found.lineno - 1 : found.end_lineno]
        return any(map(_SAID.search, own)) or _SAID.match(above) is not None

    def walk(node: ast.AST, safe: bool) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef | ast.Lambda):
            safe = False  # it may run later
        if not safe:
            yield from ((found.lineno, name_of(found)) for found in waits(node) if not is_said(found))
        if isinstance(node, ast.AsyncWith):
            safe = safe or any(is_deadline(item.context_expr) for item in node.items)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, safe)

    yield from walk(ast.parse(text), False)


def test_every_wait_for_the_outside_has_a_deadline() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{n}: …{name}()"
        for path in FILES
        if _MAY_WAIT.search(text := path.read_text())
        for n, name in without_deadline(text)
    ]
    assert found == [], "put it below deadline(…) of fazai.compat.timeouts, or say whose it is: # deadline: …"


def test_deadlines_are_those_that_hold_in_a_cancelled_task() -> None:
    """asyncio.timeout does not before Python 3.11.3, and wait_for swallows cancellations."""
    own = ROOT / "fazai" / "compat" / "timeouts.py"
    unsafe = re.compile(r"asyncio\.(timeout|timeout_at|wait_for)\(|^from asyncio import", re.MULTILINE)
    found = [path for path in FILES if path != own and unsafe.search(path.read_text())]
    assert found == [], "deadline(…) of fazai.compat.timeouts in their place"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("await r.read(1)", ["read"]),
        ("async with deadline(1):\n  await r.read(1)", []),
        ("async with deadline(None):\n  await r.read(1)", ["read"]),
        ("await asyncio.wait(t, timeout=1)", []),
        ("await asyncio.wait(t)", ["wait"]),
        ("await r.read(1)  # deadline: the caller's, `run`", []),
        ("await r.read(1)  # deadline:", ["read"]),
        ("# deadline: the caller's\n await r.read(1)", []),
        ("async with deadline(1):\n  async def g():\n   await r.read(1)", ["read"]),
        ("async for x in c.stream():\n  pass", ["stream"]),
        ("async for x in answer.stream:\n  pass", ["stream"]),
        ("return [x async for x in c.aiter_bytes()]", ["aiter_bytes"]),
        ("async with c.stream('GET') as got:\n  pass", ["stream"]),
        ("async with deadline(1), c.stream('GET') as got:\n  pass", []),
        ("async with c.stream('GET') as got, deadline(1):\n  pass", ["stream"]),
        ("task = asyncio.ensure_future(process.wait())", ["wait"]),
        ("await asyncio.gather(a.read(), b.read())", ["read", "read"]),
        ("await self.queue.get()", ["get"]),
        ("await self.api.get('x')", []),
        ("await future", []),
    ],
)
def test_the_check_finds_what_it_should(code: str, names: list[str]) -> None:
    assert [name for _, name in without_deadline(f"async def f():\n {code}")] == names
