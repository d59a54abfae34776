"""From inventory and plays to work: merging, variables, loops, selections, waves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fazai.errors import Errors, Mark
from fazai.model import Secret
from tests.playbook.world import World, fields, items, resource

HEAD = """\
all:
  vars: {provider: box, base_url: "box://{{ inventory_hostname }}"}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- merging -----------------------------------------------------------------------------------------------


LAYERS = """
all:
  vars: {provider: box, base_url: "box://x"}
  resources:
    - box.thing: {name: a, note: all, count: 1, ports: "1"}
    - box.thing: {name: only_all}
  children:
    edge:
      resources:
        - box.thing: {name: edge_first}
        - box.thing: {name: a, count: 2}
      hosts:
        fw-01:
          resources:
            - box.thing: {name: a, note: host}
            - box.thing: {name: of_host}
        fw-02: {}
"""
PLAY = """
- name: base
  hosts: all
  tags: play
  resources:
    - box.thing: {name: from_play, count: 5}
      tags: [one]
    - box.thing: {name: a, note: play, enabled: true, zone: z}
      name: what the play calls it
"""


def test_the_more_specific_wins_field_by_field(world: World) -> None:
    world.write("inventory.yml", LAYERS)
    play = world.write("play.yml", PLAY)
    works = world.resolve("play.yml")
    found = fields(works, "fw-01")
    assert list(found) == ["from_play", "a", "only_all", "edge_first", "of_host"]
    assert found["a"] == {
        "name": "a",
        "note": "host",
        "enabled": True,
        "zone": "z",
        "count": 2,
        "ports": ["1"],
    }
    merged = resource(works, "fw-01", "a")
    inventory = str(world.folder / "inventory.yml")
    assert dict(merged.origins) == {
        "name": Mark(inventory, 15, 33),
        "note": Mark(inventory, 15, 42),
        "enabled": Mark(str(play), 8, 49),
        "zone": Mark(str(play), 8, 61),
        "count": Mark(inventory, 11, 39),
        "ports": Mark(inventory, 5, 56),
    }
    assert merged.mark == Mark(inventory, 15, 15)
    assert merged.name == "what the play calls it"
    assert merged.tags == ("play",)
    assert resource(works, "fw-01", "from_play").tags == ("play", "one")
    assert fields(works, "fw-02")["a"]["note"] == "all"


def test_state_is_what_the_most_specific_says(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  resources:
    - box.thing: {name: gone, note: x}
      state: absent
    - box.thing: {name: kept, note: x}
  hosts:
    a:
      resources:
        - box.thing: {name: gone}
        - box.thing: {name: kept}
          state: absent
    b: {}
""",
    )
    works = world.resolve()
    assert {each.identity: each.state for each in items(works)["a"].resources} == {
        "gone": "present",
        "kept": "absent",
    }
    assert {each.identity: each.state for each in items(works)["b"].resources} == {
        "gone": "absent",
        "kept": "present",
    }


def test_adopt_notify_and_name_stay_unless_they_are_said_again(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  resources:
    - box.thing: {name: a}
      adopt: true
      notify: x, y
      name: first
  hosts:
    h: {resources: [{box.thing: {name: a, note: n}}]}
    i:
      resources:
        - box.thing: {name: a}
          adopt: "{{ 1 == 2 }}"
          notify: ["{{ inventory_hostname }}"]
          name: "n {{ 1 + 1 }}"
""",
    )
    works = world.resolve()
    first, second = resource(works, "h", "a"), resource(works, "i", "a")
    assert (first.adopt, first.notify, first.name) == (True, ("x", "y"), "first")
    assert (second.adopt, second.notify, second.name) == (False, ("i",), "n 2")


def test_the_same_item_twice_in_one_list(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  hosts:
    fine:
      resources:
        - box.thing: {name: a, count: 1}
        - box.thing: {name: a, count: 1, note: more}
    wrong:
      resources:
        - box.thing: {name: a, count: 1}
        - box.thing: {name: a, count: 2}
        - box.thing: {name: b}
        - box.thing: {name: b}
          state: absent
""",
    )
    assert world.errors() == [
        'inventory.yml:11:39: box.thing "a" stands twice in this list, with different values for count, '
        "for wrong "
        f"(the other one is at {world.folder}/inventory.yml:10:39)".replace(f"{world.folder}/", ""),
        'inventory.yml:13:11: box.thing "b" stands twice in this list, once present and once absent, '
        "for wrong "
        "(the other one is at inventory.yml:12:11)",
    ]


def test_an_identity_of_several_fields(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  resources:
    - box.pair: {zone: lan, name: a, count: 1}
    - box.pair: {zone: wan, name: a, count: 1}
  hosts: {h: {resources: [{box.pair: {zone: wan, name: a, count: 2}}]}}
""",
    )
    assert {name: each["count"] for name, each in fields(world.resolve(), "h").items()} == {
        "lan/a": 1,
        "wan/a": 2,
    }


def test_fields_that_the_kind_takes_apart(world: World) -> None:
    """A mapping becomes several fields; each has the mapping's place, and problems are found there."""
    world.write(
        "inventory.yml", HEAD + "  hosts: {h: {resources: [{box.thing: {name: a, part: {size: 5}}}]}}\n"
    )
    merged = resource(world.resolve(), "h", "a")
    assert merged.fields == {"name": "a", "part.size": 5}
    assert merged.origins["part.size"].column == 55
    world.write(
        "inventory.yml", HEAD + "  hosts: {h: {resources: [{box.thing: {name: a, part: {size: x}}}]}}\n"
    )
    assert world.errors() == ['inventory.yml:3:55: box.thing "a": part.size: must be a whole number, for h']


# -- conditions, loops, templates --------------------------------------------------------------------------


def test_when_loop_and_templates(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          vars:
            provider: box
            base_url: box://x
            sites: {north: 1, south: 2}
            prefix: "{{ site }}-"
            label: "{{ prefix }}{{ item.key }}"
          hosts:
            a: {site: north}
            b: {site: south}
        """,
    )
    world.write(
        "p.yml",
        """
        - hosts: all
          vars: {start: 10}
          resources:
            - box.thing:
                name: "{{ label }}"
                count: "{{ start + item.value + n }}"
                note: "{{ 'first' if n == 0 else omit }}"
              loop: "{{ sites | dict2items }}"
              loop_control: {index_var: n}
            - box.thing: {name: only_north}
              when: site == 'north'
            - box.thing: {name: both_true}
              when: [site == 'north', start == 10]
            - box.thing: {name: never}
              when: false
            - box.thing: {name: "{{ thing }}"}
              loop: [x, y, z]
              loop_control: {loop_var: thing}
              when: thing != 'y'
            - box.thing: "{{ item }}"
              loop: [{name: whole, count: 3}, {name: whole2}]
            - box.thing: {name: with_vars, note: "{{ text }}"}
              vars: {text: "{{ site }} and {{ start }}"}
            - box.thing: {name: "state-{{ site }}"}
              state: "{{ 'absent' if site == 'north' else 'present' }}"
        """,
    )
    works = world.resolve("p.yml")
    found = fields(works, "a")
    assert list(found) == [
        *("north-north", "north-south", "only_north", "both_true", "x", "z", "whole", "whole2"),
        *("with_vars", "state-north"),
    ]
    assert found["north-north"] == {"name": "north-north", "count": 11, "note": "first"}
    assert found["north-south"] == {"name": "north-south", "count": 13}
    assert found["whole"] == {"name": "whole", "count": 3}
    assert found["with_vars"]["note"] == "north and 10"
    assert resource(works, "a", "state-north").state == "absent"
    assert resource(works, "b", "state-south").state == "present"
    assert "only_north" not in fields(works, "b")


def test_which_variable_wins(world: World) -> None:
    """Inventory < play < resource < extra < fazai's own."""
    world.write(
        "inventory.yml",
        """
        all:
          vars: {provider: box, base_url: box://x, a: inventory, b: inventory, c: inventory, d: inventory}
          hosts: {h: {inventory_hostname: mine}}
        """,
    )
    world.write(
        "p.yml",
        """
        - hosts: all
          vars: {b: play, c: play, d: play}
          resources:
            - box.thing: {name: x, note: "{{ a }} {{ b }} {{ c }} {{ d }} {{ inventory_hostname }}"}
              vars: {c: resource, d: resource}
        """,
    )
    works = world.resolve("p.yml", extra={"d": "extra", "inventory_hostname": "theirs"})
    assert fields(works, "h")["x"]["note"] == "inventory play resource extra h"


def test_what_fazai_says_of_a_host(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          vars: {provider: box, base_url: box://x, net: "10.0.{{ number }}.0/24"}
          children:
            edge: {hosts: {fw-01.example.net: {number: 1}, 192.0.2.7: {number: 2}}}
        """,
    )
    note = (
        "{{ inventory_hostname_short }} {{ group_names | join(',') }} {{ groups.edge | length }} "
        "{{ hostvars['192.0.2.7'].net }} {{ groups['all'] | map('extract', hostvars, 'net') | join(' ') }}"
    )
    world.write("p.yml", f'- hosts: all\n  resources: [{{box.thing: {{name: x, note: "{note}"}}}}]\n')
    works = world.resolve("p.yml")
    assert (
        fields(works, "fw-01.example.net")["x"]["note"] == "fw-01 edge 2 10.0.2.0/24 10.0.1.0/24 10.0.2.0/24"
    )
    assert fields(works, "192.0.2.7")["x"]["note"].startswith("192.0.2.7 edge 2")


def test_a_loop_that_is_not_there_is_no_error_when_it_is_not_wanted(world: World) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {a: {things: [x]}, b: {}}\n")
    text = (
        "- hosts: all\n  resources:\n  - {box.thing: {name: '{{ item }}'}, loop: '{{ things }}', when: %s}\n"
    )
    world.write("p.yml", text % "things is defined")
    works = world.resolve("p.yml")
    assert list(fields(works, "a")) == ["x"]
    assert items(works)["b"].resources == ()
    world.write("p.yml", text % "true")
    assert world.errors("p.yml") == ['p.yml:3:45: "things" is not defined, for b']


def test_secrets_in_fields(world: World) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {h: {token: !env TOKEN}}\n")
    world.write(
        "p.yml",
        """
        - hosts: all
          resources:
            - box.thing: {name: a, password: plain}
            - box.thing: {name: b, password: !env TOKEN}
            - box.thing: {name: c, password: "x-{{ token }}", note: "{{ token }}"}
        """,
    )
    found = fields(world.resolve("p.yml", environ={"TOKEN": "t"}), "h")
    assert found["a"]["password"] == Secret("plain")
    assert found["b"]["password"] == Secret("t")
    assert found["c"]["password"] == Secret("x-t")
    assert found["c"]["note"] == Secret("t")
    assert world.errors("p.yml") == [
        'inventory.yml:3:22: the environment variable "TOKEN" is not set, for h (export TOKEN=…)',
        'p.yml:5:38: the environment variable "TOKEN" is not set, for h (export TOKEN=…)',
    ]


# -- sharing -----------------------------------------------------------------------------------------------


def test_what_is_the_same_for_all_is_made_once(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  resources:
    - box.thing: {name: shared, count: 1}
    - box.thing: {name: overridden, count: 1}
    - box.thing: {name: templated, note: "{{ inventory_hostname }}"}
  children:
    some:
      resources: [{box.thing: {name: overridden, count: 2}}]
      hosts: {"h[1:9]": {}}
    rest:
      hosts: {"i[1:9]": {}}
""",
    )
    works = world.resolve()
    found = items(works)
    assert resource(works, "h1", "shared") is resource(works, "i9", "shared")
    assert resource(works, "h1", "overridden") is resource(works, "h9", "overridden")
    assert resource(works, "h1", "overridden") is not resource(works, "i1", "overridden")
    assert world.providers["box"].things["box.thing"].normalised == 1 + 2 + 18
    assert len(found) == 18


# -- selections --------------------------------------------------------------------------------------------


TAGGED = HEAD + (
    """\
  hosts: {h: {}, i: {}}
  resources:
    - {box.thing: {name: plain}}
    - {box.thing: {name: red}, tags: red}
    - {box.thing: {name: both}, tags: [red, blue]}
    - {box.thing: {name: always}, tags: always}
    - {box.thing: {name: never}, tags: [never, debug]}
    - {box.pair: {zone: z, name: pair}, tags: blue}
"""
)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, "plain red both always z/pair"),
        ({"tags": ["all"]}, "plain red both always z/pair"),
        ({"tags": ["red"]}, "red both always"),
        ({"tags": ["red", "blue"]}, "red both always z/pair"),
        ({"tags": ["tagged"]}, "red both always z/pair"),
        ({"tags": ["untagged"]}, "plain always"),
        ({"tags": ["never"]}, "always never"),
        ({"tags": ["debug"]}, "always never"),
        ({"skip_tags": ["blue"]}, "plain red always"),
        ({"skip_tags": ["always"]}, "plain red both z/pair"),
        ({"skip_tags": ["tagged"]}, "plain"),
        ({"skip_tags": ["untagged"]}, "red both always z/pair"),
        ({"skip_tags": ["all"]}, "always"),
        ({"tags": ["red"], "skip_tags": ["blue"]}, "red always"),
        ({"kinds": ["box.pair"]}, "z/pair"),
        ({"kinds": ["box.*"]}, "plain red both always z/pair"),
        ({"kinds": ["*.thing"], "tags": ["blue"]}, "both always"),
    ],
)
def test_selections(world: World, selection: dict[str, Any], expected: str) -> None:
    world.write("inventory.yml", TAGGED)
    works = world.resolve(**selection)
    assert " ".join(fields(works, "h")) == expected
    assert items(works)["h"].whole is False  # "never" is left out at least


def test_whole(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  children:
    one: {hosts: {a: {}}, resources: [{box.thing: {name: x}, tags: t}]}
    two: {hosts: {b: {}}, resources: [{box.thing: {name: x}, tags: t}, {box.thing: {name: y}}]}
    three: {hosts: {c: {}}}
""",
    )
    assert {name: item.whole for name, item in items(world.resolve()).items()} == {
        "a": True,
        "b": True,
        "c": True,
    }
    chosen = items(world.resolve(tags=["t"]))
    assert {name: item.whole for name, item in chosen.items()} == {"a": False, "b": False}
    assert list(items(world.resolve(limit=["b"]))) == ["b"]
    assert items(world.resolve(limit=["b"]))["b"].whole is True


@pytest.mark.parametrize(
    ("selection", "error"),
    [
        ({"tags": ["rde"]}, '--tags: no resource has the tag "rde" (did you mean "red"?)'),
        (
            {"skip_tags": ["green"]},
            '--skip-tags: no resource has the tag "green" (there are blue, debug, never, red)',
        ),
        ({"tags": ["red", "rde"]}, '--tags: no resource has the tag "rde" (did you mean "red"?)'),
        (
            {"kinds": ["box.thin"]},
            '--kind: no resource is of the kind "box.thin" (did you mean "box.thing"?)',
        ),
        ({"kinds": ["x.*"]}, '--kind: no resource is of the kind "x.*" (there are box.pair, box.thing)'),
        ({"kinds": ["box.pair"], "tags": ["red"]}, "the selection leaves no resource (each part"),
        ({"limit": ["j"]}, "j"),
    ],
)
def test_selections_that_match_nothing(world: World, selection: dict[str, Any], error: str) -> None:
    world.write("inventory.yml", TAGGED.replace("tags: always", "tags: red"))
    (found,) = world.errors(**selection)
    assert error in found
    with pytest.raises(Errors) as caught:
        world.resolve(**selection)
    assert caught.value.exit_code == 3


# -- plays and waves ---------------------------------------------------------------------------------------


def test_works(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          vars: {base_url: box://x}
          children:
            boxes: {vars: {provider: box}, hosts: {"b[1:5]": {}}}
            plain: {hosts: {"linux[1:3]": {ansible_host: 192.0.2.1}}}
            alone: {vars: {provider: box}, hosts: {z: {resources: [{box.thing: {name: x}}]}, y: {}}}
        """,
    )
    world.write(
        "p.yml",
        """
        - name: first
          hosts: b4,b2
          serial: [1, "50%"]
          max_fail: 1
          resources: [{box.thing: {name: first}}]
        - name: second
          hosts: boxes:plain
          serial: "30%"
          max_fail: "50%"
        - name: nobody is left
          hosts: b2
          resources: [{box.thing: {name: third}}]
        """,
    )
    works = world.resolve("p.yml")
    assert [(work.name, [item.target.name for item in work.targets]) for work in works] == [
        ("first", ["b4", "b2"]),
        ("second", ["b1", "b3", "b5"]),
        ("inventory", ["z", "y"]),
    ]
    assert [(work.serial, work.max_fail) for work in works] == [((1, 1), 1), ((1,), 1), ((), None)]
    assert list(fields(works, "b2")) == ["first", "third"]
    assert list(fields(works, "b4")) == ["first"]


def test_plays_for_nobody(world: World) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {a: {}}\n  children: {empty: {}}\n")
    world.write("p.yml", "- {hosts: empty}\n- hosts: 'a:!a'\n  resources: [{box.thing: {name: x}}]\n")
    assert [work.name for work in world.resolve("p.yml")] == ["inventory"]
    world.write("p.yml", "- name: x\n  hosts: emty\n")
    (error,) = world.errors("p.yml")
    assert error.startswith("p.yml:2:10: ")
    assert 'did you mean "empty"?' in error


def test_hosts_without_a_provider(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          hosts: {"linux[1:3]": {}, box: {provider: box, base_url: "box://x"}}
          children: {g: {hosts: {linux1: {}, linux2: {}}, resources: [{box.thing: {name: x}}]}}
        """,
    )
    assert world.errors() == [
        "inventory.yml:4:64: resources for a host that has no provider, for linux1 and 1 more host "
        "(set provider: for the host, or leave it out of hosts:)"
    ]
    assert list(items(world.resolve(limit=["box:linux3"]))) == ["box"]


def test_kinds_of_another_provider(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          vars: {base_url: box://x}
          hosts: {a: {provider: box}, b: {provider: shelf}}
        """,
    )
    world.write("p.yml", "- hosts: all\n  resources:\n  - {shelf.thing: {name: x}}\n")
    assert world.errors("p.yml") == [
        'p.yml:3:6: shelf.thing is no kind of the provider "box", for a '
        "(leave it out there: when: provider != 'box')"
    ]
    world.write(
        "p.yml", "- hosts: all\n  resources:\n  - {shelf.thing: {name: x}, when: provider != 'box'}\n"
    )
    works = world.resolve("p.yml")
    assert items(works)["a"].resources == ()
    assert list(fields(works, "b")) == ["x"]


# -- errors ------------------------------------------------------------------------------------------------


def test_everything_wrong_is_found_for_all_targets(world: World) -> None:
    world.write(
        "inventory.yml",
        """
        all:
          vars: {provider: box, base_url: "box://x"}
          resources:
            - box.thing: {name: a, cuont: 1}
            - box.thing: {note: no name}
            - box.thng: {name: b}
          hosts:
            "h[1:20]": {site: "{{ nwhere }}"}
            i: {mode: wrte, site: s}
            j: {provider: bxo, site: s}
        """,
    )
    world.write(
        "p.yml",
        """
        - hosts: all
          vars: {mode: write}
          resources:
            - box.thing: {name: c, note: "{{ site }}", count: many}
            - box.thing: {name: d, count: "{{ site }}"}
              when: site is deffined
        """,
    )
    assert world.errors("p.yml") == [
        'inventory.yml:5:35: box.thing "a": cuont: there is no such field (did you mean "count"?)',
        "inventory.yml:6:7: box.thing: name: is missing: it names the thing",
        'inventory.yml:7:7: there is no kind "box.thng" (did you mean "box.thing"?)',
        'inventory.yml:9:23: "nwhere" is not defined, for h1 and 19 more hosts',
        'inventory.yml:10:15: mode is read or write, for i (did you mean "write"?)',
        'inventory.yml:11:19: there is no provider "bxo", for j (did you mean "box"?)',
        "p.yml:3:16: mode is an option of the target, and a play cannot set it (set it in the inventory)",
        'p.yml:5:55: box.thing "c": count: must be a whole number, for i',
        'p.yml:7:13: there is no test "deffined", for h1 and 20 more hosts (did you mean "defined"?)',
    ]


@pytest.mark.parametrize(
    ("beside", "error"),
    [
        (
            "loop: '{{ 5 }}'",
            "p.yml:4:11: loop: takes a list, and the template gives a value of type int, for h",
        ),
        ("loop: '{{ {} }}'", "p.yml:4:11: loop: takes a list, and the template gives a mapping, for h (a"),
        ("loop: '{{ range(20000) }}'", "p.yml:4:11: loop: has more than 10000 items, for h"),
        ("state: '{{ 5 }}'", "p.yml:4:12: state: is present or absent, for h"),
        ("adopt: '{{ 5 }}'", "p.yml:4:12: adopt: is true or false, for h (add | bool)"),
        ("notify: {}", "p.yml:4:13: notify: takes a text, or a list of texts"),
        ("name: '{{ x }}'", 'p.yml:4:11: "x" is not defined, for h'),
        ("vars: {y: '{{ x }}'}\n    when: y == 1", 'p.yml:4:15: "x" is not defined, for h'),
        ("when: [true, x]", 'p.yml:4:18: "x" is not defined, for h'),
    ],
)
def test_errors_beside_the_fields(world: World, beside: str, error: str) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {h: {}}\n")
    (world.folder / "p.yml").write_text(
        f"- hosts: all\n  resources:\n  - box.thing: {{name: a}}\n    {beside}\n"
    )
    (found,) = world.errors("p.yml")
    assert found.startswith(error)


@pytest.mark.parametrize("template", ["{{ 5 }}", "{{ {} }}", "{{ [] }}", "{{ 'x' }}"])
def test_a_template_for_all_fields_that_gives_none(world: World, template: str) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {h: {}}\n")
    world.write("p.yml", f'- hosts: all\n  resources: [{{box.thing: "{template}"}}]\n')
    assert world.errors("p.yml") == [
        "p.yml:2:27: box.thing: takes a mapping of fields, and the template gives none, for h"
        " (for an example: fazai kinds box.thing)"
    ]


def test_an_identity_cannot_be_secret(world: World) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {h: {resources: [{box.thing: {name: !env X}}]}}\n")
    assert world.errors(environ={"X": "s3cret"}) == [
        "inventory.yml:3:28: box.thing: name names the item, and cannot be a secret, for h"
    ]


def test_no_secret_is_in_an_error(world: World) -> None:
    world.write(
        "inventory.yml",
        HEAD
        + """\
  hosts:
    h:
      token: !env TOKEN
      resources:
        - box.thing: {name: a, count: "{{ token }}", password: 5, note: "{{ token | from_json }}"}
        - box.thing: {name: b, enabled: "{{ token ~ nowhere }}"}
""",
    )
    with pytest.raises(Errors) as caught:
        world.resolve(environ={"TOKEN": "s3cret"})
    for error in caught.value.errors:
        assert "s3cret" not in f"{error} {error.excerpt} {error.hint}"


def test_what_a_loop_gives_is_not_rendered_again(world: World) -> None:
    world.write("inventory.yml", HEAD + "  hosts: {h: {}}\n")
    world.write(
        "p.yml",
        """
        - hosts: all
          vars: {names: [{note: !unsafe "{{ nowhere }}", name: a}]}
          resources:
            - box.thing: {name: "{{ item.name }}", note: "{{ item.note }}"}
              loop: "{{ names }}"
        """,
    )
    assert fields(world.resolve("p.yml"), "h")["a"]["note"] == "{{ nowhere }}"
