"""What is ours in the inventory: resources, playbooks, places, digest, refusals, errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.errors import Errors, FazaiError, InputError, InventoryError, Mark
from fazai.inventory import Inventory, load_inventory
from fazai.inventory.show import as_ansible, as_graph, as_host_variables, as_json
from tests.campaign import with_examples

Tree = dict[str, str | bytes]


def grow(folder: Path, files: Tree) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def opened(folder: Path, text: str, **files: str) -> Inventory:
    grow(folder, {"inv.yml": text, **files})
    return load_inventory(folder / "inv.yml")


def errors_of(folder: Path, files: Tree, *sources: str) -> list[FazaiError]:
    grow(folder, files)
    with pytest.raises((InputError, Errors)) as caught:
        load_inventory([folder / source for source in sources or ("inv.yml",)])
    error = caught.value
    assert error.exit_code == 3
    return list(error.errors) if isinstance(error, Errors) else [error]


# -- resources and playbooks -------------------------------------------------------------------------------


def test_resources_add_up_from_the_least_to_the_most_specific(tmp_path: Path) -> None:
    def some(name: str) -> str:
        return f"[{{opnsense.alias: {{name: {name}}}}}]"

    grow(
        tmp_path,
        {
            "inv.yml": f"""
all:
  resources: {some("all")}
  hosts:
    fw-[01:02]: {{resources: {some("range")}, x: 1}}
    fw-01: {{resources: {some("host")}}}
  children:
    deep:
      resources: {some("deep")}
      children: {{deeper: {{resources: {some("deeper")}, hosts: {{fw-01: }}}}}}
    a_late: {{vars: {{ansible_group_priority: 9}}, resources: {some("late")}, hosts: {{fw-01: }}}}
    b_vars: {{vars: {{resources: {some("in_vars")}}}, hosts: {{fw-01: }}}}
""",
            "group_vars/all.yml": f"resources: {some('all_file')}\ny: 2\n",
            "group_vars/deep.yml": f"resources: {some('deep_file')}\n",
            "host_vars/fw-01.yml": f"resources: {some('host_file')}\n",
        },
    )
    inventory = load_inventory(tmp_path / "inv.yml")
    layers = inventory.layers("fw-01")
    assert [resources[0]["opnsense.alias"]["name"] for resources in layers] == [
        *("all", "all_file"),
        "in_vars",
        *("deep", "deep_file"),
        *("late", "deeper"),
        *("range", "host", "host_file"),
    ]
    assert inventory.variables("fw-01") == {"x": 1, "y": 2}
    others = [resources[0]["opnsense.alias"]["name"] for resources in inventory.layers("fw-02")]
    assert others == ["all", "all_file", "range"]
    assert layers[1][0].mark("opnsense.alias") == Mark(str(tmp_path / "group_vars/all.yml"), 1, 30)
    assert "resources" not in as_json(as_ansible(inventory))


def test_playbooks_are_relative_to_the_file_and_come_once(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "playbooks/base.yml": "",
            "inventories/a.yml": "all: {hosts: {fw-01: }}\nplaybooks: [../playbooks/base.yml]\n",
            "inventories/b.yml": "playbooks:\n  - ../playbooks/base.yml\n  - own.yml\n",
            "inventories/own.yml": "all:\n",
        },
    )
    found = load_inventory([tmp_path / "inventories/a.yml", tmp_path / "inventories/b.yml"]).playbooks
    assert [(path.resolve(), mark.line, mark.column) for path, mark in found] == [
        (tmp_path / "playbooks/base.yml", 2, 13),
        (tmp_path / "inventories/own.yml", 3, 5),
    ]


# -- variables and places ----------------------------------------------------------------------------------


def places(inventory: Inventory, host: str) -> dict[str, Mark]:
    """The place of the value that won, for each variable of the host."""
    winners = {name: scope for scope in inventory.scopes(host) for name in scope}
    return {name: scope.mark(name) for name, scope in winners.items()}


def test_places_name_where_the_winning_value_stands(tmp_path: Path) -> None:
    inventory = opened(
        tmp_path,
        "all:\n  vars:\n    a: 1\n    b: 1\n  hosts:\n    h1:\n      b: 2\n    'h2:22':\n",
        **{"group_vars/all.yml": "c: 3\n"},
    )
    file = str(tmp_path / "inv.yml")
    assert places(inventory, "h1") == {
        "a": Mark(file, 3, 8),
        "b": Mark(file, 7, 10),
        "c": Mark(str(tmp_path / "group_vars/all.yml"), 1, 4),
    }
    assert places(inventory, "h2")["ansible_port"] == Mark(file, 8, 5)
    assert inventory.hosts["h2"].mark == Mark(file, 8, 5)
    assert inventory.variables("h2") == {"a": 1, "b": 1, "c": 3, "ansible_port": 22}
    assert inventory.host("h1").groups == ("all", "ungrouped")


def test_hosts_of_the_same_groups_share_their_variables(tmp_path: Path) -> None:
    inventory = opened(tmp_path, "web: {hosts: {'h[1:500]': }, vars: {a: {b: 1}}}\n")
    first, last = inventory.variables("h1"), inventory.variables("h500")
    assert first == {"a": {"b": 1}}
    assert first["a"] is last["a"]
    assert len(inventory._shared) == 1
    with pytest.raises(TypeError):
        first["c"] = 1  # type: ignore[index]


def test_a_large_flat_inventory_is_read_in_linear_time(tmp_path: Path) -> None:
    inventory = opened(
        tmp_path, "all:\n  hosts:\n" + "".join(f"    h{n}: {{n: {n}}}\n" for n in range(20_000))
    )
    marks = [host.mark for host in inventory.hosts.values()]
    assert marks[-1] == Mark(str(tmp_path / "inv.yml"), 20_002, 5)
    assert inventory.variables("h19999") == {"n": 19999}


def test_magic_variables(tmp_path: Path) -> None:
    inventory = opened(tmp_path, "web: {hosts: {fw-01.example.net: , 192.0.2.1: , '2001:db8::1': }}\n")
    magic = inventory.magic("fw-01.example.net")
    assert magic == {
        "inventory_hostname": "fw-01.example.net",
        "inventory_hostname_short": "fw-01",
        "group_names": ["web"],
        "inventory_file": str(tmp_path / "inv.yml"),
        "inventory_dir": str(tmp_path),
    }
    assert inventory.magic("192.0.2.1")["inventory_hostname_short"] == "192.0.2.1"
    assert inventory.magic("2001:db8::1")["inventory_hostname_short"] == "2001:db8::1"


def test_the_digest_changes_with_every_byte_and_every_name_but_not_with_the_place(tmp_path: Path) -> None:
    base: Tree = {
        "inv.yml": "all: {hosts: {h1: }}\n",
        "group_vars/all.yml": "a: 1\n",
        "host_vars/h1.yml": "b: 1\n",
    }
    digests = [load_inventory(grow(tmp_path / "same-1", base) / "inv.yml").digest]
    assert load_inventory(grow(tmp_path / "same-2", base) / "inv.yml").digest == digests[0]
    other: list[Tree] = [
        {**base, "inv.yml": "all: {hosts: {h1: }} \n"},
        {**base, "group_vars/all.yml": "a: 2\n"},
        {**base, "host_vars/h1.yml": "b: 2\n"},
        {"inv.yml": base["inv.yml"], "group_vars/all.yaml": "a: 1\n", "host_vars/h1.yml": "b: 1\n"},
        {"inv.yml": base["inv.yml"], "group_vars/all.yml": "a: 1\n"},
    ]
    digests += [
        load_inventory(grow(tmp_path / f"other-{n}", files) / "inv.yml").digest
        for n, files in enumerate(other)
    ]
    assert len(set(digests)) == len(digests)
    assert (
        load_inventory([tmp_path / "same-1/inv.yml", "h9,"]).digest
        != load_inventory([tmp_path / "same-1/inv.yml", "h8,"]).digest
    )


def test_notes_say_which_vars_files_are_not_read(tmp_path: Path) -> None:
    inventory = opened(
        tmp_path,
        "web: {hosts: {fw-01: }}\n",
        **{
            "group_vars/wbe.yml": "a: 1\n",
            "group_vars/web/x.yml": "a: 1\n",
            "group_vars/web.yml": "a: 2\n",
            "group_vars/.git": "",
            "host_vars/fw-02.yml": "a: 1\n",
        },
    )
    notes = [note.replace(str(tmp_path), "") for note in inventory.notes]
    assert notes == [
        "/group_vars/web.yml is not read, because /group_vars/web is there",
        '/group_vars/wbe.yml is not read: there is no group "wbe"; did you mean "web"?',
        '/host_vars/fw-02.yml is not read: there is no host "fw-02"; did you mean "fw-01"?',
    ]
    assert inventory.variables("fw-01") == {"a": 1}


def test_unknown_hosts_and_groups_come_with_a_hint(tmp_path: Path) -> None:
    inventory = opened(tmp_path, "web: {hosts: {fw-01: }}\n")
    for call in (
        inventory.variables,
        inventory.scopes,
        inventory.layers,
        inventory.magic,
    ):
        with pytest.raises(InventoryError, match='no host "fw-O1"') as caught:
            call("fw-O1")
        assert caught.value.hint == 'did you mean "fw-01"?'
    with pytest.raises(InventoryError, match="fw-O1"):
        as_host_variables(inventory, "fw-O1")
    with pytest.raises(InventoryError, match='no group "wbe"'):
        as_graph(inventory, "wbe")
    assert as_graph(inventory, "web") == "@web:\n  |--fw-01"


# -- secrets -----------------------------------------------------------------------------------------------


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    inventory = opened(
        tmp_path,
        """
all:
  vars:
    db_password: hunter2
    secret: {api_key: hunter2, api_secret: hunter2}
    tokens: [hunter2]
    login: {user: me, passphrase: hunter2, port: 22}
    ref: !env HUNTER2
    deep: [{x: !file hunter2}]
    vault: !vault |
      $ANSIBLE_VAULT;1.1;AES256
      6875
    command: !cmd [hunter2]
    password_auth: yes
    no_secret:
    unsafe: !unsafe "{{ x }}"
  hosts: {h1: {psk: hunter2, plain: 1}, h2: }
""",
    )
    for text in (
        as_json(as_ansible(inventory)),
        as_json(as_host_variables(inventory, "h1")),
        as_json(as_host_variables(inventory, "h2")),
    ):
        assert "hunter2" not in text.lower()
        assert "ANSIBLE_VAULT" not in text
    assert as_host_variables(inventory, "h1") == {
        "db_password": "***",
        "secret": "***",
        "tokens": "***",
        "login": {"user": "me", "passphrase": "***", "port": 22},
        "ref": "***",
        "deep": [{"x": "***"}],
        "vault": "***",
        "command": "***",
        "password_auth": True,
        "no_secret": None,
        "unsafe": {"__ansible_unsafe": "{{ x }}"},
        "psk": "***",
        "plain": 1,
    }


def test_json_is_laid_out_as_ansibles(tmp_path: Path) -> None:
    inventory = opened(tmp_path, "all: {hosts: {h1: {b: [1, {x: []}], a: {}, c: 1.5, d: 'x\"y', e: }}}\n")
    data = as_ansible(inventory)
    assert as_json(data) == json.dumps(data, sort_keys=True, indent=4)


def test_vaulted_files_are_opened_by_the_callers_hook(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "inv.yml": "all: {hosts: {h1: }}\n",
            "group_vars/all/vault.yml": "$ANSIBLE_VAULT;1.1;AES256\n3333\n",
        },
    )
    (error,) = errors_of(tmp_path, {})
    assert "the whole file is encrypted with Ansible Vault" in error.message
    seen: list[str] = []

    def decrypt(data: bytes, name: str) -> bytes:
        seen.append(name)
        return b"a: opened\n"

    assert load_inventory(tmp_path / "inv.yml", decrypt=decrypt).variables("h1") == {"a": "opened"}
    assert seen == [str(tmp_path / "group_vars/all/vault.yml")]


# -- refusals ----------------------------------------------------------------------------------------------

# the inventory, then for each error: line, column, a part of the message, a part of the hint
REFUSED: list[tuple[str, list[tuple[int, int, str, str]]]] = [
    ("all:\n  host:\n    h1:\n", [(2, 3, 'unknown key "host" in the group "all"', 'did you mean "hosts"?')]),
    ("all:\n  fw-01: {a: 1}\n", [(2, 3, 'unknown key "fw-01" in the group "all"', "below hosts:")]),
    ("all:\n  resource: []\n", [(2, 3, 'unknown key "resource"', 'did you mean "resources"?')]),
    (
        "hosts:\n  fw-01:\n",
        [(1, 1, '"hosts" stands where a group is expected', "below a group, such as all:")],
    ),
    ("resources:\n  - x\n", [(1, 1, '"resources" is no group: a list stands there', "below a group")]),
    (
        "playbook: [x]\n",
        [
            (1, 11, '"playbook" is no group', 'did you mean "playbooks"?'),
            (1, 12, 'there is no playbook "x"', "relative to the inventory file"),
        ],
    ),
    ("playbooks: {x: y}\n", [(1, 12, "playbooks: takes a list of paths", "[../playbooks")]),
    (
        "playbooks: [nothing.yml]\n",
        [(1, 13, 'there is no playbook "nothing.yml"', "relative to the inventory file")],
    ),
    (
        "playbooks: ['" + "x" * 300 + '\', "a\\0b", none/x.yml]\n',
        [
            (1, 13, "no playbook", "relative"),
            (1, 317, "no playbook", "relative"),
            (1, 325, "no playbook", "there is no folder"),
        ],
    ),
    ("web: [h1, h2]\n", [(1, 6, '"web" is no group: a list stands there', "hosts:, vars:")]),
    ("web: yes\n", [(1, 6, '"web" is no group: a single value', "hosts:, vars:")]),
    (
        "all:\n  hosts: [h1]\n",
        [(2, 10, "hosts: takes a mapping, and a list stands there", "without the dash")],
    ),
    ("all:\n  hosts: 5\n", [(2, 10, "hosts: takes a mapping, and a single value", "")]),
    ("all:\n  vars: [a]\n", [(2, 9, "vars: takes a mapping, and a list stands there", "name: value")]),
    ("all:\n  children: [web]\n", [(2, 13, "children: takes a mapping", "without the dash")]),
    ("all:\n  resources: {x: y}\n", [(2, 14, "resources: takes a list, and a mapping", "- kind:")]),
    (
        "all:\n  hosts:\n    h1: 5\n",
        [(3, 9, 'the host "h1" takes a mapping, and a single value', "name: value")],
    ),
    ("all:\n  hosts:\n    h1: {resources: x}\n", [(3, 21, "resources: takes a list", "")]),
    ("all: {vars: {ansible_group_priority: high}}", [(1, 38, "takes a whole number", "")]),
    ("a b:\n", [(1, 1, '"a b" is no name for a group', "")]),
    ("all: {children: {'x,y': }}", [(1, 18, '"x,y" is no name for a group', "")]),
    ("all: {hosts: {'a b': }}", [(1, 15, '"a b" is no name for a host', "")]),
    ("all: {hosts: {../x: }}", [(1, 15, '"../x" is no name for a host', "")]),
    ("all: {hosts: {-x: }}", [(1, 15, '"-x" is no name for a host', "")]),
    (
        "all: {hosts: {'!x': , '&x': , '~x': , '*': , '': }}",
        [(1, c, "no name for a host", "") for c in (15, 23, 31, 39, 46)],
    ),
    ("all: {hosts: {'x[1:3': }}", [(1, 15, "a [ or ] without its partner", "")]),
    ("all: {hosts: {'x[1-3]': }}", [(1, 15, "[1-3] is no range; write [01:50]", "")]),
    ("all: {hosts: {'x[3:1]': }}", [(1, 15, "the range [3:1] holds nothing", "")]),
    ("all: {hosts: {'x[1:3:0]': }}", [(1, 15, "holds nothing", "")]),
    ("all: {hosts: {'x[01:100]': }}", [(1, 15, "different lengths", "")]),
    ("all: {hosts: {'x[ab:cd]': }}", [(1, 15, "is no range", "")]),
    ("all: {hosts: {'x[1:999999999999]': }}", [(1, 15, "more than 100000 hosts", "")]),
    ("all: {hosts: {'x[0:9999]-[0:9999]': }}", [(1, 15, "more than 100000 hosts", "")]),
    ("all: {hosts: {'x[0:" + "9" * 500 + "]': }}", [(1, 15, "more than 100000 hosts", "")]),
    ("all: {hosts: {'x:99999': }}", [(1, 15, "99999 is no port", "")]),
    ("a: {children: {b: }}\nb: {children: {a: }}\n", [(2, 16, '"a" is above "b" already', "")]),
    ("a: {children: {a: }}\n", [(1, 16, 'the group "a" is its own child', "")]),
    ("a: {children: {all: }}\n", [(1, 1, 'the group "all" is a child of "a"', "by itself")]),
    ("web: {hosts: {web: }}\n", [(1, 15, '"web" is a group and a host', "rename")]),
    ("plugin: aws_ec2\n", [(1, 9, "configures an inventory plugin", "ansible-inventory")]),
    ("- hosts: web\n  tasks: []\n", [(1, 1, "this is a playbook", "give the inventory first")]),
    ("- h1\n", [(1, 1, "an inventory is a mapping of groups, and this is a list", "all:")]),
    ("all:\n  hosts:\n    h1: {a: 1, a: 2}\n", [(3, 16, 'the key "a" stands twice', "")]),
    (
        "all:\n  host: {h1: }\n  hosts:\n    a b:\n    h2: [x]\nweb: 5\n",
        [(2, 3, '"host"', "hosts"), (4, 5, '"a b"', ""), (5, 9, '"h2"', ""), (6, 6, '"web"', "")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_what_is_refused(text: str, expected: list[tuple[int, int, str, str]], tmp_path: Path) -> None:
    found = errors_of(tmp_path, {"inv.yml": text})
    file = str(tmp_path / "inv.yml")
    assert [error.where for error in found] == [Mark(file, line, column) for line, column, _, _ in expected]
    for error, (line, _, message, hint) in zip(found, expected, strict=True):
        assert message in error.message
        assert hint in (error.hint or "")
        if len(text) < 160:
            assert error.excerpt == text.split("\n")[line - 1].rstrip()


def test_all_errors_of_all_files_are_found_in_one_go(tmp_path: Path) -> None:
    files: Tree = {
        "a.yml": "all: {host: {}}\nweb: {hosts: {h1: }}\n",
        "b.yml": "all: {\n",
        "group_vars/web.yml": "x: 1\nx: 2\n",
        "group_vars/all/list.yml": "- a\n",
        "host_vars/h1.yml": "y: !nope 1\nresources: 5\n",
    }
    found = errors_of(tmp_path, files, "a.yml", "b.yml", "none.yml")
    assert [str(error.where).replace(f"{tmp_path}/", "") for error in found] == [
        "a.yml:1:7",
        "b.yml:2:1",
        "None",
        "group_vars/all/list.yml:1:1",
        "group_vars/web.yml:2:1",
        "host_vars/h1.yml:1:4",
        "host_vars/h1.yml:2:12",
    ]


SOURCES: list[tuple[Tree, str, str, str]] = [
    ({"inv.yml": ""}, "inv.yml", "the inventory file is empty", "all:"),
    ({"inv.yml": "# nothing\n"}, "inv.yml", "the inventory file is empty", "all:"),
    ({"x/a.txt": ""}, "x", "there is no inventory file in the folder", ""),
    ({"inv.yml": "all:"}, "inv.yaml", "there is no inventory", 'did you mean "inv.yml"?'),
    ({"hosts.toml": "[all.hosts]\n"}, "hosts.toml", "this is a TOML inventory", "--list --yaml --export"),
    ({"hosts": "#!/bin/sh\necho {} | x\n: - y"}, "hosts", "a script that is not executable", "chmod +x"),
    ({"aws.yml": "plugin: aws_ec2\n"}, "aws.yml", "configures an inventory plugin", "--yaml --export"),
    ({"d/a.yml": "all:", "d/cert.txt2": "x y\n"}, "d", "behind a host stand its variables", ""),
    ({"cert.pem": "-----BEGIN X-----\n"}, "cert.pem", "this is a key or a certificate", "another file meant"),
    ({"inv.yml": b"all: \xff\xfe"}, "inv.yml", "is not UTF-8", "UTF-8"),
]


@pytest.mark.parametrize(("files", "source", "message", "hint"), SOURCES)
def test_sources_that_are_no_inventory(
    files: Tree, source: str, message: str, hint: str, tmp_path: Path
) -> None:
    (error,) = errors_of(tmp_path, files, source)
    assert message in error.message
    assert hint in (error.hint or "")


def test_no_source_is_an_error() -> None:
    with pytest.raises(InventoryError, match="no inventory was given"):
        load_inventory([])


def test_secrets_beside_the_inventory_are_not_taken_for_inventories(tmp_path: Path) -> None:
    grow(
        tmp_path, {"inv.yml": "all: {hosts: {fw-01: }}\n", "secrets/opnsense/fw-01.json": '{"api_key": "k"}'}
    )
    assert list(load_inventory(tmp_path).hosts) == ["fw-01"]


def test_folders_that_never_end_are_an_error(tmp_path: Path) -> None:
    grow(tmp_path, {"d/inv.yml": "web: {hosts: {h1: }}\n", "group_vars/web/a.yml": "a: 1\n"})
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    grow(tmp_path, {"inv.yml": "web: {hosts: {h1: }}\n"})
    (tmp_path / "group_vars" / "web" / "loop").symlink_to(tmp_path / "group_vars" / "web")
    assert any("more than 32 folders deep" in error.message for error in errors_of(tmp_path, {}, "d"))
    assert any("more than 32 folders deep" in error.message for error in errors_of(tmp_path, {}, "inv.yml"))


@pytest.mark.parametrize("text", ["h1,,h2:22 ,", "h[1:2],"])
def test_a_host_list_is_a_source(text: str) -> None:
    assert list(load_inventory(text).hosts) == ["h1", "h2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('h"1,', "names no host"),
        ("h\\1,", "names no host"),
        ("a b,", '"a b" is no name for a host'),
        ("x[2:1],", "holds nothing"),
        ("\n,\t-", '"-" is no name for a host'),
    ],
)
def test_a_broken_host_list_is_an_error_of_ours(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_inventory(text)


# -- nothing but our errors --------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "all",
        "web",
        "db",
        "h1",
        "h[1:3]",
        "hosts",
        "vars",
        "children",
        "resources",
        "playbooks",
        "ungrouped",
        "x:22",
        "::1",
        "a,b",
    ]
)
BODIES = st.recursive(
    st.none() | st.integers() | st.booleans() | st.text(max_size=5) | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=25,
)
FOLDER_IS_SHARED = [HealthCheck.function_scoped_fixture]  # every example writes all its files anew
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=FOLDER_IS_SHARED)


@with_examples(25, 100)
def test_any_structure_gives_an_inventory_or_an_error_of_ours(count: int, tmp_path: Path) -> None:
    @settings(STEADY, max_examples=count)
    @given(st.dictionaries(NAMES, BODIES, max_size=5), BODIES, BODIES)
    def holds(inventory: Any, group_vars: Any, host_vars: Any) -> None:
        grow(
            tmp_path,
            {
                "inv.json": json.dumps(inventory),
                "group_vars/all.json": json.dumps(group_vars),
                "host_vars/h1.json": json.dumps(host_vars),
            },
        )
        try:
            found = load_inventory(tmp_path / "inv.json")
        except (InputError, Errors):
            return
        assert list(json.loads(as_json(as_ansible(found)))["_meta"]["hostvars"]) <= sorted(found.hosts)
        for host in found.hosts:
            assert found.host(host).groups[0] == "all"
            assert set(places(found, host)) == set(found.variables(host))
            assert host in found.members("all")
            found.layers(host)
        as_graph(found)

    holds()


@STEADY
@given(st.binary(max_size=300))
def test_any_bytes_give_an_inventory_or_an_error_of_ours(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "inv").write_bytes(data)
    try:
        load_inventory(tmp_path / "inv")
    except (InputError, Errors) as error:
        text = str(error)
    else:
        text = "read"
    assert text


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: }}")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InventoryError, match="neither a file nor a folder"):
        load_inventory(tmp_path)
