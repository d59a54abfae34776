"""The configuration of notifications as values; `config_notify.py` beside the other sections reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from fazai.daemon.runs.schedule import Window
from fazai.notify.message import EVENT_KINDS
from fazai.notify.smtp import SmtpChannel
from fazai.notify.telegram import TelegramChannel
from fazai.notify.webhook import WebhookChannel

Channel = SmtpChannel | WebhookChannel | TelegramChannel


@dataclass(frozen=True, slots=True)
class Subscription:
    """A channel, and the kinds of notices that it gets."""

    channel: Channel
    kinds: frozenset[str] = frozenset(EVENT_KINDS)


@dataclass(frozen=True, slots=True)
class QuietTime:
    """Times of day in which only urgent notices are sent; what comes meanwhile is one message at their
    end."""

    windows: tuple[Window, ...]
    zone: tzinfo = UTC

    def holds_at(self, wall: datetime) -> bool:
        """Return whether it is quiet."""
        return any(window.is_open(wall, self.zone) for window in self.windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig:
    """Who is told what. The same thing is not told again within `again_s`; what happens within `gather_s` is
    one message; a message that cannot be delivered is tried again after `first_pause_s`, then less
    and less often, and given up after `give_up_s`. `urgent`: kinds that do not
    wait for the end of the quiet time."""

    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)
    again_s: float = 6 * 3600.0
    gather_s: float = 30.0
    give_up_s: float = 86400.0
    first_pause_s: float = 15.0
    quiet: QuietTime | None = None
    urgent: frozenset[str] = frozenset()
