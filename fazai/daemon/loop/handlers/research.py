"""Action `research`: looks into notes and the product's own documentation; never into the internet."""

from __future__ import annotations

from fazai.daemon.kb.research import research
from fazai.daemon.loop.turn import Told, Turn
from fazai.daemon.tools.running import failure
from fazai.errors import FazaiError
from fazai.loop.tools import Observation
from fazai.timestamps import utc_now
from fazai.wire.actions import ResearchAction
from fazai.wire.events import ResearchResultEvent

_DOCS = 3


async def handle(turn: Turn, action: ResearchAction) -> Told:
    """Return what was found, best first."""
    try:
        docs = await research(turn.services, action.queries, action.max_docs or _DOCS)
    except FazaiError as error:
        return Told(failure(error))
    event = ResearchResultEvent(timestamp=utc_now(), docs=docs, action_id=turn.call.action_id)
    note = f"{len(docs)} documents" if docs else "nothing was found for these words"
    found = [{"title": doc.title, "url": doc.url, "text": doc.text} for doc in docs]
    return Told(Observation(note=note, data=found or None), (event,), taints=bool(docs))
