"""What a change of this run may alter for the resources behind it: those are looked at again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from fazai.hosts.base import Base
from fazai.hosts.kind import Answers, HostKind, Want
from fazai.hosts.questions import FileAt, Output, PathState, Question, Shell
from fazai.hosts.quoting import quoted
from fazai.model import Verb

__all__ = [
    "Names",
    "Touched",
    "folders_of",
    "paths_of",
    "places_of",
    "reads",
    "same_file",
    "spanned",
    "touched_by",
    "where_are",
]


def reads(kind: HostKind, want: Want) -> tuple[str, ...] | None:
    """The paths on which depends what a resource finds; None: programs are asked, which may look anywhere."""
    paths = []
    for question in kind.ask(want):
        if isinstance(question, Shell):
            return None
        paths.append(question.path)
    return tuple(paths)


class Names:
    """The names of files, as far as a look tells: a folder may be reached through links as well."""

    def __init__(self, folders: Sequence[str], answers: Answers) -> None:
        answer = answers.get(*where_are(folders)) if folders else None
        found = (
            answer.out.decode("utf-8", "surrogateescape").split("\0") if isinstance(answer, Output) else ()
        )
        self._folders = {
            folder: real.rstrip("/") for folder, real in zip(folders, found, strict=False) if real
        }
        self._links = {
            question.path: state.real
            for question, state in answers.items()
            if isinstance(question, FileAt) and isinstance(state, PathState) and state.real
        }

    def of(self, path: str) -> set[str]:
        """The path, where it leads to if that is followed, and both without links on the way."""
        found = {path, self._links.get(path, path)}
        if not self._folders:  # nothing was asked about them, as nothing depends on it
            return found
        for each in tuple(found):
            above = next((folder for folder in _folders(each) if folder in self._folders), "")
            found.add(self._folders.get(above, "") + each[len(above) :])
        return found


def paths_of(questions: Iterable[Question]) -> Iterator[str]:
    """Those that are asked about."""
    return (question.path for question in questions if not isinstance(question, Shell))


def places_of(answers: Answers) -> dict[str, str]:
    """Where those paths end that go through links, by path."""
    asked = ((q.path, state) for q, state in answers.items() if isinstance(q, FileAt))
    return {p: f"{s.place}\0{s.real}" for p, s in asked if isinstance(s, PathState) and (s.place or s.real)}


def folders_of(paths: Collection[str]) -> tuple[str, ...]:
    """The folders of all paths, if one name stands in several of them: these may be one folder, and then two
    paths are one file. Otherwise none, as nothing depends on where they are."""
    above: dict[str, str] = {}
    for path in paths:
        for each in (path, *_folders(path)):
            folder, _, name = each.rpartition("/")
            if above.setdefault(name, folder) != folder:
                return tuple(dict.fromkeys(folder for path in paths for folder in _folders(path)))
    return ()


def where_are(folders: Sequence[str]) -> tuple[Shell]:
    """The question where folders are, links on the way followed; nothing for one that cannot be entered."""
    tell = "2>/dev/null && printf '%s\\0' \"$PWD\" || printf '\\0'"
    lines = (f"cd -P {quoted(folder)} {tell}" for folder in folders)
    return (Shell("\n".join(lines)),)


class Touched:
    """What some changes may have altered. They are numbered from 1 on; of several the last one counts."""

    def __init__(self, names: Names) -> None:
        self._names = names
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
        for path in set().union(*map(self._names.of, paths)):
            self.paths[path] = self._count
            if verb is Verb.CREATE:  # its folders may have been made with it
                self.paths.update(dict.fromkeys(_folders(path), self._count))
            if not kind.hollow or verb is Verb.DELETE:
                self._through[path] = self._count
            elif verb is Verb.UPDATE:
                self._entered[path] = self._count

    def last(
        self,
        paths: Iterable[str] | None,
        *,
        failed: bool = False,
        denied: bool = False,
        below: bool = False,
    ) -> int:
        """The last change that may have altered what was found at these paths; 0: none. `failed`: what is
        there could not be told; `denied`: because a folder may not be entered, which no program mends;
        `below`: all that is below them matters."""
        if paths is None:
            return self._count
        found = [0 if denied else self.anything]
        for path in set().union(*map(self._names.of, paths)):
            found.append(self.paths.get(path, 0))
            if below:
                found += [number for each, number in self.paths.items() if each.startswith(f"{path}/")]
            for folder in _folders(path):
                found.append(self._through.get(folder, 0))
                if failed:
                    found.append(self._entered.get(folder, 0))
        return max(found)


def _folders(path: str) -> Iterator[str]:
    """Those in which it stands, the nearest first."""
    while (path := path.rpartition("/")[0]) != "":
        yield path


def touched_by(kinds: Mapping[str, HostKind], changes: Iterable[tuple[Want, Verb]], names: Names) -> Touched:
    """What these have altered."""
    touched = Touched(names)
    for want, verb in changes:
        touched.add(kinds[want.resource.kind], want, verb)
    return touched


def spanned(bases: Iterable[Base], path: str) -> bool:
    """Whether one of these is a folder of that path with all that is in it."""
    return any(base.path == path and base.type == "directory" and base.sha256 for base in bases)


def same_file(path: str, others: Iterable[str], *, below: bool = False) -> Shell:
    """A question that succeeds when one of the others is the same file, or is in the same folder by the same
    name: a link on the way gives it two names. `below`: also when it is anywhere below it."""
    folder, _, name = path.rpartition("/")
    lines = [f"fz_p={quoted(path)}; fz_d={quoted(folder or '/')}"]
    if below:
        lines.append('fz_r=$(cd -P "$fz_p" 2>/dev/null && pwd -P) || exit 1')
    for other in others:
        parent, _, last = other.rpartition("/")
        lines.append(f'[ "$fz_p" -ef {quoted(other)} ] && exit 0')
        if below:
            where = f"$(cd -P {quoted(parent or '/')} 2>/dev/null && pwd -P)"
            lines.append(f'case {where}/ in "$fz_r"/*) exit 0;; esac')
        if last == name:
            lines.append(f'[ "$fz_d" -ef {quoted(parent or "/")} ] && exit 0')
    return Shell("\n".join([*lines, "exit 1"]))
