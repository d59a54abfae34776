"""Words of texts and questions: what people type is never syntax, and identifiers are found as they stand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.daemon.kb.service import KnowledgeBase
from fazai.kb.stopwords import STOP_WORDS
from fazai.kb.words import MAX_WORD, find_words, fold_text
from fazai.store.factory import open_daemon_store
from fazai.store.sqlite.notes.table import clean_word

STEADY = settings(deadline=None, derandomize=True)

IDENTIFIERS = (
    *("192.0.2.7", "198.51.100.0/24", "2001:db8::1", "2001:db8:1::/48", "::1", "fe80::1%em0"),
    *(
        "52:54:00:ab:cd:ef",
        "0011.2233.4455",
        "fw-01",
        "fw_01",
        "20.04",
        "26.7.2_1",
        "don't",
        "50%",
        "@x",
        "C++",
    ),
    *("web-1.example.net", "https://fw.example.net:8443/ui", "/etc/unbound/unbound.conf", "user@example.net"),
    *("CVE-2021-44228", "0x800003e7", "ação-01", "WAN1_GW", "Te1/0/4", "#1234", "~/.ssh/config", "k8s-prod"),
)
#: What full text search would read as its own syntax.
SYNTAX = (
    '"',
    '""',
    "*",
    "NEAR(a b)",
    "a AND",
    "OR",
    "NOT",
    "-x",
    "^a",
    "a:b",
    "{a b}: c",
    "(",
    ")",
    "+",
    "a\x00b",
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("As configurações dos roteadores", ["configuracao", "roteador"]),
        ("certificates expired on policies", ["certificate", "expired", "policy"]),
        ("status of the caches", ["status", "cache"]),
        ("fw-01", ["fw-01", "fw", "01"]),
        ("AA-BB-CC-00-11-22 = aabb.cc00.1122", ["aa:bb:cc:00:11:22"] * 2),
        ("192.0.2.7:443", ["192.0.2.7:443", "192.0.2.7", "443"]),
        ("10.0.5.9/24,", ["10.0.5.9/24", "10.0.5.0/24", "10.0.5.9"]),
        ("2001:DB8:0:0::1", ["2001:db8::1"]),
        ("net 2001:db8:: and ::1.", ["net", "2001:db8::", "::1"]),
        ("1.2.3.4.5 999.1.1.1", ["1.2.3.4.5", "1", "2", "3", "4", "5", "999.1.1.1", "999", "1"]),
        ("São Paulo – \u201cnão\u201d", ["paulo"]),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert find_words(text) == words


def test_stop_words_are_folded() -> None:
    assert {word for word in STOP_WORDS if fold_text(word) != word} == set()


@STEADY
@given(st.text(max_size=300))
def test_words_are_words_whatever_the_text_is(text: str) -> None:
    for word in find_words(text):
        assert 0 < len(word) <= MAX_WORD
        assert not any(c.isspace() or c == "=" for c in word)
        assert clean_word(word) == word or not word.isascii()
        assert word.casefold() == word or not word.isascii()


@STEADY
@given(st.text(max_size=300))
def test_case_and_accents_do_not_count(text: str) -> None:
    assert find_words(fold_text(text)) == find_words(text)


@STEADY
@given(st.text(max_size=100), st.sampled_from(IDENTIFIERS), st.text(max_size=100))
def test_a_text_with_an_identifier_has_its_word(before: str, identifier: str, after: str) -> None:
    assert find_words(identifier)[0] in find_words(f"{before} {identifier} {after}")


class Notes:
    """A knowledge base with a note about each identifier."""

    def __init__(self, kb: KnowledgeBase, runner: asyncio.Runner) -> None:
        self._kb, self._runner = kb, runner
        self.ids = {text: self._add(text) for text in IDENTIFIERS}

    def _add(self, text: str) -> int:
        added = self._kb.add(f"about {text}", f"seen at {text}, here", origin="person", author="x")
        return self._runner.run(added).note.id

    def find(self, question: str) -> list[int]:
        return [hit.note.id for hit in self._runner.run(self._kb.search(question, limit=50))]


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notes]:
    folder: Path = tmp_path_factory.mktemp("words")
    with asyncio.Runner() as runner, contextlib.closing(open_daemon_store(folder)) as store:
        yield Notes(KnowledgeBase(store.notes, lambda: ()), runner)


ASKED = settings(STEADY, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ASKED
@given(before=st.text(max_size=60), identifier=st.sampled_from(IDENTIFIERS), after=st.text(max_size=60))
def test_a_question_with_an_identifier_finds_its_note(
    notes: Notes, before: str, identifier: str, after: str
) -> None:
    assert notes.ids[identifier] in notes.find(f"{before} {identifier} {after}")


@pytest.mark.parametrize("mark", [*"()[]{}<>.,;:!?\"'`", "…", "\u201d", "\n", "\t", " - "])
def test_punctuation_beside_an_identifier_does_not_hide_it(notes: Notes, mark: str) -> None:
    asked = [text for text in IDENTIFIERS if (mark, text) != (":", "::1")]  # ":::1" is none
    missed = [text for text in asked if notes.ids[text] not in notes.find(f"see {mark}{text}{mark} now")]
    assert missed == []


@ASKED
@given(st.text(max_size=200))
def test_no_question_fails(notes: Notes, question: str) -> None:
    notes.find(question)


@pytest.mark.parametrize("syntax", SYNTAX)
def test_syntax_is_only_words(notes: Notes, syntax: str) -> None:
    assert notes.ids["fw-01"] in notes.find(f"{syntax} fw-01 {syntax}")
    notes.find(syntax)
