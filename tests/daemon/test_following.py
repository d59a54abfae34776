"""A file that is followed: every change is noticed, also one that keeps size and time."""

from __future__ import annotations

import os
from pathlib import Path

from fazai.daemon.policy.following import FollowedFile


def test_a_change_is_noticed_once_and_so_is_coming_and_going(tmp_path: Path) -> None:
    path = tmp_path / "file"
    found = FollowedFile(path)
    assert [found.has_changed(), found.has_changed(), found.is_there] == [True, False, False]
    path.write_text("a")
    assert [found.has_changed(), found.has_changed(), found.is_there] == [True, False, True]
    before = path.stat()
    path.write_text("b")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # who hides it changes the inode's time
    assert found.has_changed()
    fresh = tmp_path / "fresh"
    fresh.write_text("c")
    os.replace(fresh, path)
    assert found.has_changed()
    path.chmod(0o666)
    assert found.has_changed()
    path.unlink()
    assert [found.has_changed(), found.is_there] == [True, False]


def test_one_that_is_asked_for_often_is_looked_at_seldom(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "file"
    found = FollowedFile(path, 1.0, lambda: now[0])
    assert found.has_changed()
    path.write_text("a")
    assert not found.has_changed()
    now[0] = 1.0
    assert found.has_changed()
