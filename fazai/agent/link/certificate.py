"""The agent's own certificate: judged before each connection, renewed in time, and asked for anew after it
expired. What reads, signs or waits runs in forked children."""

from __future__ import annotations

import os

from fazai.agent.children import Child
from fazai.agent.errors import Refused
from fazai.agent.link import tls
from fazai.agent.link.errors import LinkError
from fazai.agent.messages import refuse
from fazai.faults import no_fault
from fazai.ids import ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.children import LifePipe
    from fazai.agent.link.dialling import Address
    from fazai.agent.loop import Loop, Timer
    from fazai.agent.serving import Conversation, Log

READ_S = 10.0
RETURN_S = 60.0
#: After a renewal that failed.
AGAIN_S = 3600.0
#: Clocks that differ by more are told as wrong; the daemon refuses such an agent.
SKEW_S = 300.0
#: Between two renewals, however short a certificate's life is.
_LEAST_S = 60.0
#: The renewals of a fleet that was enrolled at once are spread over this part of a certificate's life.
_SPREAD = 0.05
#: The same of a fleet that is asked to renew now: nine minutes of thirty days.
_SOON = 0.0002
#: One call of a timer; clocks that are set meanwhile are noticed after it.
_LONGEST_WAIT_S = 3600.0


class OwnCertificate:
    """The agent's own certificate, as far as it knows it. `config` returns the configuration of the
    moment."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        config: Callable[[], Any],
        *,
        now: Callable[[], float],
        random: Callable[[], float],
        log: Log,
        fault: Callable[[str], None] = no_fault,
    ) -> None:
        self._fault = fault
        self._loop = loop
        self._life = life
        self._config = config
        self._now = now
        self._random = random
        self._log = log
        self._known: tuple[tuple[int, ...], tls.Dates] | None = None
        self._children: set[Child] = set()
        self._timer: Timer | None = None
        self._renewed_at = self._begun_at = float("-inf")  # the last renewal
        self._watched: Conversation | None = None  # the newest one
        self._renewing: Conversation | None = None  # over which a renewal is under way
        self._is_writing = False  # a child makes the next key, or puts the next pair in its place
        self._is_due_again = False
        self._is_proving = False  # authorities that were offered
        self._next_offer: tuple[dict[str, Any], Conversation, Address] | None = None

    @property
    def ends(self) -> float | None:
        """Until when it holds, where that is known (Unix seconds)."""
        return self._known[1].ends if self._known is not None else None

    def is_replaced(self) -> bool:
        """Tell whether one of its files is another one than when it was judged: it was enrolled anew."""
        return self._known is not None and self._known[0] != self._stamp()

    def stop(self) -> None:
        """End what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        for child in self._children:
            child.end()

    def _start(
        self, run: Callable[[], dict[str, Any]], on_done: Callable[[dict[str, Any]], None],
        on_failed: Callable[[LinkError], None], deadline_s: float,
    ) -> None:  # fmt: skip
        def ended(answer: dict[str, Any] | None, reason: str) -> None:
            self._children.discard(child)
            if answer is None:
                on_failed(LinkError("internal", reason))
            elif "error" in answer:
                on_failed(LinkError(str(answer.get("code")), str(answer["error"])))
            else:
                on_done(answer)

        child = Child(self._loop, self._life, run, ended, deadline_s=deadline_s)
        self._children.add(child)

    def check(
        self, address: Address, on_good: Callable[[], None], on_failed: Callable[[LinkError], None]
    ) -> None:
        """Judge the certificate, and where it has expired, ask for another one first."""
        stamp, config = self._stamp(), self._config()
        if self._known is not None and self._known[0] == stamp:
            self._judge(self._known[1], address, on_good, on_failed)
            return

        def run() -> dict[str, Any]:
            from fazai.agent.link import identity, keys  # what only children use is loaded there

            identity.finish_renewal(config.certificate, config.key)
            keys.check_private(config.key)
            return vars(tls.read_certificate(config.ca, config.certificate, config.key))

        def done(answer: dict[str, Any]) -> None:
            dates = tls.Dates(answer["name"], answer["begins"], answer["ends"])
            self._known = stamp, dates
            self._judge(dates, address, on_good, on_failed)

        self._start(run, done, on_failed, READ_S)

    def _judge(
        self, dates: tls.Dates, address: Address, on_good: Callable[[], None],
        on_failed: Callable[[LinkError], None],
    ) -> None:  # fmt: skip
        try:
            tls.check_name(dates, self._config().agent_id)
            tls.check_dates(dates, self._now())
        except LinkError as error:
            if error.code == "expired":
                self._return(address, error, on_good, on_failed)
            else:
                on_failed(error)
            return
        on_good()

    def _return(
        self, address: Address, expired: LinkError, on_good: Callable[[], None],
        on_failed: Callable[[LinkError], None],
    ) -> None:  # fmt: skip
        config, now = self._config(), self._now()

        def run() -> dict[str, Any]:
            from fazai.agent.link import identity

            identity.return_after_expiry(
                address,
                name=config.agent_id,
                ca=config.ca,
                certificate=config.certificate,
                key=config.key,
                state=config.state,
                now=now,
            )
            return {}

        def done(answer: dict[str, Any]) -> None:
            self._log("warning", f"{expired.message}; the daemon made another one")
            self.check(address, on_good, on_failed)

        def failed(error: LinkError) -> None:
            hint = "an administrator makes a new token: fazai pki enrol " + config.agent_id
            on_failed(
                LinkError("expired", f"{expired.message}; no other one was given: {error.message}", hint=hint)
            )

        self._start(run, done, failed, RETURN_S)

    def explain(self, error: LinkError, address: Address, on_done: Callable[[LinkError], None]) -> None:
        """Look at the daemon's clock where dates are the trouble, for the sentence and for nothing else."""
        if error.code not in ("expired", "not_yet_valid"):
            on_done(error)
            return

        def done(answer: dict[str, Any]) -> None:
            here = self._now()
            apart = abs(here - answer["time"])
            if apart <= SKEW_S:
                on_done(error)
                return
            text = (
                f"{error.message}; the daemon says that it is {tls.show_time(answer['time'])}, this "
                f"machine that it is {tls.show_time(here)}: the clocks differ by {apart:.0f} s"
            )
            on_done(LinkError("bad_clock", text, hint="set the clock"))

        def run() -> dict[str, Any]:
            from fazai.agent.link import identity

            return {"time": identity.ask_time(address)}

        self._start(run, done, lambda _: on_done(error), READ_S)

    # -- renewal ----------------------------------------------------------------------------------------

    def watch(self, conversation: Conversation) -> None:
        """Renew over this connection once two thirds of the certificate's life are over."""
        self._watched = conversation
        if self._timer is not None:
            self._timer.cancel()
        if self._known is None:
            return
        dates = self._known[1]
        spread_s = dates.lifetime() * _SPREAD * self._random()
        self._wait(conversation, max(dates.renewal_due() + spread_s, self._renewed_at + _LEAST_S))

    def _wait(self, conversation: Conversation, due: float) -> None:
        left_s = due - self._now()
        if left_s <= 0:
            self._renew(conversation)
        else:
            wait_s = min(left_s, _LONGEST_WAIT_S)
            self._timer = self._loop.later(wait_s, lambda: self._wait(conversation, due))

    def _renew(self, conversation: Conversation) -> None:
        if self._is_writing or self._renewing is conversation:  # two would write over each other's key
            self._is_due_again = True
            return
        config, self._begun_at, self._renewing = self._config(), self._now(), conversation

        def made(answer: dict[str, Any]) -> None:
            self._is_writing = False
            if conversation.is_open:
                action_id = ulid(int(self._now() * 1000), os.urandom(10))
                request = {"method": "renew", "action_id": action_id, "csr": answer["csr"]}
                conversation.request(request, answered)

        def answered(answer: dict[str, Any]) -> None:
            if answer["ok"]:
                self._is_writing = True
                self._start(lambda: keep(str(answer.get("certificate"))), kept, failed, READ_S)
            else:
                failed(LinkError(str(answer.get("code"))[:64], str(answer.get("error"))[:500]))

        def make() -> dict[str, Any]:
            from fazai.agent.link import identity

            return {"csr": identity.begin_renewal(config.key, config.agent_id, self._fault)}

        def keep(text: str) -> dict[str, Any]:
            from fazai.agent.link import identity

            names = {"name": config.agent_id, "ca": config.ca}
            files = {"certificate": config.certificate, "key": config.key}
            return vars(identity.keep_renewed(text, **names, **files, fault=self._fault))

        def kept(answer: dict[str, Any]) -> None:
            self._is_writing, self._renewing = False, None
            self._known = self._stamp(), tls.Dates(answer["name"], answer["begins"], answer["ends"])
            self._renewed_at = self._now()
            self._log("info", f"the certificate was renewed: it holds until {tls.show_time(answer['ends'])}")
            again, self._is_due_again = self._is_due_again, False
            newest = self._watched or conversation  # it may have connected anew meanwhile
            if again:
                self._wait(newest, self._renewed_at + _LEAST_S)
            else:
                self.watch(newest)

        def failed(error: LinkError) -> None:
            self._is_writing, self._renewing = False, None
            self._log("error", f"the certificate was not renewed: {error}")
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.later(AGAIN_S, lambda: self._wait(self._watched or conversation, 0.0))

        self._is_writing = True
        self._start(make, made, failed, READ_S)

    # -- authorities

    def take_trust(self, request: dict[str, Any], conversation: Conversation, address: Address) -> None:
        """Trust the authorities that the daemon offers, in place of those until now, and answer. One offer is
        proven at a time; of those that come meanwhile, the newest is the next, and the others are refused."""
        if self._is_proving:
            before, self._next_offer = self._next_offer, (request, conversation, address)
            if before is not None:
                self._refuse_trust("other authorities were offered after them", *before[:2])
            return
        self._is_proving = True
        config = self._config()

        def run() -> dict[str, Any]:
            from fazai.agent.link import identity

            own = (config.certificate, config.key) if address.scheme == "wss" else None
            offer = identity.Offer(request["ca"], request.get("endorsements", ()))
            return {"new": identity.keep_authorities(offer, address, ca=config.ca, own=own)}

        def done(answer: dict[str, Any]) -> None:
            if answer["new"]:
                self._log("info", f"the daemon's authorities are those that it sent: {config.ca}")
            if conversation.is_open:
                conversation.send({"ok": True, "action_id": request["action_id"]})
                if request.get("renew") and self._timer is not None:
                    self._timer.cancel()
                    soon = self._now() + self._soon_s()
                    self._wait(
                        conversation, max(soon, self._renewed_at + _LEAST_S, self._begun_at + _LEAST_S)
                    )
            self._take_next_trust()

        def failed(error: LinkError) -> None:
            self._refuse_trust(error.message, request, conversation, error.hint)
            self._take_next_trust()

        self._start(run, done, failed, RETURN_S)

    def _refuse_trust(
        self, why: str, request: dict[str, Any], conversation: Conversation, hint: str | None = None
    ) -> None:
        self._log("error", f"other authorities were not taken: {why}")
        if conversation.is_open:
            conversation.send(refuse(Refused("conflict", why, hint), request["action_id"]))

    def _take_next_trust(self) -> None:
        self._is_proving = False
        offer, self._next_offer = self._next_offer, None
        if offer is not None and offer[1].is_open:
            self.take_trust(*offer)

    def _soon_s(self) -> float:
        return self._known[1].lifetime() * _SOON * self._random() if self._known is not None else 0.0

    def _stamp(self) -> tuple[int, ...]:
        """Return what changes when one of the certificate's files does."""
        config, found = self._config(), []
        for path in (config.ca, config.certificate, config.key):
            try:
                state = os.stat(path)
            except OSError:
                continue
            found += [state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode]
        return tuple(found)
