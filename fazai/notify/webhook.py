"""Channel: a POST to a URL, signed as requests of agents are (SPEC.md, section 3)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from fazai.files import read_token_file
from fazai.notify.message import Notice
from fazai.notify.posting import post_once
from fazai.timestamps import timestamp
from fazai.wire.signature import sign

SENDER = "fazai-daemon"
FORMAT = "fazai-notice/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChannel:
    """A URL that takes JSON. The one line of `secret_file` is the key of the signature."""

    name: str
    url: str
    secret_file: Path
    ca: Path | None = None
    timeout_s: float = 15.0

    async def send(self, notice: Notice) -> str | None:
        """Post a notice; it is delivered once the answer is 2xx. Raises DeliveryError, SecretError."""
        key = read_token_file(self.secret_file, "file with the key of the webhook", "openssl rand -hex 32")
        body = encode_notice(notice)
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        moment, nonce = str(int(time.time())), os.urandom(16).hex()
        signature = sign(key.encode(), timestamp=moment, nonce=nonce, method="POST", path=path, body=body)
        headers = {
            "Content-Type": "application/json",
            "X-Fazai-Agent": SENDER,
            "X-Fazai-Timestamp": moment,
            "X-Fazai-Nonce": nonce,
            "X-Fazai-Signature": signature,
        }
        await post_once(self.url, body, headers, ca=self.ca, timeout_s=self.timeout_s, secrets=(key,))
        return None


def encode_notice(notice: Notice) -> bytes:
    """Return a notice as the body of a webhook: its fields, those that are known."""
    fields = {
        "format": FORMAT,
        "id": notice.id,
        "kind": notice.kind,
        "time": timestamp(notice.time),
        "subject": notice.subject,
        "lines": notice.lines,
        "urgent": notice.urgent,
        "target": notice.target,
        "run_id": notice.run_id,
        "session_id": notice.session_id,
        "action_id": notice.action_id,
    }
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
