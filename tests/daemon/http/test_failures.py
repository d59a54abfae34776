"""Wrong tokens are counted, each address by itself; who has a certificate has its name."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from fazai.lab.server.tls import LabAuthority
from tests.daemon import certificates
from tests.daemon.live import live, token

WRONG = {"authorization": "Bearer wrong"}


def test_wrong_tokens_by_the_minute(tmp_path: Path) -> None:
    """Ten in a minute are answered, then one has to wait; a minute after the first one all begins anew."""
    admin = {"authorization": f"Bearer {token(tmp_path, 'admin', 'admin')}"}
    clock = [time.monotonic()]
    with live(tmp_path) as daemon, daemon.client() as client:
        guard = daemon.services.guard
        guard._monotonic = lambda: clock[0]
        assert [client.get("/runs", headers=WRONG).status_code for _ in range(10)] == [401] * 10
        refused = client.get("/runs", headers=WRONG)
        assert (refused.status_code, refused.json()["error"]) == (429, "too many wrong tokens (wait 60 s)")
        assert refused.headers["retry-after"] == "60"
        clock[0] += 59.5
        assert client.get("/runs", headers=WRONG).headers["retry-after"] == "1"
        assert (
            client.get("/runs", headers=admin).status_code == 200
        )  # what is valid is never refused for that
        clock[0] += 0.5
        assert [client.get("/runs", headers=WRONG).status_code for _ in range(11)] == [401] * 10 + [429]
        page = client.get("/metrics", headers=admin).text.splitlines()
    at = next(at for at, line in enumerate(page) if line.startswith("fazai_auth_failures_total "))
    assert float(page[at].split()[1]) == 23
    assert page[at - 2].startswith("# HELP fazai_auth_failures")
    assert page[at - 1].endswith(" counter")


def test_who_has_a_certificate_has_its_name(tmp_path: Path) -> None:
    authority = LabAuthority.create()
    files = certificates.server(tmp_path, authority=authority)
    mine = certificates.client(tmp_path, "edge-7", authority)
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(mine.cert, mine.key)
    with (
        live(
            tmp_path, client_role="operator", tls_cert=files.cert, tls_key=files.key, client_ca=files.ca
        ) as daemon,
        daemon.client(verify=context) as client,
    ):
        found = client.get("/whoami").json()
    assert (found["name"], found["role"]) == ("cert:edge-7", "operator")
