"""Options of a host, read under our names and Ansible's."""

from __future__ import annotations

from fazai.model import Target, Value


def read_option(target: Target, *names: str, default: Value = None) -> Value:
    """Return the first of these options that is set: Ansible's name stands before ours."""
    for name in names:
        value = target.options.get(name)
        if value is not None:
            return value
    return default
