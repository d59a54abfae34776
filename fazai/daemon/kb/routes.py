"""/kb: the knowledge base (SPEC.md, 2.5).

Viewers read. Operators add and verify: to say that a note is right is as much as to approve a plan. Only an
admin removes, or imports notes with their status, for both change what others verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fazai.daemon.events.announcer import AUDIT
from fazai.daemon.http.routing import Route, RouteCall
from fazai.daemon.kb.service import KbHit, note_name
from fazai.store.notes import Note
from fazai.timestamps import timestamp
from fazai.wire import notes as wire
from fazai.wire.base import OkAnswer

_IMPORT_BYTES = 8 << 20


@Route("GET", "/kb/search", "Notes about a question, the nearest first.")
async def search_notes(call: RouteCall, query: wire.KbQuery) -> wire.KbDocsAnswer:
    """Search the notes."""
    found = await call.services.kb.search(query.q, limit=query.limit, target=query.target)
    return wire.KbDocsAnswer(docs=tuple(map(doc_of_hit, found)))


def doc_of_hit(hit: KbHit) -> wire.KbDoc:
    """Return a hit as the contract has it."""
    return _doc_of(hit.note, hit.excerpt, hit)


def _doc_of(note: Note, snippet: str, hit: KbHit | None = None) -> wire.KbDoc:
    return wire.KbDoc(
        id=note_name(note.id),
        title=note.title,
        snippet=snippet,
        tags=note.tags,
        source=note.source or None,
        score=hit.score if hit is not None else None,
        status=note.status,
        origin=note.origin,
        author=note.author or None,
        target=note.target or None,
        created_at=timestamp(note.created),
        coverage=hit.coverage if hit is not None else None,
        contradicted=hit is not None and hit.contradicted,
    )


@Route("POST", "/kb", "Note something.", role="operator", codes=("not_found", "unavailable"))
async def add_note(call: RouteCall, body: wire.KbBody) -> wire.KbAddedAnswer:
    """Add a note, unverified, from who sends it. Raises Refusal(not_found), WireError(bad_request)."""
    added = await call.services.kb.add(
        body.title,
        body.snippet,
        tags=body.tags,
        source=body.source or "",
        target=body.target or "",
        origin=body.origin,
        author=call.who.name,
        parents=body.parents,
        contradicts=body.contradicts,
    )
    return wire.KbAddedAnswer(
        id=note_name(added.note.id),
        status=added.note.status,
        merged=not added.is_new,
        redacted=added.redacted,
    )


@Route("GET", "/kb/export", "Notes with all that is known of them, page by page.")
async def export_notes(call: RouteCall, query: wire.KbExportQuery) -> wire.KbExportAnswer:
    """Return notes in the order in which they came."""
    found, hashes = await call.services.kb.export(query.after, query.limit)
    return wire.KbExportAnswer(
        notes=tuple(_exported(note, hashes) for note in found), next=found[-1].id if found else None
    )


def _exported(note: Note, hashes: Mapping[int, str]) -> wire.KbNote:
    def linked(ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(hashes[id_] for id_ in ids if id_ in hashes)

    return wire.KbNote(
        id=note_name(note.id),
        title=note.title,
        text=note.text,
        hash=note.hash,
        origin=note.origin,
        status=note.status,
        created_at=timestamp(note.created),
        last_written_at=timestamp(note.last_written),
        written=note.written,
        tags=note.tags,
        source=note.source or None,
        target=note.target or None,
        author=note.author or None,
        session_id=note.session or None,
        run_id=note.run or None,
        verified_at=timestamp(note.verified),
        verified_by=note.verified_by or None,
        parents=linked(note.parents),
        contradicts=linked(note.contradicts),
    )


@Route(
    "POST",
    "/kb/import",
    "Notes as they were exported, with their status.",
    role="admin",
    codes=("unavailable",),
    limit_bytes=_IMPORT_BYTES,
)
async def import_notes(call: RouteCall, body: wire.KbImportBody) -> wire.KbImportAnswer:
    """Add notes with their status and where they are from. Raises WireError(bad_request) for one whose hash
    is not its content's, or that is empty: then none is stored."""
    found = await call.services.kb.restore(
        [(_imported(one), one.parents, one.contradicts) for one in body.notes]
    )
    verified = sum(one.status == "verified" for one in body.notes)
    _audit(call, f"{len(body.notes)} notes, {verified} of them verified, were imported")
    added = sum(one.is_new for one in found)
    redacted = sum(one.redacted for one in found)
    return wire.KbImportAnswer(added=added, merged=len(found) - added, redacted=redacted)


def _imported(one: wire.KbNote) -> Note:
    return Note(
        title=one.title,
        text=one.text,
        hash=one.hash,
        tags=one.tags,
        source=one.source or "",
        target=one.target or "",
        origin=one.origin,
        author=one.author or "",
        session=one.session_id or "",
        run=one.run_id or "",
        status=one.status,
        created=one.created_at.timestamp(),
        verified=one.verified_at.timestamp() if one.verified_at is not None else None,
        verified_by=one.verified_by or "",
        written=one.written,
        last_written=one.last_written_at.timestamp(),
    )


@Route("GET", "/kb/{id}", "One note, where it is from, and what it is linked to.")
async def show_note(call: RouteCall) -> wire.KbNoteAnswer:
    """Return a note with the graph of its derivation. Raises Refusal(not_found)."""
    return await _show(call)


async def _show(call: RouteCall) -> wire.KbNoteAnswer:
    note, graph = await call.services.kb.show(call.path["id"])
    links = tuple(
        wire.KbLink(note=note_name(later), other=note_name(earlier), relation=relation)
        for later, earlier, relation in graph.edges
    )
    hashes = {one.id: one.hash for one in graph.notes.values()}
    linked = tuple(_doc_of(one, "") for one in graph.notes.values() if one.id != note.id)
    return wire.KbNoteAnswer(note=_exported(note, hashes), links=links, linked=linked)


@Route("POST", "/kb/{id}/verify", "Say that a note is right.", role="operator", codes=("unavailable",))
async def verify_note(call: RouteCall) -> wire.KbNoteAnswer:
    """Mark a note as verified by who asks. Raises Refusal(not_found)."""
    note = await call.services.kb.verify(call.path["id"], call.who.name)
    _audit(call, f"note {note_name(note.id)} was verified")
    return await _show(call)


@Route("POST", "/kb/{id}/remove", "Drop a note.", role="admin", codes=("unavailable",))
async def remove_note(call: RouteCall) -> OkAnswer:
    """Drop a note. Raises Refusal(not_found)."""
    await call.services.kb.remove(call.path["id"])
    _audit(call, f"note {call.path['id'][:64]} was removed")
    return OkAnswer()


def _audit(call: RouteCall, what: str) -> None:
    call.services.log.say("info", f"{what} by {call.who.name}", logger=AUDIT)


ROUTES = (search_notes, add_note, export_notes, import_notes, show_note, verify_note, remove_note)
