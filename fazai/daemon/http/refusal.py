"""A refusal of the daemon: the contract's error, and the HTTP headers that go with it."""

from __future__ import annotations

from collections.abc import Sequence

from fazai.wire.base import WireError


class Refusal(WireError):
    """An error of the contract with its HTTP headers; `status` where it is not the one that goes with the
    code."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        status: int | None = None,
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.headers = tuple(headers)
        self.status = status
