"""Undefined names that know the variable's name, so that the error can name it and the nearest match."""

from __future__ import annotations

from typing import Any, NoReturn

from jinja2 import StrictUndefined, UndefinedError
from jinja2.utils import missing

from fazai.errors import FazaiError
from fazai.template.errors import UndefinedName


class NamedUndefinedError(UndefinedError):
    """An undefined name was used."""

    def __init__(self, message: str, name: Any, obj: Any) -> None:
        super().__init__(message)
        self.name = name
        self.obj = obj


class NamedUndefined(StrictUndefined):
    """An undefined name; what is below it is undefined too. Any use but `default` and `is defined` raises.

    With a `fault` it is a variable that is there and could not be rendered.
    """

    __slots__ = ("fault",)

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: Any = None,
        exc: Any = None,  # Jinja2's own, for attributes that are not safe: there are none here
        *,
        fault: FazaiError | None = None,
    ) -> None:
        self._undefined_hint = hint
        self._undefined_obj = obj
        self._undefined_name = name
        self.fault = fault

    @property
    def _undefined_exception(self) -> Any:  # type: ignore[override]
        return self._exception

    def _exception(self, message: str) -> Exception:
        if self.fault is not None:
            return self.fault
        return NamedUndefinedError(
            message, None if self._undefined_hint else self._undefined_name, self._undefined_obj
        )

    def fail(self) -> NoReturn:
        """Fail as any use of the name does: with the fault of its variable, else NamedUndefinedError."""
        raise self._exception(self._undefined_message)

    def absent(self) -> bool:
        """Return True: it is not there. Raises the fault if it is there and in error."""
        if self.fault is not None and not isinstance(self.fault, UndefinedName):
            raise self.fault
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self
