"""Section 2.5 of SPEC.md, the knowledge base: notes, and the bodies, queries and answers of `/kb`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from fazai.wire.base import AnswerMessage, Count, Ident, Label, Message, RequestMessage, Timestamp
from fazai.wire.opn import Tags

NoteStatus = Literal["unverified", "verified"]
#: Who a note is from. It never changes: who writes the same again, or verifies it, is recorded beside it.
NoteOrigin = Literal["person", "model", "device", "import", "run"]

#: How far a note is believed: what a person verified most, what a model or a device wrote least.
VERIFIED_STANDING = 4
_STANDINGS: Mapping[str, int] = {"model": 0, "device": 0, "run": 1, "import": 2, "person": 3}

NoteText = Annotated[str, Meta(min_length=1, max_length=65_536)]
NoteSource = Annotated[str, Meta(max_length=1024)]
NoteIds = Annotated[tuple[Ident, ...], Meta(max_length=64)]
ContentHash = Annotated[
    str, Meta(pattern=r"(?#SHA-256 in hexadecimal)\A[0-9a-f]{64}\Z", min_length=64, max_length=64)
]
Hashes = Annotated[tuple[ContentHash, ...], Meta(max_length=64)]


def standing_of(status: NoteStatus, origin: NoteOrigin) -> int:
    """Return the standing of a note: 0 (a model's, a device's) to 4 (verified)."""
    return VERIFIED_STANDING if status == "verified" else _STANDINGS[origin]


class KbBody(RequestMessage, frozen=True, kw_only=True):
    """POST /kb. `origin` is `import` for what was read from a file; nobody can say that a note is from
    another than who sends it. `parents` are notes that it was derived from."""

    title: Label
    snippet: NoteText
    tags: Tags = ()
    source: NoteSource | None = None
    target: Label | None = None
    origin: Literal["person", "import"] = "person"
    parents: NoteIds = ()
    contradicts: NoteIds = ()


class KbAddedAnswer(AnswerMessage, frozen=True, kw_only=True):
    """`merged`: the same was there already, and this is its id. `redacted` counts the secrets that were taken
    out."""

    id: Ident
    status: NoteStatus | None = None
    merged: bool = False
    redacted: Count = 0


class KbQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /kb/search."""

    q: Annotated[str, Meta(min_length=1, max_length=1024)]
    limit: Annotated[int, Meta(ge=1, le=50)] = 10
    target: Label | None = None


class KbDoc(Message, frozen=True, kw_only=True):
    """One hit. `id` is what an answer cites; `coverage` says how much of the question the note has."""

    id: Ident
    title: Label
    snippet: str
    tags: Tags = ()
    source: str | None = None
    score: float | None = None
    status: NoteStatus | None = None
    origin: NoteOrigin | None = None
    author: str | None = None
    target: Label | None = None
    created_at: Timestamp | None = None
    coverage: Annotated[float, Meta(ge=0, le=1)] | None = None
    contradicted: bool = False


class KbDocsAnswer(AnswerMessage, frozen=True, kw_only=True):
    docs: tuple[KbDoc, ...]


class KbNote(RequestMessage, frozen=True, kw_only=True):
    """One note with all that is known of it. Links are by the hash of the other note's content, so that they
    hold in another knowledge base."""

    id: Ident | None = None
    title: Label
    text: NoteText
    hash: ContentHash
    origin: NoteOrigin
    status: NoteStatus
    created_at: Timestamp
    last_written_at: Timestamp
    written: Annotated[int, Meta(ge=1, le=2**53)] = 1
    tags: Tags = ()
    source: NoteSource | None = None
    target: Label | None = None
    author: Label | None = None
    session_id: Ident | None = None
    run_id: Ident | None = None
    verified_at: Timestamp | None = None
    verified_by: Label | None = None
    parents: Hashes = ()
    contradicts: Hashes = ()


class KbLink(Message, frozen=True, kw_only=True):
    """`note` was derived from `other`, or says that it is wrong."""

    note: Ident
    other: Ident
    relation: Literal["parent", "contradicts"]


class KbNoteAnswer(AnswerMessage, frozen=True, kw_only=True):
    """GET /kb/{id}, POST /kb/{id}/verify. `linked` are the notes that `links` lead to, without their text; of
    one that was removed there is only its id."""

    note: KbNote
    links: tuple[KbLink, ...] = ()
    linked: tuple[KbDoc, ...] = ()


class KbExportQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /kb/export: notes after one, in the order in which they came."""

    after: Count = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 500


class KbExportAnswer(AnswerMessage, frozen=True, kw_only=True):
    """`next`: where to go on; absent at the end."""

    notes: tuple[KbNote, ...]
    next: Count | None = None


class KbImportBody(RequestMessage, frozen=True, kw_only=True):
    """POST /kb/import: notes as GET /kb/export gives them."""

    notes: Annotated[tuple[KbNote, ...], Meta(min_length=1, max_length=500)]


class KbImportAnswer(AnswerMessage, frozen=True, kw_only=True):
    added: Count
    merged: Count
    redacted: Count = 0
