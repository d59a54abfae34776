"""The stored configuration of one firewall, with its history.

Collections are dictionaries that are never changed in place: a write replaces the collection that it
touches, so that an earlier configuration costs only what differs, and everything computed from a
collection may be kept for as long as that very dictionary is the current one.

With a folder, every write is appended to a journal before it is answered; the journal is folded into
`base.json` when it has grown and when the firewall is closed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from fazai.errors import StateError
from fazai.files import replace_file

Item = Mapping[str, str]
Collection = Mapping[str, Item]
State = Mapping[str, Collection]
ItemChange = tuple[str, str, dict[str, str] | None]  # collection, key, and the item unless it was deleted

EMPTY: Final[Collection] = {}
SETTINGS: Final = ""  # the key of the single item that holds a model's settings
FOLD_AT: Final = 2000


class ConfigRevision(msgspec.Struct, frozen=True):
    """One entry of the history: the configuration as it was after a write."""

    number: str  # seconds with up to four decimals; the id is config-<number>.xml
    why: str
    who: str
    state: State

    @property
    def id(self) -> str:
        return f"config-{self.number}.xml"

    def as_line(self, changes: list[ItemChange] | None = None) -> _JournalLine:
        """Return the line of the journal: with the changes, or with everything."""
        state = _plain_state(self.state) if changes is None else None
        return _JournalLine(self.number, self.why, self.who, changes or [], state)


class _JournalLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the journal."""

    number: str = ""
    why: str = ""
    who: str = ""
    changes: list[ItemChange] = []
    state: dict[str, dict[str, dict[str, str]]] | None = None  # a revert: everything
    forget: str = ""  # a history entry that was deleted


class ConfigEdit:
    """Changes that are being collected; nothing is seen by others before `commit`."""

    def __init__(self, config: FirewallConfig) -> None:
        self._config = config
        self._touched: dict[str, dict[str, Item]] = {}
        self._changes: list[tuple[str, str, Item | None]] = []

    def items(self, path: str) -> Collection:
        return self._touched[path] if path in self._touched else self._config.items(path)

    def put(self, path: str, key: str, item: Item) -> None:
        self._own_copy(path)[key] = item
        self._changes.append((path, key, item))

    def drop(self, path: str, key: str) -> None:
        self._own_copy(path).pop(key, None)
        self._changes.append((path, key, None))

    def _own_copy(self, path: str) -> dict[str, Item]:
        if path not in self._touched:
            self._touched[path] = dict(self._config.items(path))
        return self._touched[path]

    def commit(self, why: str, who: str, now: float) -> ConfigRevision:
        """Make the changes current, as one entry of the history (also when nothing differs)."""
        config = self._config
        for path, items in self._touched.items():
            keys = frozenset(key for changed, key, _ in self._changes if changed == path)
            config.changed[path] = (config.items(path), items, keys)
        return config.commit({**config.state, **self._touched}, self._changes, why, who, now)


class FirewallConfig:
    """The current state of one firewall, its history, and their folder if there is one.

    The state is what the folder keeps, `start` for a new one; without a folder nothing is kept. Raises
    StateError when the folder cannot be used.
    """

    def __init__(self, start: State, keep: int, folder: Path | None = None) -> None:
        self.state: State = start
        self.history: deque[ConfigRevision] = deque(maxlen=keep)
        self.writes = 0
        # collection -> before and after its last change, and the keys that it concerned
        self.changed: dict[str, tuple[Collection, Collection, frozenset[str]]] = {}
        self._last = 0.0
        self._folder = folder
        self._journal: int | None = None
        self._lines = 0
        if folder is not None:
            self._open_folder(folder)

    def items(self, path: str) -> Collection:
        return self.state.get(path, EMPTY)

    def settings(self, model: str) -> Item:
        return self.items(model).get(SETTINGS, {})

    def edit(self) -> ConfigEdit:
        return ConfigEdit(self)

    def commit(
        self, state: State, changes: Iterable[tuple[str, str, Item | None]], why: str, who: str, now: float
    ) -> ConfigRevision:
        written = changes if self._journal is not None else ()
        rows = [(path, key, None if item is None else dict(item)) for path, key, item in written]
        return self._record_revision(ConfigRevision(self._next_number(now), why, who, state), rows)

    def revert(self, revision: ConfigRevision, why: str, who: str, now: float) -> ConfigRevision:
        """Make an earlier configuration the current one; the history goes on."""
        return self._record_revision(ConfigRevision(self._next_number(now), why, who, revision.state))

    def restore(
        self, paths: Iterable[str], revision: ConfigRevision, why: str, who: str, now: float
    ) -> ConfigRevision:
        """Take only some collections from an earlier configuration (the savepoint rollback)."""
        state = {**self.state, **{path: revision.state.get(path, EMPTY) for path in paths}}
        return self._record_revision(ConfigRevision(self._next_number(now), why, who, state))

    def find(self, number: str) -> ConfigRevision | None:
        """Return a history entry by the number in its id, exactly as written there."""
        return next((revision for revision in self.history if revision.number == number), None)

    def forget(self, revision: ConfigRevision) -> None:
        self.history.remove(revision)
        if self._journal is not None:
            self._append_line(_JournalLine(forget=revision.number))

    def close(self) -> None:
        """Fold the journal into the base, durably."""
        if self._journal is not None and self._folder is not None:
            self._fold_journal(self._folder)
            os.close(self._journal)
            self._journal = None

    # internals

    def _record_revision(
        self, revision: ConfigRevision, changes: list[ItemChange] | None = None
    ) -> ConfigRevision:
        """Write a revision into the journal, and make it the current one."""
        if self._journal is not None:
            self._append_line(revision.as_line(changes))
        self.state = revision.state
        self.history.append(revision)
        self.writes += 1
        if self._journal is not None and self._folder is not None and self._lines >= FOLD_AT:
            self._fold_journal(self._folder)
        return revision

    def _next_number(self, now: float) -> str:
        self._last = max(round(now, 4), round(self._last + 0.0001, 4))
        text = f"{self._last:.4f}"
        # the file name has up to four decimals, never fewer than three: a revision with two of them
        # (as the savepoint call of 26.1 answers it) must not name a file by accident
        return text[:-1] if text.endswith("0") and not text.endswith("00") else text

    def _append_line(self, line: _JournalLine) -> None:
        assert self._journal is not None
        os.write(self._journal, msgspec.json.encode(line) + b"\n")
        self._lines += 1

    def _open_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            base = folder / "base.json"
            if base.exists():
                self._read_base(base.read_bytes())
            journal = folder / "journal.ndjson"
            if journal.exists():
                self._replay_journal(journal.read_bytes())
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(journal, flags, 0o600)
            if not base.exists() or self._lines:
                self._fold_journal(folder)
        except (OSError, msgspec.DecodeError) as error:
            raise StateError(
                f"the lab's state in {folder} cannot be used: {error}",
                hint="`fazai lab reset` starts this firewall afresh",
            ) from error

    def _read_base(self, data: bytes) -> None:
        lines = [msgspec.json.decode(line, type=_JournalLine) for line in data.splitlines()]
        self.state = lines[0].state or {}
        self.history.clear()
        if lines[0].number:
            self.history.append(ConfigRevision(lines[0].number, lines[0].why, lines[0].who, self.state))
        for line in lines[1:]:
            self._play_line(line)

    def _replay_journal(self, data: bytes) -> None:
        complete = data[: data.rfind(b"\n") + 1]  # a last line cut short was never answered
        for line in complete.splitlines():
            self._play_line(msgspec.json.decode(line, type=_JournalLine))
            self._lines += 1

    def _play_line(self, line: _JournalLine) -> None:
        if line.forget:
            found = self.find(line.forget)
            if found is not None:
                self.history.remove(found)
            return
        if line.state is not None:
            state: State = line.state
        else:
            touched: dict[str, dict[str, Item]] = {}
            for path, key, item in line.changes:
                target = touched.setdefault(path, dict(self.items(path)))
                if item is None:
                    target.pop(key, None)
                else:
                    target[key] = item
            state = {**self.state, **touched}
        self.state = state
        self._last = max(self._last, float(line.number))
        self.history.append(ConfigRevision(line.number, line.why, line.who, state))

    def _fold_journal(self, folder: Path) -> None:
        """Write base.json (the oldest kept configuration, then the changes since) and empty the journal."""
        revisions = list(self.history)
        lines = [revisions[0].as_line() if revisions else _JournalLine(state=_plain_state(self.state))]
        for before, after in pairwise(revisions):
            lines.append(_difference_line(before.state, after))
        if revisions and revisions[-1].state is not self.state:
            last = msgspec.structs.replace(revisions[-1], number=f"{self._last:.4f}", state=self.state)
            lines.append(last.as_line())
            lines.append(_JournalLine(forget=last.number))
        replace_file(folder / "base.json", b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        if self._journal is not None:
            os.ftruncate(self._journal, 0)
        self._lines = 0


def _plain_state(state: State) -> dict[str, dict[str, dict[str, str]]]:
    return {path: {key: dict(item) for key, item in items.items()} for path, items in state.items()}


def _difference_line(before: State, after: ConfigRevision) -> _JournalLine:
    """Return the line that leads to the next configuration; everything, when only that is exact."""
    changes: list[ItemChange] = []
    for path, items in after.state.items():
        old = before.get(path, EMPTY)
        if old is items:
            continue
        changes += [(path, key, None) for key in old if key not in items]
        changes += [(path, key, dict(item)) for key, item in items.items() if old.get(key) != item]
        kept = [key for key in old if key in items]
        added = [key for key in items if key not in old]
        if kept + added != list(items):
            return after.as_line()
    return after.as_line(changes)


def collections_below(state: State, prefix: str) -> list[str]:
    """Return the collections below a model."""
    return [path for path in state if path == prefix or path.startswith(f"{prefix}.")]


def stored_text(value: Any) -> str:
    """Return a posted scalar as it is stored."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
