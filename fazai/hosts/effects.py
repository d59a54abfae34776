"""What a change of this run may alter for the resources behind it: those are looked at again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fazai.hosts.kind import HostKind, Want
from fazai.hosts.questions import Shell
from fazai.hosts.quoting import quoted
from fazai.model import Verb

__all__ = ["Touched", "reads", "same_file", "touched_by"]


def reads(kind: HostKind, want: Want) -> tuple[str, ...] | None:
    """The paths on which depends what a resource finds; None: programs are asked, which may look anywhere."""
    paths = []
    for question in kind.ask(want):
        if isinstance(question, Shell):
            return None
        paths.append(question.path)
    return tuple(paths)


class Touched:
    """What some changes may have altered. They are numbered from 1 on; of several the last one counts."""

    def __init__(self) -> None:
        self.paths: dict[str, int] = {}
        self.anything = 0  # the last change that may have done so anywhere
        self._count = 0
        self._through: dict[str, int] = {}  # paths below which all may be another
        self._entered: dict[str, int] = {}  # folders that may be entered now, and could not before

    def add(self, kind: HostKind, want: Want, verb: Verb) -> None:
        self._count += 1
        paths = kind.touches(want)
        if paths is None:
            self.anything = self._count
            return
        for path in paths:
            self.paths[path] = self._count
            if verb is Verb.CREATE:  # its folders may have been made with it
                self.paths.update(dict.fromkeys(_folders(path), self._count))
            if not kind.hollow or verb is Verb.DELETE:
                self._through[path] = self._count
            elif verb is Verb.UPDATE:
                self._entered[path] = self._count

    def last(self, paths: Iterable[str] | None, *, failed: bool = False, denied: bool = False) -> int:
        """The last change that may have altered what was found at these paths; 0: none. `failed`: what is
        there could not be told; `denied`: because a folder may not be entered, which no program mends."""
        if paths is None:
            return self._count
        found = [0 if denied else self.anything]
        for path in paths:
            found.append(self.paths.get(path, 0))
            for folder in _folders(path):
                found.append(self._through.get(folder, 0))
                if failed:
                    found.append(self._entered.get(folder, 0))
        return max(found)


def _folders(path: str) -> Iterator[str]:
    """Those in which it stands, the nearest first."""
    while (path := path.rpartition("/")[0]) != "":
        yield path


def touched_by(kinds: Mapping[str, HostKind], changes: Iterable[tuple[Want, Verb]]) -> Touched:
    """What these have altered."""
    touched = Touched()
    for want, verb in changes:
        touched.add(kinds[want.resource.kind], want, verb)
    return touched


def same_file(path: str, others: Iterable[str]) -> Shell:
    """A question that succeeds when one of the others is the same file, or is in the same folder by the same
    name: a link on the way gives it two names."""
    folder, _, name = path.rpartition("/")
    lines = [f"fz_p={quoted(path)}; fz_d={quoted(folder or '/')}"]
    for other in others:
        parent, _, last = other.rpartition("/")
        lines.append(f'[ "$fz_p" -ef {quoted(other)} ] && exit 0')
        if last == name:
            lines.append(f'[ "$fz_d" -ef {quoted(parent or "/")} ] && exit 0')
    return Shell("\n".join([*lines, "exit 1"]))
