"""Instants at which a crash matters: what writes calls a function with the name of each, where a test can
end the process there."""

from __future__ import annotations


def no_fault(name: str) -> None:
    """Go on: what is called at each such instant outside of tests."""
