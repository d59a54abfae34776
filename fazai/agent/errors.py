"""Errors of the remote agent: what it refuses to do, and what is wrong with its configuration.

Both are FazaiErrors, so that `where` and `hint` are shown as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fazai.errors import ExitCode, FazaiError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refused(FazaiError):
    """An action that is answered with an error; `code` is one of the contract's codes (SPEC.md, "Errors").

    `fields` stand beside `error` and `code` in the answer: `stdout`, `stderr` and `truncated` of a program
    that ran out of time or was cancelled.
    """

    exit_code = ExitCode.REFUSED

    def __init__(
        self, code: str, message: str, hint: str | None = None, fields: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.fields = dict(fields or {})


class ConfigError(InputError):
    """A mistake in the agent's configuration; `where` is `FILE:LINE`."""
