"""Records of the journal: one line each, with its CRC-32.

    1c291ca3 {"what":"intent","id":"a-1","method":"command.exec","digest":"…","at":1700000000}
    9ae0daaf {"what":"outcome","id":"a-1","method":…,"digest":…,"at":…,"acked":…}<TAB>{"ok":true,…}
    7d2c1f0e {"what":"acks","acks":["a-1"],"at":1700000003}

An outcome repeats what its intent said, so that the intent can go. The answer stands behind a tab, which JSON
never holds: who looks for ids needs not read it. Any record may carry `acks`, the acknowledgements since the
one before.
"""

from __future__ import annotations

import json
import re
import zlib

from fazai.agent.messages import write_json

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

#: Characters that stay of each text of an answer that is cut: multiples of 4, so that base64 stays base64.
CUT_TEXT = 1024
_SHORTEST_TEXT = 256
#: Stands in no answer: inside of a text, quotation marks have a backslash before them.
_BEGINNING = re.compile(rb'[0-9a-f]{8} \{"what":"')


def dump_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8, without line feeds and tabs."""
    return write_json(value).encode("utf-8", "surrogatepass")


def pack_record(head: dict[str, Any], answer: bytes | None = None) -> bytes:
    """Return a record as its line."""
    body = dump_json(head) if answer is None else dump_json(head) + b"\t" + answer
    return b"%08x %s\n" % (zlib.crc32(body), body)


def may_be_torn(line: bytes) -> bool:
    """Return whether a line that is not as it was written may be one record of which a part was written.
    Where another record stands in it, the line feed between the two was damaged."""
    return _BEGINNING.search(line, 1) is None


def parse_record(line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Return a line's head and its answer as JSON. Raises ValueError where it is not as it was written."""
    if len(line) < 12 or line[8:9] != b" " or line[-1:] != b"\n":
        raise ValueError("it is not whole")
    body = memoryview(line)[9:-1]
    if b"%08x" % zlib.crc32(body) != line[:8]:
        raise ValueError("its checksum does not fit")
    tab = line.find(b"\t")
    head = json.loads(line[9 : tab if tab >= 0 else -1])
    return head, line[tab + 1 : -1] if tab >= 0 else None


def fit_answer(answer: dict[str, Any], limit: int) -> bytes:
    """Return an answer as JSON of at most `limit` bytes (4 KiB or more): whole; else with its texts cut; else
    with nothing but what became of the action.

    A report of what was reconciled that is too long even so says `interrupted`: who reads it has to look.
    """
    whole = dump_json(answer)
    if len(whole) <= limit:
        return whole
    cut = dump_json(cut_texts(answer, CUT_TEXT))
    if len(cut) <= limit:
        return cut
    if "result" in answer:
        answer = {
            "ok": False,
            "action_id": answer.get("action_id"),
            "error": f"it was carried out; its report of {len(whole)} bytes was too long for the journal",
            "code": "interrupted",
        }
    plain = {name: value for name, value in answer.items() if not isinstance(value, (dict, list))}
    return dump_json(cut_texts(plain, _SHORTEST_TEXT))


def shorten_answer(answer: bytes) -> bytes:
    """Return an answer as JSON with the beginnings of its texts alone."""
    return dump_json(cut_texts(json.loads(answer), _SHORTEST_TEXT))


def cut_texts(answer: dict[str, Any], length: int) -> dict[str, Any]:
    """Return an answer whose texts have at most `length` characters; `truncated` where a program's output was
    longer."""

    def cut(value: Any) -> Any:
        if isinstance(value, str):
            return value[:length]
        if isinstance(value, list):
            return [cut(each) for each in value]
        if isinstance(value, dict):
            return {name: cut(each) for name, each in value.items()}
        return value

    result: dict[str, Any] = cut(answer)
    if any(len(answer.get(name) or "") > length for name in ("stdout", "stderr")):
        result["truncated"] = True
    return result
