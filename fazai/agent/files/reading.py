"""file.read: a file of a folder that the policy lets be read."""

from __future__ import annotations

import base64
import hashlib
import os
import stat

from fazai.agent.errors import Refused
from fazai.agent.files.diffing import ABSENT
from fazai.agent.files.opening import forbid_writes, open_target, read_whole, refuse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.config.settings import AgentConfig

#: In base64 it fits into one message.
MAX_READ_BYTES = 47 * 1024 * 1024


def read_file(
    request: dict[str, Any],
    config: AgentConfig,
    *,
    confine: Callable[[int | None], None] = forbid_writes,
) -> dict[str, Any]:
    """Return a file's hash, size and mode, and with `content` its bytes, all as of one moment. Raises
    Refused."""
    path: str = request["path"]
    try:
        with open_target(path, config, write=False, read=True) as target:
            confine(None)
            file = target.open_file()
            if file is None:
                return {"sha256": ABSENT, "size": 0}
            try:
                before = os.fstat(file)
                if before.st_size > MAX_READ_BYTES:
                    text = f"{path} has {before.st_size} bytes, {MAX_READ_BYTES} are the most that are read"
                    raise Refused("too_large", text)
                data = read_whole(file, path)
                after = os.fstat(file)
            finally:
                os.close(file)
    except OSError as error:
        raise refuse_path(path, error) from None
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, len(data)):
        raise Refused("conflict", f"{path} changed while it was read")
    answer: dict[str, Any] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "mode": f"{stat.S_IMODE(after.st_mode) & 0o777:04o}",
    }
    if request.get("content", True):
        answer["content_base64"] = base64.b64encode(data).decode("ascii")
    return answer
