"""The table of Ansible's modules: every kind that it names is one, and every example in it is well-formed."""

from __future__ import annotations

import re

import pytest

from fazai.errors import InputError
from fazai.playbook.modules import _MODULES, module_hint
from fazai.registry import Registry

REGISTRY = Registry()


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_a_hint_names_kinds_and_fields_that_there_are(module: str) -> None:
    hint = module_hint(f"ansible.builtin.{module}")
    assert hint is not None
    for kind, fields in re.findall(r"(host\.[a-z_]+)(?:: \{([^}]*)\})?", hint):
        known = REGISTRY.kind(kind)
        for name in re.findall(r"([a-z_]+): ", fields):
            assert name in known.fields, (kind, name)


@pytest.mark.parametrize("name", ["ssh.copy", "host.template", "host.systemd", "local.lineinfile"])
def test_a_kind_that_is_a_module_of_ansibles_is_told_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match=f'there is no kind "{name}"') as caught:
        REGISTRY.kind(name)
    assert caught.value.hint == module_hint(name.partition(".")[2])


def test_there_are_fifty_of_them_and_more() -> None:
    assert len(_MODULES) >= 50
