"""Drafts with the real weights: the same texts with and without them, in fewer decodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fazai.worker.bridge import Drafts, NativeEngine, Options, Sampling
from fazai.worker.demo import find_demo_model
from fazai.worker.stats import Stats
from tests.worker.running.test_native import Loaded

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]

PLACES = ("edge-porto", "edge-faro", "core-porto", "core-faro")
HOSTS = [f"{place}-{n:02}.example.net" for place in PLACES for n in range(9)]
#: Strings that a grammar leaves open, so that nothing of them is forced.
ACTION = {
    "type": "object",
    "properties": {
        "hosts": {
            "type": "array",
            "items": {"type": "string", "maxLength": 20},
            "minItems": 4,
            "maxItems": 4,
        },
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["hosts", "count"],
    "additionalProperties": False,
}
GREEDY = Sampling(max_tokens=40, timeout_ms=120_000)
SAMPLINGS = [
    GREEDY,
    replace(GREEDY, temperature=0.8, top_k=64, top_p=0.95),
    replace(GREEDY, temperature=0.7, min_p=0.05, repeat_penalty=1.02),
]
SAMPLING_IDS = ["greedy", "top-k and top-p", "min-p and penalty"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_demo_model(tmp_path_factory.mktemp("model"))


def inventory(first: str, lines: int) -> str:
    listed = "".join(f"- {host} is up\n" for host in HOSTS[:lines])
    return f"{first} Inventory:\n{listed}\nThe hosts once more:\n- {HOSTS[0]}"


def texts_of(
    model: Path, drafts: Drafts, prompts: list[str], sampling: Sampling, *, constrained: bool = False
) -> tuple[list[str], Stats]:
    """What is said after each prompt, one after the other; and the engine's figures. No two prompts begin
    alike and all sessions stay open, so that no beginning is reused; and there is one thread, because
    llama.cpp divides the attention of a single token among several."""
    options = Options(context_tokens=4096, threads=1, slots=1, calibrate=False, drafts=drafts)
    loaded = Loaded(model, options=options)
    try:
        compiled = loaded.masks.compile(schema=ACTION, grammar=None) if constrained else None
        found = []
        for seed, prompt in enumerate(prompts):
            session = loaded.engine.open_session()
            if compiled is not None:
                loaded.masks.attach(session, compiled)
            tokens = loaded.engine.tokenize(prompt, bos=True)
            loaded.engine.submit(session, tokens, replace(sampling, seed=seed, constrained=constrained))
            found.append(loaded.finish(session)[0])
        return found, loaded.engine.stats()
    finally:
        loaded.close()


def compare_texts(model: Path, prompts: list[str], sampling: Sampling, *, constrained: bool = False) -> None:
    """The same texts; and where they surely repeat themselves, in fewer decodes. (What is tried follows what
    decodes took, so of texts that seldom do, any number of tokens may be right, also none.)"""
    without, off = texts_of(model, Drafts.OFF, prompts, sampling, constrained=constrained)
    drafted, on = texts_of(model, Drafts.EXACT, prompts, sampling, constrained=constrained)
    assert drafted == without
    assert off.drafted_tokens == 0
    assert on.drafted_tokens > 0
    if not constrained or sampling.temperature == 0:
        assert on.draft_accepted_tokens > 0
        assert on.decodes < off.decodes


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=SAMPLING_IDS)
def test_texts_are_the_same_without_drafts(model: Path, sampling: Sampling) -> None:
    compare_texts(model, [inventory(first, 5) for first in ("One.", "Two.", "Three.")], sampling)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=SAMPLING_IDS)
def test_texts_under_a_grammar_are_the_same_without_drafts(model: Path, sampling: Sampling) -> None:
    # So short that nothing is decoded before the first mask: batches do not depend on the machine.
    longer = replace(sampling, max_tokens=100)
    compare_texts(model, ["The edge router", "Hosts that", "Who is up"], longer, constrained=True)


def test_a_long_conversation_says_the_same_without_drafts(model: Path) -> None:
    compare_texts(model, [inventory("Many.", len(HOSTS))], SAMPLINGS[0])


def test_what_is_tried_is_told(model: Path) -> None:
    for drafts in (Drafts.EXACT, Drafts.OFF):
        options = Options(context_tokens=512, slots=2, threads=1, calibrate=False, drafts=drafts)
        engine = NativeEngine(model, options)
        stats = engine.stats()
        engine.close()
        assert stats.drafts_limit == (2 if drafts is Drafts.EXACT else 0)
        assert stats.drafts_why == ("it was asked for" if drafts is Drafts.OFF else "")
