"""Messages of the two ends of a reconcile through an agent: resources, observations, changes.

The controller sends what is wanted, and the agent's own kinds read it once more as they would read a
playbook. A change travels by its name and hash alone: the agent works it out again from what it saw itself,
and carries out only that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from fazai.compat.language import dataclass, zip_equal
from fazai.model import Change, Resource, Verb
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.effects import PathNames
from fazai.providers.hosts.kind import HostKind
from fazai.providers.hosts.planning import HostObservation, Item
from fazai.providers.hosts.remote.failures import (
    Places,
    decode_error,
    encode_error,
    is_error,
    resource_mark,
)
from fazai.providers.hosts.remote.values import (
    NONSENSE,
    Malformed,
    decode_bytes,
    decode_text,
    decode_value,
    encode_bytes,
    encode_value,
    is_sha256,
)

#: So many resources at most in one question; a list of that length takes a host minutes as it is.
MOST_RESOURCES: Final = 100_000
#: Contents that are sent with the question; longer ones only when they are written.
_SHORT_BYTES: Final = 1024
#: Characters of an identity that are shown.
_MOST_IDENTITY: Final = 65_536
_STREAMS: Final = ("stdout", "stderr")


# -- resources ------------------------------------------------------------------------------------------


def encode_resource(resource: Resource, by_hash: str = "") -> dict[str, Any]:
    """Return what an agent needs of a resource: no names of the controller's files, no tags. `by_hash`: the
    field whose content it need not have to compare; a long one is left out."""
    fields, content = resource.fields, resource.fields.get(by_hash)
    if isinstance(content, Blob) and content.size > _SHORT_BYTES:
        fields = {**fields, by_hash: replace(content, data=None)}
    found: dict[str, Any] = {
        "kind": resource.kind,
        "identity": _shown_identity(resource.identity),
        "state": resource.state,
        "fields": encode_value(fields),
    }
    if resource.listen:
        found["listen"] = list(resource.listen)
    return found


def _shown_identity(identity: str) -> str:
    """Return an identity as far as any reader of JSON takes it; the fields say it whole."""
    return identity.encode("utf-8", "replace").decode()[:_MOST_IDENTITY]


def decode_resource(data: object, kinds: Mapping[str, HostKind]) -> Resource:
    """Return a resource, read by its kind as one of a playbook is. Raises Malformed."""
    needed = {"kind", "identity", "state", "fields"}
    if not isinstance(data, dict) or not needed <= data.keys() <= needed | {"listen"}:
        raise Malformed("no resource")
    kind = kinds.get(data["kind"]) if isinstance(data["kind"], str) else None
    if kind is None:
        raise Malformed(f"there is no kind {data['kind']!r:.60}")
    fields, state, listen = decode_value(data["fields"]), data["state"], data.get("listen", [])
    presence = kind.fields.get("state")
    states = {"present", "absent", *(presence.choices if presence is not None else ())}
    if not isinstance(fields, dict) or not isinstance(state, str) or state not in states:
        raise Malformed(f"no resource of {kind.name}")
    if not isinstance(listen, list) or any(not isinstance(name, str) for name in listen):
        raise Malformed(f"no resource of {kind.name}")
    if listen and not kind.runs:
        raise Malformed(f"no resource of {kind.name}")
    identity = _read_fields(kind, fields, "notified" if listen else state)
    if _shown_identity(identity) != data["identity"]:
        raise Malformed(f"{kind.name}: another one than its identity says")
    mark = resource_mark(kind.name, identity)
    return Resource(kind.name, identity, fields, state, mark, listen=tuple(listen))


def _read_fields(kind: HostKind, fields: dict[str, Any], state: str) -> str:
    """Return the identity of these fields. Raises Malformed unless the kind reads them as they are."""
    try:
        found, problems = kind.normalise(dict(fields), state)
        identity = kind.identify(fields)
    except NONSENSE:
        raise Malformed(f"no resource of {kind.name}") from None
    if problems:
        raise Malformed(f"{kind.name}: {problems[0].field or 'the resource'} {problems[0].message}")
    if not isinstance(identity, str) or encode_value(found) != encode_value(fields):
        raise Malformed(f"{kind.name}: not as its kind says it")
    return identity


# -- observations ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteObservation:
    """The state that an agent saw. `root`: the folder that stands for / there."""

    seen: HostObservation
    names: PathNames
    root: str
    facts: Mapping[str, Any] | None = None


def encode_observation(wanted: Sequence[Resource], found: RemoteObservation, host: str) -> dict[str, Any]:
    """Return what was seen of the resources that were asked for, in their order."""
    items = [found.seen.items[each.kind, each.identity] for each in wanted if not each.listen]
    data: dict[str, Any] = {
        "root": encode_value(found.root),
        "items": [_encode_item(item, host) for item in items],
        "places": encode_value(found.seen.places),
        "folders": encode_value(found.names.folders),
        "links": encode_value(found.names.links),
    }
    if found.facts is not None:
        data["facts"] = encode_value(found.facts)
    return data


def _encode_item(item: Item, host: str) -> Any:
    if isinstance(item, Exception):
        return encode_error(item, host)
    return None if item is None else {"fields": encode_value(item)}


def decode_fields(data: object) -> Mapping[str, Any]:
    """Return the fields of an item. Raises Malformed."""
    fields = decode_value(data)
    if not isinstance(fields, dict):
        raise Malformed("no item")
    return fields


def decode_observation(
    data: object,
    wanted: Sequence[Resource],
    places: Places,
    decode: Callable[[object], Mapping[str, Any]] = decode_fields,
) -> RemoteObservation:
    """Return what an agent saw of these; `decode` returns the fields of an item. Raises Malformed, and what
    the agent says that kept it from looking at all."""
    if isinstance(data, dict) and data.keys() == {"error"}:
        raise decode_error(data["error"], places)
    needed = {"root", "items", "places", "folders", "links"}
    if not isinstance(data, dict) or not needed <= data.keys() <= needed | {"facts"}:
        raise Malformed("no observation")
    asked = [each for each in wanted if not each.listen]
    if not isinstance(data["items"], list) or len(data["items"]) != len(asked):
        raise Malformed("as many items as were asked for are not there")
    items = {
        (r.kind, r.identity): _decode_item(i, places, decode) for r, i in zip_equal(asked, data["items"])
    }
    facts = decode_value(data["facts"]) if "facts" in data else None
    if facts is not None and not isinstance(facts, dict):
        raise Malformed("no facts")
    names = PathNames(_decode_texts(data["folders"]), _decode_texts(data["links"]))
    root = decode_text(data["root"])
    return RemoteObservation(HostObservation(items, _decode_texts(data["places"])), names, root, facts)


def _decode_item(data: object, places: Places, decode: Callable[[object], Mapping[str, Any]]) -> Item:
    if data is None:
        return None
    if is_error(data):
        return decode_error(data, places)
    if not isinstance(data, dict) or data.keys() != {"fields"}:
        raise Malformed("no item")
    return decode(data["fields"])


def _decode_texts(data: object) -> dict[str, str]:
    if data == {}:
        return {}
    found = decode_value(data)
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise Malformed("no mapping of texts")
    return found


# -- changes --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangeName:
    """A change by its name and the hash of what it changes. `undo`: it takes back what was written;
    `content`: what is written, where it was left out before."""

    kind: str
    identity: str
    verb: Verb
    sha256: str = ""
    undo: bool = False
    content: bytes | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.identity


def change_sha256(change: Change) -> str:
    """Return the hash of all that a change says about its item; contents are said by theirs."""
    said = [
        change.kind,
        change.identity,
        str(change.verb),
        _by_hashes(change.before),
        _by_hashes(change.after),
    ]
    text = json.dumps([encode_value(each) for each in said], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _by_hashes(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: replace(each, data=None) if isinstance(each, Blob) else each for name, each in fields.items()
    }


def encode_change(
    change: Change, *, undo: bool = False, hashed: bool = True, by_hash: str = ""
) -> dict[str, Any]:
    """Return the name of a change as data, with the content that `encode_resource` left out."""
    found: dict[str, Any] = {
        "kind": change.kind,
        "identity": encode_value(change.identity),
        "verb": str(change.verb),
    }
    if hashed:
        found["sha256"] = change_sha256(change)
    content = change.after.get(by_hash)
    if undo:
        found["undo"] = True
    elif isinstance(content, Blob) and content.size > _SHORT_BYTES and content.data is not None:
        found["content"] = encode_bytes(content.data)
    return found


def decode_changes(data: object, most: int, *, hashed: bool = True) -> list[ChangeName]:
    """Return the names of changes, one at least. Raises Malformed."""
    if not isinstance(data, list) or not 1 <= len(data) <= most:
        raise Malformed(f"no list of 1 to {most} changes")
    return [_decode_change(each, hashed) for each in data]


def _decode_change(data: object, hashed: bool) -> ChangeName:
    needed = {"kind", "identity", "verb", *(("sha256",) if hashed else ())}
    if not isinstance(data, dict) or not needed <= data.keys() <= needed | {"undo", "content"}:
        raise Malformed("no change")
    kind, verb, undo = data["kind"], data["verb"], data.get("undo", False)
    known = isinstance(verb, str) and verb in {str(each) for each in Verb}
    if not isinstance(kind, str) or not known or not isinstance(undo, bool):
        raise Malformed("no change")
    if hashed and not is_sha256(data["sha256"]):
        raise Malformed("no change")
    content = decode_bytes(data["content"]) if "content" in data else None
    return ChangeName(kind, decode_text(data["identity"]), Verb(verb), data.get("sha256", ""), undo, content)


# -- output ---------------------------------------------------------------------------------------------


def decode_output(data: object) -> list[tuple[str, str]]:
    """Return what commands printed: the stream and the text of each piece. Raises Malformed."""
    if not isinstance(data, list):
        raise Malformed("no output")
    found = []
    for piece in data:
        if not isinstance(piece, list) or len(piece) != 2 or piece[0] not in _STREAMS:
            raise Malformed("no output")
        found.append((str(piece[0]), decode_text(piece[1])))
    return found
