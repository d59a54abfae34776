"""The things that hosts of one run have in common: lists of resources that their agents are asked about, and
items as these describe them. Each is worked out once, however many hosts share it."""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fazai.model import Resource
from fazai.providers.hosts.kind import HostKind
from fazai.providers.hosts.planning import SeenFields
from fazai.providers.hosts.remote.messages import decode_fields, encode_resource
from fazai.providers.hosts.remote.values import Malformed

_LISTS: Final = 64
_ITEMS: Final = 1024
_ITEM_BYTES: Final = 4096  # larger ones are hardly alike anywhere
_MARSHAL: Final = 2  # the last version in which equal values are equal bytes


class SharedMessages:
    """Remembers what was encoded and decoded for one host, for the next one."""

    def __init__(self) -> None:
        self._lists: dict[tuple[int, ...], tuple[Sequence[Resource], list[dict[str, Any]]]] = {}
        self._items: dict[bytes, SeenFields] = {}

    def encode(self, resources: Sequence[Resource], kinds: Mapping[str, HostKind]) -> list[dict[str, Any]]:
        """Return resources as data: the same list for the same resources."""
        key = tuple(map(id, resources))
        known = self._lists.get(key)
        if known is None:
            found = [encode_resource(each, kinds[each.kind].by_hash) for each in resources]
            known = self._lists[key] = tuple(resources), found  # they are kept: their ids stay theirs
            if len(self._lists) > _LISTS:
                del self._lists[next(iter(self._lists))]
        return known[1]

    def decode(self, data: Any) -> Mapping[str, Any]:
        """Return the fields of an item; the same ones for the same data. Raises Malformed."""
        try:
            key = marshal.dumps(data, _MARSHAL)
        except ValueError:  # a reader of JSON may take what is deeper than this
            raise Malformed("nested too deeply") from None
        known = self._items.get(key)
        if known is None:
            known = SeenFields(decode_fields(data))
            if len(key) <= _ITEM_BYTES:
                self._items[key] = known
                if len(self._items) > _ITEMS:
                    del self._items[next(iter(self._items))]
        return known
