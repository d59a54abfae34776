"""Selection of resources: tags as in Ansible, and globs of kinds."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import compress
from typing import Final

from fazai.errors import InputError, did_you_mean
from fazai.model import Resource
from fazai.playbook.nodes import Selection

_SPECIAL: Final = ("all", "always", "never", "tagged", "untagged")


class ResourceChooser:
    """Chooses resources, and remembers what there was to choose from."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._tags: dict[tuple[str, ...], bool] = {}
        self._kinds: dict[str, bool] = {}
        self.chosen = 0

    def choose(self, resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
        """Return the selected resources; the same tuple if all are."""
        # both are asked of every resource: what there is to choose from is remembered
        matches = (self._matches_kind(each.kind) & self._matches_tags(each.tags) for each in resources)
        chosen = tuple(compress(resources, matches))
        self.chosen += len(chosen)
        return resources if len(chosen) == len(resources) else chosen

    def problems(self) -> Iterable[InputError]:
        """Return errors for what of the selection matched nothing, after everything was chosen."""
        known = {tag for tags in self._tags for tag in tags}
        given = (("--tags", self._selection.tags), ("--skip-tags", self._selection.skip_tags))
        found = [
            InputError(
                f'no resource has the tag "{tag}"',
                where=option,
                meant=did_you_mean(tag, known),
                hint=f"there are {', '.join(sorted(known))}" if known else None,
            )
            for option, tags in given
            for tag in tags
            if tag not in _SPECIAL and tag not in known
        ]
        for glob in self._selection.kinds:
            if not any(fnmatchcase(kind, glob) for kind in self._kinds):
                text = f'no resource is of the kind "{glob}"'
                hint = f"there are {', '.join(sorted(self._kinds))}" if self._kinds else None
                meant = did_you_mean(glob, self._kinds)
                found.append(InputError(text, where="--kind", hint=hint, meant=meant))
        if not found and self._selection.filters and not self.chosen:
            hint = "each part matches, but not all at once"
            found.append(InputError("the selection leaves no resource", hint=hint))
        return found

    def _matches_kind(self, kind: str) -> bool:
        known = self._kinds.get(kind)
        if known is None:
            globs = self._selection.kinds
            known = self._kinds[kind] = not globs or any(fnmatchcase(kind, glob) for glob in globs)
        return known

    def _matches_tags(self, tags: tuple[str, ...]) -> bool:
        known = self._tags.get(tags)
        if known is None:
            known = self._tags[tags] = _tags_run(set(tags), self._selection)
        return known


def _tags_run(tags: set[str], selection: Selection) -> bool:
    """Tell whether resources with these tags run, by Ansible's rules (`playbook/taggable.py`)."""
    only = set(selection.tags) or {"all"}
    skip = set(selection.skip_tags)
    tagged = bool(tags)
    tags = tags or {"untagged"}
    runs = (
        "always" in tags
        or bool(tags & only)
        or ("never" not in tags and ("all" in only or ("tagged" in only and tagged)))
    )
    if not runs or not skip:
        return runs
    if "all" in skip:
        return "always" in tags and "always" not in skip
    return not tags & skip and not ("tagged" in skip and tagged)
