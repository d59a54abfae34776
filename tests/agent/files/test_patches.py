"""Patches: what is made of one text is that text's alone, and makes the other of it."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.agent.errors import Refused
from fazai.agent.files.comparing import find_changes
from fazai.agent.files.patches import apply_patch, make_patch

PATH = "/etc/motd"
#: Few different lines, so that they repeat; with all that could be mistaken for the end of a line.
LINES = st.sampled_from(
    ["a", "b", "", " ", "-a", "+a", "@@ -1 +1 @@", "c\r", "\\ No newline", "é\u2028x\x0b"]
)
TEXTS = st.builds(
    lambda lines, end: "\n".join(lines) + end, st.lists(LINES, max_size=30), st.sampled_from(["", "\n"])
)


@given(TEXTS | st.none(), TEXTS)
def test_a_patch_makes_the_new_text_of_the_old_one(old: str | None, new: str) -> None:
    patch = make_patch(PATH, old, new)
    assert (patch == "") == (old == new)
    assert apply_patch(PATH, old, patch) == new


@given(TEXTS | st.none(), TEXTS, TEXTS | st.none())
def test_a_patch_applies_to_no_other_text(old: str | None, new: str, other: str | None) -> None:
    patch = make_patch(PATH, old, new)
    if other == old or not patch:
        return
    with pytest.raises(Refused, match="is not what the patch was made from") as refused:
        apply_patch(PATH, other, patch)
    assert refused.value.code == "conflict"


@given(st.lists(st.integers(0, 200), min_size=20, max_size=60), st.data())
def test_one_line_that_changed_anywhere_is_seen(numbers: list[int], data: st.DataObject) -> None:
    lines = [f"{number}\n" for number in numbers]
    place = data.draw(st.integers(0, len(lines) - 1))
    patch = make_patch(PATH, "".join(lines), "".join([*lines[:10], "new\n", *lines[10:]]))
    lines[place] = f"x{lines[place]}"
    with pytest.raises(Refused, match="is not what the patch was made from"):
        apply_patch(PATH, "".join(lines), patch)


@given(TEXTS, TEXTS)
def test_changes_are_as_few_as_possible(old: str, new: str) -> None:
    """Compared with the length of the longest common subsequence, worked out by its definition."""
    a, b = old.split("\n"), new.split("\n")
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    changes = find_changes(a, b)
    changed = sum(a2 - a1 + b2 - b1 for a1, a2, b1, b2 in changes)
    assert changed == len(a) + len(b) - 2 * rows[-1][-1]
    assert changes == sorted(changes)


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ("Hello.\n", "Welcome.\n", "--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-Hello.\n+Welcome.\n"),
        (None, "", "--- /dev/null\n+++ /etc/motd\n"),
        (None, "a\nb\n", "--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1,2 @@\n+a\n+b\n"),
        ("a\nb\n", "", "--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +0,0 @@\n-a\n-b\n"),
        (
            "a\n",
            "a",
            "--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n",
        ),
        (
            "a\r\nb\r\n",
            "a\r\nc\r\n",
            "--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +1,2 @@\n a\r\n-b\r\n+c\r\n",
        ),
    ],
)
def test_what_a_patch_looks_like(old: str | None, new: str, patch: str) -> None:
    assert make_patch(PATH, old, new) == patch
    assert apply_patch(PATH, old, patch) == new


def test_the_hash_stands_there_where_the_hunks_do_not_show_everything() -> None:
    lines = [f"{number}\n" for number in range(20)]
    patch = make_patch(PATH, "".join(lines), "".join([*lines, "new\n"]))
    assert patch.startswith("--- /etc/motd\tsha256:")
    bare = patch.replace(patch[len("--- /etc/motd") : patch.index("\n")], "", 1)
    with pytest.raises(
        Refused, match="it has lines that the patch does not show, and the patch names no hash"
    ):
        apply_patch(PATH, "".join(lines), bare)


@given(st.lists(LINES, max_size=20), st.lists(LINES, max_size=20))
def test_hunks_are_those_of_difflib_where_the_change_is_one(before: list[str], after: list[str]) -> None:
    old = "".join(f"{line}\n" for line in ["first", *before, "last"])
    new = "".join(f"{line}\n" for line in ["first", *after, "last"])
    if len(find_changes(old.split("\n"), new.split("\n"))) != 1:
        return
    made = make_patch(PATH, old, new).split("\n")[2:]
    theirs = difflib.unified_diff(old.split("\n")[:-1], new.split("\n")[:-1], lineterm="")
    assert sorted(made[:-1]) == sorted(list(theirs)[2:])


@pytest.mark.skipif(shutil.which("patch") is None, reason="the program patch is not here")
@settings(max_examples=20, deadline=None)
@given(TEXTS, TEXTS)
def test_the_program_patch_understands_them(
    tmp_path_factory: pytest.TempPathFactory, old: str, new: str
) -> None:
    file: Path = tmp_path_factory.mktemp("patch") / "file"
    file.write_bytes(old.encode())
    patch = make_patch("file", old, new)
    if not patch:
        return
    done = subprocess.run(
        ["patch", "--binary", "--fuzz=0", str(file)], input=patch.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert (file.read_bytes() if file.exists() else b"") == new.encode()


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("--- /etc/motd\n", "line 2 of the patch: `+++ /etc/motd` is expected"),
        ("--- /etc/passwd\n+++ /etc/motd\n", "line 1 of the patch: `--- /etc/motd` is expected"),
        ("--- /etc/motd\n+++ /etc/passwd\n", "line 2 of the patch"),
        ("--- /etc/motd\tsha256:00\n+++ /etc/motd\n", "line 1 of the patch"),
        ("--- /etc/motd\n+++ /etc/motd\n@@ -1 +1\n", "line 3 of the patch: the head of a hunk"),
        ("--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-a\n", "line 5 of the patch: a line that begins with"),
        ("--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-a\n+b", "line 5 of the patch: a line that begins with"),
        ("--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-a\n-b\n+c\n", "the hunk has other lines than"),
        ("--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-a\n+b\nmore\n", "line 6 of the patch: the head of a"),
        (
            "--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +1,2 @@\n-a\n+b\n\\ No newline at end of file\n z\n",
            "a line in the middle has no line feed",
        ),
        (
            "--- /etc/motd\n+++ /etc/motd\n@@ -2 +2 @@\n-z\n+b\n@@ -1 +1 @@\n-a\n+b\n",
            "the hunks are not in order",
        ),
        ("--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +2,2 @@\n-a\n+b\n z\n", "its new lines stand elsewhere"),
    ],
)
def test_what_is_no_patch_is_refused(patch: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        apply_patch(PATH, "a\nz\n", patch)
    assert said in refused.value.message
    assert refused.value.code == "bad_request"


@given(st.text())
def test_any_text_is_a_patch_or_refused(patch: str) -> None:
    for text in (patch, f"--- /etc/motd\n+++ /etc/motd\n{patch}", f"--- /dev/null\n+++ /etc/motd\n{patch}"):
        code = None
        try:
            apply_patch(PATH, "a\n", text)
        except Refused as error:
            code = error.code
        assert code in (None, "conflict", "bad_request")


def test_texts_without_anything_in_common_take_bounded_time() -> None:
    """Where difflib takes minutes: 100,000 lines, of which each occurs often."""
    old = "".join(f"{number % 7}\n" for number in range(100_000))
    new = "".join(f"{number % 5}\n{number % 3}x\n" for number in range(50_000))
    patch = make_patch(PATH, old, new)
    assert patch.count("\n@@ ") == 1
    assert apply_patch(PATH, old, patch) == new


def test_two_small_changes_in_a_huge_text_are_two_hunks() -> None:
    lines = [f"{number}\n" for number in range(300_000)]
    changed = [*lines[:1000], "x\n", *lines[1000:200_000], *lines[200_001:]]
    patch = make_patch(PATH, "".join(lines), "".join(changed))
    assert patch.count("\n@@ ") == 2
    assert apply_patch(PATH, "".join(lines), patch) == "".join(changed)
