"""The event rules of a daemon, as their file says at the moment; with a file that is wrong there are none,
and what the one before it protected stays protected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fazai.daemon.events.announcer import Announcer, log_event
from fazai.daemon.policy.following import FollowedFile
from fazai.errors import count_noun
from fazai.rules.reading import load_rules
from fazai.rules.values import RuleSet
from fazai.wire.events import Level

LOGGER = "fazai.daemon.rules"
_LOOK_S = 1.0  # each record of telemetry asks


class RuleBook:
    """Follows the file of the event rules. `jobs`: the daemon's jobs, and whether each takes entries.

    `knows_never` is False while the file was wrong since the start: nobody knows what it protects then.
    """

    def __init__(
        self, file: Path, jobs: Mapping[str, bool], announcer: Announcer, *, required: bool = False
    ) -> None:
        self.file = file
        self._jobs, self._announcer, self._required = jobs, announcer, required
        self._followed = FollowedFile(file, _LOOK_S)
        self._found = RuleSet(file=str(file))
        self.knows_never = False

    @property
    def rules(self) -> RuleSet:
        """The rules as the file says now; none where it cannot be used."""
        if self._followed.has_changed():
            self._read()
        return self._found

    def _read(self) -> None:
        if not self._followed.is_there and not self._required:
            self._found, self.knows_never = RuleSet(file=str(self.file)), True
            return
        before, self._found = self._found, load_rules(self.file, self._jobs)
        self._required = True  # a file that goes away later is a mistake
        if self._found.broken is None:
            self.knows_never = True
        else:  # nobody took back what was protected
            self._found = replace(self._found, never=before.never)
        if self._found.broken is not None:
            if self._found.broken != before.broken:
                self._say("error", f"the event rules cannot be used, and none acts: {self._found.broken}")
        elif self._found.generation != before.generation:
            text = f"{self.file} was read: {count_noun(len(self._found.rules), 'event rule')}"
            self._say("info", text)

    def _say(self, level: Level, text: str) -> None:
        self._announcer.say(level, log_event(level, text, LOGGER), LOGGER)
