"""Decryption of Ansible Vault, formats 1.1 and 1.2 (AES256).

Source: ansible-core, "Ansible Vault format". A header line `$ANSIBLE_VAULT;1.1;AES256` (1.2 adds the vault
id), then the hex of three lines of hex: salt, HMAC-SHA256 of the ciphertext, ciphertext. PBKDF2-HMAC-SHA256
with 10,000 rounds makes 80 bytes of password and salt: 32 for AES-CTR, 32 for the HMAC, 16 for the counter.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fazai.errors import SecretError

_MAGIC: Final = "$ANSIBLE_VAULT"
_ROUNDS: Final = 10_000
_BLOCK_BYTES: Final = 16
_SIZE_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VaultPassword:
    """A vault password and the vault id it is for (None: any)."""

    label: str | None
    value: bytes

    def __repr__(self) -> str:
        return f"Password(label={self.label!r}, value=***)"


@dataclass(frozen=True, slots=True)
class _Envelope:
    label: str | None
    salt: bytes
    digest: bytes
    ciphertext: bytes


def decrypt_vault(text: str, passwords: Iterable[VaultPassword]) -> bytes:
    """Decrypt Vault text to bytes. Passwords for the text's vault id are tried first, then all others.

    Raises SecretError: not Vault text, damaged, no password, no password that opens it.
    """
    envelope = _parse_envelope(text)
    known = list(passwords)
    if not known:
        hint = "name its file: --vault-password-file, or FAZAI_VAULT_PASSWORD_FILE"
        raise SecretError("no vault password was given", hint=hint)
    first = [each for each in known if each.label == envelope.label]
    for password in first + [each for each in known if each not in first]:
        key, sign, counter = _derive_keys(password.value, envelope.salt)
        digest = hmac.new(sign, envelope.ciphertext, hashlib.sha256).digest()
        if hmac.compare_digest(digest, envelope.digest):
            return _strip_padding(_apply_cipher(key, counter, envelope.ciphertext))
    hint = "name the right --vault-password-file, or encrypt the text anew: it may be damaged"
    raise SecretError(_no_match_text(envelope.label, len(known)), hint=hint)


def _no_match_text(label: str | None, count: int) -> str:
    which = f' (it is for the vault id "{label}")' if label else ""
    if count == 1:
        return f"the vault password does not open this text{which}"
    return f"none of the {count} vault passwords opens this text{which}"


def _parse_header(line: str) -> str | None:
    parts = line.strip().split(";")
    if parts[0] != _MAGIC or len(parts) < 3:
        hint = "its first line is $ANSIBLE_VAULT;1.1;AES256"
        raise SecretError("this is not Ansible Vault text", hint=hint)
    if parts[1] not in ("1.1", "1.2"):
        raise SecretError(f"Ansible Vault format {parts[1][:20]} is not known", hint="1.1 and 1.2 are")
    if parts[2] != "AES256":
        raise SecretError(f"the vault cipher {parts[2][:20]} is not known", hint="AES256 is")
    return parts[3] if parts[1] == "1.2" and len(parts) > 3 else None


def _parse_envelope(text: str) -> _Envelope:
    if len(text) > _SIZE_MAX:
        raise SecretError("the vault text is too long")
    lines = text.strip().splitlines()
    label = _parse_header(lines[0] if lines else "")
    try:
        parts = unhexlify("".join(line.strip() for line in lines[1:])).split(b"\n")
        salt, digest, ciphertext = (unhexlify(part) for part in parts)
    except (HexError, ValueError):  # ValueError: not three parts, or characters that are no ASCII
        raise SecretError("the vault text is damaged", hint="copy it again, with all its lines") from None
    return _Envelope(label, salt, digest, ciphertext)


def _derive_keys(password: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    derived = hashlib.pbkdf2_hmac("sha256", password, salt, _ROUNDS, 80)
    return derived[:32], derived[32:64], derived[64:]


def _apply_cipher(key: bytes, counter: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt: in counter mode it is the same."""
    # heavy, and needed by few
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    context = Cipher(AES(key), CTR(counter)).decryptor()
    return context.update(data) + context.finalize()


def _strip_padding(data: bytes) -> bytes:
    """Strip what fills the last block (PKCS #7). Raises SecretError."""
    count = data[-1] if data else 0
    if not 1 <= count <= _BLOCK_BYTES or data[-count:] != bytes([count]) * count:
        raise SecretError("the vault text is damaged: its padding is wrong")
    return data[:-count]
