"""Action `commit_kb`: the model keeps a note, which stays unverified until a person verifies it."""

from __future__ import annotations

import re

from fazai.daemon.kb.service import note_name
from fazai.daemon.loop.turn import Told, Turn
from fazai.daemon.tools.running import failure
from fazai.errors import FazaiError
from fazai.loop.journal import Asked
from fazai.loop.tools import Observation
from fazai.timestamps import utc_now
from fazai.wire.actions import CommitKbAction
from fazai.wire.events import ObserveEvent

_MOST = 10  # notes of an objective
_PARENTS = 32  # of a note, the ones that were shown last
_NOTE_ID = re.compile(r"\bkb-[0-9]{1,18}\b")


async def handle(turn: Turn, action: CommitKbAction) -> Told:
    """Add the note to the knowledge base; notes that the model was shown are its parents."""
    state = turn.session.state
    kept = sum(one.get("action") == "commit_kb" for one in state.proposals.values())
    if kept > _MOST:
        return Told(Observation(note=f"an objective keeps {_MOST} notes at most", failed=True))
    turns = (entry.turn for entry in turn.session.journal() if isinstance(entry, Asked))
    shown = dict.fromkeys(name for text in turns for name in _NOTE_ID.findall(text))
    try:
        parents = await turn.services.kb.find_names(list(shown)[-_PARENTS:])
        added = await turn.services.kb.add(
            action.title,
            action.snippet,
            origin="model",
            author=turn.session.record.owner,
            tags=action.tags,
            source=action.source or "",
            session=turn.session.session_id,
            parents=parents,
        )
    except FazaiError as error:
        return Told(failure(error))
    text = f"kept as note {note_name(added.note.id)}, {added.note.status}"
    event = ObserveEvent(timestamp=utc_now(), note=text, action_id=turn.call.action_id)
    return Told(Observation(note=text), (event,))
