"""The daemon's policy: reads the file again when it changed, counts uses, and fails closed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fazai.daemon.events.announcer import AUDIT, Announcer, log_event
from fazai.daemon.policy.following import FollowedFile
from fazai.loop.effects import Effect
from fazai.policy.deciding import decide, find_shell_refusal
from fazai.policy.protection import protected_paths
from fazai.policy.reading import KnownWords, digest_of, load_policy
from fazai.policy.values import Decision, Policy
from fazai.service.prometheus import Family, Metric
from fazai.store.rules import RuleStore
from fazai.wire.events import Level

_LOGGER = "fazai.daemon.policy"
_DECISIONS = Metric("fazai_policy_decisions_total", "counter", "Decisions on effects.", ("verdict",))
_VALID = Metric("fazai_policy_valid", "gauge", "1 where the policy can be used, else 0: nothing is allowed.")


class PolicyBook:
    """The policy of one daemon, as its file says at the moment. Used on the daemon's event loop."""

    def __init__(
        self,
        file: Path,
        store: RuleStore,
        announcer: Announcer,
        *,
        known: Callable[[], KnownWords] = KnownWords,
        protected: Sequence[Path] = (),
        required: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`known`: the words that rules may use; `protected`: files and folders of fazai's own that no rule
        reaches, beside the policy itself; `required`: it is an error that there is no file."""
        self.file = file
        self._store, self._announcer, self._now = store, announcer, now
        self._read_known = known
        self._known: KnownWords | None = None
        self._protected = protected_paths(file, *protected)
        self._required = required
        self._followed = FollowedFile(file)
        self._policy = Policy()
        self._counts: Counter[str] = Counter({"allow": 0, "ask": 0, "refuse": 0})

    # -- the file

    def load(self) -> None:
        """Read the file, and say in the log what it holds."""
        self.policy  # noqa: B018 - it is read where it has changed

    @property
    def policy(self) -> Policy:
        """The policy as the file says now; one that is `broken` where it cannot be used."""
        first = not self._followed.looked
        if self._followed.has_changed():
            self._read(first)
        return self._policy

    @property
    def generation(self) -> str:
        """The digest of the policy as the file says now."""
        return self.policy.generation

    def _read(self, first: bool) -> None:
        before = self._policy
        if not self._followed.is_there and not self._required:
            self._policy = Policy(file=str(self.file), generation=digest_of(b""), protected=self._protected)
            if first:
                return
        else:
            if self._known is None:
                self._known = self._read_known()
            self._policy = load_policy(self.file, self._known, self._protected)
            self._required = True  # a file that goes away later is a mistake, and no policy
        found = self._policy
        if found.broken is not None:
            if found.broken != before.broken:
                self._say("error", f"the policy cannot be used, and nothing is allowed: {found.broken}")
        elif first or found.generation != before.generation or before.broken is not None:
            rules = f"{len(found.rules)} rules, {len(found.deny)} that deny, {len(found.shell)} programs"
            self._say("info", f"the policy {self.file} was read ({found.generation[:12]}): {rules}")

    def _say(self, level: Level, text: str) -> None:
        self._announcer.say(level, log_event(level, text, AUDIT), AUDIT)

    # -- decisions

    async def decide(self, effect: Effect, *, tainted: bool) -> Decision:
        """Decide on an effect, and count nothing: an effect that is allowed needs `note_use` before it is
        carried out. Raises StateError."""
        policy, now = self.policy, self._now()
        if policy.broken is None and effect.policy != policy.generation:
            text = "the policy changed since it was prepared; propose it again"
            return Decision(verdict="ask", reason=text)
        uses = await self._store.policy_uses(now)
        return decide(policy, effect, tainted=tainted, uses=uses, now=now)

    async def note_use(self, rule: str, effect: Effect) -> bool:
        """Count a use of a rule for an effect. False, with nothing counted, where others used it up meanwhile
        or the rule is gone: then the effect is not allowed. Raises StateError."""
        found = self.policy.find_rule(rule)
        if found is None or effect.policy != self.generation:
            return False
        if not await self._store.claim_policy_use(rule, effect.digest, self._now(), found.per_hour):
            return False
        targets = ", ".join(effect.targets)
        self._say("info", f"the rule {rule} of the policy allowed {effect.digest[:12]} on {targets}")
        return True

    async def claim(self, effect: Effect, *, tainted: bool) -> Decision:
        """Decide on an effect, and count the use of the rule that allows it, both or neither. Raises
        StateError."""
        decision = await self.decide(effect, tainted=tainted)
        if decision.verdict == "allow":
            assert decision.rule is not None
            if not await self.note_use(decision.rule, effect):
                text = f"the rule {decision.rule} was used up meanwhile"
                decision = replace(decision, verdict="ask", reason=text, cap=True)
        self._counts[decision.verdict] += 1
        return decision

    def find_shell_refusal(self, target: str, argv: Sequence[str]) -> str | None:
        """Return why this program may not even be proposed for a host over SSH; None where it may."""
        return find_shell_refusal(self.policy, target, tuple(argv))

    def families(self) -> Iterable[Family]:
        """Return the metrics of the policy."""
        yield _DECISIONS.by_label(self._counts)
        yield _VALID.single(self.policy.broken is None)
