"""The native loop on the real weights (Gemma 3 270M): against llama.cpp's own tokens, and against itself."""

from __future__ import annotations

import json
import re
import select
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fazai.wire.base import WireError
from fazai.worker.bridge import (
    MAX_FORCED,
    Code,
    EngineError,
    NativeEngine,
    Options,
    Progress,
    Reason,
    Sampling,
)
from fazai.worker.chat import chat_of
from fazai.worker.demo import find_demo_model
from fazai.worker.grammars.masks import Masks
from fazai.worker.grammars.numbers import MAX_NUMBER
from tests.worker.process import until

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]

GREEDY = Sampling(
    max_tokens=40, temperature=0, top_k=0, top_p=1, min_p=0, repeat_penalty=1, seed=1, timeout_ms=120_000
)
PROMPTS = ("Why is the sky blue?", "List five fruits and a colour for each.", "The capital of Portugal is")
SCHEMA = {
    "type": "object",
    "properties": {
        "action": {"enum": ["plan", "shell", "observe", "done"]},
        "command": {"type": "string", "maxLength": 30},
        "risk": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["action", "command", "risk"],
    "additionalProperties": False,
}


def finish(engine: NativeEngine, session: int) -> tuple[str, Progress]:
    """What a generation says to its end."""
    text = ""
    while True:
        found = engine.take(session)
        assert found is not None
        text += found[0]
        if found[1].reason is not Reason.RUNNING and not found[1].more:
            return text, found[1]
        if not found[0]:
            select.select([engine], [], [], 5)
            engine.ready()


class Loaded:
    """An engine, its masks, and generations to their end."""

    def __init__(self, path: Path, context_tokens: int = 4096, options: Options | None = None) -> None:
        plain = Options(context_tokens=context_tokens, slots=4, calibrate=False)
        self.engine = NativeEngine(path, options or plain)
        self.masks = Masks(self.engine)
        self.masks.start()
        self.chat = chat_of(self.engine)

    def close(self) -> None:
        self.engine.shutdown()
        self.masks.stop()
        self.engine.close()

    def finish(self, session: int) -> tuple[str, Progress]:
        return finish(self.engine, session)

    def run(
        self, prompt: str, sampling: Sampling = GREEDY, session: int | None = None
    ) -> tuple[str, Progress]:
        handle = self.engine.open_session() if session is None else session
        following = self.engine.session_tokens(handle) > 0
        tokens = self.chat.next_tokens(self.engine, prompt) if following else self.first(prompt)
        self.engine.submit(handle, tokens, sampling)
        found = self.finish(handle)
        if session is None:
            self.engine.close_session(handle)
        return found

    def until_in_prefix_cache(self) -> None:
        """What closed sessions left is outside of the cache."""
        until = time.monotonic() + 30
        while self.engine.stats().kv_tokens:
            assert time.monotonic() < until
            time.sleep(0.001)
        assert self.engine.stats().prefix_bytes > 0

    def first(self, prompt: str) -> list[int]:
        return self.chat.first_tokens(self.engine, None, prompt)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_demo_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(model: Path) -> Iterator[Loaded]:
    made = Loaded(model)
    yield made
    made.close()


#: How far llama.cpp's likeliest token is before the second one where it is sure. The same tokens in batches
#: of other widths, in other cells of the cache, or on another processor give logits that differ by up to one.
SURE = 1.5


def likeliest(model: Path, tokens: list[int], most: int) -> list[tuple[bytes | None, float]]:
    """llama.cpp's own greedy tokens as text (None: the end), each with its distance from the second one."""
    llama_cpp, numpy = pytest.importorskip("llama_cpp"), pytest.importorskip("numpy")
    own = llama_cpp.Llama(str(model), n_ctx=2048, n_threads=2, flash_attn=True, swa_full=True, verbose=False)
    try:
        found: list[tuple[bytes | None, float]] = []
        own.eval(tokens)
        while len(found) < most:
            raw = llama_cpp.llama_get_logits(own._ctx.ctx)
            logits = numpy.ctypeslib.as_array(raw, shape=(own.n_vocab(),))
            token = int(numpy.argmax(logits))
            second, first = numpy.partition(logits, -2)[-2:]
            over = llama_cpp.llama_vocab_is_eog(own._model.vocab, token)
            found.append((None if over else own.detokenize([token]), float(first - second)))
            if over:
                break
            own.eval([token])
        return found
    finally:
        own.close()


def agreed(text: str, theirs: list[tuple[bytes | None, float]]) -> int:
    """How many of llama.cpp's tokens the text begins with; it may leave them only where they are unsure."""
    rest = text.encode()
    for number, (piece, gap) in enumerate(theirs):
        if rest != b"" if piece is None else not rest.startswith(piece):
            assert gap < SURE, (number, piece, rest[:40])
            return number
        rest = rest[len(piece or b"") :]
    return len(theirs)


def test_golden_tokens_are_llama_cpps_own(model: Path, loaded: Loaded) -> None:
    n = 0
    for prompt in PROMPTS:
        n += agreed(loaded.run(prompt)[0], likeliest(model, loaded.first(prompt), GREEDY.max_tokens))
    assert n > GREEDY.max_tokens


@pytest.mark.parametrize("in_prefix_cache", [True, False], ids=["prefix cache", "KV cache"])
def test_a_reused_beginning_gives_what_a_fresh_one_gives(model: Path, in_prefix_cache: bool) -> None:
    long = "Some words of a long system prompt that all share. " * 60  # longer than the window of 512 tokens
    fresh = Loaded(model)
    try:
        expected, first = fresh.run(f"{long} {PROMPTS[0]}")
        assert first.cached_tokens == 0
        assert first.prompt_tokens > 600
    finally:
        fresh.close()
    loaded = Loaded(model)
    try:
        other = loaded.engine.open_session()
        loaded.run(f"{long} {PROMPTS[1]}", session=other)
        if in_prefix_cache:
            loaded.engine.close_session(other)
            loaded.until_in_prefix_cache()
        text, progress = loaded.run(f"{long} {PROMPTS[0]}")
        tokens = loaded.first(f"{long} {PROMPTS[0]}")
    finally:
        loaded.close()
    assert progress.cached_tokens > 600
    if text != expected:
        theirs = likeliest(model, tokens, GREEDY.max_tokens)
        assert agreed(text, theirs) > 0
        assert agreed(expected, theirs) > 0


def test_the_same_prompt_again_gives_the_same_text(model: Path) -> None:
    """Sampled with a seed, from what was computed before: rounded otherwise, it would be another. (Kernels
    for AMX take rows in sixteens: there it may be.)"""
    exact = "amx_int8" not in Path("/proc/cpuinfo").read_text().split()
    system = "Some words of a system prompt that all share, long enough for another attention. " * 8
    prompts = [f"{system} {PROMPTS[0]}", f"{system} {PROMPTS[1]}", PROMPTS[2]]
    sampled = replace(GREEDY, temperature=1, top_k=64, top_p=0.95, seed=7)
    loaded = Loaded(model)
    try:
        first: list[str] = []
        for prompt in prompts:  # the second takes its beginning from the first
            first.append(loaded.run(prompt, sampled)[0])
            loaded.until_in_prefix_cache()
        for turn in range(2):
            for prompt, text in zip(prompts, first, strict=True):
                again, progress = loaded.run(prompt, sampled)
                assert again == text or not exact, turn
                assert progress.cached_tokens >= progress.prompt_tokens - 68
                loaded.until_in_prefix_cache()
    finally:
        loaded.close()


def test_a_second_turn_is_what_the_whole_conversation_gives(model: Path, loaded: Loaded) -> None:
    """Exactly so where llama.cpp itself is sure."""
    ask, again = "Say the alphabet: a b c d e f g", "Go on with it: h i j k l"
    short = replace(GREEDY, max_tokens=16)
    session = loaded.engine.open_session()
    first, _ = loaded.run(ask, short, session)
    second, progress = loaded.run(again, short, session)
    assert progress.cached_tokens >= progress.prompt_tokens - 24
    loaded.engine.close_session(session)
    tokens = loaded.first(ask) + loaded.engine.tokenize(first)
    tokens += loaded.chat.next_tokens(loaded.engine, again)
    assert agreed(second, likeliest(model, tokens, 16)) > 0


def test_a_seed_is_reproducible_and_seeds_differ(loaded: Loaded) -> None:
    warm = replace(GREEDY, temperature=1.0, top_k=64, top_p=0.95, seed=7, max_tokens=24)
    texts = [loaded.run("Tell me something.", replace(warm, seed=seed))[0] for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_concurrent_streams_end_as_they_should(loaded: Loaded) -> None:
    handles = [loaded.engine.open_session() for _ in range(8)]
    for number, handle in enumerate(handles):
        loaded.engine.submit(handle, loaded.first(f"Count from {number}"), replace(GREEDY, max_tokens=10))
    for handle in handles:
        text, progress = loaded.finish(handle)
        assert progress.reason is Reason.LENGTH or progress.reason is Reason.EOS
        assert text
        loaded.engine.close_session(handle)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_constrained_output_conforms(loaded: Loaded, temperature: float) -> None:
    forced = 0
    for seed in range(12):
        session = loaded.engine.open_session()
        loaded.masks.attach(session, loaded.masks.compile(schema=SCHEMA, grammar=None))
        sampling = replace(GREEDY, constrained=True, temperature=temperature, seed=seed, max_tokens=200)
        text, progress = loaded.run(f"Restart unbound on fw-{seed}.", sampling, session)
        assert progress.reason is Reason.EOS, (text, progress)
        value = json.loads(text)
        assert value.keys() == {"action", "command", "risk"}
        assert value["action"] in ("plan", "shell", "observe", "done")
        assert len(value["command"]) <= 30
        assert 0 <= value["risk"] <= 10
        forced += progress.forced_tokens
        loaded.masks.detach(session)
        loaded.engine.close_session(session)
    assert forced >= 12 * 5


@pytest.mark.parametrize("grammar", ['root ::= "yes" | "no"', 'start: "yes" | "no"'])
def test_a_grammar_is_followed(loaded: Loaded, grammar: str) -> None:
    session = loaded.engine.open_session()
    loaded.masks.attach(session, loaded.masks.compile(schema=None, grammar=grammar))
    text, _ = loaded.run("Is it?", replace(GREEDY, constrained=True), session)
    loaded.engine.close_session(session)
    assert text in ("yes", "no")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"not": {"type": "string"}},
        {"type": "array", "uniqueItems": True},
        {"type": "string", "format": "x"},
        {"type": "string", "maxLenght": 3},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused(loaded: Loaded, schema: dict[str, object]) -> None:
    with pytest.raises(WireError) as refused:
        loaded.masks.compile(schema=schema, grammar=None)
    assert refused.value.code == "schema_unsupported"


#: Each would end the worker, or keep its threads for hours, if it were compiled there and then.
HOSTILE: list[tuple[str, dict[str, object] | str]] = [
    ("more than 5 s", {"allOf": [{"type": "string", "pattern": f"^.*a{n}.*$"} for n in range(30)]}),
    ("nested too deeply", "start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(3500)) + 'r3500: "b"'),
    ("more than 131072 bytes", {"enum": [{} for _ in range(50_000)]}),
    ("nothing can satisfy", {"$ref": "#"}),
    ("nothing can satisfy", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
    ("limit", {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
    ("recursion limit", json.loads('{"items":' * 200 + "{}" + "}" * 200)),
    ("backreferences", {"type": "string", "pattern": r"^(a)\1$"}),
]


@pytest.mark.parametrize(("why", "hostile"), HOSTILE, ids=[why for why, _ in HOSTILE])
def test_what_would_harm_the_worker_is_refused(
    loaded: Loaded, why: str, hostile: dict[str, object] | str
) -> None:
    schema, grammar = (hostile, None) if isinstance(hostile, dict) else (None, hostile)
    for _ in range(2):  # the second time it is known
        with pytest.raises(WireError, match=why) as refused:
            loaded.masks.compile(schema=schema, grammar=grammar)
        assert refused.value.code == "schema_unsupported"


def _constrained(
    loaded: Loaded, schema: dict[str, object], sampling: Sampling, session: int
) -> tuple[str, Progress]:
    loaded.masks.attach(session, loaded.masks.compile(schema=schema, grammar=None))
    return loaded.run("Is it?", replace(sampling, constrained=True), session)


def test_more_is_forced_than_goes_across_the_border_at_once(model: Path) -> None:
    own = Loaded(model, context_tokens=8192)
    try:
        value = "lorem ipsum dolor sit amet " * 1000
        long = replace(GREEDY, max_tokens=8000, timeout_ms=900_000)  # a machine may be slow
        session = own.engine.open_session()
        text, progress = _constrained(own, {"const": value}, long, session)
        assert (progress.reason, json.loads(text)) == (Reason.EOS, value)
        assert progress.forced_tokens > MAX_FORCED
    finally:
        own.close()


def test_names_come_in_the_order_of_the_schema_that_was_asked(loaded: Loaded) -> None:
    for names in (["a", "b"], ["b", "a"]):
        schema: dict[str, object] = {
            "type": "object",
            "properties": {name: {"const": 1} for name in names},
            "required": names,
            "additionalProperties": False,
        }
        session = loaded.engine.open_session()
        text, _ = _constrained(loaded, schema, GREEDY, session)
        assert list(json.loads(text)) == names
        loaded.masks.detach(session)
        loaded.engine.close_session(session)


def test_a_grammar_that_fails_on_its_way_says_why_and_is_compiled_anew(loaded: Loaded) -> None:
    """llguidance counts what a pattern's states take; all that follow the same grammar share them."""
    schema: dict[str, object] = {"type": "string", "pattern": "^(.*a.{200}b|.*b.{200}a)$"}
    warm = replace(GREEDY, temperature=3.0, max_tokens=600)
    session = loaded.engine.open_session()
    compiled = loaded.masks.compile(schema=schema, grammar=None)
    _, progress = _constrained(loaded, schema, warm, session)
    assert (progress.reason, progress.code) == (Reason.FAILED, Code.MASK)
    failure = loaded.masks.failure(session)
    assert failure is not None
    assert failure.code == "schema_unsupported"
    assert "lexer" in failure.message
    assert loaded.masks.failure(session) is None
    assert loaded.masks.compile(schema=schema, grammar=None) is not compiled
    loaded.masks.detach(session)
    loaded.engine.close_session(session)


def test_an_abort_ends_within_a_token_or_a_prompt(loaded: Loaded) -> None:
    engine, session = loaded.engine, loaded.engine.open_session()
    before = engine.stats().decodes
    engine.submit(session, loaded.first("word " * 3000), replace(GREEDY, max_tokens=5))
    until(lambda: engine.stats().decodes > before)  # well within the prompt: it takes six
    engine.abort(session)
    at = engine.stats().decodes
    _, progress = loaded.finish(session)
    assert progress.reason is Reason.ABORTED
    assert engine.stats().decodes - at <= 1  # that which was under way
    assert engine.session_tokens(session) == 0
    engine.close_session(session)


def test_a_long_prompt_does_not_stall_a_running_stream(loaded: Loaded) -> None:
    """Beside a prompt every decode holds the running streams' tokens and a chunk of it: between two tokens of
    a stream there is one decode, however long the prompt is."""
    engine = loaded.engine
    talker, reader = engine.open_session(), engine.open_session()
    try:
        endless = engine.tokenize("word " * 200, bos=True)  # no question: it goes on and on
        engine.submit(talker, endless, replace(GREEDY, max_tokens=1000))
        while _tokens(loaded, talker) == 0:
            select.select([engine], [], [], 5)
            engine.ready()
        seen = [_at_one_time(loaded, talker)]  # (decodes, tokens of the stream), as the prompt goes on
        engine.submit(reader, loaded.first("other " * 2500), replace(GREEDY, max_tokens=1))
        running = True
        while running:
            select.select([engine], [], [], 0.002)
            engine.ready()
            found = engine.take(reader)
            assert found is not None
            running = found[1].reason is Reason.RUNNING
            now = _at_one_time(loaded, talker)
            if now[0] > seen[-1][0]:
                seen.append(now)
        steps, tokens = (seen[-1][at] - seen[0][at] for at in (0, 1))
        assert steps >= 2500 // engine.stats().chunk_tokens  # it was computed in chunks, and we were there
        # A step is counted when it was decoded, its token a moment later: one may be on its way at each end.
        assert abs(steps - tokens) <= 2, seen
        gaps = [(after[0] - before[0]) - (after[1] - before[1]) for before, after in pairwise(seen)]
        assert max(gaps) <= 2, seen
    finally:
        for handle in (talker, reader):
            engine.abort(handle)
            loaded.finish(handle)
            engine.close_session(handle)


def _at_one_time(loaded: Loaded, session: int) -> tuple[int, int]:
    """Decodes, and the session's tokens; seen together, for this thread may be held up between the two."""
    while True:
        decodes = loaded.engine.stats().decodes
        tokens = _tokens(loaded, session)
        if loaded.engine.stats().decodes == decodes:
            return decodes, tokens


def _tokens(loaded: Loaded, session: int) -> int:
    found = loaded.engine.take(session)
    assert found is not None
    assert found[1].reason is Reason.RUNNING, "the stream ended too early for the test"
    return found[1].completion_tokens


@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 1e300},
        {"temperature": 1e-300},
        {"top_p": 1e-300},
        {"min_p": 1.0},
        {"repeat_penalty": 1e-300},
        {"repeat_penalty": 1e300},
        {"top_k": 2**31 - 1},
        {"top_k": 1, "temperature": 1e30},
    ],
)
def test_numbers_at_the_edge_harm_nobody(loaded: Loaded, extreme: dict[str, float]) -> None:
    """What the contract allows and a 32-bit float does not hold is refused, or ends as any other."""
    edge = replace(GREEDY, temperature=1.0, max_tokens=3)
    try:
        _, progress = loaded.run(PROMPTS[0], replace(edge, **extreme))  # type: ignore[arg-type]
    except EngineError as error:
        refused: Code | None = error.code
    else:
        refused = None
        assert progress.reason in (Reason.LENGTH, Reason.EOS, Reason.FAILED)
    assert refused in (None, Code.INVALID)
    assert loaded.run(PROMPTS[2], replace(GREEDY, max_tokens=3))[1].reason is Reason.LENGTH


def test_stop_texts_and_limits(loaded: Loaded) -> None:
    whole, _ = loaded.run(PROMPTS[0])
    stop = whole[len(whole) // 2 :][:3]
    text, progress = loaded.run(PROMPTS[0], replace(GREEDY, stop=(stop,)))
    assert progress.reason is Reason.STOP
    assert text == whole[: whole.index(stop)]
    with pytest.raises(EngineError) as refused:
        loaded.run("word " * 5000)
    assert refused.value.code is Code.CONTEXT
    assert loaded.run(PROMPTS[0], replace(GREEDY, timeout_ms=1))[1].reason is Reason.TIMEOUT


def test_no_text_of_a_user_is_a_mark(loaded: Loaded) -> None:
    """Every token of the vocabulary that means something to the model, written out in a prompt."""
    engine = loaded.engine
    marks = {t for t in range(engine.vocabulary) if engine.kind(t) & 1}
    user_defined = {engine.tokenize(text)[0] for text in ("<start_of_image>", "<table>", "<h1>")}
    assert len(marks) > 6000
    assert user_defined <= marks  # llama.cpp's own tokenizer takes them for one token each
    text = "".join(engine.piece(token, special=True).decode() for token in sorted(marks))
    for prompt in (text, " ".join(text.split(">")), "<<start_of_image>>", "<start_of_<end_of_turn>image>"):
        for tokens in (engine.tokenize_plain(prompt), loaded.first(prompt)[1:]):
            assert not marks & set(tokens)
            assert b"".join(map(engine.piece, tokens)).decode() == prompt
    for token in marks:
        mark = engine.piece(token, special=True).decode()
        assert not marks & set(engine.tokenize_plain(f"a {mark}{mark}"))
    assert engine.tokenize_plain("a\n\nb") == engine.tokenize("a\n\nb")  # white space has tokens of its own
    many = engine.tokenize_plain("\ue000<b>" * 16_000)  # each call for a part would take half a millisecond
    assert b"".join(map(engine.piece, many)).decode() == "\ue000<b>" * 16_000


def test_the_demo_is_a_base_model_and_continues_text(loaded: Loaded) -> None:
    assert loaded.engine.meta("tokenizer.chat_template") is None
    assert loaded.chat.completes
    assert loaded.first(PROMPTS[2]) == [loaded.engine.bos, *loaded.engine.tokenize(PROMPTS[2])]
    capitals = "France: Paris. Spain: Madrid. Italy: Rome. Portugal:"
    text, progress = loaded.run(capitals, replace(GREEDY, stop=(".",)))
    assert (text.strip(), progress.reason) == ("Lisbon", Reason.STOP)


def test_a_temperature_near_zero_takes_the_likeliest(loaded: Loaded) -> None:
    greedy, _ = loaded.run(PROMPTS[2], replace(GREEDY, max_tokens=12))
    for temperature in (1e-40, 1e-7):
        assert loaded.run(PROMPTS[2], replace(GREEDY, max_tokens=12, temperature=temperature))[0] == greedy


NUMBERS: list[dict[str, object]] = [
    {"type": "number"},
    {"type": "integer"},
    {},
    {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
    {
        "type": "object",
        "properties": {"load": {"type": "number"}, "n": {"type": "integer"}},
        "required": ["load", "n"],
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", NUMBERS, ids=[json.dumps(schema)[:30] for schema in NUMBERS])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_numbers_end(loaded: Loaded, schema: dict[str, object], temperature: float) -> None:
    """Also behind a prompt that makes the model write digits for ever."""
    session = loaded.engine.open_session()
    loaded.masks.attach(session, loaded.masks.compile(schema=schema, grammar=None))
    sampling = replace(GREEDY, constrained=True, temperature=temperature, max_tokens=120)
    text, progress = loaded.run("1/3 = 0.333333333333333333333333333333333333333", sampling, session)
    loaded.masks.detach(session)
    loaded.engine.close_session(session)
    assert progress.reason is Reason.EOS, text
    json.loads(text)
    assert all(len(number) <= MAX_NUMBER + 1 for number in re.findall(r"[-+.eE0-9]+", text)), text


def test_one_client_never_holds_up_another(loaded: Loaded) -> None:
    """Beside one that is never read, one that asks for everything and one that leaves, a plain generation has
    its tokens one decode after the other."""
    engine = loaded.engine
    unread, everything, leaving, plain = (engine.open_session() for _ in range(4))
    value = "lorem ipsum dolor sit amet " * 200
    loaded.masks.attach(unread, loaded.masks.compile(schema={"const": value}, grammar=None))
    try:
        engine.submit(unread, loaded.first("Say it:"), replace(GREEDY, constrained=True, max_tokens=3500))
        endless = engine.tokenize("word " * 40, bos=True)
        engine.submit(everything, endless, replace(GREEDY, max_tokens=100_000))
        engine.submit(leaving, loaded.first("other " * 1500), replace(GREEDY, max_tokens=100_000))
        until(lambda: _tokens(loaded, everything) > 0)
        engine.submit(plain, loaded.first(PROMPTS[2]), replace(GREEDY, max_tokens=5))
        until(lambda: _tokens(loaded, plain) > 0)
        engine.close_session(leaving)
        before = engine.stats().decodes
        _, progress = loaded.finish(plain)
        assert (progress.reason, progress.completion_tokens) == (Reason.LENGTH, 5)
        assert engine.stats().decodes - before <= 5 + 2
        assert _tokens(loaded, everything) > 0  # it still runs
    finally:
        for handle in (unread, everything, plain):
            engine.abort(handle)
            loaded.finish(handle)
            loaded.masks.detach(handle)
            engine.close_session(handle)


def test_a_file_that_is_no_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing")
    with pytest.raises(EngineError) as refused:
        NativeEngine(tmp_path / "x.gguf", Options())
    assert refused.value.code is Code.MODEL
    assert "x.gguf" in str(refused.value)
    assert refused.value.hint == "fazai worker --inspect FILE says what it is"
