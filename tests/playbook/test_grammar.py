"""What a playbook may say, and what is said of one that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.errors import Errors, FazaiError, PlaybookError
from fazai.playbook import load_playbooks

WHOLE = """
- name: everything
  hosts: [edge, "!fw-03"]
  vars: {a: 1}
  tags: [one, two]
  serial: [1, "50%", 5]
  max_fail: "10%"
  resources:
    - box.thing: {name: a}
      name: what it is for
      state: absent
      when: [x, y == 1]
      loop: [1, 2]
      loop_control: {loop_var: thing, index_var: n}
      tags: three, four
      adopt: true
      notify: [b]
      vars: {z: 1}
- hosts: all
"""


def load(tmp_path: Path, text: str) -> list[str]:
    """The errors of a playbook."""
    path = tmp_path / "p.yml"
    path.write_text(text)
    try:
        load_playbooks([path])
    except Errors as error:
        return [str(each).replace(f"{tmp_path}/", "") for each in error.errors]
    except FazaiError as error:
        return [str(error).replace(f"{tmp_path}/", "")]
    return []


def test_everything(tmp_path: Path) -> None:
    path = tmp_path / "p.yml"
    path.write_text(WHOLE)
    first, second = load_playbooks([path, str(path)])
    assert (first.name, first.hosts, first.tags) == ("everything", ("edge", "!fw-03"), ("one", "two"))
    assert (first.serial, first.max_fail, first.vars) == ((1, "50%", 5), "10%", {"a": 1})
    (declared,) = first.resources
    assert (declared.kind, declared.fields, declared.state) == ("box.thing", {"name": "a"}, "absent")
    assert (declared.when, declared.loop, declared.tags) == (["x", "y == 1"], [1, 2], ("three", "four"))
    assert (declared.loop_var, declared.index_var, declared.adopt) == ("thing", "n", True)
    assert (declared.name, declared.notify, declared.vars) == ("what it is for", ["b"], {"z": 1})
    assert (str(declared.mark).split("/")[-1]) == "p.yml:9:7"
    assert (second.name, second.resources, second.serial, second.max_fail) == ("all", (), (), None)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n"])
def test_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yml").write_text(text)
    assert load_playbooks([tmp_path / "p.yml"]) == ()


PLAYS = [
    ("all: {}", "p.yml:1:1: a playbook is a list of plays (start every play with `- name:`)"),
    ("- just text", "p.yml:1:3: a play is a mapping (`- name: …` with hosts: below it)"),
    ("- name: x", "p.yml:1:3: a play says which hosts it is for (hosts: all)"),
    ("- {hosts: 5}", "p.yml:1:11: hosts: takes a host pattern, or a list of them (hosts: all)"),
    ("- {hosts: []}", "p.yml:1:11: hosts: takes a host pattern, or a list of them (hosts: all)"),
    ("- {hosts: a, resorces: []}", 'p.yml:1:14: a play has no "resorces" (did you mean "resources"?)'),
    ("- {hosts: a, tasks: []}", 'p.yml:1:14: a play has no "tasks" (declare resources: instead)'),
    (
        "- {hosts: a, box.thing: {}}",
        'p.yml:1:14: a play has no "box.thing" (resources stand in a list below resources:)',
    ),
    (
        "- {hosts: a, resources: {}}",
        "p.yml:1:25: resources: takes a list (write `- kind: {fields}`)",
    ),
    ("- {hosts: a, vars: [1]}", "p.yml:1:20: vars: takes a mapping (write `name: value` lines below vars:)"),
    ("- {hosts: a, tags: [1]}", "p.yml:1:20: tags: takes a text, or a list of texts (tags: [one, two])"),
    *(
        (f"- {{hosts: a, {word}: x}}", f'p.yml:1:14: a play has no "{word}" ({hint})')
        for word, hint in (
            ("become", "it is a variable of the hosts, in the inventory"),
            ("remote_user", "it is a variable of the hosts, in the inventory: user: …"),
            ("connection", "it is a variable of the hosts, in the inventory: provider: ssh, or local"),
            ("force_handlers", "leave it away: a play has none"),
            ("strategy", "leave it away: serial: makes waves, --forks says how many"),
            ("run_once", "name one host: hosts: GROUP[0] of a play"),
            (
                "vars_prompt",
                "give it to the command: -e NAME=VALUE; a secret comes from !env, !file or !cmd",
            ),
        )
    ),
    *(
        (
            f"- {{hosts: a, serial: {value}}}",
            'p.yml:1:22: serial: takes a number from 1 on, a percentage, or a list (serial: [1, "30%"])',
        )
        for value in ("0", "-1", "0%", "101%", "some", "[]", "[1, x]", "true", "1.5", "{}")
    ),
    *(
        (
            f"- {{hosts: a, max_fail: {value}}}",
            'p.yml:1:24: max_fail: takes a number of targets, or a percentage (max_fail: "10%")',
        )
        for value in ("-1", "101%", "some", "[1]", "true")
    ),
]


@pytest.mark.parametrize(("text", "error"), PLAYS)
def test_plays(tmp_path: Path, text: str, error: str) -> None:
    assert load(tmp_path, text + "\n") == [error]


_WHEN = "p.yml:3:34: when: takes an expression, or a list of them (when: site == 'north')"
RESOURCES = [
    ("- text", "p.yml:3:5: a resource is a mapping (`- opnsense.alias: {name: …}`)"),
    ("- {}", "p.yml:3:5: this resource names no kind (`- opnsense.alias: {name: …}`)"),
    ("- {when: x}", "p.yml:3:5: this resource names no kind (`- opnsense.alias: {name: …}`)"),
    ("- {thing: {name: a}}", 'p.yml:3:6: there is no kind "thing" (see: fazai kinds)'),
    (
        "- {copy: {src: a, dest: b}}",
        'p.yml:3:6: there is no kind "copy" (host.file with content: or src:)',
    ),
    (
        "- {ansible.builtin.lineinfile: {path: a}}",
        'p.yml:3:6: there is no kind "ansible.builtin.lineinfile" (host.line: {path: …, line: …})',
    ),
    (
        "- {community.general.ufw: {rule: allow}}",
        'p.yml:3:6: there is no kind "community.general.ufw" (a host\'s packet filter has no kind:'
        " host.file for its rules, notify a handler that loads them)",
    ),
    ("- {stat: absent}", 'p.yml:3:6: there is no kind "stat" (did you mean "state"?)'),
    (
        "- box.thing:",
        "p.yml:3:15: box.thing: takes a mapping of fields (for an example: fazai kinds box.thing)",
    ),
    (
        "- box.thing: a",
        "p.yml:3:16: box.thing: takes a mapping of fields (for an example: fazai kinds box.thing)",
    ),
    ("- {box.thing: {name: a}, whn: x}", 'p.yml:3:28: a resource has no "whn" (did you mean "when"?)'),
    ("- {box.thing: {name: a}, with_items: [x]}", 'p.yml:3:28: a resource has no "with_items" (write loop:)'),
    *(
        (f"- {{box.thing: {{name: a}}, {word}: x}}", f'p.yml:3:28: a resource has no "{word}" ({hint})')
        for word, hint in (
            ("with_fileglob", "write loop:"),
            ("become", "it is a variable of the hosts, in the inventory"),
            ("register", "leave it away: a resource gives no result, and when: asks variables"),
            ("delegate_to", "declare it for that host: in a play with its hosts:"),
            (
                "changed_when",
                "leave it away: what is there is compared; host.command has creates:, removes: and unless:",
            ),
            ("retries", "leave it away: retries are fazai's own"),
            ("no_log", "leave it away: what comes from !env, !file, !cmd or !vault is never shown"),
        )
    ),
    (
        "- {box.thing: {name: a}, colour: red}",
        'p.yml:3:28: a resource has no "colour" (a field of it stands below box.thing:)',
    ),
    (
        "- {box.thing: {name: a}, box.pair: {name: b}}",
        'p.yml:3:28: two kinds in one resource: "box.thing" and "box.pair" '
        "(start each resource with a dash of its own)",
    ),
    ("- {box.thing: {name: a}, state: here}", "p.yml:3:35: state: is present or absent"),
    (
        "- {box.thing: {name: a}, state: presnt}",
        'p.yml:3:35: state: is present or absent (did you mean "present"?)',
    ),
    ("- {box.thing: {name: a}, when: 5}", _WHEN),
    ("- {box.thing: {name: a}, when: {}}", _WHEN),
    ("- {box.thing: {name: a}, loop: x}", 'p.yml:3:34: loop: takes a list (loop: "{{ names }}")'),
    (
        "- {box.thing: {name: a}, loop: {a: 1}}",
        'p.yml:3:34: loop: takes a list (loop: "{{ mapping | dict2items }}")',
    ),
    (
        "- {box.thing: {name: a}, loop_control: {loop_var: x}}",
        "p.yml:3:28: loop_control: stands beside loop:",
    ),
    (
        "- {box.thing: {name: a}, loop: [], loop_control: {loop_vr: x}}",
        'p.yml:3:53: loop_control: has no "loop_vr" (did you mean "loop_var"?)',
    ),
    (
        "- {box.thing: {name: a}, loop: [], loop_control: {loop_var: 1x}}",
        "p.yml:3:63: loop_var: takes the name of a variable (loop_var: rule)",
    ),
    ("- {box.thing: {name: a}, adopt: maybe}", "p.yml:3:35: adopt: is true or false"),
    (
        "- {box.thing: {name: a}, tags: {}}",
        "p.yml:3:34: tags: takes a text, or a list of texts (tags: [one, two])",
    ),
    ("- {box.thing: {name: a}, name: [x]}", "p.yml:3:34: name: takes a text"),
    (
        "- {box.thing: {name: a}, vars: [x]}",
        "p.yml:3:34: vars: takes a mapping (write `name: value` lines below vars:)",
    ),
]


@pytest.mark.parametrize(("text", "error"), RESOURCES)
def test_resources(tmp_path: Path, text: str, error: str) -> None:
    assert load(tmp_path, f"- hosts: all\n  resources:\n  {text}\n") == [error]


def test_everything_wrong_is_found_in_one_go(tmp_path: Path) -> None:
    (tmp_path / "q.yml").write_text("- {hosts: all, tsaks: []}\n")
    (tmp_path / "r.yml").write_text("- hosts: [\n")
    (tmp_path / "p.yml").write_text("- name: x\n- hosts: all\n  resources:\n  - box.thing:\n  - {when: x}\n")
    paths = [tmp_path / name for name in ("p.yml", "q.yml", "r.yml", "missing.yml")]
    with pytest.raises(Errors) as caught:
        load_playbooks(paths)
    assert len(caught.value.errors) == 6
    assert caught.value.exit_code == 3


def test_an_error_quotes_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text("- hosts: all\n  seriel: 5\n")
    with pytest.raises(PlaybookError) as caught:
        load_playbooks([tmp_path / "p.yml"])
    assert caught.value.excerpt == "  seriel: 5"
