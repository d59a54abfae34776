"""Compiled templates: rendered in a scope, with one sentence for each fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.utils import missing

from fazai.errors import FazaiError, TemplateError, did_you_mean
from fazai.model import Secret, Value
from fazai.template import guard
from fazai.template.engine import TemplateEngine
from fazai.template.errors import UndefinedName, describe_type
from fazai.template.filters.base import FilterError
from fazai.template.guard import FAULTS, WHOLE_ONLY, is_about_secret
from fazai.template.header import read_header
from fazai.template.hostvars import HostVars, HostView, Variables
from fazai.template.limits import TEMPLATE_MAX, Rendering
from fazai.template.simple import count_newlines, end_lines
from fazai.template.undefined import NamedUndefinedError

_MESSAGE_MAX: Final = 200
_EXCERPT_MAX: Final = 160


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTemplate:
    """A template that Jinja2 has compiled. `newlines`: the line ends at its end; `header_lines`: those of a
    file that say how the rest is read."""

    engine: TemplateEngine
    text: str
    template: jinja2.Template
    loops: bool
    newlines: int
    header_lines: int

    def render(self, scope: Variables, rendering: Rendering) -> Value:
        """Return the value. Raises TemplateError without a place, and what reading a secret raises."""
        with self._run(scope, rendering) as pieces:
            if len(pieces) != 1 or self.loops:
                return end_lines(guard.join_pieces(rendering, pieces), self.newlines)
            value = guard.plain_value(rendering, pieces[0])
            return end_lines(value, self.newlines) if type(value) is str else value

    def render_file(self, scope: Variables, rendering: Rendering) -> str | Secret:
        """Return the content of a file. What puts out nothing, or one value that is no text, ends without a
        line end, as in Ansible. Raises as `render`."""
        with self._run(scope, rendering) as pieces:
            text = guard.join_pieces(rendering, pieces)
            bare = not pieces or (len(pieces) == 1 and not isinstance(pieces[0], str | Secret))
            return text if bare else end_lines(text, self.newlines)

    @contextmanager
    def _run(self, scope: Variables, rendering: Rendering) -> Iterator[list[Any]]:
        """Run the template; gives the pieces that it puts out. Explains a fault in it, or in the block."""
        engine = self.engine
        outer, engine.rendering = engine.rendering, rendering
        try:
            yield list(self.template.root_render_func(engine.context(scope)))
        except FazaiError:
            raise
        except FAULTS as error:
            raise self._explain(error, scope, rendering) from None
        finally:
            engine.rendering = outer

    def _explain(self, error: Exception, scope: Variables, rendering: Rendering) -> TemplateError:
        line = self._find_line(error)
        excerpt = None if rendering.tainted else _excerpt_line(self.text, line)
        told = line + self.header_lines
        place = f" (line {told} of the template)" if told > 1 or self.text.count("\n") > 1 else ""
        if isinstance(error, NamedUndefinedError):
            message, meant = _explain_undefined(error, scope)
            return UndefinedName(message + place, meant=meant, excerpt=excerpt)
        message, hint = _explain_fault(error)
        return TemplateError(f"{message}{place}", hint=hint, excerpt=excerpt)

    def _find_line(self, error: Exception) -> int:
        """Return the line of the template that was being rendered."""
        line, trace = 1, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_globals.get("__jinja_template__") is self.template:
                line = self.template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


def compile_template(engine: TemplateEngine, text: str, *, condition: bool = False) -> CompiledTemplate:
    """Compile a text, or the expression of a condition. Raises TemplateError without a place."""
    with engine.reading(escapes=condition):
        return _compile(engine, text, condition=condition)


def compile_template_file(engine: TemplateEngine, text: str) -> CompiledTemplate:
    """Compile a template file with the settings of its first line. Raises TemplateError without a place."""
    body, settings = read_header(text)
    with engine.reading(escapes=True, settings=settings):
        return _compile(engine, body, header_lines=text[: len(text) - len(body)].count("\n"))


def _compile(
    engine: TemplateEngine, text: str, *, condition: bool = False, header_lines: int = 0
) -> CompiledTemplate:
    if len(text) > TEMPLATE_MAX:
        raise TemplateError(f"the template is longer than {TEMPLATE_MAX} characters")
    source = "{{ " + text.strip() + " }}" if condition else text
    try:
        tree = engine._parse(source, None, None)
        if condition and not _is_expression(tree):
            raise TemplateError("this is not one expression", excerpt=_excerpt_line(text, 1))
        template = engine.from_string(tree)
    except FazaiError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise _template_syntax_error(error, text, condition, header_lines) from None
    except (RecursionError, MemoryError):
        raise TemplateError("the template is nested too deeply", excerpt=_excerpt_line(text, 1)) from None
    except (SyntaxError, ValueError, OverflowError) as error:
        message = f"the template cannot be compiled: {_short_message(error)}"
        raise TemplateError(message, excerpt=_excerpt_line(text, 1)) from None
    loops = any(True for _ in tree.find_all(nodes.For))
    newlines = 0 if condition else count_newlines(text)
    return CompiledTemplate(engine, text, template, loops=loops, newlines=newlines, header_lines=header_lines)


def _is_expression(tree: nodes.Template) -> bool:
    body = tree.body
    return (
        len(body) == 1
        and isinstance(body[0], nodes.Output)
        and len(body[0].nodes) == 1
        and not isinstance(body[0].nodes[0], nodes.TemplateData)
    )


def _template_syntax_error(
    error: jinja2.TemplateSyntaxError, text: str, condition: bool, header_lines: int
) -> TemplateError:
    message, hint = error.message or "", getattr(error, "hint", None)
    several = header_lines or ("\n" in text.strip() and not condition)
    place = f" (line {error.lineno + header_lines} of the template)" if several else ""
    if message.lower().startswith(("unexpected", "expected")):
        message = f"this is not a template that can be read: {message[0].lower()}{message[1:]}"
    return TemplateError(message + place, hint=hint, excerpt=_excerpt_line(text, error.lineno))


def _explain_undefined(error: NamedUndefinedError, scope: Variables) -> tuple[str, str | None]:
    """Return the message, and the known name that was probably meant."""
    if error.name is None:
        return str(error), None
    if error.obj is missing:
        known = {*scope.names(), "range", "dict", "namespace"}
        return f'"{error.name}" is not defined', did_you_mean(str(error.name), known)
    if isinstance(error.obj, Mapping):
        meant = did_you_mean(str(error.name), (key for key in error.obj if isinstance(key, str)))
        owner = f"{error.obj.what} has no" if isinstance(error.obj, HostVars | HostView) else None
        return f'{owner or "the mapping has no key"} "{error.name}"', meant
    if isinstance(error.obj, list | tuple):
        return f"the list of {len(error.obj)} has no item {error.name!r}", None
    return f'{describe_type(error.obj)} has no "{error.name}"', None


def _explain_fault(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, FilterError):
        return str(error), error.hint
    if isinstance(error, RecursionError):
        return "the template is nested too deeply", None
    if isinstance(error, MemoryError):
        return "the template takes too much memory", None
    if isinstance(error, ZeroDivisionError):
        return "the template divides by zero", None
    if is_about_secret(error):
        return "a secret cannot be measured, looped over or calculated with", WHOLE_ONLY
    return f"the template fails: {_short_message(error)}", None


def _short_message(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MESSAGE_MAX else text[:_MESSAGE_MAX] + "…"


def _excerpt_line(text: str, line: int) -> str | None:
    lines = text.splitlines() or [""]
    found = lines[min(max(line, 1), len(lines)) - 1].strip()
    return found if found and len(found) <= _EXCERPT_MAX and found.isprintable() else None
