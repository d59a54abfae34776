"""Changes to a template's syntax tree before it is compiled.

Jinja2's sandbox lets an environment intercept arithmetic, calls and attributes. Comparisons, `~`, truth,
slices and loops are plain Python to it; here they become calls of the environment's own filters (named with a
leading underscore, which no template may use), so that they are paid for, and so that a secret is compared by
its value.
"""

from __future__ import annotations

from typing import Any, Final

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from fazai.errors import spelling_hint

_COLLECTIONS: Final = ("ansible.builtin.", "ansible.utils.", "ansible.netcommon.", "ansible.posix.")
_REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
}
_ABSENT: Final = {
    "password_hash": "store the hash, and read it with !file or !cmd",
    **dict.fromkeys(("random", "shuffle"), "what is random changes with every run"),
    "json_query": "use selectattr and map",
    **dict.fromkeys(("vault", "unvault"), "use the tag !vault"),
    **dict.fromkeys(("expanduser", "realpath", "fileglob"), "a template does not see this machine"),
    "expandvars": "use the tag !env",
    **dict.fromkeys(("strftime", "to_datetime"), "what depends on the clock changes with every run"),
    **dict.fromkeys(("safe", "escape"), "nothing is escaped here"),
}


class UnavailableSyntax(TemplateSyntaxError):
    """A part of Jinja2 that templates here do not have; `hint` says what to use instead."""

    def __init__(self, message: str, line: int, hint: str | None = None) -> None:
        super().__init__(message, line)
        self.hint = hint


class TreeRewriter(NodeTransformer):
    """Rewrites the tree of one template. Raises NotAvailable for what templates here do not have."""

    def __init__(self, filters: dict[str, Any], tests: dict[str, Any]) -> None:
        self._filters = filters
        self._tests = tests

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        refused = _REFUSED.get(type(node))
        if refused is not None:
            text = f"{{% {refused} %}} is not available: one text is all there is"
            raise UnavailableSyntax(text, node.lineno)
        return super().visit(node, *args, **kwargs)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802 - the visitor's naming
        node.name = self._check_name(node.name, self._filters, "filter", node.lineno)
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        node.name = self._check_name(node.name, self._tests, "test", node.lineno)
        return self.generic_visit(node)

    def _check_name(self, name: str, table: dict[str, Any], what: str, line: int) -> str:
        short = next((name.removeprefix(known) for known in _COLLECTIONS if name.startswith(known)), name)
        if short in table and not short.startswith("_"):
            return short
        hint = _ABSENT.get(short) if what == "filter" else None
        hint = hint or spelling_hint(short, (known for known in table if not known.startswith("_")))
        raise UnavailableSyntax(f'there is no {what} "{name}"', line, hint)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        called = node.node
        if isinstance(called, nodes.Name) and called.name in ("lookup", "query", "q"):
            text = f"{called.name}() is not available: a template reads nothing"
            raise UnavailableSyntax(text, node.lineno, "use the tags !env, !file, !cmd")
        return self.generic_visit(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        left, line = node.expr, node.lineno
        result: nodes.Expr | None = None
        for operand in node.ops:
            pair = _filter_call("_compare", left, line, nodes.Const(operand.op), operand.expr)
            result = pair if result is None else nodes.And(result, pair, lineno=line)
            left = operand.expr
        return result or node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter_call("_concat", nodes.List(node.nodes, lineno=node.lineno), node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        none = nodes.Const(None)
        return _filter_call("_slice", node.node, node.lineno, *(none if b is None else b for b in bounds))

    def visit_Not(self, node: nodes.Not) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.node = _filter_call("_truth", node.node, node.lineno)
        return node

    def _visit_condition(self, node: nodes.If | nodes.CondExpr) -> nodes.Node:
        self.generic_visit(node)
        node.test = _filter_call("_truth", node.test, node.lineno)
        return node

    visit_If = visit_CondExpr = _visit_condition  # noqa: N815 - the visitor's naming

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filter_call("_iterate", node.iter, node.lineno)
        node.body.insert(0, _payment_statement(node))
        if node.test is not None:
            payment = _filter_call("_pay", nodes.Const(1), node.lineno)
            node.test = nodes.And(payment, node.test, lineno=node.lineno)
        return node

    def _visit_body(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _payment_statement(node))
        return node

    visit_Macro = visit_CallBlock = _visit_body  # noqa: N815


def _payment_statement(node: nodes.Node) -> nodes.ExprStmt:
    """Return the statement that pays for one round through the node's body, by its size."""
    weight = 1 + sum(1 for _ in node.find_all(nodes.Node)) // 4
    return nodes.ExprStmt(_filter_call("_pay", nodes.Const(weight), node.lineno), lineno=node.lineno)


def _filter_call(name: str, node: nodes.Node, line: int, *args: nodes.Expr) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, list(args), [], None, None, lineno=line)
