"""Tool `kb.search`: notes of the knowledge base about a question."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from fazai.daemon.tools.call import ToolCall
from fazai.loop.tools import Observation, TargetName, Tool, ToolArgs

_SHOWN_CHARS = 600


class KbSearchArgs(ToolArgs, frozen=True, kw_only=True):
    """`target`: notes about this target alone."""

    query: Annotated[str, Meta(min_length=1, max_length=500)]
    target: TargetName | None = None
    limit: Annotated[int, Meta(ge=1, le=20)] = 5


@Tool(
    "kb.search", "Searches the notes of the knowledge base: incidents, changes, procedures.", timeout_s=10.0
)
async def search_kb(call: ToolCall, args: KbSearchArgs) -> Observation:
    """Return the nearest notes, each with how far it is believed."""
    found = await call.services.kb.search(args.query, limit=args.limit, target=args.target)
    if not found:
        where = f" about {args.target}" if args.target is not None else ""
        return Observation(note=f"no note{where} has any of these words", data=[])
    rows: list[dict[str, Any]] = [
        {
            "id": hit.citation,
            "status": hit.status,
            "origin": hit.note.origin,
            "title": hit.note.title,
            "text": hit.excerpt[:_SHOWN_CHARS],
            **({"target": hit.note.target} if hit.note.target else {}),
            **({"contradicted": True} if hit.contradicted else {}),
        }
        for hit in found
    ]
    verified = sum(hit.status == "verified" for hit in found)
    note = f"{len(found)} {'note' if len(found) == 1 else 'notes'}, {verified} verified by a person"
    return Observation(note=note, data=rows, citations=tuple(hit.citation for hit in found))


TOOLS = (search_kb,)
