"""The errors of a resolution, each reported once however many hosts it is for."""

from __future__ import annotations

from collections.abc import Iterable

from fazai.errors import Errors, FazaiError, Mark, count_noun
from fazai.template import UndefinedName


class ProblemCollector:
    """Collects errors, and the hosts that each is for.

    `before`: errors that were found earlier. `whole`: all of the inventory and the variables could be read;
    else a name that is nowhere is no error, as long as no known name is like it.
    """

    def __init__(self, before: Iterable[FazaiError] = (), *, whole: bool = True) -> None:
        self.whole = whole
        self._found: dict[tuple[type[FazaiError], str, str, str | None], tuple[FazaiError, list[str]]] = {}
        self.count = 0  # of all that were added: it grows whenever something is wrong
        self.extend(before)

    def add(self, error: FazaiError, host: str | None = None) -> None:
        """Add an error; of an Errors, each of it."""
        if isinstance(error, Errors):
            for each in error.errors:
                self.add(each, host)
            return
        self.count += 1
        if isinstance(error, UndefinedName) and self._may_be_lost(error):
            return
        message = error.message
        if host is not None:
            message = message.removeprefix(f"{host}: ")
        key = (type(error), str(error.where), message, error.hint)
        known = self._found.get(key)
        if known is None:
            error.message = message
            known = self._found[key] = (error, [])
        if host is not None and host not in known[1][-1:]:
            known[1].append(host)

    def add_absence(self, error: FazaiError, host: str | None = None) -> None:
        """Add an error about a missing thing, unless that may stand in what could not be read."""
        for each in error.errors:
            if self._may_be_lost(each):
                self.count += 1
            else:
                self.add(each, host)

    def _may_be_lost(self, error: FazaiError) -> bool:
        return not self.whole and error.meant is None

    def extend(self, errors: Iterable[FazaiError], host: str | None = None) -> None:
        for error in errors:
            self.add(error, host)

    def check(self) -> None:
        """End here if anything is wrong. Raises Errors: all of them, in the order of their places."""
        if not self._found:
            return
        for error, hosts in self._found.values():
            if hosts:
                error.message = f"{error.message}, for {_name_hosts(hosts)}"
        raise Errors(sorted((error for error, _ in self._found.values()), key=_sort_key))


def _name_hosts(hosts: list[str]) -> str:
    more = len(dict.fromkeys(hosts)) - 1
    return f"{hosts[0]} and {count_noun(more, 'more host')}" if more else hosts[0]


def _sort_key(error: FazaiError) -> tuple[int, str, int, int]:
    where = error.where
    if isinstance(where, Mark):
        return 0, where.file, where.line, where.column
    return 1, str(where or ""), 0, 0
