"""The headers of a signed request, each at its limits."""

from __future__ import annotations

import pytest

from fazai.wire.base import WireError
from fazai.wire.signature import decode_signed_headers

RIGHT = {
    "X-Fazai-Agent": "web-1",
    "X-Fazai-Timestamp": "1000000",
    "X-Fazai-Nonce": "n" * 16,
    "X-Fazai-Signature": "sha256=" + "0" * 64,
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Nonce", "n" * 15, "expected `str` of length >= 16"),
        ("Nonce", "n" * 129, "expected `str` of length <= 128"),
        ("Nonce", "n" * 15 + " ", "printable ASCII without spaces"),
        ("Nonce", "n" * 16 + "\n", "printable ASCII without spaces"),
        ("Nonce", "ñ" * 16, "printable ASCII without spaces"),
        ("Timestamp", "1" * 13, "Unix seconds"),
        ("Timestamp", "", "Unix seconds"),
        ("Timestamp", "-1", "Unix seconds"),
        ("Signature", "sha256=" + "0" * 63, "sha256= and 64 hexadecimal digits"),
        ("Signature", "sha256=" + "A" * 64, "sha256= and 64 hexadecimal digits"),
        ("Signature", "sha512=" + "0" * 64, "sha256= and 64 hexadecimal digits"),
    ],
)
def test_a_value_beyond_its_limits_is_refused(name: str, value: str, said: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_signed_headers({**RIGHT, f"X-Fazai-{name}": value})
    assert caught.value.code == "bad_signature"
    assert said in caught.value.message
    assert name.lower() in caught.value.message


@pytest.mark.parametrize(("name", "value"), [("Nonce", "n" * 128), ("Timestamp", "9" * 12)])
def test_a_value_at_its_limit_is_right(name: str, value: str) -> None:
    headers = decode_signed_headers({**RIGHT, f"x-FAZAI-{name}": value})
    assert getattr(headers, name.lower()) == value


def test_the_first_header_that_is_missing_is_named() -> None:
    only = {"X-Fazai-Nonce": "n" * 16}
    with pytest.raises(WireError) as caught:
        decode_signed_headers(only)
    assert (caught.value.code, caught.value.message) == (
        "bad_signature",
        "the header x-fazai-agent is missing",
    )
