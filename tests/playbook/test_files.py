"""Files whose content a resource wants: bounded one by one and together."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.errors import Mark, PlaybookError
from fazai.playbook import files
from fazai.template import Templates


def test_one_file_and_all_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LIMIT_BYTES", 2 << 20)
    monkeypatch.setattr(files, "_ALL_BYTES", 3 << 20)
    place = Mark(str(tmp_path / "site.yml"), 1, 1)
    for name, size in (("large", (2 << 20) + 1), ("a", 2 << 20), ("b", 2 << 20)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    reader = files.ContentFiles()
    with pytest.raises(PlaybookError, match="is larger than 2 MiB"):
        reader.content("large", place, "source", None)
    for _ in range(3):  # one that is known counts once
        assert reader.content("a", place, "source", None) == bytes(2 << 20)
    with pytest.raises(PlaybookError, match=f"more than 3 MiB together, up to {tmp_path}/b"):
        reader.content("b", place, "source", None)


def test_a_template_file_is_read_as_ansible_reads_it(tmp_path: Path) -> None:
    place = Mark(str(tmp_path / "site.yml"), 1, 1)
    (tmp_path / "t.j2").write_text(
        "#jinja2: lstrip_blocks: True\n"
        "{{ words | join('\\n') }}\n{% for w in words %}\n  {% if w %}\n{{ w }}\n  {% endif %}\n"
        "{% endfor %}\n"
    )
    scope = Templates().scope({"words": ["a", "b"]})
    assert files.ContentFiles().content("t.j2", place, "template", scope) == "a\nb\na\nb\n"
