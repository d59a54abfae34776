"""The log of a process."""

from __future__ import annotations

import json
from pathlib import Path

from fazai.service.log import Log

HOSTILE = "a\x1b[31m\0\r\n2026-11-22T03:04:05.000Z error    not ours"


def test_text_from_elsewhere_neither_steers_a_terminal_nor_looks_like_another_line(tmp_path: Path) -> None:
    for text in (True, False):
        path = tmp_path / f"{text}.log"
        log = Log(path, text=text)
        log.say("info", HOSTILE, target=HOSTILE)
        log.close()
        said = path.read_text()
        assert not set("\x1b\0\r") & set(said)
        lines = said.splitlines()
        assert all(line.startswith("    ") for line in lines[1:])
        if not text:
            assert json.loads(said)["message"] == HOSTILE
