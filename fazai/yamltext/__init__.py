"""YAML as fazai reads it: libyaml's events, our own constructor, and a place for everything.

    load(path), loads(text, file) -> YamlMap | YamlList | None

Plain scalars become the values that Ansible gives them (YAML 1.1), except that dates stay text. Mappings and
sequences become `YamlMap` and `YamlList`, which know where they and their values stand. What is refused is
refused with `YamlError`, and everything that is wrong with a file is found in one go (`Errors`).
"""

from fazai.yamltext.limits import DEFAULT_YAML_LIMITS, YamlLimits
from fazai.yamltext.nodes import SourceText, UnsafeText, YamlList, YamlMap, pack_place
from fazai.yamltext.reading import (
    Decrypt,
    KeyFile,
    OnFileRead,
    load_yaml,
    loads_yaml,
    parse_yaml,
    parse_yaml_value,
    read_limited,
)

__all__ = [
    "DEFAULT_YAML_LIMITS",
    "Decrypt",
    "KeyFile",
    "OnFileRead",
    "SourceText",
    "UnsafeText",
    "YamlLimits",
    "YamlList",
    "YamlMap",
    "load_yaml",
    "loads_yaml",
    "pack_place",
    "parse_yaml",
    "parse_yaml_value",
    "read_limited",
]
