"""The section `notify:` of the daemon's configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fazai.config import is_loopback
from fazai.daemon.notify.config import Channel, NotifyConfig, QuietTime, Subscription
from fazai.daemon.runs.config_values import (
    Readers,
    Section,
    WrongValue,
    choice_reader,
    interval_reader,
    number_reader,
    read_named,
    read_span,
    read_string,
    read_texts,
    read_window,
    read_zone,
)
from fazai.notify.message import EVENT_KINDS
from fazai.notify.smtp import SmtpChannel
from fazai.notify.telegram import BASE_URL, TelegramChannel
from fazai.notify.webhook import WebhookChannel
from fazai.yamltext import YamlList

_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
_TYPES = ("smtp", "webhook", "telegram")
_TLS = ("starttls", "tls", "none")
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_LONGEST_S = 120.0


def read_notify(top: Section) -> NotifyConfig:
    """Return what the section says, and note what is wrong in it."""
    section = top.section_below("notify")
    if section is None:
        return NotifyConfig()
    section.check_keys("channels", "quiet", *_NOTIFY)
    found = read_named(section, "channels", _read_channel)
    config = NotifyConfig(subscriptions={one.channel.name: one for one in found}, quiet=_read_quiet(section))
    return section.read_fields(config, _NOTIFY)


def _read_quiet(notify: Section) -> QuietTime | None:
    section = notify.section_below("quiet")
    if section is None:
        return None
    section.check_keys("windows", "timezone")
    zone = section.read("timezone", read_zone, UTC)
    listed = section.node.get("windows")
    if not isinstance(listed, YamlList) or not listed:
        hint = "- {days: mon-fri, from: '22:00', to: '07:00'}"
        section.note_problem("windows", "windows is a list of times of day", hint)
        return None
    windows = tuple(filter(None, (read_window(section, each) for each in listed)))
    return QuietTime(windows, zone)


def _read_channel(name: str, section: Section) -> Subscription | None:
    type_ = section.require("type", choice_reader(_TYPES))
    if type_ is None:
        return None
    keys, reader = _CHANNELS[type_]
    section.check_keys("type", "kinds", "timeout", "ca", *keys)
    before = len(section.problems)
    kinds = section.read("kinds", _read_kinds, frozenset(EVENT_KINDS))
    channel, text = reader(name, section), section.read("ca", read_string, None)
    ca = _file(section, "ca", text, "a PEM file") if text else None
    timeout_s = section.read("timeout", _read_timeout, None)
    if channel is None or len(section.problems) > before:
        return None
    return Subscription(replace(channel, timeout_s=timeout_s or channel.timeout_s, ca=ca), kinds)


def _read_smtp(name: str, section: Section) -> Channel | None:
    host, sender = section.require("host", read_string), section.require("from", _read_mail)
    recipients = section.require("to", _read_mails)
    tls = section.read("tls", choice_reader(_TLS), "starttls")
    port = section.read("port", number_reader(1, 65535), _PORTS[tls])
    user, password = section.read("user", read_string, None), section.read("password_file", read_string, None)
    if (user is None) != (password is None):
        section.note_problem(None, "user and password_file belong together", "give both, or none")
    if tls == "none" and password is not None:
        section.note_problem("tls", "the password would go there in the clear", "tls: starttls, or tls: tls")
    if host is None or sender is None or recipients is None:
        return None
    file = _file(section, "password_file", password, "one line, in a file of mode 0600") if password else None
    return SmtpChannel(
        name=name,
        host=host,
        port=port,
        sender=sender,
        recipients=recipients,
        tls=tls,  # type: ignore[arg-type]  # one of _TLS
        user=user,
        password_file=file,
    )


def _read_webhook(name: str, section: Section) -> Channel | None:
    url, secret = section.require("url", _read_url), section.require("secret_file", read_string)
    if url is None or secret is None:
        return None
    hint = "openssl rand -hex 32, in a file of mode 0600"
    return WebhookChannel(name=name, url=url, secret_file=_file(section, "secret_file", secret, hint))


def _read_telegram(name: str, section: Section) -> Channel | None:
    chat, token = section.require("chat", _read_chat), section.require("token_file", read_string)
    base_url = section.read("base_url", _read_url, BASE_URL)
    if chat is None or token is None:
        return None
    hint = "the token of the bot, in a file of mode 0600"
    return TelegramChannel(
        name=name, chat=chat, token_file=_file(section, "token_file", token, hint), base_url=base_url
    )


def _file(section: Section, key: str, text: str, hint: str) -> Path:
    """Return a path relative to the file; where files are looked at, note one that is not there."""
    path = section.folder / text
    if section.load_inventory is not None and not path.exists():
        section.note_problem(key, f"{key} names {path}, and there is no such file", hint)
    return path


def _read_kinds(value: Any) -> frozenset[str]:
    return frozenset(map(choice_reader(EVENT_KINDS), read_texts(value)))


def _read_mail(value: Any) -> str:
    if not isinstance(value, str) or not _MAIL.fullmatch(value):
        raise WrongValue(f"is a mail address, not {str(value)[:64]!r}", "such as fazai@example.net")
    return value


def _read_mails(value: Any) -> tuple[str, ...]:
    return tuple(map(_read_mail, read_texts(value)))


def _read_chat(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,20}|@\w{1,64}", value, re.ASCII):
        raise WrongValue("is the number of a chat, or @NAME of a channel")
    return value


def _read_url(value: Any) -> str:
    """Return a URL; no word of a wrong one is shown, as a key may stand in it."""
    text = read_string(value)
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        user = parts.username is not None or parts.password is not None
    except ValueError:
        sound = user = False
    if not sound or not text.isascii() or not text.isprintable() or " " in text or parts.fragment:
        raise WrongValue("is no URL of the form https://HOST/PATH")
    if user:
        raise WrongValue("has a user or a password, and those stand in no URL")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise WrongValue("would send what happened in the clear", "use https://")
    return text


def _read_timeout(value: Any) -> float:
    seconds = read_span(value)
    if seconds > _LONGEST_S:
        raise WrongValue(f"is at most {_LONGEST_S:g}s")
    return seconds


_CHANNELS: Mapping[str, tuple[tuple[str, ...], Callable[[str, Section], Channel | None]]] = {
    "smtp": (("host", "port", "tls", "from", "to", "user", "password_file"), _read_smtp),
    "webhook": (("url", "secret_file"), _read_webhook),
    "telegram": (("chat", "token_file", "base_url"), _read_telegram),
}
_NOTIFY: Readers = {
    "again": ("again_s", interval_reader(60)),
    "gather": ("gather_s", interval_reader(1)),
    "give_up": ("give_up_s", interval_reader(60)),
    "urgent": ("urgent", _read_kinds),
}
