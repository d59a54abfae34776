"""YAML as fazai reads it: libyaml's events, our own constructor, and a place for everything.

    load(path), loads(text, file) -> YamlMap | YamlList | None

Plain scalars become the values that Ansible gives them (YAML 1.1), except that dates stay text. Mappings and
sequences become `YamlMap` and `YamlList`, which know where they and their values stand. What is refused is
refused with `YamlError`, and everything that is wrong with a file is found in one go (`Errors`).
"""

from fazai.yamltext.limits import DEFAULT_LIMITS, Limits
from fazai.yamltext.nodes import Source, UnsafeText, YamlList, YamlMap, pack
from fazai.yamltext.reading import (
    Decrypt,
    KeyFile,
    Seen,
    load,
    loads,
    parse,
    read,
    value,
)

__all__ = [
    "DEFAULT_LIMITS",
    "Decrypt",
    "KeyFile",
    "Limits",
    "Seen",
    "Source",
    "UnsafeText",
    "YamlList",
    "YamlMap",
    "load",
    "loads",
    "pack",
    "parse",
    "read",
    "value",
]
