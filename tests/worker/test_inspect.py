"""`fazai worker --inspect`: what a file is, and that no file does harm to who looks at it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fazai.cli.commands.worker import worker_command
from fazai.errors import InputError, UsageError
from fazai.worker.modelfile.fit import fit_into, kv_bytes_per_token
from fazai.worker.modelfile.gguf import read_model_file
from fazai.worker.modelfile.machine import (
    NO_KERNEL,
    REPACKED,
    ROWS,
    Machine,
    available_memory,
    look_at_machine,
)
from fazai.worker.modelfile.report import ModelReport, report_on
from fazai.worker.modelfile.show import report_lines
from tests.worker.gguf_files import TENSORS, TOKENS, VALUES, Value, gguf, head, tensor, text, typed, write
from tests.worker.test_templates import FUNCTION_GEMMA, GEMMA_2, GEMMA_4

GIB = 1 << 30
HERE = Machine(4, 8 * GIB, "0.5.0", ("CPU: a processor",), False)


def report(
    folder: Path,
    values: dict[str, Any] | None = None,
    here: Machine = HERE,
    way: int | None = ROWS,
    **more: Any,
) -> ModelReport:
    """The report on a file that differs from the small one by some values; None takes one away."""
    kept = {key: value for key, value in {**VALUES, **(values or {})}.items() if value is not None}
    file = read_model_file(write(folder, gguf(kept, more.get("tensors", TENSORS))))
    return report_on(file, here, lambda kind, columns, rows: way)


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    file = read_model_file(
        write(tmp_path, gguf({**VALUES, "a.list": [1, 2], "a.sign": True, "a.part": 0.5}, TENSORS))
    )
    assert (file.version, file.text("general.name"), file.number("gemma3.block_count")) == (3, "Small", 2)
    assert file.metadata["a.list"] == (1, 2)
    assert (file.metadata["a.sign"], file.metadata["a.part"]) == (True, 0.5)
    assert file.metadata["tokenizer.ggml.tokens"] == tuple(token.encode() for token in TOKENS)
    found = [(part.name, part.shape, part.type_name, part.size_bytes) for part in file.tensors]
    assert found == [
        ("token_embd.weight", (256, 8), "Q8_0", 8 * 256 // 32 * 34),
        ("blk.0.ffn_up.weight", (256, 64), "Q4_K", 64 * 144),
        ("blk.0.attn_norm.weight", (256,), "F32", 1024),
    ]


ONE = head(0, 1) + text("k")
LONG = struct.pack("<Q", 4 << 30)
TENSOR = head(1, 0)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"", "no GGUF file: it is too short", id="empty"),
        pytest.param(b"PK\3\4" + bytes(99), "no GGUF file: it begins with b'PK", id="another format"),
        pytest.param(head(0, 0)[:9], "damaged: at byte 8 it says that 8 bytes follow, of 1", id="cut head"),
        pytest.param(head(0, 0, version=1), "is of version 1, and llama.cpp reads 2 and 3", id="version 1"),
        pytest.param(head(0, 0, version=9), "is of version 9", id="version 9"),
        pytest.param(head(0, 0, version=3 << 24), "big-endian", id="big-endian"),
        pytest.param(head(0, 1 << 60), "claims 1152921504606846976 keys and 0 tensors", id="keys"),
        pytest.param(head(1 << 60, 0), "claims 0 keys and 1152921504606846976 tensors", id="tensors"),
        pytest.param(head(0, -1), "claims -1 keys", id="less than no keys"),
        pytest.param(head(0, 1) + LONG + bytes(99), "a key of 4294967296 bytes", id="long key"),
        pytest.param(head(0, 1) + text(""), "a key of 0 bytes", id="empty key"),
        pytest.param(ONE + struct.pack("<I", 8) + LONG, "4294967296 bytes follow, of 0", id="long text"),
        pytest.param(ONE + struct.pack("<I", 99), "'k' is of the unknown type 99", id="type"),
        pytest.param(
            ONE + struct.pack("<IIQ", 9, 9, 1), "'k' has values of the unknown type 9", id="lists of lists"
        ),
        pytest.param(ONE + struct.pack("<IIQ", 9, 8, 1 << 60), "'k' alone 1152921504606846976", id="texts"),
        pytest.param(
            ONE + struct.pack("<IIQ", 9, 4, 1 << 60), "4611686018427387904 bytes follow", id="numbers"
        ),
        pytest.param(ONE + struct.pack("<IIQ", 9, 4, 9), "4 bytes follow, of 0", id="cut list"),
        pytest.param(head(0, 2) + 2 * (text("k") + typed(1)), "the key 'k' is in it twice", id="key twice"),
        pytest.param(head(0, 1) + text("general.alignment") + typed(3), "power of two", id="alignment"),
        pytest.param(TENSOR + text("t" * 64), "a tensor's name of 64 bytes", id="name"),
        pytest.param(TENSOR + text("t") + struct.pack("<I", 5), "'t' has 5 dimensions", id="dimensions"),
        pytest.param(TENSOR + tensor("t", (-1,), 0, 0), r"has the shape \(-1,\)", id="less than nothing"),
        pytest.param(TENSOR + tensor("t", (1 << 40, 1 << 40), 0, 0), "has the shape", id="shape of 2^80"),
        pytest.param(
            TENSOR + tensor("t", (33,), 8, 0), r"shape \(33,\), with rows of Q8_0", id="half a block"
        ),
        pytest.param(
            TENSOR + tensor("t", (32,), 4, 0), "of the type 4, which llama.cpp does not", id="old type"
        ),
        pytest.param(TENSOR + tensor("t", (32,), 99, 0), "of the type 99", id="unknown type"),
        pytest.param(TENSOR + tensor("t", (32,), 0, 64), "said to be at 64, and must be at 0", id="offset"),
        pytest.param(TENSOR + tensor("t", (32,), 0, 1 << 62), "must be at 0", id="offset outside"),
        pytest.param(TENSOR + tensor("t", (1 << 30,), 0, 0), "its tensors need 4294967", id="outside"),
        pytest.param(
            head(2, 0) + tensor("t", (8,), 0, 0) + tensor("t", (8,), 0, 32),
            "'t' is in it twice",
            id="tensor twice",
        ),
        pytest.param(
            gguf(VALUES, TENSORS)[:-40], "ends after [0-9]+ bytes, and its tensors need", id="cut weights"
        ),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path: Path, raw: bytes, why: str) -> None:
    path = write(tmp_path, raw)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=why) as refused:
            read_model_file(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(refused.value)


def test_each_beginning_of_a_file_is_a_sentence(tmp_path: Path) -> None:
    whole = gguf(VALUES, TENSORS)
    for n in range(0, len(whole) - ALIGNED, 37):
        with pytest.raises(InputError, match=r"no GGUF file|damaged"):
            read_model_file(write(tmp_path, whole[:n]))


ALIGNED = 1024  # of the last tensor, which is all there as soon as its own bytes are


def test_flipped_bytes_are_read_or_refused(tmp_path: Path) -> None:
    whole = gguf(VALUES, TENSORS)
    for at in range(0, len(whole) - 11_000, 3):
        raw = bytearray(whole)
        raw[at] ^= 0xFF
        path = write(tmp_path, bytes(raw))
        with contextlib.suppress(InputError):
            file = read_model_file(path)
            assert len(list(report_lines(report_on(file, HERE, lambda *_: ROWS)))) > 10


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in ((".", "is a directory"), ("pipe", "no regular file"), ("none", "no such file")):
        with pytest.raises(InputError, match=why):
            read_model_file(tmp_path / name)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path, gguf(VALUES, TENSORS))
    path.chmod(0)
    own = os.geteuid()
    if own == 0:  # who may read everything
        os.seteuid(65_534)
    try:
        with pytest.raises(InputError, match="it cannot be read: permission denied"):
            read_model_file(path)
    finally:
        os.seteuid(own)


def test_a_base_model(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert (found.architecture, found.name, found.vocabulary, found.context_trained) == (
        "gemma3",
        "Small",
        8,
        4096,
    )
    assert found.parameters == 256 * 8 + 256 * 64 + 256
    assert [(share.type, share.tensors) for share in found.types] == [("Q4_K", 1), ("Q8_0", 1), ("F32", 1)]
    assert found.chat.base_model
    assert found.kv_bytes_per_1000_tokens == 1000 * 2 * 1 * (256 + 256) * 2
    assert found.problems == ()
    lines = "\n".join(report_lines(found))
    assert "none: a base model, which continues text" in lines
    assert "token_embd.weight, Q8_0, 0.0 MiB, tied: it reads tokens, too" in lines
    assert "no GPU: --gpu-layers is refused" in lines
    assert lines.endswith("served         yes")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"general.finetune": "it"},
            "turns of <start_of_turn>; system text before the first question; no tools",
        ),
        (
            {"tokenizer.chat_template": GEMMA_2},
            "its own template; system text before the first question; no tools",
        ),
        (
            {"tokenizer.chat_template": GEMMA_4},
            "a turn for the system; thoughts, which the worker does not ask for; decl",
        ),
        (
            {"tokenizer.chat_template": FUNCTION_GEMMA},
            "a turn for the system; declarations of tools, which the worker does",
        ),
    ],
    ids=["without a template", "Gemma 2", "Gemma 4", "FunctionGemma"],
)
def test_a_tuned_model(tmp_path: Path, values: dict[str, Value], said: str) -> None:
    found = report(tmp_path, values)
    assert not found.chat.base_model
    assert said in "\n".join(report_lines(found))
    assert "--json-schema types its actions" in "\n".join(report_lines(found))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tokenizer.chat_template": "{{ 'x' * 10 ** 9 }}"}, "cannot be used: it takes more than 512 MiB"),
        ({"tokenizer.chat_template": "{{ no.such }}"}, "chat template cannot be used: 'no' is undefined"),
        ({"general.architecture": None}, "does not say of which architecture"),
        ({"general.type": "adapter"}, "is no language model, but adapter"),
        ({"general.architecture": "clip", "general.type": "mmproj"}, "no language model, but mmproj"),
        ({"gemma3.block_count": None}, r"does not say how many layers it has \(gemma3.block_count\)"),
        ({"split.count": 3, "split.no": 1}, "is part 2 of 3: .*llama-gguf-split --merge"),
        ({"tokenizer.ggml.tokens": None}, "has no vocabulary"),
    ],
)
def test_a_file_that_is_not_served_says_why(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    found = report(tmp_path, values)
    assert re.search(problem, "; ".join(found.problems))
    assert any(line.startswith("not served") for line in report_lines(found))


@pytest.mark.parametrize(
    ("way", "tensors", "restricted", "why"),
    [
        (ROWS, TENSORS, True, "checked against full logits when the model is loaded"),
        (REPACKED, TENSORS, False, "repacks this matrix"),
        (NO_KERNEL, TENSORS, False, "no kernel for one row"),
        (ROWS, {"token_embd.weight": ((256, 9), "F16")}, False, "another shape"),
        (None, TENSORS, None, "is not installed"),
    ],
)
def test_restricted_logits_are_foretold(
    tmp_path: Path, way: int | None, tensors: Any, restricted: bool | None, why: str
) -> None:
    absent = Machine(4, 8 * GIB, None, (), False, "the Gemma worker is not installed")
    found = report(tmp_path, None, HERE if way is not None else absent, way, tensors=tensors).output
    assert found is not None
    assert (found.tied, found.restricted_logits) == (True, restricted)
    assert why in found.why


def test_a_separate_output_matrix(tmp_path: Path) -> None:
    found = report(tmp_path, tensors={**TENSORS, "output.weight": ((256, 8), "Q6_K")})
    assert found.output is not None
    assert (found.output.tensor, found.output.tied, found.output.type) == ("output.weight", False, "Q6_K")


def test_repacked_matrices_take_memory_once_more(tmp_path: Path) -> None:
    assert report(tmp_path, way=ROWS).repacked_bytes == 0
    found = report(tmp_path, way=REPACKED)
    assert found.repacked_bytes == 64 * 144 + 8 * 256 // 32 * 34  # with the output matrix
    assert report(tmp_path, way=None).repacked_bytes is None


@pytest.mark.parametrize(
    ("values", "per_token"),
    [
        pytest.param({}, 2 * 512 * 2, id="Gemma 3"),
        pytest.param({"gemma3.attention.head_count_kv": [1, 4]}, (1 + 4) * 512 * 2, id="heads of each layer"),
        pytest.param({"gemma3.attention.shared_kv_layers": 1}, 512 * 2, id="a shared layer"),
        pytest.param(
            {
                "gemma3.attention.sliding_window_pattern": [1, 0],
                "gemma3.attention.key_length_swa": 64,
                "gemma3.attention.value_length_swa": 64,
            },
            (128 + 512) * 2,
            id="smaller heads in a window",
        ),
        pytest.param(
            {"gemma3.attention.key_length": None, "gemma3.attention.value_length": None},
            2 * 128 * 2,
            id="heads of the width",
        ),
        pytest.param(
            {"gemma3.block_count": 34, "gemma3.attention.head_count_kv": 4}, 136 * 1024, id="as Gemma 3 4B"
        ),
        pytest.param(
            {
                "general.architecture": "gemma3n",
                "gemma3n.block_count": 35,
                "gemma3n.attention.head_count": 8,
                "gemma3n.attention.head_count_kv": 2,
                "gemma3n.attention.key_length": 256,
                "gemma3n.attention.value_length": 256,
            },
            40 * 1024,
            id="as Gemma 3n E4B, whose last layers share",
        ),
        pytest.param({"gemma3.attention.head_count": None}, None, id="no heads"),
        pytest.param({"gemma3.ssm.state_size": 9}, None, id="a state instead"),
        pytest.param({"gemma3.block_count": 1 << 31}, None, id="layers of 2^31"),
    ],
)
def test_memory_of_the_kv_cache(tmp_path: Path, values: dict[str, Any], per_token: int | None) -> None:
    kept = {key: value for key, value in {**VALUES, **values}.items() if value is not None}
    assert kv_bytes_per_token(read_model_file(write(tmp_path, gguf(kept, TENSORS)))) == per_token


@pytest.mark.parametrize(
    ("memory", "cores", "context", "slots", "fits"),
    [
        (64 * GIB, 16, 65_536, 8, True),  # 8,192 for each
        (64 * GIB, 2, 32_768, 4, True),
        (4 * GIB, 2, 6144, 4, True),
        (3 * GIB + 128 * 1024**2, 2, 2048, 2, True),
        (2 * GIB, 2, 1024, 1, False),
    ],
)
def test_what_suits_a_machine(memory: int, cores: int, context: int, slots: int, fits: bool) -> None:
    here = Machine(cores, memory, None, (), False)
    found = fit_into(here, 5 * GIB // 2, 136 * 1024, vocabulary=262_144, trained=131_072)  # as Gemma 3 4B
    assert (found.context, found.slots, found.fits) == (context, slots, fits)
    assert (found.needed_bytes <= memory) is fits


def test_available_memory_is_the_least_of_all_limits(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == 0
    for name, said in (
        ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    4194304 kB\n"),
        ("proc/self/cgroup", "0::/work/one\n"),
        ("sys/fs/cgroup/work/memory.max", f"{3 * GIB}\n"),
        ("sys/fs/cgroup/work/memory.current", f"{GIB}\n"),
        ("sys/fs/cgroup/work/one/memory.max", "max\n"),
        ("sys/fs/cgroup/work/one/memory.current", f"{GIB}\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(said)
    assert available_memory(tmp_path) == 2 * GIB
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    assert available_memory(tmp_path) == 4 * GIB


def test_a_native_part_of_an_older_release_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fazai_gemma.py").write_text("ffi = lib = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fazai_gemma", raising=False)
    here = look_at_machine()
    monkeypatch.delitem(sys.modules, "fazai_gemma")
    assert (here.problem, here.gpu) == ("the Gemma worker's native part is of an older fazai", False)
    assert here.memory_bytes > 0
    assert [*report_lines(report(tmp_path, here=here, way=None))][-1].endswith(
        "yes, once the worker is installed"
    )


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(worker_command, list(words), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return int(done.return_value), done.output


def test_the_command(tmp_path: Path) -> None:
    path = write(tmp_path, gguf(VALUES, TENSORS))
    code, said = run("--inspect", str(path))
    assert code == 0
    assert said.startswith("model          Small, 1K, architecture gemma3\n")
    code, said = run("--inspect", str(path), "--output", "json")
    found = json.loads(said)
    assert (code, found["architecture"], found["output"]["tied"], found["problems"]) == (
        0,
        "gemma3",
        True,
        [],
    )


def test_what_the_file_says_does_not_move_the_cursor(tmp_path: Path) -> None:
    path = write(tmp_path, gguf({**VALUES, "general.name": "\x1b[2J\x9b1mSmall\n" + "x" * 999}, TENSORS))
    for more in ((), ("--output", "json")):
        _, said = run("--inspect", str(path), *more)
        assert "\x1b" not in said
        assert "\x9b" not in said
        assert "x" * 120 not in said


def test_a_file_that_is_not_served_is_exit_code_1(tmp_path: Path) -> None:
    path = write(tmp_path, gguf({**VALUES, "general.type": "imatrix"}, TENSORS))
    code, said = run("--inspect", str(path))
    assert code == 1
    assert "not served     it is no language model, but imatrix (gemma3)" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--inspect", "x", "--check"), "--inspect reads one file, and loads nothing"),
        (("--inspect", "x", "--demo-model"), "--inspect reads one file, and loads nothing"),
        (("--output", "json"), "--output belongs to --inspect"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        run(*words)


def test_the_weights_are_not_read(tmp_path: Path) -> None:
    """Of a file with a terabyte of weights, all hole, the head is read."""
    path = write(tmp_path, head(1, 0) + tensor("t", (1 << 38,), 0, 0))
    os.truncate(path, (1 << 40) + 4096)
    assert read_model_file(path).tensors[0].size_bytes == 1 << 40
