"""Channel: a message by Telegram's Bot API (`sendMessage`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fazai.errors import SecretError
from fazai.files import read_token_file
from fazai.notify.message import DeliveryError, Notice
from fazai.notify.posting import post_once

BASE_URL = "https://api.telegram.org"
_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{20,128}")
_MOST_CHARACTERS = 4096  # of one message, as Telegram counts: UTF-16 units


class _Answer(msgspec.Struct):
    ok: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramChannel:
    """A chat, and the bot whose token is the one line of `token_file`. `base_url`: a Bot API server."""

    name: str
    chat: str
    token_file: Path
    base_url: str = BASE_URL
    ca: Path | None = None
    timeout_s: float = 15.0

    async def send(self, notice: Notice) -> str | None:
        """Send a message as plain text: nothing in it is markup. The token is a part of the URL, which no
        error shows. Raises DeliveryError, SecretError."""
        hint = "one line, from @BotFather"
        token = read_token_file(self.token_file, "file with the token of the bot", hint)
        if not _TOKEN.fullmatch(token):
            raise SecretError("it holds no token of a bot", where=str(self.token_file))
        fields = {
            "chat_id": self.chat,
            "text": _cut(notice.text),
            "link_preview_options": {"is_disabled": True},
            "disable_notification": not notice.urgent and notice.kind == "digest",
        }
        answer = await post_once(
            f"{self.base_url.rstrip('/')}/bot{token}/sendMessage",
            msgspec.json.encode(fields),
            {"Content-Type": "application/json"},
            ca=self.ca,
            timeout_s=self.timeout_s,
            secrets=(token,),
        )
        try:
            taken = msgspec.json.decode(answer, type=_Answer).ok
        except msgspec.DecodeError:
            taken = False
        if not taken:
            raise DeliveryError("its answer is not that of a Bot API server")
        return None


def _cut(text: str) -> str:
    """Return as much of a text as one message holds."""
    if len(text.encode("utf-16-le")) // 2 <= _MOST_CHARACTERS:
        return text
    return text.encode("utf-16-le")[: 2 * (_MOST_CHARACTERS - 1)].decode("utf-16-le", "ignore") + "…"
