"""Every example of docs/kinds.md on one firewall: applied in one run, then nothing is left to do."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fazai.model import Resource, Secret, SecretRef
from fazai.providers.opnsense.provider import PROVIDER
from fazai.yamltext import loads_yaml
from tests.opnsense.helpers import Start, apply, plan, resource, run, target
from tests.opnsense.planning.test_declaring import find, read


def _secrets() -> Mapping[str, str]:
    """What the examples have from the environment."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    lines = "\n".join(f"{number:032x}" for number in range(16))
    return {
        "OPERATOR_PASSWORD": "Secret-123-x",
        "PEER_PASSWORD": "Secret-123-y",
        "BRANCH_PSK": "abcdefgh",
        "WG0_PRIVATE_KEY": base64.b64encode(bytes(range(32))).decode(),
        "HQ_PRIVATE_KEY": private.decode(),
        "HQ_PUBLIC_KEY": public.decode(),
        "OPENVPN_KEY": (
            f"-----BEGIN OpenVPN Static key V1-----\n{lines}\n-----END OpenVPN Static key V1-----"
        ),
    }


def _filled(value: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, SecretRef):
        return Secret(secrets[str(value.value)])
    if isinstance(value, Mapping):
        return {name: _filled(one, secrets) for name, one in value.items()}
    return [_filled(one, secrets) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def examples() -> list[Resource]:
    secrets = _secrets()
    found = []
    for kind in PROVIDER.kinds.values():
        parsed: Any = loads_yaml(kind.example, "example.yml")
        ((name, fields),) = parsed.items()
        assert name == kind.name
        found.append(resource(name, _filled(fields, secrets)))
    return found


def test_all_examples_on_one_firewall(start: Start, examples: list[Resource]) -> None:
    to = target(start(), adopt=True)
    done = run(apply(to, examples))
    assert (done.diff.errors, done.diff.refused) == ((), ())
    assert done.after.steps == ()
    again = run(plan(to, examples))
    assert (again.steps, again.errors) == ((), ())
    assert again.unchanged == len(examples)


def test_what_the_examples_made_is_imported(start: Start, examples: list[Resource]) -> None:
    firewall = start()
    run(apply(target(firewall, adopt=True), examples))
    found = find(firewall)
    assert [one for one in found.left if one[1]] == []
    assert {one.kind for one in found.items} >= {one.kind for one in examples} - {"opnsense.settings"}
    again = run(plan(target(firewall), read(found)))
    assert (again.steps, again.errors, again.refused) == ((), (), ())
