"""The agent's policy, /etc/fazai/agent.yml: written from the fields of the resource."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from fazai.model import Problem, Value
from fazai.providers.hosts.agent.remote.places import CERTIFICATE, KEY_FOLDER, REMOTE

_HEAD: Final = "# Written by fazai (host.agent). What is changed here by hand is put back.\n"
#: Fields that are sections of the file as they are.
_SECTIONS: Final = ("programs", "files", "reconcile", "telemetry", "limits")
_MODES: Final = ("no", "look", "yes")
_AGENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PROXY: Final = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}/?")
_PLAIN_KEY: Final = re.compile(r"[a-z_][a-z0-9_]*")
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)
#: What a YAML reader takes for something else than a text.
_WORDS: Final = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null"))


def find_policy_problems(fields: dict[str, Value]) -> Iterator[Problem]:
    """Iterate over what is wrong with the policy, as far as it can be told here; the agent's own check tells
    the rest. Brings `reconcile` into its canonical form."""
    agent_id = fields.get("agent_id")
    if agent_id is not None and not is_agent_id(agent_id):
        yield Problem("agent_id", "is 1 to 64 letters, digits, . _ -, and begins with a letter or digit")
    for address in _listed(fields.get("daemon", ())):
        if not str(address).startswith(("wss://", "https://")):
            yield Problem("daemon", f'is no address of a daemon: "{address}"', "wss://HOST:3121")
        elif str(address).startswith("https://") and "signing_key" not in fields:
            yield Problem("signing_key", "is missing: with it each request over https:// is signed")
    if "proxy" in fields and not _PROXY.fullmatch(fields["proxy"]):
        yield Problem(
            "proxy", "must be http://HOST:PORT, without a user", "proxy_credentials: FILE on the host"
        )
    if "proxy_credentials" in fields and "proxy" not in fields:
        yield Problem("proxy_credentials", "is of no use without proxy")
    if "reconcile" in fields:
        fields["reconcile"] = reconcile = _reconcile_section(fields["reconcile"])
        if not isinstance(reconcile, Mapping) or reconcile.get("mode") not in _MODES:
            yield Problem("reconcile", "is one of no, look, yes, or a mapping with `mode`")
    for name in ("programs", "files"):
        if not isinstance(fields.get(name, []), list):
            yield Problem(name, "must be a list", "see docs/agents.md")
    for name in ("telemetry", "limits"):
        if not isinstance(fields.get(name, {}), Mapping):
            yield Problem(name, "must be a mapping", "see docs/agents.md")
    for name in _SECTIONS:
        if any(_CONTROL.search(text) for text in _texts(fields.get(name))):
            yield Problem(name, "must not hold control characters")


def is_agent_id(text: str) -> bool:
    """Tell whether a text can be an agent's name."""
    return _AGENT_ID.fullmatch(text) is not None


def _listed(value: Value) -> list[Value]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _reconcile_section(value: Value) -> Value:
    """Return the section that one word stands for; YAML makes truth values of `yes` and `no`."""
    if isinstance(value, (bool, str)):
        return {"mode": _mode_word(value)}
    if isinstance(value, Mapping):
        return {**value, "mode": _mode_word(value.get("mode", "no"))}
    return value


def _mode_word(value: Value) -> Value:
    return ("yes" if value else "no") if isinstance(value, bool) else value


def needs_root(fields: Mapping[str, Value]) -> bool:
    """Tell whether the agent is to change what only root may."""
    return bool(fields.get("reconcile", {}).get("mode") == "yes")


def written_folders(fields: Mapping[str, Value]) -> list[str]:
    """Return the folders in which the policy lets the agent or its programs write."""
    files = [each for each in fields.get("files", ()) if isinstance(each, Mapping) and each.get("write")]
    programs = [each for each in fields.get("programs", ()) if isinstance(each, Mapping)]
    found = [str(each.get("root", "")) for each in files]
    found += [str(path) for each in programs for path in _listed(each.get("write") or ())]
    return [path for path in found if path.startswith("/")]


def policy_text(fields: Mapping[str, Value], agent_id: str, at: Callable[[str], str]) -> bytes:
    """Return the file for an agent of this name. `at` maps a path to the host's."""
    values: dict[str, Value] = {"agent_id": agent_id}
    if "label" in fields:
        values["name"] = fields["label"]
    values |= {
        "daemon": fields["daemon"],
        "ca": at(f"{KEY_FOLDER}/ca.pem"),
        "certificate": at(CERTIFICATE),
        "key": at(f"{KEY_FOLDER}/key.pem"),
        "state": at(REMOTE.state),
    }
    values |= {name: fields[name] for name in ("signing_key", "proxy", "proxy_credentials") if name in fields}
    if at("/") != "/":
        values["root"] = at("/").rstrip("/")
    values |= {name: fields[name] for name in _SECTIONS if name in fields}
    return (_HEAD + "".join(f"{line}\n" for line in _mapping_lines(values))).encode()


def _mapping_lines(values: Mapping[str, Value]) -> Iterator[str]:
    for key, value in values.items():
        name = key if _PLAIN_KEY.fullmatch(key) and key not in _WORDS else _scalar_text(key)
        yield from _with_prefix(f"{name}:", value)


def _with_prefix(prefix: str, value: Value) -> Iterator[str]:
    """Iterate over the lines of a value behind the key of a mapping."""
    if isinstance(value, Mapping) and value:
        yield prefix
        yield from (f"  {line}" for line in _mapping_lines(value))
    elif isinstance(value, (list, tuple)) and value:
        yield prefix
        yield from (f"  {line}" for line in _list_lines(value))
    else:
        yield f"{prefix} {_scalar_text(value)}"


def _list_lines(values: list[Value] | tuple[Value, ...]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping) and value:
            for number, line in enumerate(_mapping_lines(value)):
                yield f"  {line}" if number else f"- {line}"
        elif isinstance(value, (list, tuple)) and value:
            for number, line in enumerate(_list_lines(value)):
                yield f"  {line}" if number else f"- {line}"
        else:
            yield f"- {_scalar_text(value)}"


def _scalar_text(value: Value) -> str:
    """Return a value on one line, in YAML: that of JSON is one, also of an empty list or mapping."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _texts(value: Value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (key, *_texts(each))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
