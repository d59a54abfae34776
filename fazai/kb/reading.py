"""Reads files into notes: Markdown and text by their sections, PDF by its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from fazai.errors import InputError, UsageError
from fazai.kb.content import MAX_TITLE

SUFFIXES = (".md", ".markdown", ".txt", ".pdf")
MAX_FILE_BYTES = 32 << 20
_SECTION_CHARS = 6000  # what is longer is cut at the end of a paragraph
_MAX_PAGES = 5000
_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*\Z")
_FENCE = re.compile(r"[ \t]{0,3}(```+|~~~+)")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a file that becomes a note."""

    title: str
    text: str
    source: str


def read_sections(name: str, data: bytes) -> list[Section]:
    """Return the sections of a file. Raises InputError for one that cannot be read, UsageError where reading
    it needs what is not installed."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{name} is of no kind that is read", hint=f"there are: {', '.join(SUFFIXES)}")
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB", hint="split it")
    if suffix == ".pdf":
        return list(_split_pages(name, _read_pdf(name, data)))
    if b"\0" in data[:4096]:
        raise InputError(f"{name} is no text")
    text = data.decode("utf-8-sig", "backslashreplace")
    if suffix == ".txt":
        return list(_split_long(_title_of(name), text, name))
    return list(_split_markdown(name, text))


def _title_of(name: str) -> str:
    return PurePath(name).stem.replace("_", " ").replace("-", " ").strip() or name


def _split_markdown(name: str, text: str) -> Iterator[Section]:
    """Yield a section for each heading; its title holds those above it."""
    above: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""

    def finish() -> Iterator[Section]:
        body = "\n".join(lines).strip()
        if body:
            title = " > ".join(heading for _, heading in above) or _title_of(name)
            yield from _split_long(title[-MAX_TITLE:], body, _place(name, above))

    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark is not None and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1][:3]
        found = _HEADING.match(line) if not fence else None
        if found is None:
            lines.append(line)
            continue
        yield from finish()
        lines = []
        level = len(found[1])
        above = [*(one for one in above if one[0] < level), (level, found[2].strip("`* "))]
    yield from finish()


def _place(name: str, above: list[tuple[int, str]]) -> str:
    if not above:
        return name
    anchor = re.sub(r"[^\w\- ]", "", above[-1][1].lower()).replace(" ", "-")
    return f"{name}#{anchor}"


def _split_long(title: str, text: str, source: str) -> Iterator[Section]:
    """Yield the text in parts of bearable length, at blank lines where there are any."""
    text = text.strip()
    number = 1
    while len(text) > _SECTION_CHARS:
        at = max(text.rfind(mark, 0, _SECTION_CHARS) for mark in ("\n\n", "\n", " "))
        for mark in ("\n\n", "\n", " "):
            found = text.rfind(mark, _SECTION_CHARS // 2, _SECTION_CHARS)
            if found > 0:
                at = found
                break
        at = at if at > 0 else _SECTION_CHARS
        yield Section(f"{title} ({number})", text[:at].strip(), source)
        text, number = text[at:].strip(), number + 1
    if text:
        yield Section(title if number == 1 else f"{title} ({number})", text, source)


def _split_pages(name: str, pages: Iterator[str]) -> Iterator[Section]:
    found = False
    for number, text in enumerate(pages, 1):
        if text.strip():
            found = True
            yield from _split_long(f"{_title_of(name)}, page {number}", text, f"{name}#page={number}")
    if not found:
        raise InputError(
            f"{name} holds no text", hint="scanned pages are pictures: recognise their text first"
        )


def _read_pdf(name: str, data: bytes) -> Iterator[str]:
    """Yield the text of each page. Raises InputError, UsageError."""
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError:
        raise UsageError(
            "PDF is read by pypdf, which is not installed", hint="pip install 'fazai[kb]'"
        ) from None
    import io

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError(f"{name} is encrypted", hint="save it without its password")
        if len(reader.pages) > _MAX_PAGES:
            raise InputError(f"{name} has more than {_MAX_PAGES} pages", hint="split it")
        for page in reader.pages:
            yield page.extract_text() or ""
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{name} is no PDF that can be read: {str(error)[:200]}") from None
