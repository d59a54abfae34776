"""The error tree of fazai: the class carries the exit code, `where` and `hint`.

    FazaiError                      1
    ├── InputError                  3   nothing was contacted
    │   ├── UsageError                  the command line
    │   ├── YamlError                   a file that is not the YAML we accept
    │   ├── InventoryError              hosts, groups, patterns, options of a target
    │   │   └── MissingOption           an option that the provider needs
    │   ├── PlaybookError               plays, resources, fields of a kind
    │   ├── TemplateError               Jinja2
    │   ├── SecretError                 a secret that cannot be had
    │   └── StateError                  the state folder cannot be used
    │       └── StoreFull               no room on the disk; works again once there is
    ├── LockHeld                    5
    ├── PlanStale                   6
    ├── Refused                     7   a guard said no: read-only, prune cap, protected, foreign item
    │   └── pki.PkiError                a certificate, a token or a request for one that is not good
    ├── Unreachable                 4   no usable answer: DNS, TCP, TLS, timeout, 5xx after retries
    ├── DeviceError                 1   the device answered, and the answer was no
    │   ├── AccessDenied                wrong key, missing privilege
    │   ├── NotAvailable                the device has no such API (plugin absent)
    │   ├── Moved                       it is not as it was when it was looked at; nothing was written to it
    │   ├── TimedOut                    a program that did not end in its time, and was ended
    │   ├── Cancelled                   a program that somebody else had ended
    │   └── Rejected                    validation; `fields` says which
    ├── Unsure                      1   a write whose answer was lost: observe before repeating it
    ├── VerifyError                 1   what was written did not stick, or does not run
    ├── Interrupted               130
    ├── wire.WireError              1   a message that breaks the contract (SPEC.md)
    └── Errors                      *   several of the above; the worst exit code wins

Exit codes are a contract (docs/exit-codes.md): an interrupt (130) hides all others, else the
worst wins in the order 3, 5, 6, 7, 1, 4, 2, 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

from fazai.compat.language import dataclass

if TYPE_CHECKING:
    from pathlib import Path


class ExitCode(IntEnum):
    """The exit codes of the process."""

    OK = 0
    FAILED = 1
    PENDING = 2
    BAD_INPUT = 3
    UNREACHABLE = 4
    LOCKED = 5
    STALE = 6
    REFUSED = 7
    INTERRUPTED = 130


_WORST_FIRST = (130, 3, 5, 6, 7, 1, 4, 2, 0)


def worst_exit(codes: Iterable[int]) -> int:
    """The exit code that wins when several targets ended differently; 0 for none."""
    seen = set(codes)
    return next((code for code in _WORST_FIRST if code in seen), max(seen, default=0))


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a user's text; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class FazaiError(Exception):
    """Base of all errors that fazai raises on purpose.

    `where` is a Mark, or text such as "fw-01/opnsense.alias/blocklist". `hint` is the next step for the
    user; where `meant` is given (the known word that was probably meant, see `did_you_mean`), the hint names
    it. `excerpt` is the offending line of the file, when known and free of secrets.
    """

    exit_code: int = ExitCode.FAILED
    #: The part of the input that could be read all the same; the caller goes on with it to find more errors.
    rest: object = None

    def __init__(
        self,
        message: str,
        *,
        where: Mark | str | None = None,
        hint: str | None = None,
        excerpt: str | None = None,
        meant: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = f'did you mean "{meant}"?' if meant is not None else hint
        self.meant = meant
        self.excerpt = excerpt

    @property
    def errors(self) -> tuple[FazaiError, ...]:
        """The errors that this one stands for: itself, or those of an Errors."""
        return (self,)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where is not None else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{hint}"


class InputError(FazaiError):
    exit_code = ExitCode.BAD_INPUT


class UsageError(InputError):
    pass


class YamlError(InputError):
    pass


class InventoryError(InputError):
    pass


class MissingOption(InventoryError):
    """A target lacks an option that its provider needs; `option` is its name."""

    def __init__(
        self, option: str, message: str, *, where: Mark | str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.option = option


class PlaybookError(InputError):
    pass


class TemplateError(InputError):
    pass


class SecretError(InputError):
    pass


class StateError(InputError):
    pass


class StoreFull(StateError):
    pass


class LockHeld(FazaiError):
    exit_code = ExitCode.LOCKED


class PlanStale(FazaiError):
    exit_code = ExitCode.STALE


class Refused(FazaiError):
    exit_code = ExitCode.REFUSED


class Unreachable(FazaiError):
    """A target gave no usable answer. `stage` says how far it came: resolve, connect, tls, write, read,
    answer."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(
        self, message: str, *, stage: str, where: Mark | str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.stage = stage


class DeviceError(FazaiError):
    pass


class AccessDenied(DeviceError):
    pass


class NotAvailable(DeviceError):
    pass


class Moved(DeviceError):
    """The object at `path` changed since it was looked at: nothing was written to it."""

    def __init__(
        self, message: str, *, path: str, where: Mark | str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.path = path


class TimedOut(DeviceError):
    pass


class Cancelled(DeviceError):
    pass


class Rejected(DeviceError):
    """The device's validation said no; `fields` maps our field name ("" for none) to its texts."""

    def __init__(
        self, message: str, *, fields: Mapping[str, tuple[str, ...]], where: Mark | str | None = None
    ) -> None:
        super().__init__(message, where=where)
        self.fields = dict(fields)


class Unsure(FazaiError):
    """A write was sent and its answer never came; it may or may not have been done."""


class VerifyError(FazaiError):
    pass


class Interrupted(FazaiError):
    exit_code = ExitCode.INTERRUPTED


class Errors(FazaiError):
    """All errors of a stage at once, in the order of their places."""

    def __init__(self, errors: Iterable[FazaiError]) -> None:
        self._errors = tuple(each for error in errors for each in error.errors)
        super().__init__(count_noun(len(self._errors), "error"))
        self.exit_code = worst_exit(e.exit_code for e in self._errors)

    @property
    def errors(self) -> tuple[FazaiError, ...]:
        return self._errors

    def __str__(self) -> str:
        return "\n".join(str(e) for e in self.errors)


def count_noun(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 host", "3 hosts"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def raise_found(errors: Sequence[FazaiError], rest: object = None) -> None:
    """Raise one error as itself, several as Errors, none not at all; `rest` is what could be read all the
    same."""
    if errors:
        error = errors[0] if len(errors) == 1 else Errors(errors)
        error.rest = rest
        raise error


_Error = TypeVar("_Error", bound=FazaiError)


def missing_file(class_: type[_Error], what: str, path: str | Path, hint: str | None = None) -> _Error:
    """Return the error for a file that was named and is not there; `what` it is called, `hint` where no name
    in its folder is alike."""
    meant, reason = _look_beside(str(path))
    return class_(f'there is no {what} "{path}"', hint=reason or hint, meant=meant)


def missing_file_hint(path: str, besides: str | None = None) -> str | None:
    """Return the hint for a file that is not there: the nearest name in its folder other than `besides`, or
    the reason that is known; None without either."""
    meant, reason = _look_beside(path, besides)
    return f'did you mean "{meant}"?' if meant is not None else reason


def _look_beside(path: str, besides: str | None = None) -> tuple[str | None, str | None]:
    """Return the nearest name in the folder of `path`, and the reason why nothing is there, where known."""
    folder, name = os.path.split(path)
    if os.path.islink(path):
        return None, "it is a link, and what it leads to is not there"
    try:
        names = set(os.listdir(folder or "."))
    except FileNotFoundError:
        return None, f'there is no folder "{folder}"'
    except (OSError, ValueError):
        return None, None
    return did_you_mean(name[:200], names - {os.path.basename(besides or "")}), None


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known word that is most like `word`, or None; a `cutoff` of 1.0 takes none but itself."""
    import difflib  # only needed once something is already wrong

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def spelling_hint(word: str, known: Iterable[str]) -> str | None:
    """Return the hint `did you mean "x"?` for the nearest known word, or None."""
    near = did_you_mean(word, known)
    return f'did you mean "{near}"?' if near is not None else None
