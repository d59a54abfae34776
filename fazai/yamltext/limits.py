"""Limits on a YAML file, so that a small or endless one cannot fill memory or take forever."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class YamlLimits:
    """The limits on one YAML file.

    `values` counts what aliases stand for, a mapping or list as three, and one more for every 64 characters
    of a text: it keeps a small file from becoming a large value. `pipe_s`: how long a pipe may take.
    """

    size_bytes: int = 16 * 1024 * 1024
    depth: int = 64
    values: int = 500_000
    pipe_s: float = 60.0


DEFAULT_YAML_LIMITS = YamlLimits()
