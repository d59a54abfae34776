"""Ansible Vault text, against what ansible-core made (vault/)."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import SecretError
from fazai.secrets.vault import (
    VaultPassword,
    _apply_cipher,
    _derive_keys,
    _parse_header,
    decrypt_vault,
)
from tests.campaign import with_examples

VAULT = Path(__file__).parent / "vault"
PASSWORD = b"correct horse battery staple"
OTHER = b"other password"
ANY = (VaultPassword(None, OTHER), VaultPassword(None, PASSWORD))

CASES = {
    "text-1.1": (None, b"hunter2"),
    "text-1.2-prod": ("prod", b"hunter2"),
    "json-other-password": (
        None,
        json.dumps({"api_key": "k+/=", "api_secret": "é中 s"}, ensure_ascii=False).encode(),
    ),
    "one-block": (None, b"0123456789abcdef"),
    "whole-file": (None, b"db_password: hunter2\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_opens_what_ansible_made(name: str) -> None:
    label, plain = CASES[name]
    text = (VAULT / f"{name}.vault").read_text()
    assert _parse_header(text.splitlines()[0]) == label
    assert decrypt_vault(text, ANY) == plain
    assert decrypt_vault(text.replace("\n", "\r\n"), ANY) == plain  # a file that went through Windows
    assert decrypt_vault("\n  " + text.replace("\n", "\n  "), ANY) == plain  # as it stands in YAML


@with_examples(6, 25)
def test_round_trip(count: int) -> None:
    @settings(deadline=None, derandomize=True, max_examples=count)
    @given(st.binary(max_size=200), st.binary(min_size=1, max_size=40), st.sampled_from([None, "dev"]))
    def holds(data: bytes, password: bytes, label: str | None) -> None:
        padding = 16 - len(data) % 16
        text = _sealed(data + bytes([padding]) * padding, password, label)
        assert _parse_header(text.splitlines()[0]) == label
        assert decrypt_vault(text, [VaultPassword(None, b"wrong"), VaultPassword(label, password)]) == data

    holds()


def test_password_is_not_shown() -> None:
    assert "correct" not in repr(VaultPassword("prod", PASSWORD))


def _sealed(padded: bytes, password: bytes = PASSWORD, label: str | None = None) -> str:
    """A vault text of one who has the password, and pads as he likes."""
    salt = bytes(32)
    key, mac, counter = _derive_keys(password, salt)
    ciphertext = _apply_cipher(key, counter, padded)
    digest = hmac.new(mac, ciphertext, "sha256").hexdigest()
    inner = "\n".join((salt.hex(), digest, ciphertext.hex()))
    header = f"$ANSIBLE_VAULT;1.2;AES256;{label}" if label else "$ANSIBLE_VAULT;1.1;AES256"
    return f"{header}\n{inner.encode().hex()}\n"


@pytest.mark.parametrize("tail", [b"\0", b"\x11", b"\x02\x03", b"\x01\x02"])
def test_padding_that_is_wrong_is_damage(tail: bytes) -> None:
    assert decrypt_vault(_sealed(b"x" * 15 + b"\x01"), ANY) == b"x" * 15
    with pytest.raises(SecretError, match="its padding is wrong"):
        decrypt_vault(_sealed(b"x" * (16 - len(tail)) + tail), ANY)


def _damaged(change: str) -> str:
    text = (VAULT / "text-1.1.vault").read_text()
    header, first, *rest = text.splitlines()
    return {
        "cut": "\n".join([header, first]),
        "flipped": "\n".join([header, ("0" if first[0] != "0" else "1") + first[1:], *rest]),
        "not hex": "\n".join([header, "zz" + first[2:], *rest]),
        "umlaut": "\n".join([header, "é" + first[1:], *rest]),
        "header only": header,
        "other format": text.replace(";1.1;", ";1.3;"),
        "other cipher": text.replace("AES256", "AES"),
        "no vault": "hunter2",
        "empty": "",
    }[change]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("cut", "damaged"),
        ("flipped", "damaged"),
        ("not hex", "damaged"),
        ("umlaut", "damaged"),
        ("header only", "damaged"),
        ("other format", "format 1.3 is not known"),
        ("other cipher", "cipher AES is not known"),
        ("no vault", "not Ansible Vault text"),
        ("empty", "not Ansible Vault text"),
    ],
)
def test_damaged(change: str, words: str) -> None:
    with pytest.raises(SecretError, match=words) as caught:
        decrypt_vault(_damaged(change), ANY)
    assert caught.value.exit_code == 3


def test_digest_is_checked() -> None:
    """A ciphertext that was changed is not decrypted."""
    import binascii

    header, *body = (VAULT / "one-block.vault").read_text().splitlines()
    salt, digest, ciphertext = binascii.unhexlify("".join(body)).split(b"\n")
    changed = (b"0" if ciphertext[:1] != b"0" else b"1") + ciphertext[1:]
    text = header + "\n" + binascii.hexlify(b"\n".join((salt, digest, changed))).decode()
    with pytest.raises(SecretError, match="does not open this text"):
        decrypt_vault(text, [VaultPassword(None, PASSWORD)])


def test_wrong_and_missing_passwords() -> None:
    text = (VAULT / "text-1.2-prod.vault").read_text()
    with pytest.raises(SecretError, match=r'does not open this text \(it is for the vault id "prod"\)'):
        decrypt_vault(text, [VaultPassword(None, OTHER)])
    with pytest.raises(SecretError, match="none of the 2 vault passwords"):
        decrypt_vault(text, [VaultPassword(None, OTHER), VaultPassword("dev", b"x")])
    with pytest.raises(SecretError, match="no vault password") as caught:
        decrypt_vault(text, [])
    assert "--vault-password-file" in str(caught.value.hint)
