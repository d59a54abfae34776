"""Reads `gemma.endpoints` of the daemon's configuration: what is asked when the worker is away, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fazai.daemon.runs.config_values import Section, beside_file, read_string
from fazai.errors import InputError, SecretError
from fazai.files import read_token_file
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.yamltext import YamlList, YamlMap

_MOST = 16
_EXAMPLE = "- {url: 'http://127.0.0.1:8080/v1', model: gemma}"


def read_endpoints(gemma: Section) -> tuple[FallbackEndpoint, ...]:
    """Return the endpoints of the section `gemma`; files of keys are beside the configuration."""
    listed = gemma.node.get("endpoints")
    if listed is None:
        return ()
    if not isinstance(listed, YamlList) or len(listed) > _MOST:
        gemma.note_problem("endpoints", f"endpoints is a list of at most {_MOST}", _EXAMPLE)
        return ()
    return tuple(one for at, node in enumerate(listed) for one in _read_endpoint(gemma, listed, at, node))


def _read_endpoint(gemma: Section, listed: YamlList, at: int, node: Any) -> Iterator[FallbackEndpoint]:
    """Yield the endpoint; nothing where it is wrong."""
    if not isinstance(node, YamlMap):
        where = listed.mark(at)
        gemma.problems.append(InputError("an endpoint is a mapping", where=where, hint=_EXAMPLE))
        return
    section = replace(gemma, node=node, title="an endpoint")
    section.check_keys("url", "model", "key_file")
    url, model = section.require("url", read_string), section.require("model", read_string)
    file = section.require("key_file", read_string) if "key_file" in node else None
    if url is None or model is None or (file is None and "key_file" in node):
        return
    try:
        key = _read_key(Path(beside_file(section, file))) if file is not None else None
        yield FallbackEndpoint.checked(url, model, key, "url")
    except SecretError as error:
        place = f"{error.where}: " if error.where else ""
        section.note_problem("key_file", f"key_file: {place}{error.message}", error.hint)
    except InputError as error:
        section.note_problem("url", f"url: {error.message}", error.hint)


def _read_key(path: Path) -> str:
    return read_token_file(path, "file with the endpoint's key", "one line, in a file of mode 0600")
