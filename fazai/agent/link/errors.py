"""The error that says why there is no connection."""

from __future__ import annotations

from fazai.errors import ExitCode, FazaiError

#: Codes of those who were not reached; the others are refusals.
_UNREACHED = frozenset({"resolve", "connect", "timeout", "closed", "protocol", "tls", "bad_clock"})


class LinkError(FazaiError):
    """The daemon was not reached, or refused. `code` is one of the contract's codes, or names the step:
    `resolve`, `connect`, `tls`, `protocol`, `closed`."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.exit_code = ExitCode.UNREACHABLE if code in _UNREACHED else ExitCode.REFUSED
