"""Files become notes by their sections, paragraphs and pages."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import InputError, UsageError
from fazai.kb.reading import MAX_FILE_BYTES, read_sections


def make_pdf(pages: Sequence[str], *, compress: bool = True) -> bytes:
    """The least PDF with a text on each page."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), kids),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, text in enumerate(pages):
        lines = [line.replace("(", r"\(").encode("cp1252") for line in text.split("\n")]
        stream = (
            b"BT /F1 12 Tf 72 720 Td 14 TL " + b" ".join(b"(" + line + b") Tj T*" for line in lines) + b" ET"
        )
        packed = zlib.compress(stream) if compress else stream
        filter_ = b" /Filter /FlateDecode" if compress else b""
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * number)
        )
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(packed), filter_, packed))
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def test_a_pdf_becomes_a_note_for_each_page() -> None:
    found = read_sections("docs/vpn_guide.pdf", make_pdf(["Túnel WireGuard", "", "MTU 1380\nPPPoE"]))
    assert [(one.title, one.text, one.source) for one in found] == [
        ("vpn guide, page 1", "Túnel WireGuard", "docs/vpn_guide.pdf#page=1"),
        ("vpn guide, page 3", "MTU 1380\nPPPoE", "docs/vpn_guide.pdf#page=3"),
    ]


def test_a_pdf_without_text_is_told() -> None:
    with pytest.raises(InputError, match=r"scan\.pdf holds no text"):
        read_sections("scan.pdf", make_pdf([""]))


def test_a_broken_pdf_is_told() -> None:
    good = make_pdf(["text"] * 3)
    for data in (
        b"",
        b"%PDF-1.4\n",
        good[: len(good) // 2],
        good.replace(b"/Pages 2 0 R", b"/Pages 9 0 R"),
        b"PK\x03\x04",
    ):
        with pytest.raises(InputError, match=r"is no PDF that can be read|holds no text"):
            read_sections("x.pdf", data)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 900), st.binary(min_size=1, max_size=4))
def test_a_pdf_with_a_wrong_byte_is_read_or_refused(at: int, bytes_: bytes) -> None:
    good = make_pdf(["one page", "another"], compress=False)
    data = good[:at] + bytes_ + good[at + len(bytes_) :]
    said = ""
    try:
        said = read_sections("x.pdf", data)[0].source
    except InputError as error:
        said = str(error)
    assert said.startswith("x.pdf")


def test_without_pypdf_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(UsageError, match="PDF is read by pypdf") as caught:
        read_sections("x.pdf", make_pdf(["x"]))
    assert caught.value.hint == "pip install 'fazai[kb]'"


def test_markdown_becomes_a_note_for_each_section() -> None:
    text = """\
before

# Firewalls
## DNS `unbound` ##
Restart it.

```sh
# no heading
```
~~~
## neither
~~~
#no heading either
### Deeper
x
# Hosts
## Empty
## Last
y
"""
    found = [(one.title, one.source) for one in read_sections("run/book.md", text.encode())]
    assert found == [
        ("book", "run/book.md"),
        ("Firewalls > DNS `unbound", "run/book.md#dns-unbound"),
        ("Firewalls > DNS `unbound > Deeper", "run/book.md#deeper"),
        ("Hosts > Last", "run/book.md#last"),
    ]


def test_long_texts_are_cut_at_paragraphs() -> None:
    text = "\n\n".join(f"paragraph {number} " + "word " * 200 for number in range(30))
    found = read_sections("long-text.txt", text.encode())
    assert len(found) > 3
    assert [one.title for one in found[:2]] == ["long text (1)", "long text (2)"]
    assert all(len(one.text) <= 6000 and one.text.startswith("paragraph") for one in found)
    assert " ".join(one.text for one in found).split() == text.split()


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="ab #`~\n\t.", max_size=400))
def test_no_word_of_a_file_is_lost(text: str) -> None:
    found = read_sections("x.txt", text.encode())
    assert "".join("".join(one.text.split()) for one in found) == "".join(text.split())
    read_sections("x.md", text.encode())


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.docx", b"x", "x.docx is of no kind that is read"),
        ("x", b"x", "x is of no kind that is read"),
        ("x.txt", b"a\0b", "x.txt is no text"),
        ("x.md", b"x" * (MAX_FILE_BYTES + 1), "x.md is larger than 32 MiB"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_sections(name, data)


def test_text_of_another_charset_is_kept_as_escapes() -> None:
    (found,) = read_sections("x.txt", "\ufeffconfigura\xe7\xe3o".encode("latin-1", "ignore"))
    assert found.text == r"configura\xe7\xe3o"
