"""Control marks of chat templates in text that goes to an endpoint: text they are, and text they stay.

The worker reads marks only in what the template itself wrote (`worker.chat`). What an endpoint does with
`<end_of_turn>` within a message is its own affair, and many read it as the end of the turn. So such marks
are broken up on the way out: a blank goes behind their first character.
"""

from __future__ import annotations

import re

#: Marks of Gemma, and of the other models that are served so.
_MARK = re.compile(
    r"<(?=\|[^<>\s|]{1,40}\|?>|[^<>\s|]{1,40}\|>"
    r"|(?:start|end)_[a-z_]{1,40}>|/?s>|(?:bos|eos|pad|unk|mask|escape)>|unused\d{1,5}>"
    r"|(?:image|audio)_soft_token>|<SYS>|</SYS>|[\uff5c])"
    r"|\[(?=/?INST\])",
    re.IGNORECASE,
)


def break_marks(text: str) -> str:
    """Return the text with no control mark in it that a server could take for one."""
    return _MARK.sub(lambda found: f"{found[0]} ", text)
