"""Whatever a firewall says: a bounded answer that is as the contract has it, or one sentence."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fazai.errors import DeviceError, FazaiError, Unreachable
from fazai.lab import Fault, LabFirewall
from fazai.providers.opnsense.reading import values
from fazai.providers.opnsense.reading.activity import parse_process
from fazai.providers.opnsense.reading.filterlog import (
    _parse_time,
    _zone_offset,
    is_address_in,
    parse_entry,
)
from fazai.providers.opnsense.reading.firmware import parse_firmware, parse_update
from fazai.providers.opnsense.reading.rules import parse_rule
from fazai.providers.opnsense.reading.services import parse_service
from fazai.providers.opnsense.reading.states import parse_state
from fazai.providers.opnsense.reading.vpn import (
    parse_child,
    parse_connection,
    parse_openvpn,
    parse_wireguard,
)
from tests.opnsense.api.peer import error_of, said, with_peer
from tests.opnsense.api.test_limits import flooding
from tests.opnsense.api.test_nonsense import NOTHING, check
from tests.opnsense.helpers import FakeClock, Start, run, session, target
from tests.opnsense.reading.readers import READERS

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
MOST_ROW_BYTES = 20_000

#: A row of each kind as it should be.
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rule": (
        parse_rule,
        {
            "uuid": "u",
            "sequence": "1",
            "enabled": "1",
            "action": "pass",
            "interface": "lan",
            "interfacenot": "0",
            "direction": "in",
            "ipprotocol": "inet",
            "protocol": "TCP",
            "source_net": "lan",
            "source_not": "1",
            "source_port": "",
            "destination_net": "any",
            "destination_port": "443",
            "description": "d",
            "log": "0",
            "evaluations": 7,
            "packets": 3,
            "bytes": 180,
            "states": 1,
        },
    ),
    "service": (parse_service, {"id": "a", "name": "a", "description": "A", "running": 1, "locked": 0}),
    "state": (
        parse_state,
        {
            "src_addr": "192.0.2.1",
            "src_port": "1000",
            "dst_addr": "192.0.2.2",
            "dst_port": "0",
            "iface": "vtnet0",
            "proto": "tcp",
            "direction": "in",
            "nat_addr": "192.0.2.9",
            "nat_port": "99",
            "gateway": None,
            "state": "A:B",
            "age": "01:02:03",
            "expires": "00:00:09",
            "pkts": [1, 2],
            "bytes": [3, 4],
            "descr": "d",
            "label": "l",
        },
    ),
    "process": (
        parse_process,
        {
            "PID": "7",
            "USERNAME": "root",
            "RES": "1.5M",
            "WCPU": "12.50%",
            "STATE": "select",
            "TIME": "0:01",
            "COMMAND": "/bin/x",
        },
    ),
    "entry": (
        lambda row: parse_entry(row, {"vtnet0": ("wan",)}, timedelta(0), NOW),
        {
            "action": "block",
            "interface": "vtnet0",
            "__timestamp__": "2026-11-30T11:00:00",
            "dir": "in",
            "protoname": "tcp",
            "src": "192.0.2.1",
            "srcport": "1",
            "dst": "192.0.2.2",
            "dstport": "22",
            "length": "60",
            "reason": "match",
            "label": "d",
            "rid": "r",
        },
    ),
    "update": (parse_update, {"name": "p", "old": "1", "new": "N/A", "reason": "obsolete"}),
    "firmware": (
        lambda row: parse_firmware(row, (), 0),
        {
            "product_version": "1",
            "os_version": "2",
            "last_check": "3",
            "status": "none",
            "status_msg": "m",
            "needs_reboot": "1",
            "upgrade_major_version": "",
            "product": {},
        },
    ),
    "wireguard": (
        parse_wireguard,
        {
            "type": "peer",
            "name": "n",
            "ifname": "i",
            "peer-status": "online",
            "endpoint": "e",
            "allowed-ips": "a",
            "transfer-rx": 1,
            "transfer-tx": 2,
            "latest-handshake": 1_790_000_000,
        },
    ),
    "openvpn": (
        parse_openvpn,
        {
            "type": "server",
            "is_client": True,
            "common_name": "c",
            "description": "d",
            "id": "i",
            "real_address": "r",
            "virtual_address": "v",
            "bytes_received": "1",
            "bytes_sent": "2",
            "connected_since__time_t_": "1790000000",
        },
    ),
    "connection": (
        lambda row: parse_connection(row, NOW),
        {
            "name": "n",
            "phase1desc": None,
            "connected": True,
            "remote-addrs": "r",
            "local-addrs": "l",
            "bytes-in": 1,
            "bytes-out": 2,
            "install-time": "60",
        },
    ),
    "child": (
        lambda row: parse_child(row, NOW),
        {
            "name": "n",
            "phase2desc": "d",
            "state": "INSTALLED",
            "local-ts": "a",
            "remote-ts": "b",
            "remote-host": "h",
            "bytes-in": "1",
            "bytes-out": "2",
            "install-time": "60",
        },
    ),
}
MORE: list[Any] = [
    *NOTHING,
    *("\x00\x1b[31mred", "a\nb\r\nc", "\u202eevil", "x" * 1_000_000, "1" * 4301, float("inf"), 2**64, -0.0),
    *({"a": "b"}, [["x"]], ["1", {"y": 1}], True, 1e300, "99999999:99:99", "9" * 19, "-1", "1e9", " 7 "),
]


def _holds(value: Any) -> None:
    """A value that was read is as its type says, in printable texts of bounded length."""
    if value is None:
        return
    body = msgspec.json.encode(value)
    assert msgspec.json.decode(body, type=type(value)) == value
    assert len(body) < MOST_ROW_BYTES
    for text in _texts(msgspec.to_builtins(value)):
        assert text.isprintable(), repr(text)
        assert len(text) <= 2 * values.MAX_TEXT + 3


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


@pytest.mark.parametrize("kind", ROWS)
def test_any_value_in_any_field_is_read_or_left_out(kind: str) -> None:
    parse, good = ROWS[kind]
    whole = parse(good)
    assert whole is not None
    _holds(whole)
    _holds(parse({}))
    for name in good:
        _holds(parse({key: value for key, value in good.items() if key != name}))
        for value in MORE:
            _holds(parse({**good, name: value}))
    for seed in range(200):
        chance = random.Random(seed)
        _holds(parse({name: chance.choice(MORE) for name in good}))


def test_what_is_not_said_is_neither_zero_nor_false() -> None:
    empty = [parse({}) for parse, _ in ROWS.values()]
    said = [msgspec.to_builtins(one) for one in empty if one is not None]
    assert said == [{}, {"updates": (), "total": 0}]
    rule = parse_rule({"enabled": "maybe", "log": "", "packets": "many", "bytes": -1, "sequence": True})
    assert msgspec.to_builtins(rule) == {}


def test_the_whole_rows_are_read_as_they_are() -> None:
    found = {name: msgspec.to_builtins(parse(good)) for name, (parse, good) in ROWS.items()}
    assert found["rule"] == {
        "id": "u",
        "sequence": 1,
        "enabled": True,
        "action": "pass",
        "interface": "lan",
        "direction": "in",
        "ip": "inet",
        "protocol": "TCP",
        "source": "!lan",
        "port": "443",
        "description": "d",
        "log": False,
        "evaluations": 7,
        "packets": 3,
        "bytes": 180,
        "states": 1,
    }
    assert found["state"] == {
        "source": "192.0.2.1",
        "destination": "192.0.2.2",
        "interface": "vtnet0",
        "protocol": "tcp",
        "direction": "in",
        "source_port": "1000",
        "nat": "192.0.2.9:99",
        "state": "A:B",
        "age_s": 3723,
        "expires_s": 9,
        "packets": 3,
        "bytes": 7,
        "rule": "d",
        "rule_id": "l",
    }
    assert found["process"] == {
        "command": "/bin/x",
        "pid": 7,
        "user": "root",
        "cpu_percent": 12.5,
        "resident_bytes": 1_572_864,
        "state": "select",
        "time": "0:01",
    }
    assert found["update"] == {"name": "p", "old": "1", "reason": "obsolete"}
    assert found["wireguard"]["since"] == "2026-09-21T14:13:20Z"
    assert found["connection"]["since"] == "2026-11-30T11:59:00Z"
    assert (found["openvpn"]["role"], found["openvpn"]["status"]) == ("session", "connected")
    assert found["child"]["addresses"] == "a - b"


# -- times of the log


@pytest.mark.parametrize(
    ("clock", "said", "read"),
    [
        ("Mon Nov 30 12:00:05 UTC 2026", "2026-11-30T11:00:00", "2026-11-30T11:00:00+00:00"),
        ("Mon Nov 30 14:00:05 EET 2026", "2026-11-30T13:00:00", "2026-11-30T11:00:00+00:00"),
        ("Mon Nov 30 06:30:00 -0530 2026", "2026-11-30T05:30:00", "2026-11-30T11:00:00+00:00"),
        ("Mon Nov 30 14:00:05 EET 2026", "2026-11-30T05:00:00-06:00", "2026-11-30T11:00:00+00:00"),
        ("Mon Nov 30 14:00:05 EET 2026", "Nov 30 13:00:00", "2026-11-30T11:00:00+00:00"),
        ("Mon Nov 30 12:00:05 UTC 2026", "Dec 31 23:00:00", "2025-12-31T23:00:00+00:00"),
        ("Mon Nov 30 12:00:05 UTC 2026", "Feb 30 23:00:00", None),
        ("Mon Nov 30 12:00:05 UTC 2026", "soon", None),
        ("", "2026-11-30T11:00:00", None),
        ("Mon Nov 29 12:00:05 UTC 2027", "2026-11-30T11:00:00", None),  # its clock is wrong by a year
        ("Mon Nov 30 12:00:05 UTC 2026", "0001-01-01T00:00:00", "0001-01-01T00:00:00+00:00"),
        ("Mon Nov 30 14:00:05 EET 2026", "0001-01-01T00:00:00", None),
    ],
)
def test_the_time_of_an_entry_follows_from_the_firewalls_clock(
    clock: str, said: str, read: str | None
) -> None:
    found = _parse_time(said, _zone_offset({"datetime": clock}, NOW), NOW)
    assert (found.isoformat() if found is not None else None) == read


@pytest.mark.parametrize(
    ("address", "wanted", "fits"),
    [
        ("192.0.2.7", "192.0.2.0/24", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.77", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db8::1", "192.0.2.0/24", False),
        ("no address", "192.0.2.0/24", False),
        (None, "192.0.2.0/24", False),
        (None, None, True),
    ],
)
def test_addresses_are_compared_as_networks(address: str | None, wanted: str | None, fits: bool) -> None:
    assert is_address_in(address, wanted) is fits


# -- whole answers, over real HTTP

DEEP = '{"a":' * 500 + "1" + "}" * 500
BODIES: dict[str, str] = {
    "null": "null",
    "a number": "17",
    "a text": '"rows"',
    "an empty list": "[]",
    "an empty map": "{}",
    "rows that are a number": '{"rows":7,"details":7,"all_packages":7}',
    "rows of rows": '{"rows":[[[]]],"details":[[[]]],"all_packages":[[[]]],"total":"x"}',
    "half of it": '{"rows":[{"uuid":"a","na',
    "nothing": "",
    "much too deep": "[" * 100_000,
    "deep": f'{{"rows":[{DEEP}],"details":[{DEEP}],"all_packages":{DEEP}}}',
    "control characters": json.dumps(
        {
            name: [{"uuid": "\x1b[2J", "name": "a\nb", "id": "\x00", "COMMAND": "\r\x07x", "type": "peer"}]
            for name in ("rows", "details", "all_packages")
        }
    ),
    "a total beyond all": '{"rows":[],"total":1e300}',
    "cut short": "",
}


@pytest.mark.parametrize("topic", READERS)
def test_an_answer_of_any_shape_is_an_answer_or_one_sentence(start: Start, topic: str) -> None:
    firewall = start()
    reader = READERS[topic]

    async def read() -> Any:
        async with session(target(firewall, retries=0), FakeClock()) as work:
            return await reader.read(work.api)

    for what, body in BODIES.items():
        firewall.clear_faults()
        for path in reader.calls:
            if what == "cut short":
                firewall.inject(Fault(kind="truncate", path=f"{path}*"))
            else:
                firewall.inject(Fault(kind="status", path=f"{path}*", status=200, body=body))
        try:
            found = run(read())
        except (Unreachable, DeviceError) as error:
            check(error)
        else:
            assert topic != "backup", what  # a file is whole, or none
            _holds_all(found)
    assert firewall.counters["writes"] == 0


def _holds_all(found: Any) -> None:
    body = msgspec.json.encode(found)
    assert msgspec.json.decode(body, type=type(found)) == found
    assert all(text.isprintable() for text in _texts(msgspec.to_builtins(found)))


@pytest.mark.parametrize("topic", READERS)
def test_an_answer_without_end_is_refused(topic: str) -> None:
    """What would be 100 MB and more is read as far as `max_answer`, and no further."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n"
    error = run(with_peer(flooding(head + b'{"rows":[', b'{"a":1},' * 8192), lambda api: _error(topic, api)))
    assert isinstance(error, DeviceError)
    assert "with more than 1 MiB" in error.message
    assert error.hint == "raise max_answer: if it really has so much to say"


async def _error(topic: str, api: Any) -> FazaiError:
    return await error_of(READERS[topic].read(api))


def test_many_rows_are_cut_and_counted() -> None:
    rows = [{"src_addr": f"192.0.2.{n % 250}", "dst_addr": "192.0.2.1"} for n in range(3000)]
    body = json.dumps({"rows": rows, "total": 1_000_000}).encode()

    async def speak(writer: Any) -> None:
        writer.write(said(body))

    found = run(with_peer(speak, READERS["states"].read))
    assert (len(found.data), found.total) == (100, 1_000_000)


def test_rows_beyond_all_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_ROWS", 10)
    assert len(list(values.rows_of([{}] * 11))) == 10
    assert len(list(values.rows_of({str(n): {} for n in range(11)}))) == 10
    assert list(values.rows_of("rows")) == []


def test_a_backup_keeps_every_byte(firewall: LabFirewall) -> None:
    """Also our own key, which other answers have masked: a file that is put back must be the one that was
    taken."""
    told = f"<opnsense><key>{firewall.api_key}</key>\u00e9\x01</opnsense>\n"
    firewall.inject(
        Fault(kind="status", path="core/backup/*", status=200, body=f'<?xml version="1.0"?>\n{told}')
    )

    async def read() -> Any:
        async with session(target(firewall, retries=0), FakeClock()) as work:
            return await READERS["backup"].read(work.api)

    assert run(read()).decode().endswith(told)
    firewall.clear_faults()
    firewall.inject(Fault(kind="status", path="core/backup/*", status=500, body=told))
    with pytest.raises(FazaiError) as caught:
        run(read())
    assert firewall.api_key not in str(caught.value)
