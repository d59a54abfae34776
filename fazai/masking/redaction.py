"""Takes what looks like a secret out of a text before it is noted.

What is known to be a secret is masked by its own text (`masking.make_mask`); this is for the others. A text
that was redacted once stays as it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from fazai.masking import MASK

_NAMES = (
    r"(?:password|passwd|passphrase|passwort|pwd|senha|secret|segredo|token|api[_ -]?key|access[_ -]?key"
    r"|private[_ -]?key|pre-?shared[_ -]?key|shared[_ -]?key|psk|client[_ -]?key|auth[_ -]?key|credential"
    r"|credencial|cookie|community)[s\d]{0,2}"
)
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
#: What stands for a secret and is none: references, templates, variables, masks.
_REFERENCE = r"(?!\*{3}|!\w|\{\{|\$\{?\w|<\w|vault:|%\()"
_ASSIGNED = re.compile(
    rf"(?P<head>{_NAMES}[\"']?\s{{0,3}}(?:=>|:=|=|:)\s{{0,3}}){_REFERENCE}(?P<value>{_QUOTED}|[^\s,;&\"'<>]+)",
    re.IGNORECASE,
)
_SAID = re.compile(
    rf"(?P<head>{_NAMES}(?:\s+(?:do|da|de|no|na|of|for|on|para)\s+\S{{1,40}}){{0,3}}\s+(?:is|was|é|e|eh|era|foi)\s+)"
    rf"{_REFERENCE}(?P<value>{_QUOTED}|(?=\S*(?-i:[\dA-Z!@#%^&+=_-]))\S{{4,}})",
    re.IGNORECASE,
)
_OPTION = re.compile(
    rf"(?P<head>(?:^|\s)--?[\w-]{{0,20}}?{_NAMES}\s+){_REFERENCE}(?P<value>{_QUOTED}|[^\s\"']+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    rf"(?P<head>\b(?:bearer|basic|digest|token)\s+){_REFERENCE}"
    r"(?P<value>(?=\S*(?:\d|=|(?-i:[a-z][A-Z])))[A-Za-z0-9._~+/=-]{12,})",
    re.IGNORECASE,
)
_USER_OF_URL = re.compile(
    r"(?P<head>\b[a-z][a-z0-9+.-]{1,20}://[^\s/@:]{0,128}:)(?!\*{3}@)(?P<value>[^\s/@]{1,256})(?=@)",
    re.IGNORECASE,
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL
)
_VAULT = re.compile(r"\$ANSIBLE_VAULT;[^\n]*(?:\n[ \t]*[0-9a-f]{20,80})+")
#: Tokens that say by their form what they are.
_FORMS = re.compile(
    r"\b(?:fzt_[\w-]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[\w-]{30,}|sk-[\w-]{20,}|hvs\.[\w-]{20,}|dop_v1_[0-9a-f]{40,}"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,})"
)
_PASSWORD_HASH = re.compile(
    r"\$(?:1|2[abxy]?|5|6|7|y|gy|sha1|argon2(?:id|i|d)|scrypt|pbkdf2-\w+)\$[\w./$=,+-]{8,}"
)
_LONG = re.compile(r"(?<![\w/+=.-])[\w/+-]{40,}={0,2}(?![\w/+=])")
_ENTROPY_BITS = 4.2  # a character


def redact_text(text: str) -> tuple[str, int]:
    """Return the text with `***` in place of what looks like a secret, and how many there were."""
    count = 0

    def replace_all(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == MASK:
            return MASK
        count += 1
        return MASK

    def replace_value(match: re.Match[str]) -> str:
        nonlocal count
        value = match["value"]
        if MASK in value:
            return match[0]
        count += 1
        quote = value[0] if value[0] in "\"'" else ""
        return f"{match['head']}{quote}{MASK}{quote}"

    def replace_random(match: re.Match[str]) -> str:
        return replace_all(match) if _is_random(match[0]) else match[0]

    for pattern in (_KEY_BLOCK, _VAULT, _FORMS, _PASSWORD_HASH):
        text = pattern.sub(replace_all, text)
    for pattern in (_USER_OF_URL, _AUTHORIZATION, _ASSIGNED, _SAID, _OPTION):
        text = pattern.sub(replace_value, text)
    return _LONG.sub(replace_random, text), count


def _is_random(text: str) -> bool:
    """Return whether a long word is one that nobody would write: the keys of firewalls and clouds are. Hashes
    in hexadecimal are no secrets, and paths have short parts."""
    if not (re.search("[a-z]", text) and re.search("[A-Z]", text) and re.search("[0-9]", text)):
        return False
    if max(map(len, re.split(r"[/_-]+", text))) < 20:
        return False
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values()) >= _ENTROPY_BITS
