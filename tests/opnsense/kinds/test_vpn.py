"""WireGuard, OpenVPN, IPsec and certificates: each kind's life on both releases, and its traps."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.errors import Rejected
from fazai.model import Change, Secret, Verb
from fazai.providers.opnsense.provider import PROVIDER
from tests.opnsense.helpers import Start, apply, apply_in, plan, resource, run, session, target, undo
from tests.opnsense.kinds.lifecycle import Case, changes_of, check_lifecycle, lives

PUBLIC, OTHER = (
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
)
PRIVATE = "CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws="
SHARED = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="

_WG0 = ("opnsense.wireguard_server", {"name": "wg0", "privkey": PRIVATE, "tunneladdress": ["10.110.0.1/24"]})
_WG1 = ("opnsense.wireguard_server", {"name": "wg1", "privkey": PRIVATE, "port": 51821})

STATIC = "\n".join(
    (
        "-----BEGIN OpenVPN Static key V1-----",
        *["0123456789abcdef" * 2] * 16,
        "-----END OpenVPN Static key V1-----",
    )
)
_CA = ("opnsense.trust_ca", {"descr": "VPN CA", "commonname": "vpn-ca"})
_CERT = (
    "opnsense.trust_cert",
    {"descr": "VPN server", "caref": "VPN CA", "commonname": "vpn.example.org", "cert_type": "server_cert"},
)
_KEY = ("opnsense.openvpn_static_key", {"description": "site key", "key": STATIC})
_SERVER = (
    "opnsense.openvpn_instance",
    {"description": "road warriors", "server": "10.90.0.0/24", "port": 1194, "cert": "VPN server"},
)

PEM = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHSri1vVLpMhKYLMK3LDBmnqLD5sI
FfPIx6cK/epm3ZxGILdc9tu/49DlIN8y7fhbXsk+Y1weudOFwnmmw+nTdA==
-----END PUBLIC KEY-----
"""
_POOL = ("opnsense.ipsec_pool", {"name": "clients", "addrs": "10.60.0.0/24"})
_BRANCH = ("opnsense.ipsec_connection", {"description": "branch", "remote_addrs": ["198.51.100.2"]})
_CHILD = (
    "opnsense.ipsec_child",
    {
        "description": "branch lan",
        "connection": "branch",
        "local_ts": ["192.168.1.0/24"],
        "remote_ts": ["10.50.0.0/24"],
    },
)
_PAIR = ("opnsense.ipsec_key_pair", {"name": "hq", "keyType": "ecdsa", "publicKey": PEM})

CASES = [
    Case("opnsense.trust_ca", {"descr": "VPN CA", "commonname": "vpn-ca", "lifetime": 3650}, {"serial": 7}),
    Case(
        "opnsense.openvpn_static_key",
        {"description": "site key", "key": STATIC},
        {"mode": "auth"},
        releases=["26.7.2"],  # 26.1 takes no key with lines
    ),
    Case(
        _SERVER[0],
        _SERVER[1],
        {"ca": "VPN CA", "push_route": ["192.168.1.0/24"], "tls_key": "site key", "maxclients": 10},
        needs=[_CA, _CERT, _KEY],
        releases=["26.7.2"],
    ),
    Case(
        _SERVER[0],
        _SERVER[1],
        {"ca": "VPN CA", "data-ciphers": ["AES-256-GCM"], "keepalive_interval": 10, "keepalive_timeout": 60},
        needs=[_CA, _CERT],
    ),
    Case(
        "opnsense.openvpn_instance",
        {"description": "head office", "role": "client", "remote": ["vpn.example.org:1194"], "ca": "VPN CA"},
        {"username": "branch", "password": "open sesame"},
        needs=[_CA],
    ),
    Case(
        "opnsense.openvpn_override",
        {"common_name": "laptop", "servers": ["road warriors"], "tunnel_network": "10.90.0.10/24"},
        {"dns_servers": ["192.168.1.1"], "push_reset": True},
        needs=[_CA, _CERT, _SERVER],
    ),
    Case(_POOL[0], _POOL[1], {"addrs": "10.61.0.0/24", "dns": ["10.61.0.53"]}),
    Case(
        "opnsense.ipsec_psk",
        {"ident": "hq@example.org", "remote_ident": "branch@example.org", "Key": "open sesame"},
        {"Key": "sesame, open", "keyType": "EAP", "description": "branch"},
    ),
    Case("opnsense.ipsec_psk", {"ident": "hq@example.org", "Key": "open sesame"}, {"Key": "another"}),
    Case(_PAIR[0], {**_PAIR[1], "keyType": "rsa"}, {"keyType": "ecdsa"}),
    Case(
        _BRANCH[0],
        {**_BRANCH[1], "version": 2, "proposals": ["aes256-sha256-modp2048"]},
        {"pools": ["clients", "radius"], "local_addrs": ["192.0.2.2", "192.0.2.3"], "unique": "replace"},
        needs=[_POOL],
    ),
    Case(
        "opnsense.ipsec_local",
        {"description": "hq", "connection": "branch", "id": "hq.example.org"},
        {"auth": "pubkey", "pubkeys": ["hq"], "certs": ["VPN server"]},
        needs=[_CA, _CERT, _PAIR, _BRANCH],
    ),
    Case(
        "opnsense.ipsec_remote",
        {"description": "branch", "connection": "branch", "id": "branch.example.org"},
        {"auth": "pubkey", "cacerts": ["VPN CA"], "groups": ["admins"], "round": 1},
        needs=[_CA, _BRANCH],
    ),
    Case(
        _CHILD[0],
        _CHILD[1],
        {"reqid": 10, "remote_ts": ["10.50.0.0/24", "10.51.0.0/24"], "start_action": "trap|start"},
        needs=[_BRANCH],
    ),
    Case(
        "opnsense.ipsec_vti",
        {"reqid": 10, "tunnel_local": "10.70.0.1", "tunnel_remote": "10.70.0.2"},
        {"local": "192.0.2.2", "remote": "198.51.100.2", "skip_fw": True},
    ),
    Case(
        "opnsense.ipsec_manual_spd",
        {"source": "10.80.0.0/24", "destination": "10.50.0.0/24", "connection_child": "branch lan"},
        {"protocol": "ah", "description": "beside"},
        needs=[_BRANCH, _CHILD],
    ),
    Case("opnsense.ipsec_manual_spd", {"source": "10.80.0.0/24", "reqid": 10}, {"enabled": False}),
    Case(
        "opnsense.wireguard_server",
        {"name": "wg0", "privkey": PRIVATE, "port": 51820, "tunneladdress": ["10.110.0.1/24"]},
        {"dns": ["10.110.0.1"], "disableroutes": True, "gateway": "10.110.0.2", "mtu": 1400},
    ),
    Case(
        "opnsense.wireguard_peer",
        {"name": "laptop", "pubkey": PUBLIC, "tunneladdress": ["10.110.0.2/32"], "servers": ["wg0"]},
        {"servers": ["wg0", "wg1"], "psk": SHARED, "keepalive": 25},
        needs=[_WG0, _WG1],
    ),
]


@pytest.mark.parametrize(("case", "release"), lives(CASES))
def test_life(start: Start, case: Case, release: str) -> None:
    check_lifecycle(start, case, release)


def test_a_change_of_a_peer_leaves_it_with_its_instances(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    fields = {"name": "laptop", "pubkey": PUBLIC, "tunneladdress": ["10.110.0.2/32"]}
    run(apply(to, [resource(*_WG0), resource("opnsense.wireguard_peer", {**fields, "servers": ["wg0"]})]))
    changed = resource("opnsense.wireguard_peer", {**fields, "keepalive": 25})  # says nothing of instances
    assert len(run(apply(to, [changed])).written) == 1
    (server,) = firewall.call("POST", "/api/wireguard/server/searchServer", {})["rows"]
    assert server["%peers"] == "laptop"
    assert not run(plan(to, [changed])).steps


def test_keys_of_wireguard_stand_in_no_change(start: Start) -> None:
    to = target(start())
    peer = {"name": "laptop", "pubkey": PUBLIC, "tunneladdress": ["10.110.0.2/32"], "psk": SHARED}
    done = run(apply(to, [resource(*_WG0), resource("opnsense.wireguard_peer", peer)]))
    for kind, name, key in (("server", "privkey", PRIVATE), ("peer", "psk", SHARED)):
        (change,) = changes_of(done, f"opnsense.wireguard_{kind}")
        assert isinstance(change.after[name], Secret)
        assert key not in repr(change)
    fields = {**_WG0[1], "privkey": OTHER}
    step = run(plan(to, [resource(_WG0[0], fields)])).steps[0]
    assert isinstance(step, Change)
    assert "privkey" in step.after
    assert PRIVATE not in repr(step)
    assert OTHER not in repr(step)


def test_an_instance_is_not_made_without_its_key(start: Start) -> None:
    to = target(start())
    bare = resource("opnsense.wireguard_server", {"name": "wg0", "port": 51820})
    (error,) = run(plan(to, [bare])).errors
    assert "privkey is missing" in str(error)
    run(apply(to, [resource(*_WG0)]))
    (known,) = changes_of(run(apply(to, [bare])), "opnsense.wireguard_server")
    assert dict(known.after) == {"port": "51820", "tunneladdress": ()}


WRONG = [
    ("ipsec_psk", {"ident": "two words"}, "ident"),
    ("ipsec_pool", {"name": "two words", "addrs": "10.60.0.0/24"}, "name"),
    ("ipsec_child", {"description": "lan", "connection": "branch", "mode": "tunel"}, "mode"),
    ("openvpn_instance", {"description": "a", "role": "servant"}, "role"),
    ("trust_ca", {"descr": "a", "key_type": "1111"}, "key_type"),
    ("wireguard_server", {"name": "wg 0", "privkey": PRIVATE}, "name"),
    ("wireguard_server", {"name": "wg0", "privkey": PRIVATE, "mtu": 9301}, "mtu"),
    ("wireguard_peer", {"name": "a", "pubkey": PUBLIC, "tunneladdress": []}, "tunneladdress"),
]


@pytest.mark.parametrize(("kind", "fields", "wrong"), WRONG)
def test_a_wrong_value_is_refused_by_its_field(kind: str, fields: dict[str, Any], wrong: str) -> None:
    _, problems = PROVIDER.kinds[f"opnsense.{kind}"].normalise(fields, "present")
    assert [problem.field for problem in problems] == [wrong]


def test_life_of_a_certificate(start: Start) -> None:
    """What it is made of is only for the making: afterwards its name alone can be changed."""
    firewall = start()
    to = target(firewall)
    done = run(apply(to, [resource(*_CA), resource(*_CERT)]))
    assert [change.verb for change, _ in done.written] == [Verb.CREATE] * 2
    assert not done.after.steps
    before = firewall.call("POST", "/api/trust/cert/search", {})["rows"][0]
    assert before["cert_type"] == "server_cert"
    renamed = resource(_CERT[0], {**_CERT[1], "descr": "VPN", "uuid": before["uuid"]})
    assert [change.verb for change, _ in run(apply(to, [renamed])).written] == [Verb.UPDATE]
    after = firewall.call("POST", "/api/trust/cert/search", {})["rows"][0]
    assert after["descr"] == "VPN"
    assert after["crt"] == before["crt"]  # a set without an action would have issued another one
    gone = resource(_CERT[0], {"descr": "VPN", "uuid": before["uuid"]}, state="absent")
    assert [change.verb for change, _ in run(apply(to, [gone])).written] == [Verb.DELETE]


def test_a_deleted_authority_and_its_certificate_come_back_as_they_were(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    kept = ("descr", "refid", "caref", "crt", "prv")

    def rows() -> list[dict[str, str]]:
        calls = [firewall.call("POST", f"/api/trust/{what}/search", {})["rows"] for what in ("ca", "cert")]
        return [{name: row[name] for name in kept} for found in calls for row in found]

    run(apply(to, [resource(*_CA), resource(*_CERT)]))
    before = rows()

    async def delete_and_undo() -> None:
        async with session(to) as work:
            gone = [
                resource(kind, {"descr": fields["descr"]}, state="absent") for kind, fields in (_CA, _CERT)
            ]
            done = await apply_in(work, gone)
            assert rows() == []
            assert before[0]["prv"] not in repr(done.written)
            assert "PRIVATE KEY" not in repr(done.written)
            await undo(work, done)

    run(delete_and_undo())
    assert rows() == before


def test_an_imported_certificate_is_compared_by_its_text(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    run(apply(to, [resource(*_CA), resource(*_CERT)]))
    row = firewall.call("POST", "/api/trust/cert/search", {})["rows"][0]
    fields = {"descr": "imported", "crt_payload": row["crt_payload"].strip() + "\n"}
    done = run(apply(to, [resource("opnsense.trust_cert", {**fields, "prv_payload": row["prv_payload"]})]))
    (change,) = changes_of(done, "opnsense.trust_cert")
    assert isinstance(change.after["prv_payload"], Secret)
    assert not done.after.steps
    assert firewall.call("POST", "/api/trust/cert/search", {})["rows"][1]["crt"] == row["crt"]


def test_a_static_key_stands_in_no_change_and_its_last_line_break_is_none(start: Start) -> None:
    to = target(start())
    done = run(apply(to, [resource(*_KEY)]))
    (change,) = changes_of(done, "opnsense.openvpn_static_key")
    assert "0123456789abcdef" not in repr(change)
    again = resource(_KEY[0], {**_KEY[1], "key": f"{STATIC}\n"})
    assert not run(plan(to, [again])).steps


def test_keys_of_ipsec_stand_in_no_change(start: Start) -> None:
    to = target(start())
    psk = {"ident": "hq@example.org", "Key": "open sesame"}
    done = run(apply(to, [resource("opnsense.ipsec_psk", psk)]))
    assert "sesame" not in repr(done.written)
    gone = resource("opnsense.ipsec_psk", {"ident": "hq@example.org"}, state="absent")
    (step, _) = run(plan(to, [gone])).steps
    assert isinstance(step, Change)
    assert isinstance(step.before["Key"], Secret)
    assert "sesame" not in repr(step)


def test_a_pool_that_is_none_is_refused_by_its_name(start: Start) -> None:
    """`radius` is a word of the field, any other must be the name of a pool."""
    to = target(start())
    (error,) = run(plan(to, [resource(_BRANCH[0], {**_BRANCH[1], "pools": ["radios"]})])).errors
    assert 'there is no ipsec pool "radios"' in str(error)


def test_release_26_1_refuses_a_static_key_with_lines_by_its_field(start: Start) -> None:
    to = target(start(release="26.1.11"))
    with pytest.raises(Rejected, match='refused "site key": key: Text may not contain spaces') as caught:
        run(apply(to, [resource(*_KEY)]))
    assert list(caught.value.fields) == ["key"]
    assert "0123456789abcdef" not in str(caught.value)


def test_the_password_of_a_client_stands_in_no_change(start: Start) -> None:
    fields = {"description": "office", "role": "client", "remote": ["vpn.example.org"], "ca": "VPN CA"}
    secrets = {"username": "branch", "password": "open sesame", "auth-gen-token-secret": "abcdef"}
    to = target(start())
    client = resource("opnsense.openvpn_instance", {**fields, **secrets, "auth-gen-token": 60})
    done = run(apply(to, [resource(*_CA), client]))
    assert not done.after.steps
    assert "sesame" not in repr(done.written)
    assert "abcdef" not in repr(changes_of(done, "opnsense.openvpn_instance")[0].after)


def test_what_is_sent_along_gives_way_to_what_is_declared(start: Start) -> None:
    firewall = start()
    to = target(firewall)
    run(apply(to, [resource(*_CA), resource(*_CERT), resource(_SERVER[0], {**_SERVER[1], "vpnid": 9})]))
    (row,) = firewall.call("POST", "/api/openvpn/instances/search", {})["rows"]
    assert row["vpnid"] == "9"
