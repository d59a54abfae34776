"""The types of plain fields: check, stored form and label of a value.

A type is a row of `TYPES`. Fields with options (fixed, from a source, or related items) need no row: their
options are the check.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.names import alias_type, network_names, port_names
from fazai.lab.engine.schema import Field
from fazai.lab.engine.sources import choices_of

Check = Callable[[Box, Field, str, Item], Iterable[str]]

REQUIRED: Final = "A value is required."
_HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?\Z"
)
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}\Z")
_INTEGER = re.compile(r"-?\d+\Z")
# a day in the two notations recorded as accepted (the product takes some more)
_DAY = re.compile(r"\d{1,2}/\d{1,2}/\d{4}\Z|\d{4}-\d\d-\d\d\Z")
_NO_DAY = "Invalid expiration date format; use MM/DD/YYYY instead."
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#]+[^\s]*\Z")


@dataclass(frozen=True, slots=True)
class FieldType:
    """A check, how a value is rewritten on storing, and the label of a value."""

    check: Check
    store: Callable[[Box, str], str] | None = None
    label: Callable[[Box, str], str] | None = None


def is_ip_address(text: str, family: str = "") -> bool:
    """Return whether this is an IP address (of family "4" or "6")."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not family or str(found.version) == family


def is_ip_network(text: str, family: str = "") -> bool:
    """Return whether this is an address with a prefix length; host bits are accepted, as by the product."""
    address, slash, bits = text.partition("/")
    if not slash or not bits.isdigit() or not is_ip_address(address, family):
        return False
    return int(bits) <= (128 if ":" in address else 32)


def is_subnet(text: str, family: str = "") -> bool:
    """Return whether this is a network without host bits."""
    if not is_ip_network(text, family):
        return False
    return str(ipaddress.ip_network(text, strict=False).network_address) == str(
        ipaddress.ip_address(text.partition("/")[0])
    )


def is_hostname(text: str) -> bool:
    """Return whether this is a host name or an address."""
    return bool(_HOSTNAME.match(text)) or is_ip_address(text)


def _accept_anything(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    return ()


def _check_integer(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    text = field.message or "Invalid integer value."
    if not _INTEGER.match(value):
        yield from (text, text)  # two validators say so, and the product makes a list of it
    elif (field.min is not None and int(value) < field.min) or (
        field.max is not None and int(value) > field.max
    ):
        yield text


def _check_numeric(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    if not _is_decimal(value):
        yield field.message or "Invalid numeric value."
        yield field.message or "Invalid numeric value."  # as with integers


def _check_targets(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    for part in value.split(","):
        address, _, port = part.rpartition(":")
        if not is_ip_address(address.strip("[]")) or not _is_port(port):
            yield f'"{part}" is invalid. Invalid IP-port combination.'
            return


def _check_text_pattern(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    if field.pattern and not re.fullmatch(field.pattern, value):
        yield field.message or "Text does not validate."


def _check_strict_text(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check text for a configuration file: one line, and no blanks unless they are allowed."""
    if not field.spaces and re.search(r"[ \t]", value):
        yield "Text may not contain spaces or tabs."
    elif re.search(r"[\r\n]", value):
        yield "Text may not contain newlines."
    elif re.search(r"[\0\v\f]", value):
        yield "Text may not contain special control characters."
    yield from _check_text_pattern(box, field, value, item)


def _check_description(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    if re.search(r"[\r\n]", value):
        yield "Text may not contain newlines."
    if len(value) > 255 or "\n" in value:
        yield field.message or "Description should be a string between 1 and 255 characters."


def _check_hostname(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    for part in value.split(",") if field.list else (value,):
        bare = part.removeprefix("*.") if field.pattern == "wildcard" else part
        if not (is_hostname(bare) or (field.pattern == "wildcard" and part == "*")):
            text = field.message or "Please specify a valid address (1.2.3.4) or hostname."
            yield text.replace("%s", part)
            return


def _check_host_port(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check an address (in brackets where it is IPv6) or name with a port."""
    host, colon, port = value.rpartition(":")
    if not (colon and is_hostname(host.strip("[]")) and _is_port(port)):
        yield f'"{value}" is invalid. Invalid IP-port combination.'


def _check_remote_hosts(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check hosts, each with a port or without."""
    for part in value.split(","):
        host, colon, port = part.rpartition(":")
        bare = host if colon and _is_port(port) else part
        if not is_hostname(bare.strip("[]")):
            yield f"hostname {bare} is not a valid hostname."


def _check_ike_addresses(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check names, addresses, networks and ranges."""
    for part in value.split(","):
        first, dash, last = part.partition("-")
        named = is_hostname(part) and not re.fullmatch(r"[0-9.]+", part)
        if not (named or is_ip_address(part) or is_ip_network(part)) and not (
            dash and is_ip_address(first) and is_ip_address(last)
        ):
            yield f'Entry "{part}" is not a valid hostname, IP address or range.'


def _is_port(text: str) -> bool:
    return text.isdigit() and 1 <= int(text) <= 65535


def _is_decimal(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _every_part(fits: Callable[[str], object], text: str) -> Check:
    """Return a check of the value, or of each part of a list of them."""

    def check(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
        if not all(map(fits, value.split(",") if field.list else (value,))):
            yield field.message or text

    return check


def _every_network(*fits: Callable[[str, str], bool]) -> Check:
    """Return a check that each part is an address or a network of the field's family."""

    def check(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
        every = _every_part(lambda part: any(fit(part, field.family) for fit in fits), _NO_NETWORK)
        return every(box, field, value, item)

    return check


def _check_each(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check each part of a list against the pattern of the field."""
    for part in value.split(","):
        if not re.fullmatch(field.pattern or ".*", part):
            yield f'"{part}" is invalid. {field.message or "List validation error."}'
            return


def _is_strict_network(text: str) -> bool:
    """Return whether this is an address, or a network without host bits."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


_NO_NETWORK: Final = "Please specify a valid network segment or IP address."


def _check_rule_port(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    first, dash, last = value.partition("-")
    if dash and _is_port(first) and _is_port(last):
        return
    if _is_port(value) or value in port_names(box) or alias_type(box, value) == "port":
        return
    yield field.message or "Please specify a valid portnumber, name, alias or range."


def _check_service_port(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check a port, a range of ports, a service by its name, or `any`; a name of an alias is none."""
    first, dash, last = value.partition("-")
    if not (
        value == "any" or value in port_names(box) or (_is_port(first) and (_is_port(last) if dash else True))
    ):
        names = ", ".join(port_names(box))
        yield f"Please specify a valid port number (1-65535). A service name is also possible ({names})."


def _store_port(box: Box, value: str) -> str:
    return value.lower() if value.lower() in port_names(box) else value


def _is_rule_network(box: Box, text: str, *, single: bool) -> bool:
    if text in network_names(box):
        return True
    if alias_type(box, text) not in ("", "port"):
        return True
    return single and (is_ip_address(text) or is_ip_network(text))


def _check_rule_network(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    parts = value.split(",") if field.multiple else [value]
    for part in parts:
        if not _is_rule_network(box, part, single=len(parts) == 1):
            text = field.message or "%s is not a valid source IP address or alias."
            yield text.replace("%s", value)


def _network_label(box: Box, value: str) -> str:
    """Return `LAN net` for `lan`; the value itself where no interface is named."""
    names = network_names(box)
    parts = value.split(",")
    if value == "any" or not any(part in names for part in parts):
        return value
    return ", ".join(_shorten_label(names.get(part, part)) for part in parts)


def _shorten_label(label: str) -> str:
    return label.removesuffix("work") if label.endswith(" network") else label


def _check_interface_group(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    if not re.fullmatch(r"[a-zA-Z0-9_]+", value):
        yield "Only letters, digits and underscores are allowed as the group name."
    elif value[0].isdigit() or value[-1].isdigit():
        yield "The group name shall not start or end with a digit."
    elif len(value) > 15:
        yield "The group name shall not be longer than 15 characters."


def _check_cron(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Check `*`, `*/5`, `1,10`, `1-30/2`."""
    low, high = field.min or 0, field.max or 59
    for part in value.split(","):
        span, _, step = part.partition("/")
        ends = ["0", "0"] if span == "*" else span.split("-")
        numbers = [*ends, step] if step else ends
        if (
            not all(number.isdigit() for number in numbers)
            or len(ends) > 2
            or (span != "*" and not all(low <= int(end) <= high for end in ends))
        ):
            yield field.message or "Invalid cron value."
            return


def _check_ranges(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    for part in value.splitlines():
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not (is_ip_network(part) or (dash and is_ip_address(first) and is_ip_address(last))):
            yield f'Entry "{part}" is not a valid range or subnet.'


_INTEGERS: Final = (
    "Integer",
    "AutoNumber",
    "FilterSequence",
    "DNatSequence",
    "PipeNumber",
    "Uid",
    "Gid",
    "VPNId",
)
TYPES: Final[Mapping[str, FieldType]] = {
    "Boolean": FieldType(_every_part(re.compile("[01]").fullmatch, "Value should be a boolean (0,1).")),
    **dict.fromkeys(_INTEGERS, FieldType(_check_integer)),
    "Numeric": FieldType(_check_numeric),
    "CSVList": FieldType(_check_each),
    "Text": FieldType(_check_text_pattern),
    "StrictText": FieldType(_check_strict_text),
    "Description": FieldType(_check_description),
    "Network": FieldType(_every_network(is_ip_address, is_ip_network)),
    "Prefix": FieldType(_every_network(is_ip_network)),
    "Address": FieldType(_every_network(is_ip_address)),
    "Subnet": FieldType(_every_network(is_subnet)),
    "StrictNetwork": FieldType(_every_part(_is_strict_network, _NO_NETWORK)),
    "Hostname": FieldType(_check_hostname),
    "FlowTarget": FieldType(_check_targets),
    "IKEAddress": FieldType(_check_ike_addresses),
    "IPPort": FieldType(_check_host_port),
    "RemoteHost": FieldType(_check_remote_hosts),
    "MacAddress": FieldType(_every_part(_MAC.match, "Invalid MAC address.")),
    "Base64": FieldType(_every_part(_is_base64, "Invalid Base64-encoded string.")),
    "Url": FieldType(_every_part(_URL.match, "Invalid URL.")),
    "Port": FieldType(_every_part(_is_port, "Please specify a valid port number (1-65535).")),
    "ServicePort": FieldType(_check_service_port, _store_port),
    "NetworkOrAny": FieldType(_every_network(is_ip_address, is_ip_network, lambda text, _: text == "any")),
    "RulePort": FieldType(_check_rule_port, _store_port),
    "RuleNetwork": FieldType(_check_rule_network, None, _network_label),
    "GroupName": FieldType(_check_interface_group),
    "Ranges": FieldType(_check_ranges),
    "CronField": FieldType(_check_cron),
    "Expires": FieldType(_every_part(_DAY.match, _NO_DAY)),
    "Any": FieldType(_accept_anything),
    "Secret": FieldType(_accept_anything, None, lambda box, value: ""),
}


def validate_field(box: Box, field: Field, value: str, item: Item) -> Iterable[str]:
    """Yield the product's messages about one value; none when it is accepted."""
    if value == "":
        if field.required:
            yield field.needed or REQUIRED
        return
    choices = choices_of(box, field)
    if choices is None:
        yield from TYPES[field.type].check(box, field, value, item)
        return
    wrong = [key for key in (value.split(",") if field.multiple else (value,)) if key not in choices]
    if wrong:
        yield field.message or f"Option [{','.join(wrong) if field.multiple else ''}] not in list."


def store_value(box: Box, field: Field, value: str) -> str:
    """Return the value as it is kept: letter case of options, names of ports."""
    if field.case and value:
        changed = value.lower() if field.case == "lower" else value.upper()
        choices = choices_of(box, field)
        if choices is not None and value not in choices and changed in choices:
            return changed
    kind = TYPES.get(field.type)
    return kind.store(box, value) if kind is not None and kind.store is not None else value
