"""Templates: Jinja2 in a sandbox, strict about undefined names, with native types and secrets that stay so.

    templates = Templates(secrets=reader.read)
    scope = templates.scope(variables, places.get)
    scope.render("{{ net | ipaddr('address') }}")  # -> the value
    scope.test("site == 'north'")                  # -> bool

A text that holds none of `{{`, `{%`, `{#` is never looked at, and Jinja2 is not even imported until a
template needs more than names (`{{ a.b }}`). Variables are rendered when they are used, once for each scope.
"""

from fazai.template.errors import UndefinedName
from fazai.template.limits import OMIT, Omit
from fazai.template.scope import HostVars, Scope, Templates, is_static
from fazai.template.values import named

__all__ = ["OMIT", "HostVars", "Omit", "Scope", "Templates", "UndefinedName", "is_static", "named"]
