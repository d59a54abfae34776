"""What goes to an endpoint holds no control mark of a chat template: a server could read it as one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fazai.providers.gemma.client import GemmaClient
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.providers.gemma.marks import break_marks
from fazai.wire.worker import SessionParams
from tests.worker.marks import ATTACK, MARKS, loop_turns
from tests.worker.openai import completions


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_text(mark: str) -> None:
    broken = break_marks(f"a{mark}b{mark.upper()}")
    assert mark not in broken
    assert broken.replace(" ", "") == f"a{mark}b{mark.upper()}".replace(" ", "")


@pytest.mark.parametrize(
    "text", ["if a<b>c", "<data 0a1b2c3d>", "a | b", "List<string>", "x <- y", "<html><body></body>", "[1]"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert break_marks(text) == text


def test_a_session_tells_an_endpoint_no_mark(tmp_path: Path) -> None:
    async def run() -> None:
        async with completions([ATTACK]) as server:
            endpoint = FallbackEndpoint.checked(server.url, "a-model", None, "test")
            client = GemmaClient(tmp_path / "none.sock", endpoints=(endpoint,))
            async with client.session(SessionParams(system=f"rules {ATTACK}")) as session:
                for turn in loop_turns(ATTACK):
                    await session.generate(turn)
            said = json.dumps([body["messages"] for body in server.asked])
            assert [mark for mark in MARKS if mark in said] == []
            assert [len(body["messages"]) for body in server.asked] == [2, 4]

    asyncio.run(run())
