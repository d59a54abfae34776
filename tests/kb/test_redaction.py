"""No secret is noted: those that are known, in the usual encodings, and what looks like one; redacting twice
changes nothing."""

from __future__ import annotations

import base64
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.daemon.kb.secrets import known_secrets
from fazai.kb.content import MAX_TEXT, make_content, tidy_text
from fazai.masking import make_mask
from fazai.masking.redaction import redact_text

STEADY = settings(deadline=None, derandomize=True)
#: Put together here, so that no scanner takes this file for a leak.
SECRET = "Tr0ub4dor" + "&3x"
FORMS = (
    f"password={SECRET}",
    f"password: {SECRET}",
    f'"api_secret": "{SECRET}"',
    f"api-key => '{SECRET}'",
    f"MYSQL_PASSWORD={SECRET} mysqldump",
    f"senha: {SECRET}",
    f"a senha do roteador é {SECRET}",
    f"the password for admin is {SECRET}.",
    f"mysql --password {SECRET} -h db-1",
    f"sshpass --secret={SECRET}",
    f"https://admin:{SECRET}@fw-01.example.net/ui",
    f"postgres://app:{SECRET}@db-1/app",
    f"snmp community: {SECRET}",
    f"PresharedKey = {SECRET}",
    f"Authorization: Basic {base64.b64encode(f'admin:{SECRET}'.encode()).decode()}",
    f"curl -H 'Authorization: Bearer {SECRET.replace('&', '') * 3}'",
    f"token {'gh' + 'p_' + 'A1b2C3d4' * 5}",
    "fz" + "t_" + "aB3-" * 11,
    "AKIA" + "ABCDEFGH23456789"[:16],
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcDEF123456",
    "-----BEGIN OPENSSH PRIVATE" + " KEY-----\nb3BlbnNzaC1rZXktdjEA\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE" + " KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
    "root:$6$rounds=5000$saltsalt$" + "abcdefghijklmnopqrstuvwxyz" + ":19000::",
    "$ANSIBLE_VAULT;1.1;AES256\n" + "6162636465666768696a" * 4 + "\n" + "3132333435363738393a" * 4,
    "key w86XNZob/8Oq8aC5r0kbNarNtdpoQU781fyoeaOBQsBwkXUt0kbNarNtdpoQU781fyoeaOBQsBwkXUt",
)
HARMLESS = (
    "The password of the portal is kept in the vault.",
    "password: !secret file://db.key",
    "api_key: {{ vault_api_key }}",
    "token: ***",
    "export TOKEN=$CI_TOKEN",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "/usr/lib/python3/dist-packages/SomeVeryLongName/Another1/Third2/module.py",
    "fw-01 192.0.2.1 52:54:00:ab:cd:ef 2001:db8::1 CVE-2021-44228",
    "run 01KANHC0E8M5T3W9Q7Z2R4V6XB changed 3 items",
    "Basic authentication is off; digest access as well",
    "cookies are set by the portal, secrets stay in files",
    "https://fw-01.example.net:8443/ui/unbound?tab=general",
)


@pytest.mark.parametrize("text", FORMS)
def test_what_looks_like_a_secret_goes(text: str) -> None:
    found, count = redact_text(f"before {text} after")
    assert count >= 1, found
    assert "***" in found
    assert found.startswith("before ")
    for part in (
        SECRET,
        SECRET.replace("&", ""),
        "b3BlbnNzaC1rZXk",
        "MIIEvQ",
        "6162636465",
        "w86XNZob",
        "A1b2C3d4",
    ):
        assert part not in found
    assert redact_text(found) == (found, 0)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_none_stays(text: str) -> None:
    assert redact_text(text) == (text, 0)


@STEADY
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*FORMS, *HARMLESS, "=", ": ", "\n", '"', "'"])).map("".join)
)
def test_redacting_twice_changes_nothing(text: str) -> None:
    once, _ = redact_text(text)
    assert redact_text(once) == (once, 0)


WORDS = st.text(alphabet=string.ascii_letters + string.digits + "!#$%&*+-./:=?@_~", min_size=8, max_size=40)


@STEADY
@given(
    WORDS,
    st.text(max_size=80),
    st.text(max_size=80),
    st.sampled_from(["title", "text", "tags", "source", "target"]),
)
def test_a_known_secret_goes_wherever_it_stands(secret: str, before: str, after: str, field: str) -> None:
    mask = make_mask([secret])
    for form in (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")):
        planted = f"{before} {form} {after}"
        given_: dict[str, str] = {"title": "t", "text": "x", **({field: planted} if field != "tags" else {})}
        tags = [planted] if field == "tags" else []
        content = make_content(**given_, tags=tags, mask=mask)
        parts = (content.title, content.text, *content.tags, content.source, content.target)
        assert not any(form in part for part in parts)
        assert not any(secret in part for part in parts)


@STEADY
@given(st.text(max_size=300), st.text(max_size=300), st.lists(st.text(max_size=30), max_size=4))
def test_content_of_content_is_the_same(title: str, text: str, tags: list[str]) -> None:
    """So that what was exported is imported with the same hash."""
    try:
        once = make_content(title, text, tags=tags)
    except ValueError:
        return
    again = make_content(once.title, once.text, tags=once.tags, source=once.source, target=once.target)
    assert (again.title, again.text, again.tags) == (once.title, once.text, once.tags)
    assert again.words() == once.words()


def test_a_text_has_no_control_characters() -> None:
    assert tidy_text("a\x00b\x1b[31mc\r\nd\te\u202ef", lines=True) == "a b [31mc\nd\te f"
    assert tidy_text("a\nb\ud800", lines=False) == "a b\\ud800"


@pytest.mark.parametrize(
    "pattern",
    ["password ", "a.", "-----BEGIN PRIVATE KEY-----", "$ANSIBLE_VAULT;\n ", "x://a:", "Aa1/", "eyJ"],
)
def test_a_long_text_is_redacted(pattern: str) -> None:
    """The longest that can be noted, of what patterns begin with: a quadratic one would take minutes."""
    found, _ = redact_text((pattern * MAX_TEXT)[:MAX_TEXT])
    assert len(found) <= MAX_TEXT * 2


def test_the_secrets_of_a_folder_and_the_environment_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    (folder / "opnsense").mkdir(parents=True)
    (folder / "opnsense/fw.json").write_text(
        '{"api_key": "key-of-fw", "api_secret": "secret-of-fw", "port": 8443}'
    )
    (folder / "db.key").write_text("# comment\nline-one-key\n  line-two-key  \nshort\n")
    (folder / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nPUBLICPUBLIC\n")
    (folder / "link").symlink_to("/etc/passwd")
    environ = {
        "DB_PASSWORD": "env-password",
        "API_KEY_FILE": "/a/path/of/it",
        "HOME": "/home/who",
        "TOKEN": "tiny",
    }
    found = set(known_secrets(folder, environ, [], ["fallback-key", None]))
    assert found == {
        *("key-of-fw", "secret-of-fw", "line-one-key", "line-two-key", "env-password", "fallback-key"),
    }
