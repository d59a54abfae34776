"""file.diff: what makes a file as it is wanted."""

from __future__ import annotations

import base64
import hashlib
import os

from fazai.agent.errors import Refused
from fazai.agent.files.attributes import read_wanted
from fazai.agent.files.opening import MAX_FILE_BYTES, forbid_writes, open_target, read_whole, refuse_path
from fazai.agent.files.patches import is_too_long, make_patch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.config.settings import AgentConfig

#: What stands in place of a hash where there is no file.
ABSENT = "absent"


def diff_file(
    request: dict[str, Any],
    config: AgentConfig,
    *,
    confine: Callable[[int | None], None] = forbid_writes,
) -> dict[str, Any]:
    """Compare a file with `want` or `want_base64`, and with `mode` and `owner`. Raises Refused.

    `binary` instead of a patch where one of the two is no UTF-8 or beyond what patches are made of. With
    `want_sha256` instead there is no patch.
    """
    path: str = request["path"]
    digest: str | None = request.get("want_sha256")
    want = None if digest is not None else read_content(request, "want", "want_base64")
    attributes = read_wanted(request)
    others = False
    try:
        with open_target(path, config, write=False) as target:
            confine(None)
            file = target.open_file()
            have = None if file is None else read_whole(file, path)
            if file is not None:
                others = attributes.differs(os.fstat(file))
                os.close(file)
    except OSError as error:
        raise refuse_path(path, error) from None
    base = hash_content(have)
    differs = others or (have != want if want is not None else base != digest)
    answer: dict[str, Any] = {"patch": "", "differs": differs, "base_sha256": base}
    if want is not None and have != want:
        try:
            texts = None if have is None else have.decode(), want.decode()
        except UnicodeDecodeError:
            answer["binary"] = True
            return answer
        if is_too_long(texts[0] or "") or is_too_long(texts[1]):
            answer["binary"] = True
        else:
            answer["patch"] = make_patch(path, *texts)
    return answer


def hash_content(content: bytes | None) -> str:
    """Return the SHA-256 of a file's content, `absent` where there is no file."""
    return ABSENT if content is None else hashlib.sha256(content).hexdigest()


def read_content(request: dict[str, Any], text: str, encoded: str) -> bytes:
    """Return what a request says in one of two fields: a text, or base64. Raises Refused."""
    try:
        plain: str | None = request.get(text)
        content = base64.b64decode(request[encoded], validate=True) if plain is None else plain.encode()
    except UnicodeEncodeError:
        raise Refused("bad_request", f"`{text}` holds half a surrogate pair: it is no text") from None
    except ValueError as error:
        raise Refused("bad_request", f"`{encoded}` is no base64: {error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise Refused("too_large", f"the content has {len(content)} bytes, {MAX_FILE_BYTES} are the most")
    return content
