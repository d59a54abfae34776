"""What every store of notes promises, whatever it keeps them in (`NoteStore` in fazai/store/notes.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fazai.errors import StateError, StoreFull
from fazai.store.daemon import DaemonStore
from fazai.store.notes import Candidate, Note, NoteLimits, SearchBudget, WordStatistics, hash_content
from tests.store.conftest import OpenDaemon

NOW = 1_790_000_000.0


def note(title: str = "title", text: str = "text", **more: Any) -> Note:
    given: dict[str, Any] = {
        "origin": "person",
        "created": NOW,
        "words": tuple(f"{title} {text}".split()),
        **more,
    }
    hash_ = hash_content(title, text, given.get("tags", ()), given.get("target", ""))
    return Note(title=title, text=text, hash=hash_, **given)


def add(store: DaemonStore, *notes: Note) -> list[int]:
    async def each() -> list[int]:
        return [(await store.notes.add(one)).note.id for one in notes]

    return asyncio.run(each())


def find(store: DaemonStore, *words: str, **more: Any) -> list[Candidate]:
    def judge(found: Sequence[Candidate], counts: WordStatistics) -> list[Candidate]:
        return sorted(found)

    return asyncio.run(store.notes.search(words, judge, budget=SearchBudget(), **more))


def test_a_note_is_kept_as_it_is(open_daemon: OpenDaemon) -> None:
    full = note(
        *("título", "linhas\n\tcom é"),
        tags=("a", "b c"),
        source="x.md#y",
        target="fw 01",
        origin="model",
        author="session s-1",
        session="s-1",
        run="01K",
    )
    with open_daemon() as store:
        (first,) = add(store, note())
        (id_,) = add(store, note("child", parents=(first,), contradicts=(first,)))
        (other,) = add(store, full)
    with open_daemon() as store:
        found, child = asyncio.run(store.notes.get([other, id_, 999, 0, -1, 2**70]))
        assert (child.parents, child.contradicts) == ((first,), (first,))
        for name in (
            "title",
            "text",
            "hash",
            "tags",
            "source",
            "target",
            "origin",
            "author",
            "session",
            "run",
        ):
            assert getattr(found, name) == getattr(full, name)
        assert (found.status, found.created, found.last_written, found.written) == ("unverified", NOW, NOW, 1)
        assert asyncio.run(store.notes.find_by_hash(full.hash)) == found
        assert asyncio.run(store.notes.find_by_hash("0" * 64)) is None


def test_the_same_content_is_one_note(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:

        async def again(*notes: Note) -> list[tuple[int, bool]]:
            return [(one.note.id, one.is_new) for one in [await store.notes.add(each) for each in notes]]

        written = [note(), note(origin="model", author="x", created=NOW + 5), note(created=NOW + 2)]
        assert asyncio.run(again(*written)) == [(1, True), (1, False), (1, False)]
        (kept,) = asyncio.run(store.notes.get([1]))
        assert (kept.origin, kept.author, kept.written, kept.last_written) == ("person", "", 3, NOW + 5)
        assert asyncio.run(again(note(target="fw"), note(tags=("x",)))) == [(2, True), (3, True)]


def test_the_stronger_status_holds(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        (id_,) = add(store, note())
        add(store, note(status="verified", verified=NOW, verified_by="token:day"))
        add(store, note())
        (kept,) = asyncio.run(store.notes.get([id_]))
        assert (kept.status, kept.verified, kept.verified_by) == ("verified", NOW, "token:day")
        assert asyncio.run(store.notes.verify(id_, "another", NOW + 1)) == kept
        assert asyncio.run(store.notes.verify(99, "another", NOW + 1)) is None


def test_words_find_notes(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        one, two = add(store, note("a b", "c"), note("b b", "d", target="fw 01"))
        assert [found.id for found in find(store, "a", "nowhere")] == [one]
        assert [found.id for found in find(store, "b")] == [one, two]
        assert [found.id for found in find(store, "b", target="FW 01")] == [two]
        assert find(store, "b", target="fw") == find(store) == find(store, "", "fw 01") == []
        assert find(store, "b")[1].folded.count(" b ") == 2
        asyncio.run(store.notes.verify(two, "x", NOW))
        assert [(found.id, found.standing) for found in find(store, "b")] == [(one, 3), (two, 4)]
        assert asyncio.run(store.notes.remove(one)) is True
        assert asyncio.run(store.notes.remove(one)) is False
        assert [found.id for found in find(store, "a", "b")] == [two]
    with open_daemon() as store:
        assert [found.id for found in find(store, "a", "b")] == [two]


@pytest.mark.parametrize(
    "word", ['"', "a b", "a\x00b", "=s=verified", "=t=fw", "*", "AND", "\ud800", "x" * 5000, "é"]
)
def test_no_word_is_syntax(open_daemon: OpenDaemon, word: str) -> None:
    with open_daemon() as store:
        (id_,) = add(store, note("title", words=(word, "other")))
        asyncio.run(store.notes.verify(id_, "x", NOW))
        assert [found.id for found in find(store, word)] == [id_]
        assert [found.id for found in find(store, "other")] == [id_]
        asyncio.run(store.notes.remove(id_))
        assert find(store, word) == []


def test_the_weakest_go_first(open_daemon: OpenDaemon) -> None:
    with open_daemon(notes=NoteLimits(notes=4)) as store:
        given = ("person", "import", "model", "run")
        ids = dict(zip(given, add(store, *(note(origin, origin=origin) for origin in given)), strict=True))
        asyncio.run(store.notes.verify(ids["import"], "x", NOW))
        for number, gone in enumerate(("model", "run")):
            (new,) = add(store, note(f"new {number}", origin="person"))
            left = {one.id for one in asyncio.run(store.notes.page(0, 100, 1 << 20))}
            assert ids[gone] not in left
            assert new in left
        with pytest.raises(StoreFull, match="the knowledge base is full"):
            add(store, note("one more", origin="person"))
        assert asyncio.run(store.notes.count())["notes"] == 4


def test_a_weak_note_takes_no_strong_ones_place(open_daemon: OpenDaemon) -> None:
    with open_daemon(notes=NoteLimits(notes=2)) as store:
        add(store, note("a", origin="import"), note("b", origin="run"))
        with pytest.raises(StoreFull, match="worth more than this note"):
            add(store, note("c", origin="model"))
        (id_,) = add(store, note("d", origin="run", created=NOW + 1))
        assert [one.title for one in asyncio.run(store.notes.page(0, 9, 1 << 20))] == ["a", "d"]
        assert asyncio.run(store.notes.remove(id_))
        add(store, note("c", origin="model"))


def test_their_bytes_have_a_limit(open_daemon: OpenDaemon) -> None:
    with open_daemon(notes=NoteLimits(bytes=3000)) as store:
        for number in range(10):
            add(store, note(f"n{number}", "x" * 800, origin="run", created=NOW + number))
        counted = asyncio.run(store.notes.count())
        assert (counted["notes"], counted["run"], counted["unverified"]) == (3, 3, 3)
        assert counted["bytes"] <= 3000
        with pytest.raises(StoreFull, match="worth more than this note"):
            add(store, note("large", "x" * 4000, origin="person"))


def test_pages_go_on_where_the_last_one_ended(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        ids = add(store, *(note(f"n{number}", "x" * 1000) for number in range(7)))

        def page(after: int, limit: int, size: int) -> list[int]:
            return [one.id for one in asyncio.run(store.notes.page(after, limit, size))]

        assert page(0, 3, 1 << 20) == ids[:3]
        assert page(ids[2], 100, 2500) == ids[3:5]
        assert page(ids[2], 100, 1) == [ids[3]]
        assert page(ids[-1], 100, 1 << 20) == []


def test_links_are_followed_both_ways(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        (one,) = add(store, note("one"))
        (two,) = add(store, note("two", parents=(one,)))
        (three,) = add(store, note("three", parents=(two,), contradicts=(one,)))
        graph = asyncio.run(store.notes.graph(two, 5, 100))
        assert set(graph.notes) == {one, two, three}
        assert set(graph.edges) == {(two, one, "parent"), (three, two, "parent"), (three, one, "contradicts")}
        assert set(asyncio.run(store.notes.graph(two, 0, 100)).notes) == {two}
        assert len(asyncio.run(store.notes.graph(two, 5, 2)).notes) == 2
        assert asyncio.run(store.notes.graph(99, 5, 100)).notes == {}


def test_a_contradiction_is_told_with_its_standing(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        (one,) = add(store, note("one", words=("x",)))
        assert [found.contradicted for found in find(store, "x")] == [-1]
        add(store, note("two", origin="model", contradicts=(one,)))
        assert [found.contradicted for found in find(store, "x")] == [0]
        add(store, note("three", contradicts=(one,)))
        assert [found.contradicted for found in find(store, "x")] == [3]


def test_a_closed_store_says_so(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        pass
    for use in (store.notes.add(note()), store.notes.get([1]), store.notes.count()):
        with pytest.raises(StateError, match="the store is closed"):
            asyncio.run(use)
