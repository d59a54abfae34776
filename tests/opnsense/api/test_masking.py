"""A firewall that echoes the key, whatever the form: nobody sees it."""

from __future__ import annotations

import base64
import html
import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from fazai.errors import FazaiError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.masking import as_one_line
from fazai.providers.opnsense.api.vitals import read_health, read_vitals
from tests.opnsense.api.peer import KEY, SECRET, error_of, said, speaking, with_peer
from tests.opnsense.helpers import run

PAIR = f"{KEY}:{SECRET}"
TOKEN = base64.b64encode(PAIR.encode()).decode()


def escaped(text: str) -> str:
    """Every letter as a JSON escape."""
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


ECHOES: dict[str, str] = {
    "the header": f"Authorization: Basic {TOKEN}",
    "the token": TOKEN,
    "the decoded header": PAIR,
    "the key": f"unknown key {KEY}!",
    "the secret": SECRET,
    "percent": f"/?key={quote(KEY, safe='')}&secret={quote(SECRET)}",
    "percent in small letters": quote(SECRET, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "percent of the token": quote(TOKEN, safe=""),
    "HTML": html.escape(f"<b>{SECRET}</b>"),
    "hexadecimal": SECRET.encode().hex(),
    "hexadecimal in capitals": KEY.encode().hex().upper(),
    "base64 of the secret": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a line, shifted by one": base64.b64encode(f"x{SECRET}yy".encode()).decode(),
    "base64 of a line, shifted by two": base64.b64encode(f"xx{PAIR}z".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(PAIR.encode()).decode(),
    "JSON in JSON": json.dumps({"auth": PAIR}).replace("/", "\\/"),
}
#: What must stand nowhere: any eight letters in a row would do, these are long enough to mean something.
TRACES = (
    "KEYKEYKEY",
    "SECRETSECRET",
    TOKEN[4:24],
    base64.b64encode(SECRET.encode()).decode()[4:24],
    SECRET.encode().hex()[8:40],
    KEY.encode().hex().upper()[8:40],
    "U0VDUkVUU0VDUkVU",
    "NFQ1JFVFNFQ1JFV",
    "RUNSRVRTRUNSRV",
    "%2fSECRET",
)


def assert_no_trace(shown: str) -> None:
    for trace in TRACES:
        assert trace not in shown, (trace, shown)


async def _search(api: Api) -> FazaiError:
    return await error_of(api.search("firewall/alias/search_item"))  # asked once, also after a 403


@pytest.mark.in_turn("how")
@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("how", ["plain", "slashes", "escapes"])
def test_an_error_that_echoes_the_key_shows_none_of_it(name: str, how: str) -> None:
    text = json.dumps(ECHOES[name])
    if how == "slashes":
        text = text.replace("/", "\\/")
    elif how == "escapes":
        text = f'"{escaped(ECHOES[name])}"'
    for status, body in (
        ("500 Oops", f'{{"errorTitle":"denied","errorMessage":{text}}}'),
        ("500 Oops", f'{{"errorTitle":{text},"errorMessage":""}}'),
        ("418 Teapot", f'{{"message":{text}}}'),
        ("503 Busy", f'{{"errorMessage":{text}}}'),
        ("403 No", f'{{"message":{text}}}'),
        ("200 OK", text),
        ("200 OK", f"<html>{ECHOES[name]}</html>"),
        ("302 Moved", ECHOES[name]),
    ):
        error = run(with_peer(speaking(said(body.encode(), status)), _search))
        assert_no_trace(f"{error} {error.message} {error.hint} {error!r} {error.where}")
        if status in ("500 Oops", "418 Teapot"):
            assert "***" in error.message


@pytest.mark.in_turn("how")
@pytest.mark.parametrize("how", ["plain", "escapes"])
@pytest.mark.parametrize("name", ECHOES)
def test_rows_that_hold_the_key_are_masked(name: str, how: str) -> None:
    text = json.dumps(ECHOES[name]) if how == "plain" else f'"{escaped(ECHOES[name])}"'
    body = f'{{"total":1,"rows":[{{"uuid":"u","description":{text},{text}:[{text}]}}]}}'

    async def rows(api: Api) -> list[dict[str, Any]]:
        return await api.search("firewall/alias/searchItem")

    found = run(with_peer(speaking(said(body.encode())), rows))
    assert_no_trace(repr(found))
    assert found[0]["uuid"] == "u"


def test_what_the_daemon_reads_of_a_firewall_is_masked() -> None:
    answer = {
        "name": f"fw {SECRET}",
        "versions": [f"OPNsense {KEY}"],
        "metadata": {"system": {"status": TOKEN}},
        "subsystems": {TOKEN: {"title": PAIR, "message": f"{SECRET} {'x' * 5000}", "status": PAIR}},
        "rows": [{"identifier": SECRET, "device": TOKEN, "ipv4": [{"ipaddr": PAIR}]}],
        "statistics": {TOKEN: {"network": f"<Link {SECRET}", "name": PAIR}},
    }
    body = said(msgspec.json.encode(answer))
    health = run(with_peer(speaking(*[body] * 9), read_health))
    assert_no_trace(repr(health))
    assert len(health["notices"][0]["message"]) <= 501
    vitals = run(with_peer(speaking(*[body] * 9), read_vitals))
    assert_no_trace(repr(vitals))


def test_short_keys_do_not_mask_what_they_happen_to_stand_in() -> None:
    from fazai.model import Secret
    from fazai.providers.opnsense.api.credentials import Credentials
    from fazai.providers.opnsense.api.masking import Mask

    mask = Mask(Credentials(Secret("a"), Secret("b")))
    assert mask.text("a lab and a bad cab") == "a lab and a bad cab"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\r\nline", "a [31mred line"),
        ("x" * 501, "x" * 500 + "…"),
        ({"a": 1}, "{'a': 1}"),
        ("\ud800", ""),
    ],
)
def test_a_text_of_a_device_is_one_plain_line(text: Any, shown: str) -> None:
    assert as_one_line(text) == shown
