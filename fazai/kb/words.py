"""Cuts text into the words by which it is found, of notes and of questions alike.

Case and accents do not count, plurals of English and Portuguese are one word with their singular, and words
that stand in every text are left out. Identifiers (addresses, names such as `fw-01`, versions, paths) are one
word as a whole, and their parts are words as well. A word has no white space, and no `=`, with which the
store marks words of its own.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator

from fazai.kb.stopwords import STOP_WORDS

MAX_WORD = 64  # characters; what is longer is cut
_MAX_PARTS = 48  # words of one identifier
_MAX_ADDRESS = 64  # characters, with its scope and its length
_MAX_IDENTIFIER = 512  # characters of what is looked at as one

#: What separates words and is no part of any.
_SEPARATORS = re.compile(r"""[\s\x00-\x1f\x7f"“”„«»‹›`´()\[\]{}<>,;|=*!?…¡¿•·—–\\^$]+""")
_EDGES_BEFORE, _EDGES_AFTER = ".:'’-+&", ".:'’-+&/#@~_"
_PLAIN = re.compile(r"[^\W_]+")
_MAC = re.compile(r"(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}")
_IPV4 = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3})(?:/(\d{1,2}))?")
_IPV6 = re.compile(r"([0-9a-f:]*:[0-9a-f:.]*)(?:%[\w.-]+)?(?:/(\d{1,3}))?")
_OUTER, _INNER = re.compile(r"[/:@'#&?~+%]+"), re.compile(r"[-_']+")
_DOTS, _ATOMS = re.compile(r"\.+"), re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")

#: Endings of plurals -> what stands there in the singular; the first that fits counts.
_PLURALS = (
    *(("coes", "cao"), ("soes", "sao"), ("oes", "ao"), ("aes", "ao")),
    *(("ais", "al"), ("eis", "el"), ("ois", "ol"), ("gens", "gem"), ("dens", "dem")),
    *(("stores", "store"), ("dores", "dor"), ("tores", "tor"), ("lores", "lor")),
    *(("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("caches", "cache"), ("ches", "ch"), ("xes", "x")),
    *(("ss", "ss"), ("us", "us"), ("is", "is"), ("s", "")),
)
_SHORTEST_STEM = 4


def find_words(text: str) -> list[str]:
    """Return the words of a text in their order, with repetitions."""
    return [word for run in _runs(text) for word in _words_of(run)]


def fold_text(text: str) -> str:
    """Return the text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join([c for c in decomposed if not unicodedata.combining(c)]).replace("’", "'").casefold()


def _runs(text: str) -> Iterator[str]:
    for piece in _SEPARATORS.split(fold_text(text)):
        run = piece[:_MAX_IDENTIFIER].rstrip(_EDGES_AFTER)
        run = run.lstrip(_EDGES_BEFORE.replace(":", ""))
        if not (run.startswith("::") and _IPV6.fullmatch(run[:_MAX_ADDRESS])):
            run = run.lstrip(_EDGES_BEFORE)
        if piece.endswith("::") and len(run) < _MAX_ADDRESS and _IPV6.fullmatch(f"{run}::"):
            run = f"{run}::"
        if run:
            yield run


def _words_of(run: str) -> Iterator[str]:
    if _PLAIN.fullmatch(run):
        if run not in STOP_WORDS:
            yield _stem(run)[:MAX_WORD]
        return
    address = _read_address(run)
    if address is not None:
        yield from address
        return
    yield run[:MAX_WORD]
    seen = {run}
    for part in _parts(run):
        if part not in seen and len(seen) < _MAX_PARTS:
            seen.add(part)
            yield part[:MAX_WORD]


def _parts(run: str) -> Iterator[str]:
    """Yield what an identifier is made of, in several depths: `https://fw-01.example.net` has `fw-01`."""
    for outer in _OUTER.split(run):
        outer = outer.strip(".-_")
        address = _read_address(outer)
        if address is not None:
            yield from address
            continue
        for pattern in (_INNER, _DOTS):
            pieces = pattern.split(outer)
            if len(pieces) > 1:
                yield outer
                yield from (piece.strip(".-_") for piece in pieces if len(piece.strip(".-_")) > 1)
        yield from (
            _stem(atom)
            for atom in _ATOMS.split(outer)
            if (len(atom) > 1 or atom.isdigit()) and atom not in STOP_WORDS
        )


def _read_address(run: str) -> tuple[str, ...] | None:
    """Return the words of an address of a network or a card, in their one way of being written; None where it
    is none."""
    if len(run) > _MAX_ADDRESS:
        return None
    if _MAC.fullmatch(run):
        digits = re.sub(r"[^0-9a-f]", "", run)
        return (":".join(digits[at : at + 2] for at in range(0, 12, 2)),)
    if not _DIGIT.search(run) and ":" not in run:
        return None
    for pattern, version in ((_IPV4, 4), (_IPV6, 6)):
        found = pattern.fullmatch(run)
        if found is None or (version == 6 and run.count(":") < 2):
            continue
        try:
            address = ipaddress.ip_address(found[1])
            if found[2] is None:
                return (str(address),)
            network = ipaddress.ip_network(run.split("%")[0], strict=False)
        except ValueError:
            return None
        return tuple(dict.fromkeys((f"{address}/{found[2]}", str(network), str(address))))
    return None


def _stem(word: str) -> str:
    """Return the singular of a word, as far as its ending tells it."""
    if len(word) <= _SHORTEST_STEM - 1 or not word.endswith("s") or _DIGIT.search(word):
        return word
    for ending, single in _PLURALS:
        if word.endswith(ending) and len(word) - len(ending) + len(single) >= _SHORTEST_STEM - 1:
            return word[: len(word) - len(ending)] + single
    return word
