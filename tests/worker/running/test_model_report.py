"""What `--inspect` foretells of the demo's weights, and what the loaded model then is."""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
from pathlib import Path

import pytest

from fazai.errors import InputError
from fazai.worker.bridge import NativeEngine, Options
from fazai.worker.chat import chat_of
from fazai.worker.main import WorkerSettings, check_model
from fazai.worker.modelfile.gguf import TYPES
from fazai.worker.modelfile.machine import look_at_machine, matrix_way
from fazai.worker.modelfile.report import inspect_model
from tests.worker.gguf_files import write
from tests.worker.running.test_logits import compare, model

__all__ = ["compare", "model"]  # fixtures

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]


def test_the_sizes_of_types_are_ggmls() -> None:
    ggml = ctypes.CDLL(str(Path(sysconfig.get_path("purelib"), "llama_cpp/lib/libggml-base.so")))
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    found = {
        n: (ggml.ggml_type_name(n).decode().upper(), ggml.ggml_blck_size(n), ggml.ggml_type_size(n))
        for n in TYPES
    }
    assert found == TYPES
    absent = set(range(max(TYPES))) - TYPES.keys()
    assert {ggml.ggml_blck_size(n) for n in absent} == {0}


def test_the_report_is_what_the_loaded_model_is(model: Path) -> None:
    report = inspect_model(model)
    engine = NativeEngine(model, Options(context_tokens=512, slots=2, calibrate=False))
    try:
        stats, raw, chat = engine.stats(), engine.stats_raw(), chat_of(engine)
        assert report.weights_bytes == stats.model_bytes
        assert (report.context_trained, report.vocabulary) == (raw.n_ctx_train, raw.n_vocab)
        assert (report.chat.template, report.chat.base_model) == (chat.kind, chat.completes)
        assert report.output is not None
        assert report.output.restricted_logits is (stats.rows_limit > 0)
        assert report.machine.llama_cpp == engine.release
    finally:
        engine.close()
    assert report.kv_bytes_per_1000_tokens == 1000 * 18 * 1024  # measured: test_native
    assert report.machine.devices[0].startswith("CPU: ")
    assert report.problems == ()


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q8_0"])
def test_restricted_logits_are_foretold(compare: Path, model: Path, tmp_path: Path, kind: str) -> None:
    made = tmp_path / "made.gguf"
    subprocess.run([compare, "--quantise", model, made, kind], check=True, timeout=1800, capture_output=True)
    report = inspect_model(made)
    engine = NativeEngine(made, Options(context_tokens=512, slots=2, calibrate=False))
    try:
        stats = engine.stats()
    finally:
        engine.close()
    assert report.output is not None
    assert report.output.restricted_logits is (stats.rows_limit > 0), stats.rows_why
    assert report.weights_bytes == stats.model_bytes


def test_a_gpu_that_is_not_there_is_refused_before_loading(tmp_path: Path) -> None:
    path = write(tmp_path, b"no model, and nobody looks into it")
    if look_at_machine().gpu:
        pytest.skip("llama.cpp has a GPU here")
    for layers in (-1, 12):
        with pytest.raises(
            InputError, match=r"--gpu-layers -?\d+: the installed llama.cpp has no GPU here, only CPU"
        ):
            check_model(
                WorkerSettings(model=path, socket=tmp_path / "s", options=Options(gpu_layers=layers)), print
            )


def test_matrices_that_do_not_exist() -> None:
    for type_, columns, rows in (
        (99, 32, 1),
        (-1, 32, 1),
        (4, 32, 1),
        (8, 33, 1),
        (8, 0, 1),
        (8, 1 << 40, 1),
    ):
        assert matrix_way(type_, columns, rows) is None
