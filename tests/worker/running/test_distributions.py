"""What is drawn under narrow masks of the real weights, against its probabilities: llama.cpp's own logits of
all tokens, one decode for each draw, and the cuts of the sampler written anew. With drafts and without them.

Each draw has a context, and so probabilities, of its own. What is counted is how often the likeliest allowed
token came, the second and so on, and how often the one that had followed the same two tokens before, which is
what a draft guesses; less what was expected of each, by their covariance: chi-square with six degrees of
freedom. Seeds are fixed, so what passes does so always.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fazai.worker.bridge import Drafts, EngineError, NativeEngine, Options, Sampling
from fazai.worker.demo import find_demo_model
from tests.campaign import campaign_size
from tests.worker.running.test_native import finish

pytestmark = [pytest.mark.gemma, pytest.mark.slow, pytest.mark.xdist_group("model")]

COLOURS = "red blue green black white yellow brown orange pink purple grey gold"
PROMPT = " colours:"
EACH = 100
RANKS = 5
#: A right sampler is above it with one seed of a thousand (six degrees of freedom).
CRITICAL = 22.46
#: Hot: at 1 a small model repeats the same word for ever, and then a draft is right in any case.
PLAIN = Sampling(max_tokens=EACH + 1, timeout_ms=600_000, temperature=3, top_k=0, top_p=1, min_p=0)
CUT = replace(PLAIN, top_k=6, top_p=0.999)


class NarrowMasks:
    """Lets the same few tokens everywhere, and keeps what was drawn."""

    def __init__(self, engine: NativeEngine, tokens: Sequence[int]) -> None:
        self.drawn: dict[int, list[int]] = {}
        self._engine = engine
        self._tokens = tokens
        self.thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                job = self._engine.mask_next(100)
            except EngineError:
                return  # it was shut down
            if job is None:
                continue
            if job.token >= 0:
                self.drawn.setdefault(job.session, []).append(job.token)
            self._engine.mask_forced(job, [], done=False)
            bits = bytearray(job.size_bytes)
            for token in self._tokens:
                bits[token // 8] |= 1 << token % 8
            ctypes.memmove(job.address, bytes(bits), job.size_bytes)
            self._engine.mask_ready(job)


class Reference:
    """llama.cpp's logits of all tokens, by decodes of one token."""

    def __init__(self, model: Path) -> None:
        self._llama, self.numpy = pytest.importorskip("llama_cpp"), pytest.importorskip("numpy")
        self._own = self._llama.Llama(
            str(model), n_ctx=1024, n_threads=1, flash_attn=True, swa_full=True, verbose=False
        )
        self._known: dict[tuple[int, ...], list[Any]] = {}

    def logits(self, prompt: Sequence[int], said: Sequence[int], allowed: Sequence[int]) -> list[Any]:
        """Of the allowed tokens, at the place of each token that was said."""
        key = (*prompt, *said)
        if key not in self._known:
            self._own.reset()
            found = []
            for tokens in (list(prompt), *([token] for token in said[:-1])):
                self._own.eval(tokens)
                raw = self._llama.llama_get_logits(self._own._ctx.ctx)
                row = self.numpy.ctypeslib.as_array(raw, shape=(self._own.n_vocab(),))
                found.append(row[list(allowed)].astype("float64"))
            self._known[key] = found
        return self._known[key]

    def close(self) -> None:
        self._own.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_demo_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(model: Path) -> Iterator[Reference]:
    made = Reference(model)
    yield made
    made.close()


@contextmanager
def narrow(model: Path, drafts: Drafts) -> Iterator[tuple[NativeEngine, NarrowMasks, list[int]]]:
    options = Options(context_tokens=2048, threads=1, slots=1, calibrate=False, drafts=drafts)
    engine = NativeEngine(model, options)
    tokens = [engine.tokenize(f" {colour}") for colour in COLOURS.split()]
    assert all(len(each) == 1 for each in tokens), tokens
    allowed = [each[0] for each in tokens]
    masks = NarrowMasks(engine, allowed)
    masks.thread.start()
    try:
        yield engine, masks, allowed
    finally:
        engine.shutdown()
        masks.thread.join()
        engine.close()


def shares(numpy: Any, logits: Any, way: Sampling) -> Any:
    """Of each of these tokens, in llama.cpp's order of cuts; written anew."""
    order = numpy.argsort(-logits, kind="stable")
    if way.top_k:
        order = order[: way.top_k]
    masses = numpy.exp(logits[order] - logits[order[0]])
    if way.top_p < 1:
        held = numpy.cumsum(masses) / masses.sum()
        order = order[: int(numpy.searchsorted(held, way.top_p)) + 1]
    found = numpy.zeros(len(logits))
    found[order] = numpy.exp((logits[order] - logits[order[0]]) / way.temperature)
    return found / found.sum()


def copied(tokens: Sequence[int]) -> int | None:
    """The token that followed the last two the last time they stood together."""
    for at in range(len(tokens) - 1, 1, -1):
        if list(tokens[at - 2 : at]) == list(tokens[-2:]):
            return tokens[at]
    return None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The prompts, what the generation after each drew, and the tokens that were allowed."""

    prompts: list[list[int]]
    said: list[list[int]]
    allowed: list[int]


def chi_square(reference: Reference, drawn: Drawn, way: Sampling) -> float:
    allowed = drawn.allowed
    numpy = reference.numpy
    missed = numpy.zeros(RANKS + 1)
    covariance = numpy.zeros((RANKS + 1, RANKS + 1))
    for prompt, said in zip(drawn.prompts, drawn.said, strict=True):
        rows = reference.logits(prompt, said, allowed)
        for place, (token, logits) in enumerate(zip(said, rows, strict=True)):
            share = shares(numpy, logits, way)
            counted = numpy.zeros((RANKS + 1, len(allowed)))  # what of it each token would count as
            for rank, index in enumerate(numpy.argsort(-share, kind="stable")[:RANKS]):
                counted[rank][index] = 1
            guess = copied([*prompt, *said[:place]])
            if guess in allowed:
                counted[RANKS][allowed.index(guess)] = 1
            index = allowed.index(token)
            assert share[index] > 0, (place, token)
            wanted = counted @ share
            missed += counted[:, index] - wanted
            covariance += counted @ numpy.diag(share) @ counted.T - numpy.outer(wanted, wanted)
    return float(missed @ numpy.linalg.pinv(covariance) @ missed)


def draw(model: Path, drafts: Drafts, way: Sampling) -> Drawn:
    """No two prompts begin alike, so that no beginning is reused, and none is so long that a part of it is
    decoded before the first mask: so decodes have the widths of the reference, and the same bits."""
    with narrow(model, drafts) as (engine, masks, allowed):
        drawn = Drawn([], [], allowed)
        for seed in range(campaign_size(10_000) // EACH):
            drawn.prompts.append([engine.bos, 10_000 + seed, *engine.tokenize(PROMPT)])
            assert len(drawn.prompts[-1]) == 4
            session = engine.open_session()
            engine.submit(session, drawn.prompts[-1], replace(way, seed=seed, constrained=True))
            finish(engine, session)
            drawn.said.append(masks.drawn[session])  # not the last one, for which no mask follows
            engine.close_session(session)
        stats = engine.stats()
    assert stats.short_decodes > len(drawn.said) * EACH // 4
    assert (stats.draft_accepted_tokens > len(drawn.said)) is (drafts is not Drafts.OFF)
    assert all(len(said) == EACH for said in drawn.said)
    return drawn


@pytest.mark.parametrize("way", [PLAIN, CUT], ids=["temperature", "top-k and top-p"])
def test_what_is_drawn_has_its_probabilities(model: Path, reference: Reference, way: Sampling) -> None:
    found, said = {}, []
    for drafts in (Drafts.OFF, Drafts.EXACT, Drafts.ALWAYS) if way is PLAIN else (Drafts.EXACT,):
        drawn = draw(model, drafts, way)
        found[drafts] = chi_square(reference, drawn, way)
        said.append(drawn.said)
    print({drafts.name: round(value, 1) for drafts, value in found.items()})
    assert all(value < CRITICAL for value in found.values()), found
    assert all(each == said[0] for each in said)
