"""Template files, byte for byte as ansible-core's template module writes them (template_files.json)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import Mark, TemplateError
from fazai.model import Secret
from fazai.template import Scope, Templates
from tests.campaign import in_full
from tests.template.make_files import HERE, given, record

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((HERE / "template_files.json").read_text())
PLAYBOOK = Path(os.environ.get("FAZAI_ANSIBLE_PLAYBOOK", ROOT / ".ansible/bin/ansible-playbook"))
PLACE = Mark("file.j2", 1, 1)

#: Where we differ on purpose: the template, and what we write.
DIFFERENT: dict[str, Any] = {}


@pytest.fixture(scope="module")
def scope() -> Scope:
    return Templates().scope(given()["variables"])


def test_the_recording_is_of_these_templates() -> None:
    assert [each["template"] for each in RECORDED] == given()["templates"]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: repr(case["template"]))
def test_a_file_is_what_ansible_writes(case: dict[str, str], scope: Scope) -> None:
    text = case["template"]
    expected = DIFFERENT.get(text, case.get("written", TemplateError))
    if expected is TemplateError:
        with pytest.raises(
            TemplateError, match=r"file\.j2:1:1: (#jinja2: |\"undefined_name\" is not defined)"
        ):
            scope.render_file(text, PLACE)
    else:
        assert scope.render_file(text, PLACE) == expected


def test_differences_are_differences() -> None:
    recorded = {each["template"]: each.get("written", TemplateError) for each in RECORDED}
    for text, value in DIFFERENT.items():
        assert recorded[text] != value


@pytest.mark.slow
@pytest.mark.skipif(not PLAYBOOK.exists(), reason="tools/ansible-core installs the real one")
def test_the_real_template_module_writes_what_was_recorded() -> None:
    """In CI each fourth: Ansible takes two seconds for one."""
    every = 1 if in_full() else 4
    assert record(str(PLAYBOOK), every) == RECORDED[::every]


@pytest.mark.parametrize(
    ("text", "message", "excerpt"),
    [
        (
            "#jinja2: lstrip: True\n{{ name }}\n",
            '#jinja2: has no setting "lstrip" here',
            "#jinja2: lstrip: True",
        ),
        ("#jinja2: trim_blocks: 5\n{{ name }}\n", "trim_blocks is True or False", "#jinja2: trim_blocks: 5"),
        ("#jinja2: newline_sequence: 'x'\n{{ name }}", 'no setting "newline_sequence"', None),
        ("#jinja2: block_start_string: '{{'\n{{ name }}", "start alike", None),
        ("#jinja2: lstrip_blocks: True {{ name }}", "is all there is in the template", None),
        (
            "#jinja2: lstrip_blocks: True\n\n{{ nope }}\n",
            '"nope" is not defined (line 3 of the template)',
            "{{ nope }}",
        ),
        ("#jinja2: lstrip_blocks: True\n\n{% endfor %}\n", "(line 3 of the template)", "{% endfor %}"),
    ],
)
def test_a_wrong_header_is_named(text: str, message: str, excerpt: str | None, scope: Scope) -> None:
    with pytest.raises(TemplateError) as caught:
        scope.render_file(text, PLACE)
    assert message in caught.value.message
    assert excerpt is None or caught.value.excerpt == excerpt
    assert caught.value.where == PLACE


def test_a_secret_in_a_file_is_a_secret_with_its_line_end() -> None:
    scope = Templates().scope({"secret": Secret("s3cret"), "all": [Secret("s3cret")]})
    for text, content in (
        ("{{ secret }}\n", "s3cret\n"),
        ("p={{ secret }}\n", "p=s3cret\n"),
        ("{{ all }}", "['s3cret']"),
        ("{% for s in all %}\n{{ s }}\n{% endfor %}\n", "s3cret\n"),
    ):
        found = scope.render_file(text, PLACE)
        assert isinstance(found, Secret)
        assert found.reveal() == content
