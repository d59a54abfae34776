"""Keeps the agent connected: judges its certificate, dials, waits, and dials again."""

from __future__ import annotations

from fazai.agent.link import tls
from fazai.agent.link.certificate import OwnCertificate
from fazai.agent.link.connection import WebSocketOpening
from fazai.agent.link.dialling import Backoff, make_address
from fazai.agent.link.errors import LinkError
from fazai.agent.messages import MAX_PAYLOAD_BYTES
from fazai.agent.serving import Conversation

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from fazai.agent.children import LifePipe
    from fazai.agent.link.connection import Link
    from fazai.agent.link.dialling import Address
    from fazai.agent.link.longpoll import PollingOpening
    from fazai.agent.loop import Timer
    from fazai.agent.serving import Agent


class Connector:
    """Connects, serves, and connects again, until `stop`. `on_change` is told each state: `connecting`,
    `connected`, `refused`."""

    def __init__(
        self,
        agent: Agent,
        life: LifePipe,
        *,
        random: Callable[[], float],
        now: Callable[[], float],
        on_change: Callable[[str, LinkError | None], None],
        on_ready: Callable[[Conversation], None] = lambda conversation: None,
    ) -> None:
        self._agent = agent
        self._loop = agent.loop
        self._life = life
        self._backoff = Backoff(random)
        self._on_change = on_change
        self._on_ready = on_ready
        self._next = 0  # which of the daemon's addresses is tried next
        self._opening: WebSocketOpening | PollingOpening | None = None
        self._timer: Timer | None = None
        self._stopped = False
        self._is_replaced = False  # the connection that stands, by one of another configuration
        self._said: list[str] = []
        self.certificate = OwnCertificate(
            self._loop, life, lambda: agent.config, now=now, random=random, log=agent.log, fault=agent.fault
        )
        agent.take_trust = lambda request, asked_in: self.certificate.take_trust(
            request, asked_in, self.address
        )

    @property
    def address(self) -> Address:
        """The daemon's address that is tried, or connected to."""
        config = self._agent.config
        return make_address(config.daemon[self._next % len(config.daemon)], config.proxy)

    def start(self) -> None:
        """Try the next address."""
        self._timer = None
        if self._stopped:
            return
        if self.address.scheme == "https":  # known by the signature of each request
            self._dial_http()
        else:
            self.certificate.check(self.address, self._dial, self._failed)

    def stop(self) -> None:
        """Give up whatever is under way; the connection that stands is left to its owner."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self.certificate.stop()
        if self._opening is not None:
            self._opening.abandon()

    def reconnect(self) -> None:
        """End the connection, and make another: what it was made with is an old configuration. A try that
        waits for its turn waits no longer."""
        conversation = self._agent.conversation
        if conversation is not None:
            self._is_replaced = True
            conversation.close(LinkError("closed", "the configuration was read again"), 1001)
        elif self._opening is not None:
            self._opening.abandon()
            self._opening = None
            self._timer = self._loop.later(0, self.start)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.later(0, self.start)

    def _dial(self) -> None:
        config = self._agent.config

        def make_context() -> ssl.SSLContext:
            return tls.make_context(config.ca, config.certificate, config.key)

        self._opening = WebSocketOpening(
            self._loop,
            self._life,
            self.address,
            make_context,
            limit_bytes=MAX_PAYLOAD_BYTES,
            on_open=self._opened,
            on_failed=self._failed,
        )

    def _dial_http(self) -> None:
        from fazai.agent.link.longpoll import PollingOpening, read_signing_key

        config = self._agent.config
        try:
            key = read_signing_key(config.signing_key)
        except LinkError as error:
            self._failed(error)
            return
        self._opening = PollingOpening(
            self._loop,
            self._life,
            self.address,
            lambda: tls.make_context(config.ca),
            agent_id=config.agent_id,
            key=key,
            on_open=self._opened,
            on_failed=self._failed,
        )

    def _opened(self, link: Link) -> None:
        self._opening = None
        conversation = Conversation(
            self._agent, link, on_ready=lambda: self._ready(conversation), on_lost=self._lost
        )

    def _ready(self, conversation: Conversation) -> None:
        self._agent.conversation = conversation
        self._backoff.connected(self._loop.clock())
        self._said.clear()
        self._on_change("connected", None)
        self._agent.log("info", f"connected to {self.address.url}")
        self.certificate.watch(conversation)
        self._on_ready(conversation)

    def _lost(self, error: LinkError) -> None:
        self._agent.conversation = None
        if self._is_replaced:  # nothing went wrong
            self._is_replaced, self._next = False, 0
            self._on_change("connecting", None)
            self._timer = self._loop.later(0, self.start)
            return
        self._failed(error)

    def _failed(self, error: LinkError) -> None:
        """No connection, or no longer: say why, and try again later."""
        self._opening = None
        if not self._stopped:
            self.certificate.explain(error, self.address, self._wait)

    def _wait(self, error: LinkError) -> None:
        if self._stopped:
            return
        self._on_change("refused" if error.code in _REFUSALS else "connecting", error)
        said = f"{self.address.authority}: {error}"
        if said not in self._said:  # once, until something else happens
            self._said = [*self._said[-7:], said]
            self._agent.log("warning", said)
        self._next += 1
        if self._next % len(self._agent.config.daemon):
            self._timer = self._loop.later(0, self.start)
            return
        self._timer = self._loop.later(self._backoff.next_delay(self._loop.clock()), self.start)


#: What another try does not mend.
_REFUSALS = frozenset(
    {
        "bad_certificate",
        "bad_clock",
        "bad_version",
        "conflict",
        "expired",
        "not_yet_valid",
        "unauthorized",
        "unknown_ca",
        "wrong_name",
        "revoked",
    }
)
