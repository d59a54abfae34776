"""Options of a host, read under our names and Ansible's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fazai.model import FieldSpec, Target, Value

#: Ansible's names of options of ours; they stand before ours, in this order.
ANSIBLE_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "password": ("ansible_password", "ansible_ssh_pass"),
    "key": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    "become": ("ansible_become",),
    "become_method": ("ansible_become_method",),
    "become_user": ("ansible_become_user",),
    "become_password": ("ansible_become_password", "ansible_become_pass"),
}


def with_ansible_names(specs: tuple[FieldSpec, ...]) -> dict[str, FieldSpec]:
    """Return these options by name, under Ansible's names as well."""
    found = {spec.name: spec for spec in specs}
    for spec in specs:
        alias = replace(spec, doc=f"as {spec.name}", default=None)
        found.update({name: replace(alias, name=name) for name in ANSIBLE_NAMES.get(spec.name, ())})
    return found


def read_option(target: Target, name: str, default: Value = None) -> Value:
    """Return the value of an option of ours, whoever's name it is set under."""
    values = (target.options.get(each) for each in (*ANSIBLE_NAMES.get(name, ()), name))
    return next((value for value in values if value is not None), default)
