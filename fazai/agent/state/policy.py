"""The agent's own policy for reconciles: whether this machine may be looked at or written, which
kinds, and where."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from fazai.agent.errors import Refused
from fazai.providers.hosts.kind import Want
from fazai.providers.hosts.shell.questions import ContentOf, FileAt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Final, Protocol

    from fazai.model import Resource
    from fazai.providers.hosts.kind import HostKind

    class ReconcileRules(Protocol):
        """`reconcile:` of agent.yml, as `fazai.agent.config` reads it. `kinds`, `paths`: None where they are
        absent."""

        @property
        def mode(self) -> str: ...
        @property
        def kinds(self) -> Sequence[str] | None: ...
        @property
        def paths(self) -> Sequence[str] | None: ...


#: A link that leads to a link, and so on: the kernel follows as many.
_MOST_LINKS: Final = 40
#: A field of many kinds that runs a program, which is not what the kind is for: it is named by itself, as in
#: `host.file.validate`.
_BESIDE: Final = "validate"


class Policy:
    """The rules of one agent. `root`: the folder that stands for / ("" for the machine itself); `own`: the
    agent's policy, key and state, which nobody writes through it."""

    def __init__(
        self, rules: ReconcileRules, kinds: Mapping[str, HostKind], root: str, own: Sequence[str] = ()
    ) -> None:
        self._rules, self._kinds, self._root = rules, kinds, root
        self._own = [os.path.realpath(path) for path in own if path]
        self._named = frozenset(rules.kinds or ())

    def check_mode(self, *, writes: bool = False) -> None:
        """Raise Refused where this machine is not to be reconciled, or only to be looked at."""
        if self._rules.mode == "no":
            raise _refusal(
                "this machine is not to be reconciled",
                "in its agent.yml: reconcile: {mode: look}; then SIGHUP",
            )
        if writes and self._rules.mode != "yes":
            raise _refusal(
                "this machine may only be looked at", "in its agent.yml: reconcile: {mode: yes}; then SIGHUP"
            )

    def check(self, resource: Resource, *, writes: bool = False) -> None:
        """Raise Refused where a resource is not allowed: for its kind, for a text of it that would be run,
        or for a path."""
        self.check_mode(writes=writes)
        kind, title = self._kinds[resource.kind], f"{resource.kind} {resource.identity}"
        if self._rules.kinds is not None and kind.name not in self._named:
            raise _refusal(f"{title}: this kind is not allowed here", _kinds_hint(kind.name))
        for field in sorted(kind.programs & resource.fields.keys()):
            name = f"{kind.name}.{field}" if field == _BESIDE else kind.name
            if name not in self._named:
                text = f"{title}: {field} would be run as a program, and that is not allowed here"
                raise _refusal(text, _kinds_hint(name))
        self._check_own(kind, resource, title)
        if self._rules.paths is not None:
            self._check_paths(kind, resource, title)

    def _check_own(self, kind: HostKind, resource: Resource, title: str) -> None:
        """Raise Refused for what is the agent's own: who writes its policy has none."""
        want = Want(resource, _as_it_is)
        touched = [(path, False) for path in kind.touches(want) or ()]
        whole = want.absent or bool(resource.fields.get("recurse"))
        for path, follow in [*touched, *_paths_asked(kind, want)] if touched else ():
            real = os.path.realpath(self._root or "/").rstrip("/") + (
                resolve_path(self._root, path, follow=follow) or path
            )
            for own in self._own:
                if _is_below(real, own) or (whole and (path, follow) in touched and _is_below(own, real)):
                    text = f"{title}: {path} is the agent's own, or holds what is"
                    raise _refusal(text, "change it on the machine")

    def _check_paths(self, kind: HostKind, resource: Resource, title: str) -> None:
        want = Want(resource, _as_it_is)
        touched = kind.touches(want)
        # programs of the machine change what they are for
        if (not touched or kind.reaches_further(want)) and kind.name not in self._named:
            text = f"{title}: what it changes has no path, and only some paths are allowed here"
            raise _refusal(text, _kinds_hint(kind.name))
        if not touched:
            return
        for path in touched:
            self._check_path(path, title, follow=False)
        for path, follow in _paths_asked(kind, want):
            self._check_path(path, title, follow=follow)

    def _check_path(self, path: str, title: str, *, follow: bool) -> None:
        """Raise Refused unless a path is below one that is allowed, by its name and by where it leads."""
        real = resolve_path(self._root, path, follow=follow)
        for each in (path, real):
            if each is None or not any(_is_below(each, root) for root in self._rules.paths or ()):
                leads = f", where {path} leads," if each not in (None, path) else ""
                text = f"{title}: {each or path}{leads} is not a path that is allowed here"
                raise _refusal(text, "paths of reconcile in its agent.yml names those that are; then SIGHUP")


def _kinds_hint(name: str) -> str:
    return (
        f"in its agent.yml, `kinds` of `reconcile` must name {name}, and with it every other kind"
        " that is wanted; then SIGHUP"
    )


def resolve_path(root: str, path: str, *, follow: bool = True) -> str | None:
    """Return where a path leads through links, as the machine has them now; links do not lead out of `root`.
    `follow`: also where the last name of it leads. None: it leads in a circle."""
    found, rest, links = "", [name for name in path.split("/") if name], 0
    while rest:
        name = rest.pop(0)
        if name in (".", ".."):
            found = posixpath.dirname(found) if name == ".." else found
            found = "" if found == "/" else found
            continue
        here = f"{found}/{name}"
        target = _read_link(f"{root}{here}") if rest or follow else None
        if target is None:
            found = here
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        found = "" if target.startswith("/") else found
        rest = [each for each in target.split("/") if each] + rest
    return found or "/"


def _paths_asked(kind: HostKind, want: Want) -> Iterator[tuple[str, bool]]:
    """Iterate over the paths that a kind looks at, and whether it follows a link there."""
    for question in kind.ask(want):
        if isinstance(question, FileAt):
            yield question.path, question.follow
        elif isinstance(question, ContentOf):
            yield question.path, True


def _read_link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


def _is_below(path: str, root: str) -> bool:
    root = root.rstrip("/")
    return path == root or path.startswith(f"{root}/")


def _as_it_is(path: str) -> str:
    return path


def _refusal(text: str, hint: str) -> Refused:
    return Refused("not_allowed", text, hint)
