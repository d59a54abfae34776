"""The file of event rules while a daemon follows it: it changes, breaks, goes and comes."""

from __future__ import annotations

from pathlib import Path

from tests.daemon.live import Live, live, until

NEVER = "never: [192.0.2.0/24]\n"
BROKEN = "never: [192.0.2.0/24\n"


def never(daemon: Live) -> list[str]:
    book = daemon.services.rules.book
    found: list[str] = daemon.call(lambda: [str(network) for network in book.rules.never])
    return found


def broken(daemon: Live) -> str:
    book = daemon.services.rules.book
    return str(daemon.call(lambda: book.rules.broken) or "")


def test_a_file_that_breaks_takes_no_protection_back(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(NEVER)
    with live(tmp_path) as daemon:
        assert (never(daemon), broken(daemon)) == (["192.0.2.0/24"], "")
        for text in (BROKEN, "rules: [{}]"):
            before = broken(daemon)
            file.write_text(text)
            until(lambda before=before: broken(daemon) not in ("", before))  # type: ignore[misc]
            assert never(daemon) == ["192.0.2.0/24"]
        file.unlink()
        until(lambda: "no file of event rules" in broken(daemon))
        assert never(daemon) == ["192.0.2.0/24"]
        file.write_text("never: [198.51.100.0/24]")
        until(lambda: not broken(daemon))
        assert never(daemon) == ["198.51.100.0/24"]


def test_without_a_file_at_the_start_there_are_no_rules_and_nothing_is_wrong(tmp_path: Path) -> None:
    with live(tmp_path) as daemon:
        assert (never(daemon), broken(daemon)) == ([], "")
        assert daemon.services.rules.book.knows_never


def test_of_a_file_that_is_broken_at_the_start_nobody_knows_what_it_protects(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(BROKEN)
    with live(tmp_path) as daemon:
        assert broken(daemon)
        assert not daemon.services.rules.book.knows_never
        (tmp_path / "rules.yml").write_text(NEVER)
        until(lambda: not broken(daemon))
        assert daemon.services.rules.book.knows_never
