"""Effects of a change on the resources behind it in the run, which are then looked at again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from fazai.model import Verb
from fazai.providers.hosts.kind import Answers, HostKind, Want
from fazai.providers.hosts.shell.questions import FileAt, Output, OutputOf, PathState
from fazai.providers.hosts.shell.quoting import quote


def paths_read(kind: HostKind, want: Want) -> tuple[str, ...] | None:
    """Return the paths that decide what a resource finds; None: programs are asked, which may look
    anywhere."""
    paths = []
    for question in kind.ask(want):
        if isinstance(question, OutputOf):
            return None
        paths.append(question.path)
    return tuple(paths)


class PathNames:
    """The other names of files, as far as a look tells: a folder may be reached through links as well."""

    def __init__(self, folders: Mapping[str, str], links: Mapping[str, str]) -> None:
        self.folders = folders  # where folders are without links on the way
        self.links = links  # where links lead that are followed

    @classmethod
    def read(cls, folders: Sequence[str], answers: Answers) -> PathNames:
        """Read the names out of the answers of a look; `folders` were asked for (`folders_question`)."""
        answer = answers.get(*folders_question(folders)) if folders else None
        out = answer.out.decode("utf-8", "surrogateescape") if isinstance(answer, Output) else ""
        pairs = zip(folders, out.split("\0"))
        links = {path: state.real for path, state in _path_states(answers) if state.real}
        return cls({folder: real.rstrip("/") for folder, real in pairs if real}, links)

    def of(self, path: str) -> set[str]:
        """Return the path, the one that it leads to if that is followed, and both without links on the
        way."""
        found = {path, self.links.get(path, path)}
        if not self.folders:  # nothing was asked about them, as nothing depends on it
            return found
        for each in tuple(found):
            above = next((folder for folder in _folders_of_path(each) if folder in self.folders), "")
            found.add(self.folders.get(above, "") + each[len(above) :])
        return found


def find_places(answers: Answers) -> dict[str, str]:
    """Return where those paths end that go through links, by path."""
    states = _path_states(answers)
    return {path: f"{s.place}\0{s.real}" for path, s in states if s.place or s.real}


def _path_states(answers: Answers) -> Iterator[tuple[str, PathState]]:
    for question, state in answers.items():
        if isinstance(question, FileAt) and isinstance(state, PathState):
            yield question.path, state


def ambiguous_folders(paths: Collection[str]) -> tuple[str, ...]:
    """Return the folders of all paths, if one name stands in several of them: these may be one folder, and
    then two paths are one file. Otherwise none, as nothing depends on where they are."""
    above: dict[str, str] = {}
    for path in paths:
        for each in (path, *_folders_of_path(path)):
            folder, _, name = each.rpartition("/")
            if above.setdefault(name, folder) != folder:
                return tuple(dict.fromkeys(folder for path in paths for folder in _folders_of_path(path)))
    return ()


def folders_question(folders: Sequence[str]) -> tuple[OutputOf]:
    """Return the question where folders are, links on the way followed; its answer is empty for one that
    cannot be entered."""
    tell = "2>/dev/null && printf '%s\\0' \"$PWD\" || printf '\\0'"
    lines = (f"cd -P {quote(folder)} {tell}" for folder in folders)
    return (OutputOf("\n".join(lines)),)


class TouchedPaths:
    """The paths that some changes may have altered. Changes are numbered from 1 on; the last one counts."""

    def __init__(self, names: PathNames) -> None:
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
                self.paths.update(dict.fromkeys(_folders_of_path(path), self._count))
            if not kind.hollow or verb is Verb.DELETE:
                self._through[path] = self._count
            elif verb is Verb.UPDATE:
                self._entered[path] = self._count

    def last(
        self, paths: Iterable[str] | None, *, failed: bool = False, denied: bool = False, below: bool = False
    ) -> int:
        """Return the number of the last change that may have altered what was found at these paths; 0: none.
        `failed`: what is there could not be told; `denied`: because a folder may not be entered, which no
        program mends; `below`: all that is below them matters."""
        if paths is None:
            return self._count
        found = [0 if denied else self.anything]
        for path in set().union(*map(self._names.of, paths)):
            found.append(self.paths.get(path, 0))
            if below:
                found += [number for each, number in self.paths.items() if each.startswith(f"{path}/")]
            for folder in _folders_of_path(path):
                found.append(self._through.get(folder, 0))
                if failed:
                    found.append(self._entered.get(folder, 0))
        return max(found)


def _folders_of_path(path: str) -> Iterator[str]:
    """Iterate over the folders in which a path stands, the nearest first."""
    while (path := path.rpartition("/")[0]) != "":
        yield path


def same_file_question(path: str, others: Iterable[str], *, below: bool = False) -> OutputOf:
    """Return a question that succeeds when one of the others is the same file, or is in the same folder by
    the same name: a link on the way gives it two names. `below`: also when it is anywhere below it."""
    folder, _, name = path.rpartition("/")
    lines = [f"fz_p={quote(path)}; fz_d={quote(folder or '/')}"]
    if below:
        lines.append('fz_r=$(cd -P "$fz_p" 2>/dev/null && pwd -P) || exit 1')
    for other in others:
        parent, _, last = other.rpartition("/")
        lines.append(f'[ "$fz_p" -ef {quote(other)} ] && exit 0')
        if below:
            where = f"$(cd -P {quote(parent or '/')} 2>/dev/null && pwd -P)"
            lines.append(f'case {where}/ in "$fz_r"/*) exit 0;; esac')
        if last == name:
            lines.append(f'[ "$fz_d" -ef {quote(parent or "/")} ] && exit 0')
    return OutputOf("\n".join([*lines, "exit 1"]))
