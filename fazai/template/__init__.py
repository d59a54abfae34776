"""Templates: Jinja2 in a sandbox, strict about undefined names, with native types and secrets that stay so.

    templates = Templates(secrets=reader.read)
    scope = templates.scope(variables, places.get)
    scope.render("{{ net | ipaddr('address') }}")  # -> the value
    scope.test("site == 'north'")                  # -> bool

A text that holds none of `{{`, `{%`, `{#` is never looked at, and Jinja2 is not even imported until a
template needs more than names (`{{ a.b }}`). Variables are rendered when they are used, once for each scope.
"""

from fazai.template.errors import UndefinedName, describe_type
from fazai.template.hostvars import HostVars
from fazai.template.limits import OMIT
from fazai.template.scope import Scope, Templates, is_static

__all__ = ["OMIT", "HostVars", "Scope", "Templates", "UndefinedName", "describe_type", "is_static"]
