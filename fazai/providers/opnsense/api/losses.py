"""Failures of a request that are worth another try; only the client raises and catches these."""

from __future__ import annotations

from fazai.errors import AccessDenied, FazaiError, Unreachable


class Lost(FazaiError):
    """The request went out and no usable answer came back; `stale`: on a connection that was kept open."""

    def __init__(self, error: Unreachable, *, sent: bool, stale: bool) -> None:
        super().__init__(error.message, where=error.where, hint=error.hint)
        self.error, self.sent, self.stale = error, sent, stale


class Busy(FazaiError):
    """An answer that asks us to come again; `uncertain`: the call may have been carried out all the same."""

    def __init__(self, error: FazaiError, after_s: float | None, *, uncertain: bool) -> None:
        super().__init__(error.message, where=error.where, hint=error.hint)
        self.error, self.after_s, self.uncertain = error, after_s, uncertain


class Stranger(Busy):
    """Something answered, and not as a firewall does: a port forward or another device has its address."""

    def __init__(self, error: Unreachable) -> None:
        super().__init__(error, None, uncertain=True)


class Forbidden(AccessDenied):
    """The key's user has no privilege for an address as it was written (403)."""
