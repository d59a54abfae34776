"""HTTPS: a certificate that the lab's authority vouches for, and three that a client must refuse."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest

from fazai.lab import Lab, LabSettings, Tls


async def _status(lab: Lab, variant: str, *, trusting: bool = True) -> int:
    settings = LabSettings(tls=Tls(variant=variant), auth_delay_s=0)  # type: ignore[arg-type]
    firewall = await lab.start(f"fw-{variant}", settings)
    assert firewall.base_url.startswith("https://")
    context = ssl.create_default_context(cadata=firewall.ca_pem if trusting else None)
    key = (firewall.api_key, firewall.api_secret)
    async with httpx.AsyncClient(base_url=firewall.base_url, verify=context, auth=key) as client:
        answer = await client.get("/api/core/firmware/running")
        assert "secure" in answer.headers["set-cookie"]
        return answer.status_code


def test_a_valid_certificate_is_accepted_by_who_trusts_the_authority() -> None:
    async def run() -> None:
        async with Lab() as lab:
            assert await _status(lab, "valid") == 200
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await _status(lab, "valid", trusting=False)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("variant", "said"),
    [("expired", "expired"), ("wrong_host", "(?i)mismatch"), ("self_signed", "self-signed certificate")],
)
def test_certificates_that_must_be_refused(variant: str, said: str) -> None:
    async def run() -> None:
        async with Lab() as lab:
            with pytest.raises(httpx.ConnectError, match=said):
                await _status(lab, variant)

    asyncio.run(run())


def test_the_authority_of_a_folder_stays(tmp_path: Path) -> None:
    async def pem() -> str | None:
        async with Lab(tmp_path) as lab:
            return (await lab.start("fw", LabSettings(tls=Tls()))).ca_pem

    first = asyncio.run(pem())
    assert first is not None
    assert asyncio.run(pem()) == first
    assert (tmp_path / "ca.pem").stat().st_mode & 0o777 == 0o600
