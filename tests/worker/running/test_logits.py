"""Logits of the allowed tokens only, with the real weights: the same bits as all, and the same texts. In full
(FAZAI_CAMPAIGN=1) 10,000 steps of each type of weights, a quarter of an hour each on one core."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.worker.bridge import NativeEngine, Options, Sampling
from fazai.worker.demo import find_demo_model
from fazai.worker.stats import Stats
from tests.campaign import campaign_size, in_full
from tests.worker.running.test_native import Loaded

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]

NATIVE = Path(__file__).parents[3] / "native"
#: Together more than 10,000 tokens.
TEXTS = ("worker.md", "benchmarks-worker.md", "architecture.md")
#: Making the others takes minutes. What llama.cpp packs anew for kernels of its own is computed whole.
KINDS = ("F16", "Q8_0", "BF16", "Q5_K_M", "Q6_K", "IQ4_XS") if in_full() else ("F16", "Q8_0")
PACKED = ("Q4_0", "IQ4_NL") if in_full() else ("Q4_0",)
NAMES = {"enum": [f"{kind}-{number:02}" for kind in ("fw", "edge", "core") for number in range(30)]}
CALL = {
    "type": "object",
    "properties": {
        "name": NAMES,
        "mode": {"enum": ["read", "propose"]},
        "reason": {"type": "string", "maxLength": 24},
    },
    "required": ["name", "mode", "reason"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_demo_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that compares, compiled against the library of the worker."""
    return compile_comparison(tmp_path_factory.mktemp("compare") / "rows_test")


def compile_comparison(program: Path, *more: str) -> Path:
    packages = Path(sysconfig.get_path("purelib"))
    library = packages / "llama_cpp/lib"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-march=native", "-fopenmp", *more]
    release = ["-DFZ_LLAMA_VERSION=llama_version()", "-DFZ_GGML_COMMIT=ggml_commit()"]
    sources = [*sorted(NATIVE.glob("gemma_*.c")), NATIVE / "tests/rows_test.c"]
    libraries = [
        f"-L{library}",
        f"-Wl,-rpath,{library}",
        "-lllama",
        "-lggml-base",
        "-lggml-cpu",
        "-lggml",
        "-lm",
    ]
    subprocess.run(
        [
            "gcc",
            *flags,
            *release,
            f"-I{packages / 'include'}",
            *sources,
            "-o",
            program,
            *libraries,
            "-lpthread",
        ],
        check=True,
        timeout=300,
    )
    return program


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("text") / "text.md"
    pages = [Path(__file__).parents[3] / "docs" / name for name in TEXTS]
    made.write_text("".join(page.read_text() for page in pages))
    return made


def steps_compared(program: Path, model: Path, text: Path, steps: int) -> str:
    done = subprocess.run(
        [program, model, text, str(steps), "1"], capture_output=True, text=True, timeout=7200, check=False
    )
    assert done.returncode in (0, 2), done.stdout + done.stderr
    return done.stdout


def test_the_demo_weights_step_by_step(compare: Path, model: Path, text: Path) -> None:
    steps = 10_000 if in_full() else 100
    said = steps_compared(compare, model, text, steps)
    assert said.startswith(f"{steps} steps, "), said
    assert said.endswith(" 0 steps differ\n"), said
    assert (" and all by our own kernel," in said) is has_kernel(), said


def test_the_demo_weights_under_the_sanitizers(model: Path, text: Path, tmp_path: Path) -> None:
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    said = steps_compared(compile_comparison(tmp_path / "rows_test", *flags), model, text, 10)
    assert said.startswith("10 steps, "), said
    assert said.endswith(" 0 steps differ\n"), said


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_other_types(compare: Path, model: Path, text: Path, tmp_path: Path, kind: str) -> None:
    made = tmp_path / "made.gguf"
    subprocess.run([compare, "--quantise", model, made, kind], check=True, timeout=1800, capture_output=True)
    steps = 10_000 if in_full() else 20
    said = steps_compared(compare, made, text, steps)
    assert said.startswith(f"{steps} steps, "), said
    assert said.endswith(" 0 steps differ\n"), said


@pytest.mark.parametrize("kind", PACKED)
def test_weights_that_llama_cpp_packs_anew_are_computed_whole(
    compare: Path, model: Path, text: Path, tmp_path: Path, kind: str
) -> None:
    made = tmp_path / "made.gguf"
    subprocess.run([compare, "--quantise", model, made, kind], check=True, timeout=1800, capture_output=True)
    said = steps_compared(compare, made, text, 10_000 if in_full() else 20)
    assert said.endswith(" 0 steps differ\n") or said == (
        "computed whole: the output matrix is repacked for kernels of llama.cpp's own\n"
    )


def has_kernel() -> bool:
    """Whether this processor has the instructions of the bridge's own kernel (native/gemma_matrix.c)."""
    return bool(set(Path("/proc/cpuinfo").read_text().split()) & {"avx512_vnni", "avx_vnni"})


def texts_of(model: Path, *, full_logits: bool, sampling: Sampling, seeds: range) -> tuple[list[str], Stats]:
    """What one session after the other says under the schema, and what the engine counted. The prompts are
    so short that nothing is decoded before the first mask: then batches do not depend on the machine."""
    options = Options(context_tokens=1024, slots=4, calibrate=False, full_logits=full_logits)
    loaded = Loaded(model, options=options)
    try:
        compiled = loaded.masks.compile(schema=CALL, grammar=None)
        found = []
        for seed in seeds:
            session = loaded.engine.open_session()
            loaded.masks.attach(session, compiled)
            tokens = loaded.engine.tokenize("The edge router", bos=True)
            assert len(tokens) <= 4
            loaded.engine.submit(session, tokens, replace(sampling, seed=seed, constrained=True))
            found.append(loaded.finish(session)[0])
            loaded.engine.close_session(session)
        return found, loaded.engine.stats()
    finally:
        loaded.close()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=120, timeout_ms=120_000),
        Sampling(max_tokens=120, timeout_ms=120_000, temperature=1, top_k=64, top_p=0.95),
        Sampling(max_tokens=120, timeout_ms=120_000, temperature=1.3, min_p=0.02, repeat_penalty=1.1),
    ],
    ids=["greedy", "top-k and top-p", "min-p and penalty"],
)
def test_texts_are_the_same_with_all_logits(model: Path, sampling: Sampling) -> None:
    seeds = range(campaign_size(120))
    few, ours = texts_of(model, full_logits=False, sampling=sampling, seeds=seeds)
    whole, theirs = texts_of(model, full_logits=True, sampling=sampling, seeds=seeds)
    assert few == whole
    assert theirs.short_decodes == theirs.whole_decodes == 0
    assert ours.short_decodes >= len(few)  # each has names to choose from
    assert (ours.whole_decodes >= len(few)) is has_kernel()  # and a free string
    assert all(json.loads(text)["name"] in NAMES["enum"] for text in few)


def test_the_way_is_told(model: Path) -> None:
    for full in (False, True):
        engine = NativeEngine(model, Options(context_tokens=512, slots=2, calibrate=False, full_logits=full))
        stats = engine.stats()
        engine.close()
        assert (stats.rows_limit > 0) is not full
        assert stats.rows_why == ("it was asked for" if full else "")
        assert (stats.whole_rows > 0) is (has_kernel() and not full)
