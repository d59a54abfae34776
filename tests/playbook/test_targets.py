"""From variables to targets: options, their types and places, secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fazai.errors import Mark
from fazai.model import Secret, Target
from tests.playbook.world import World, items


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def target(world: World, variables: str, **options: Any) -> Target:
    """The target of a host with these variables."""
    world.write("inventory.yml", f"all:\n  hosts:\n    h:\n      provider: box\n{_indented(variables)}")
    return items(world.resolve(**options))["h"].target


def errors(world: World, variables: str, **options: Any) -> list[str]:
    world.write("inventory.yml", f"all:\n  hosts:\n    h:\n      provider: box\n{_indented(variables)}")
    return world.errors(**options)


def _indented(text: str) -> str:
    return "".join(f"      {line}\n" for line in text.splitlines())


def test_options(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          vars: {provider: "{{ what }}", what: box, domain: example.net, retries: 2, owner: noc}
          children:
            edge:
              vars: {mode: write, base_url: "box://{{ inventory_hostname }}.{{ domain }}", prune: [box.thing]}
              hosts:
                h: {retries: "{{ 2 + 3 }}", colour: red, labels: {a: b}, verify_tls: false, ca: null}
        """,
    )
    found = items(world.resolve())["h"].target
    assert (found.name, found.provider, found.mode, found.groups) == ("h", "box", "write", ("all", "edge"))
    assert found.options == {
        "base_url": "box://h.example.net",
        "retries": 5,
        "colour": "red",
        "labels": {"a": "b"},
        "verify_tls": False,
        "owner": "noc",
        "prune": ["box.thing"],
    }
    path = str(world.folder / "inventory.yml")
    assert found.mark == Mark(path, 8, 9)
    assert found.where("retries") == Mark(path, 8, 22)
    assert found.where("owner") == Mark(path, 3, 85)
    assert found.where("mode") == Mark(path, 6, 20)
    assert found.where("timeout") == found.mark


def test_read_only_unless_it_is_said(world: World) -> None:
    assert target(world, "base_url: box://x").mode == "read"
    assert target(world, "base_url: box://x", extra={"mode": "write"}).mode == "write"
    assert target(world, "base_url: box://x\nmode: write", extra={"mode": "read"}).mode == "read"


_MODE = "inventory.yml:6:13: mode is read or write, for h (without it, a target is only looked at)"


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        ("mode: rw", _MODE),
        ("mode: true", _MODE),
        ("mode: wirte", 'inventory.yml:6:13: mode is read or write, for h (did you mean "write"?)'),
        ("verify_tls: 'no'", "inventory.yml:6:19: verify_tls is true or false, for h"),
        ("verify_tls: \"{{ 'no' }}\"", "inventory.yml:6:19: verify_tls is true or false, for h"),
        ("retries: many", "inventory.yml:6:16: retries is a whole number, for h"),
        ("retries: 1.5", "inventory.yml:6:16: retries is a whole number, for h"),
        ("retries: true", "inventory.yml:6:16: retries is a whole number, for h"),
        ("retries: -1", "inventory.yml:6:16: retries is a whole number from 0 on, for h"),
        ("retries: 10", "inventory.yml:6:16: retries is a whole number up to 9, for h"),
        (
            "timeout: 0",
            "inventory.yml:6:16: timeout is a number from 1 on, for h (seconds for one operation)",
        ),
        ("colour: blue", "inventory.yml:6:15: colour is one of red, green, for h"),
        ("labels: [a]", "inventory.yml:6:15: labels is a mapping, for h"),
        ("protected: x", "inventory.yml:6:18: protected is a list, for h (names"),
        ("owner: [x]", "inventory.yml:6:14: owner is a text, for h (whose items these are;"),
        ("adopt: '{{ x }}'", 'inventory.yml:6:14: "x" is not defined, for h'),
        ("secret: {api_key: !env NO}", 'inventory.yml:6:25: the environment variable "NO" is not set, for h'),
        ("secret: 5", "inventory.yml:6:15: a secret is text, or a mapping of texts, for h"),
        ("secret: {api_key: [x]}", 'inventory.yml:6:15: "api_key" in a secret is no text, for h'),
        ("retries: !env R", "inventory.yml:6:16: retries cannot be a secret, for h"),
    ],
)
def test_options_that_are_wrong(world: World, variable: str, error: str) -> None:
    (found,) = errors(world, f"base_url: box://x\n{variable}", environ={"R": "5"})
    assert found.startswith(error)


def test_all_that_is_wrong_with_a_target(world: World) -> None:
    assert len(errors(world, "mode: x\nretries: x\nlabels: x\ncolour: x\nadopt: x")) == 5


def test_what_the_provider_says(world: World) -> None:
    assert errors(world, "base_url: http://x") == [
        "inventory.yml:5:17: base_url must start with box://, for h"
    ]
    assert errors(world, "note: x") == ["inventory.yml:3:5: base_url is missing, for h"]
    assert errors(world, "base_ulr: box://x") == [
        'inventory.yml:3:5: base_url is missing, for h ("base_ulr" is set: was base_url meant?)'
    ]


@pytest.mark.parametrize(
    ("provider", "error"),
    [
        ("bxo", 'there is no provider "bxo", for h (did you mean "box"?)'),
        ("[box]", "provider is the name of a provider, for h (provider: opnsense)"),
        ("'{{ x }}'", '"x" is not defined, for h'),
    ],
)
def test_providers_that_are_none(world: World, provider: str, error: str) -> None:
    world.write("inventory.yml", f"all: {{hosts: {{h: {{provider: {provider}}}}}}}\n")
    assert world.errors() == [f"inventory.yml:1:29: {error}"]


def test_ca_is_relative_to_the_file_that_names_it(world: World) -> None:
    (world.folder / "group_vars").mkdir()
    world.write("group_vars/all.yml", "ca: ../tls/ca.pem\n")
    assert target(world, "base_url: box://x").options["ca"] == str(world.folder / "group_vars/../tls/ca.pem")
    assert target(world, "base_url: box://x\nca: /etc/ca.pem").options["ca"] == "/etc/ca.pem"
    pem = target(world, "base_url: box://x\nca: |\n  -----BEGIN CERTIFICATE-----\n  x\n").options["ca"]
    assert pem.startswith("-----BEGIN")


def test_secrets(world: World) -> None:
    keys = {"api_key": Secret("k"), "api_secret": Secret("s")}
    environ = {"S": "s", "BOTH": '{"api_key": "k", "api_secret": "s"}'}
    inline = "base_url: box://x\nsecret: {api_key: k, api_secret: !env S}"
    assert target(world, inline, environ=environ).options["secret"] == keys
    templated = "base_url: box://x\nk: k\nsecret: {api_key: '{{ k }}', api_secret: '{{ s }}'}\ns: !env S"
    assert target(world, templated, environ=environ).options["secret"] == keys
    whole = "base_url: box://x\nsecret: !env BOTH"
    assert target(world, whole, environ=environ).options["secret"] == keys
    assert "secret" not in target(world, "base_url: box://x").options


def test_the_secrets_folder(world: World) -> None:
    folder = world.folder / "secrets/box"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "h.json").write_text('{"api_key": "k", "api_secret": "s"}')
    (folder / "h.json").chmod(0o600)
    found = target(world, "base_url: box://x").options["secret"]
    assert found == {"api_key": Secret("k"), "api_secret": Secret("s")}
    assert target(world, "base_url: box://x\nsecret: other").options["secret"] == Secret("other")
    (folder / "h.json").chmod(0o644)
    (error,) = errors(world, "base_url: box://x")
    assert error.startswith(
        "inventory.yml:3:5: the file secrets/box/h.json is open to others (mode 0644), for h"
    )


def test_a_secret_that_fails_is_said_once(world: World) -> None:
    """One program for a thousand hosts is one run, and one error."""
    world.write(
        "inventory.yml",
        """
        all:
          vars:
            provider: box
            base_url: box://x
            secret: !cmd [sh, -c, "echo x >> count; echo no key >&2; exit 3"]
          hosts: {"h[1:50]": {}}
        """,
    )
    assert world.errors(environ={"PATH": "/usr/bin:/bin"}) == [
        'inventory.yml:6:13: "sh" failed: exit code 3: no key, for h1 and 49 more hosts'
    ]
    assert (world.folder / "count").read_text() == "x\n"
