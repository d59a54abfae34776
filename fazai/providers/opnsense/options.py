"""The options of a firewall in the inventory, and the checks of their values. Light: no HTTP client."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fazai.config import is_loopback
from fazai.errors import InputError, InventoryError, MissingOption, spelling_hint
from fazai.model import FieldSpec, Secret, SecretRef, Target, Value
from fazai.providers.opnsense.catalogue.kinds import load_kinds

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")

_SPECS = (
    FieldSpec(
        "base_url",
        "text",
        "https://… of the firewall; http:// only on loopback, lab://NAME for the lab",
        required=True,
    ),
    FieldSpec(
        "secret",
        "secret",
        "{api_key, api_secret}, as the firewall's user page hands them out",
        required=True,
        secret=True,
    ),
    FieldSpec("verify_tls", "boolean", "verify the certificate of the firewall", default=True),
    FieldSpec("ca", "text", "file or PEM text of the authority that signed the firewall's certificate"),
    FieldSpec(
        "fingerprint", "text", "sha256:… of the firewall's certificate; then nothing else is looked at"
    ),
    FieldSpec("timeout", "number", "seconds for one request", default=30, minimum=1, maximum=3600),
    FieldSpec("connect_timeout", "number", "seconds to connect", default=10, minimum=1, maximum=600),
    FieldSpec(
        "activate_timeout", "number", "seconds for one activation", default=120, minimum=1, maximum=3600
    ),
    FieldSpec(
        "probe_timeout",
        "number",
        "seconds in which the firewall must answer again after an activation",
        default=20,
        minimum=1,
        maximum=600,
    ),
    FieldSpec(
        "retries",
        "integer",
        "how often a read or a repeatable write is tried again",
        default=3,
        minimum=0,
        maximum=20,
    ),
    FieldSpec("max_answer", "integer", "MiB that one answer may have", default=16, minimum=1, maximum=1024),
    FieldSpec("owner", "text", "whose items these are; another owner's are never pruned", default="fazai"),
    FieldSpec("adopt", "boolean", "take over items that others made", default=False),
    FieldSpec(
        "prune", "any", "delete our items that are no longer listed: true, or a list of kinds", default=False
    ),
    FieldSpec(
        "max_prune",
        "text",
        'how many of our items of one kind a run may prune: "10%" or a number',
        default="10%",
    ),
    FieldSpec("protected", "list", "names of items that are never deleted, as they are or as globs"),
    FieldSpec("formerly", "list", "names that it had in the inventory: its items are not another one's"),
    FieldSpec(
        "place",
        "map",
        "where a kind's list stands among others' items: KIND: first, last, {before: NAME}, {after: NAME}",
    ),
    FieldSpec(
        "unmanaged",
        "map",
        "KIND: fields that may be changed by hand where they are not declared; others have their defaults",
    ),
)

OPTIONS: Mapping[str, FieldSpec] = {spec.name: spec for spec in _SPECS}


def option_of(target: Target, name: str) -> Any:
    """Return the value of an option, or its default."""
    value = target.options.get(name)
    return OPTIONS[name].default if value is None else value


def find_option_problems(target: Target, kinds: Iterable[str]) -> Iterable[InputError]:
    """Yield everything that is wrong with the options of a target, each with its place."""

    def wrong(option: str, message: str, hint: str | None = None) -> InventoryError:
        return InventoryError(f"{target.name}: {option} {message}", where=target.where(option), hint=hint)

    options = target.options
    in_lab = str(options.get("base_url", "")).startswith("lab://")  # then the lab gives the key
    for name, spec in OPTIONS.items():
        value = options.get(name)
        if value is None or isinstance(value, SecretRef):
            if spec.required and value is None and not (name == "secret" and in_lab):
                text = f"{target.name}: {name} is missing"
                yield MissingOption(name, text, where=target.where(name), hint=spec.doc)
        elif (problem := _CHECKS.get(name, _check_type)(value, spec)) is not None:
            yield wrong(name, *problem)
    if isinstance(options.get("prune"), (list, Mapping)):
        for kind in options["prune"]:
            if kind not in kinds:
                yield wrong("prune", f'names no kind: "{kind}"', spelling_hint(str(kind), kinds))


_Wrong = tuple[str, str | None] | None


def _check_type(value: Value, spec: FieldSpec) -> _Wrong:
    if spec.type == "boolean" and not isinstance(value, bool):
        return f'must be true or false, not "{value}"', None
    if spec.type in ("number", "integer"):
        allowed = int if spec.type == "integer" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            return f'must be a number, not "{value}"', None
        if not (spec.minimum or 0) <= value <= (spec.maximum or value):
            return f"must be from {spec.minimum} to {spec.maximum}, not {value}", None
    if spec.type == "text" and not isinstance(value, (str, Secret)):
        return "must be text", None
    if spec.type == "list" and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return "must be a list of texts", None
    return None


def _is_host(text: str) -> bool:
    """Return whether this is a name that DNS could know, or an IP address."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not text.isascii():
        from httpx import URL, InvalidURL  # it will be asked by the name that this makes of it

        try:
            text = URL(f"https://{text}").raw_host.decode("ascii")
        except (InvalidURL, UnicodeError):
            return False
    return len(text) <= 254 and all(map(_LABEL.fullmatch, text.removesuffix(".").split(".")))


def _check_url(value: Value, spec: FieldSpec) -> _Wrong:
    if not isinstance(value, str):
        return "must be text", None
    no_address = f'is not an address: "{value}"', "write https://fw-01.example.net"
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return no_address
    if url.scheme == "lab":
        return None if url.netloc else ("names no firewall of the lab", "write lab://NAME")
    if any(letter.isspace() or letter == "\\" for letter in value):
        return no_address
    if url.username or url.password:
        return "must not hold a key", "put it under secret:"
    host = url.hostname or ""
    if url.scheme not in ("https", "http") or not _is_host(host) or port == 0:
        return no_address
    if url.query or url.fragment:
        return f'must not have a query: "{value}"', None
    if url.scheme == "http" and not is_loopback(host):
        return "would send the key unencrypted over http://", "use https://"
    return None


def _check_secret(value: Value, spec: FieldSpec) -> _Wrong:
    from fazai.providers.opnsense.api.credentials import read_credentials

    try:
        read_credentials(value)
    except ValueError as error:
        return str(error), "{api_key: …, api_secret: …}, or a file that holds this as JSON"
    return None


def _check_fingerprint(value: Value, spec: FieldSpec) -> _Wrong:
    text = str(value).lower().replace(":", "").replace(" ", "")
    if re.fullmatch(r"sha256[0-9a-f]{64}", text):
        return None
    return "must be sha256: and 64 hexadecimal digits", "openssl x509 -fingerprint -sha256 prints it"


def _check_prune(value: Value, spec: FieldSpec) -> _Wrong:
    right = (
        isinstance(value, bool)
        or (isinstance(value, list) and all(isinstance(kind, str) for kind in value))
        or (isinstance(value, Mapping) and all(isinstance(flag, bool) for flag in value.values()))
    )
    return None if right else ("must be true, false, a list of kinds, or a map of kinds to true", None)


def _check_max_prune(value: Value, spec: FieldSpec) -> _Wrong:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}%", value) and int(value[:-1]) <= 100:
        return None
    return f'must be a number or a percentage, not "{value}"', 'write 5 or "25%"'


def _check_place(value: Value, spec: FieldSpec) -> _Wrong:
    from fazai.providers.opnsense.planning.policy import parse_placement

    ordered = [name for name, kind in load_kinds().items() if kind.ordered]
    for kind, place in value.items() if isinstance(value, Mapping) else ():
        if kind not in ordered:
            known = "one of " + ", ".join(ordered)
            return f'names no ordered kind: "{kind}"', spelling_hint(str(kind), ordered) or known
        try:
            parse_placement(place)
        except ValueError as error:
            return f"of {kind}: {error}", '{opnsense.rule: {before: "Default allow LAN to any rule"}}'
    return None if isinstance(value, Mapping) else ("must be a map of kinds to places", None)


def _check_unmanaged(value: Value, spec: FieldSpec) -> _Wrong:
    if not isinstance(value, Mapping):
        return "must be a map of kinds to lists of fields", "{opnsense.rule: [log]}"
    kinds = load_kinds()
    for name, fields in value.items():
        if name not in kinds:
            return f'names no kind: "{name}"', spelling_hint(str(name), kinds)
        if not isinstance(fields, list):
            return f"of {name} must be a list of fields", f"{{{name}: [log]}}"
        for field in fields:
            if not isinstance(field, str) or field not in kinds[name].rows:
                return f'of {name} names no field: "{field}"', spelling_hint(str(field), kinds[name].rows)
    return None


def _check_owner(value: Value, spec: FieldSpec) -> _Wrong:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", value):
        return None
    return "must be letters, digits, dots and dashes", None


_CHECKS = {
    "base_url": _check_url,
    "secret": _check_secret,
    "fingerprint": _check_fingerprint,
    "prune": _check_prune,
    "max_prune": _check_max_prune,
    "owner": _check_owner,
    "place": _check_place,
    "unmanaged": _check_unmanaged,
}
