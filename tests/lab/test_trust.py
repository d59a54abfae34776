"""trust: certificates that are really made, really checked, and cannot go while something uses them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fazai.lab import LabFirewall, LabSettings, LabThread

Json = dict[str, Any]
CURVE = {"key_type": "prime256v1", "digest": "sha384"}


@pytest.fixture
def firewall() -> Iterator[LabFirewall]:
    with LabThread() as lab:
        yield lab.start("fw", LabSettings(auth_delay_s=0))


def post(firewall: LabFirewall, path: str, body: Json | None = None) -> Json:
    answer: Json = firewall.call("POST", f"/api/trust/{path}", body or {})
    return answer


def rows(firewall: LabFirewall, controller: str) -> list[Json]:
    found: list[Json] = post(firewall, f"{controller}/search")["rows"]
    return found


def signed(firewall: LabFirewall) -> tuple[Json, Json]:
    """An authority and a certificate that it signed."""
    authority = {"action": "internal", "descr": "root", "commonname": "root", **CURVE}
    assert post(firewall, "ca/add", {"ca": authority})["result"] == "saved"
    (ca,) = rows(firewall, "ca")
    wanted = {
        "action": "internal",
        "descr": "www",
        "caref": ca["refid"],
        "commonname": "www.example.org",
        "cert_type": "server_cert",
        "altnames_dns": "www.example.org\nexample.org",
        "altnames_ip": "192.0.2.9",
        **CURVE,
    }
    assert post(firewall, "cert/add", {"cert": wanted})["result"] == "saved"
    (cert,) = rows(firewall, "cert")
    assert {name: cert[name] for name in wanted if name != "action"} == {
        name: value for name, value in wanted.items() if name != "action"
    }
    return ca, cert


def test_a_certificate_is_signed_by_its_authority_and_says_what_was_asked_for(firewall: LabFirewall) -> None:
    from cryptography import x509

    ca, cert = signed(firewall)
    certificate = x509.load_pem_x509_certificate(cert["crt_payload"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca["crt_payload"].encode()))
    assert rows(firewall, "ca")[0]["refcount"] == "1"
    assert int(cert["valid_to"]) - int(cert["valid_from"]) == 397 * 86400


def test_a_certificate_is_reissued_with_its_key_and_names(firewall: LabFirewall) -> None:
    _, before = signed(firewall)
    body = {"cert": {"descr": "www again", "lifetime": "30"}}
    assert post(firewall, f"cert/set/{before['uuid']}", body) == {"result": "saved"}
    (after,) = rows(firewall, "cert")
    same = ("prv_payload", "name", "altnames_dns", "altnames_ip", "refid")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert after["crt_payload"] != before["crt_payload"]
    assert int(after["valid_to"]) - int(after["valid_from"]) == 30 * 86400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crt_payload": "garbage"}, "Invalid X509 certificate provided"),
        ({"prv_payload": "garbage"}, "Invalid private key provided: cannot parse private key data"),
        (
            {"prv_payload": "$ca"},
            "Invalid private key provided: private key does not match certificate data",
        ),
        ({}, ""),
    ],
)
def test_what_is_imported_is_looked_at(firewall: LabFirewall, changes: Json, message: str) -> None:
    ca, cert = signed(firewall)
    body = {"action": "import", "descr": "copy"} | {
        name: cert[name] for name in ("crt_payload", "prv_payload")
    }
    body |= {name: value.replace("$ca", ca["prv_payload"]) for name, value in changes.items()}
    answer = post(firewall, "cert/add", {"cert": body})
    if message:
        assert answer == {"errorMessage": message, "errorTitle": "Certificate error", "errorLevel": "error"}
    assert len(rows(firewall, "cert")) == (1 if message else 2)


def test_a_used_certificate_cannot_be_deleted(firewall: LabFirewall) -> None:
    _, cert = signed(firewall)
    target = {
        "transport": "tls4",
        "hostname": "192.0.2.1",
        "certificate": cert["refid"],
        "description": "log",
    }
    answer = firewall.call("POST", "/api/syslog/settings/addDestination", {"destination": target})
    assert rows(firewall, "cert")[0]["in_use"] == "1"
    refused = post(firewall, f"cert/del/{cert['uuid']}")
    assert refused["errorTitle"] == "Item in use by"
    assert f"syslog - log {{syslog.destinations.destination.{answer['uuid']}}}" in refused["errorMessage"]
    firewall.call("POST", f"/api/syslog/settings/delDestination/{answer['uuid']}", {})
    assert post(firewall, f"cert/del/{cert['uuid']}") == {"result": "deleted"}


def test_what_the_lab_does_not_make_it_says(firewall: LabFirewall) -> None:
    for wanted in ({"action": "external"}, {"action": "internal", "private_key_location": "local"}):
        answer = post(firewall, "cert/add", {"cert": {"descr": "x", **CURVE, **wanted}})
        assert answer["errorTitle"] == "lab"
    assert rows(firewall, "cert") == []
