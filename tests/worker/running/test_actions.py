"""The action loop's schema and turns on the real model: every answer is an action, none ends by its length,
and control marks in texts of others are no control tokens.

FAZAI_ACTIONS says how many answers: 1,000 by hand.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.tools.running import find_tool
from fazai.daemon.tools.table import TABLE
from fazai.loop import prompt
from fazai.loop.argschema import read_args
from fazai.loop.journal import SessionState
from fazai.loop.proposals import read_proposal
from fazai.loop.schema import MAX_ACTION_TOKENS, build_action_schema
from fazai.providers.gemma.client import GemmaClient
from fazai.wire.actions import UseToolAction
from fazai.wire.worker import GenerateParams, SessionParams
from fazai.worker.bridge import NativeEngine, Options
from fazai.worker.chat import ChatFormat, chat_of, read_template
from fazai.worker.demo import find_demo_model
from tests.worker.marks import ATTACK, MARKS, loop_turns
from tests.worker.process import Process, with_model
from tests.worker.test_templates import GEMMA_2, GEMMA_3

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]

COUNT = int(os.environ.get("FAZAI_ACTIONS", "40"))
NAMES: dict[Any, Any] = {
    "firewalls": tuple(f"fw-{n:02}" for n in range(1, 21)),
    "hosts": tuple(f"web-{n:02}" for n in range(1, 21)),
    "targets": tuple(f"{kind}-{n:02}" for kind in ("fw", "web") for n in range(1, 21)),
    "playbooks": ("edge", "core", "branch"),
    "sessions": (),
}
OBJECTIVES = (
    "Which firewall has drifted?",
    "Apply the playbook edge.",
    "How full is the disk of web-07?",
    "Is port 443 of web-03 open?",
    "Wie viele Firewalls gibt es?",
    "Keep a note: the line of the harbour is slow.",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_demo_model(tmp_path_factory.mktemp("model"))


def test_every_answer_is_one_action(model: Path, tmp_path: Path) -> None:
    schema = build_action_schema(TABLE, NAMES)
    reasons: Counter[str] = Counter()
    wrong: list[str] = []

    async def answer(client: GemmaClient, number: int) -> None:
        state = SessionState()
        state.objective = OBJECTIVES[number % len(OBJECTIVES)]
        params = GenerateParams(
            json_schema=schema,
            max_tokens=MAX_ACTION_TOKENS,
            temperature=1.0,
            seed=number,
            timeout_ms=600_000,
        )
        system = SessionParams(system=prompt.system_text(TABLE))
        turn = prompt.opening_turn(state, "20 firewalls, 20 hosts; playbooks: edge", "", "aa")
        async with client.session(system) as session, session.stream(turn, params) as pieces:
            text = "".join([piece async for piece in pieces])
        reasons[pieces.reason] += 1
        action, problem, ignored = read_proposal(text)
        if action is None or ignored:
            wrong.append(f"{problem}: {text[:300]}")
        elif isinstance(action, UseToolAction):
            read_args(find_tool(TABLE, action.name).args, action.args or {}, NAMES)

    async def run(process: Process) -> None:
        client = GemmaClient(process.socket)
        numbers = iter(range(COUNT))

        async def some() -> None:
            for number in numbers:
                await answer(client, number)

        await asyncio.gather(*(some() for _ in range(4)))

    with Process(with_model(), model, tmp_path) as process:
        process.told("READY=1")
        asyncio.run(run(process))
    assert wrong == []
    assert reasons["length"] == 0, reasons
    assert reasons.total() == COUNT


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[NativeEngine]:
    made = NativeEngine(model, Options(context_tokens=2048))
    yield made
    made.close()


def test_marks_of_others_are_no_control_tokens(engine: NativeEngine) -> None:
    """As many control tokens as with a harmless text: those that the template itself wrote."""
    control = {ids[0] for mark in MARKS if len(ids := engine.tokenize(mark, special=True)) == 1}
    assert len(control) >= 5  # the vocabulary knows some of the marks

    def controls(chat: ChatFormat, text: str) -> list[int]:
        first, later = loop_turns(text)
        tokens = chat.first_tokens(engine, f"rules {text}", first) + chat.next_tokens(engine, later)
        return [token for token in tokens if token in control]

    bos, eos = (engine.piece(token, special=True).decode() for token in (engine.bos, engine.eos))
    for chat in (chat_of(engine), *(read_template(one, bos=bos, eos=eos) for one in (GEMMA_2, GEMMA_3))):
        assert controls(chat, ATTACK) == controls(chat, "harmless"), chat.kind
        said = engine.tokenize_plain(ATTACK)
        assert b"".join(engine.piece(token, special=True) for token in said).decode() == ATTACK
