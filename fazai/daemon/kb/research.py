"""What the action `research` finds: notes, and sections of the product's own documentation. No internet."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fazai.daemon.kb.pages import Pages
from fazai.daemon.kb.service import KbHit
from fazai.wire.events import ResearchDoc

if TYPE_CHECKING:
    from fazai.daemon.services import Services

_UNVERIFIED = 0.8  # what a note counts beside a page of the documentation, which was reviewed
_PAGE = 0.95
_QUERY_CHARS = 4096
_MOST = 50


async def research(services: Services, queries: Sequence[str], max_docs: int) -> tuple[ResearchDoc, ...]:
    """Return the documents that are nearest to the queries: the best of each query, then the second of each,
    and so on. `url` is what to cite: the id of a note, or a page and its section. Raises StateError."""
    pages = await services.kb.pages()
    found = [await _search_all(services, pages, query[:_QUERY_CHARS], max_docs) for query in queries]
    chosen: dict[str, ResearchDoc] = {}
    for docs in itertools.zip_longest(*found):
        for doc in docs:
            if doc is not None and len(chosen) < max_docs:
                chosen.setdefault(doc.url or doc.title, doc)
    return tuple(chosen.values())


async def _search_all(services: Services, pages: Pages, query: str, limit: int) -> list[ResearchDoc]:
    """Return notes and sections of pages, those first that have most of the question."""
    ranked = [
        (hit.coverage * (1.0 if hit.status == "verified" else _UNVERIFIED), _doc_of_note(hit))
        for hit in await services.kb.search(query, limit=min(limit, _MOST))
    ]
    # deadline: none; it computes for some milliseconds
    for page in await asyncio.to_thread(pages.search, query, min(limit, _MOST)):
        doc = ResearchDoc(title=page.title, url=page.place, text=page.excerpt)
        ranked.append((page.coverage * _PAGE, doc))
    return [doc for _, doc in sorted(ranked, key=lambda pair: -pair[0])]


def _doc_of_note(hit: KbHit) -> ResearchDoc:
    return ResearchDoc(
        title=f"{hit.note.title} ({hit.standing_text()})"[:512], url=hit.citation, text=hit.excerpt
    )
