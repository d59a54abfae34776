"""Secrets in what commands print: each form in which one may come back is masked, wherever output is cut."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from fazai.masking import make_mask
from fazai.providers.hosts.shell.faults import OutputRelay

TOKEN = "p\u00e4ss/w0rd & 'more' \"of\" it+"
KEY = (
    "-----BEGIN KEY-----\n"
    + "\n".join(f"{n:02}lineOfTheKey" * 4 for n in range(20))
    + "\n-----END KEY-----\n"
)


@pytest.mark.parametrize(
    "form",
    [
        TOKEN,
        quote(TOKEN, safe=""),
        quote(TOKEN),
        quote_plus(TOKEN),
        json.dumps(TOKEN)[1:-1],
        TOKEN.encode().hex(),
        TOKEN.encode().hex().upper(),
        TOKEN.replace("'", "'\\''"),
        base64.b64encode(TOKEN.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("="),
    ],
)
def test_the_usual_encodings_of_a_secret_are_masked(form: str) -> None:
    assert make_mask([TOKEN])(f"<{form}>") == "<***>"


def test_inside_of_something_in_base64_too() -> None:
    for lead in ("", "a", "ab", "abc"):
        text = base64.b64encode(f"{lead}{TOKEN}tail".encode()).decode()
        assert "***" in make_mask([TOKEN])(text)


def test_each_line_of_a_secret_and_what_tools_break_into_lines() -> None:
    mask = make_mask([KEY])
    for line in KEY.splitlines():
        assert mask(f"  {line}  ") == "  ***  "
        assert mask(base64.b64encode(line.encode()).decode().rstrip("=")) == "***"
    encoded = base64.encodebytes(KEY.encode()).decode()
    assert [line for line in mask(encoded).splitlines() if line.rstrip("=") != "***"] == []
    dumped = KEY.encode().hex()
    broken = "\n".join(dumped[at : at + 60] for at in range(0, len(dumped), 60))
    assert mask(broken).replace("***", "").split() == []


def test_no_line_is_cut_where_a_secret_may_stand() -> None:
    """However the output comes in pieces, and however long its line is."""
    said: list[str] = []
    for before in range(16 * 1024 - 20, 16 * 1024 + 2):
        said.clear()
        lines = OutputRelay(lambda _, text: said.append(text), make_mask(["s3cr3t-token"]), lambda: "nonce")
        for piece in (b"x" * before, b"s3cr3", b"t-token", b"\n"):
            lines.hear("stdout", piece)
        lines.end()
        assert "".join(said) == "x" * before + "***\n"


def test_a_line_that_does_not_end_is_not_told() -> None:
    said: list[str] = []
    lines = OutputRelay(lambda _, text: said.append(text), make_mask(["s3cr3t-token"]), lambda: "nonce")
    for _ in range(400):
        lines.hear("stderr", b"s3cr3t-token" * 100)
    lines.end()
    assert said == ["\u2026 (more output is not recorded)\n"]
