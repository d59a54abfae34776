"""Says what a model file is and how `fazai worker` will serve it, before it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fazai.errors import InputError
from fazai.worker.chat import chat_of
from fazai.worker.modelfile import machine
from fazai.worker.modelfile.fit import Fit, fit_into, kv_bytes_per_token
from fazai.worker.modelfile.gguf import ModelFile, Tensor, read_model_file
from fazai.worker.modelfile.machine import Machine, look_at_machine


@dataclass(frozen=True, slots=True)
class TypeShare:
    """The tensors of one type."""

    type: str
    tensors: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Chat:
    """The form in which conversations are written. `problem`: why the template cannot be used."""

    template: str
    base_model: bool
    system_role: bool
    tools: bool
    thinks: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class OutputMatrix:
    """The matrix that makes logits, and whether a grammar spares most of its rows; None: not known."""

    tensor: str
    tied: bool
    type: str
    bytes: int
    restricted_logits: bool | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """Description of a file and of how it would be served. `problems`: why it would not."""

    file: str
    file_bytes: int
    gguf_version: int
    architecture: str
    name: str | None
    size_label: str | None
    license: str | None
    parameters: int
    types: tuple[TypeShare, ...]
    context_trained: int | None
    vocabulary: int
    chat: Chat
    output: OutputMatrix | None
    weights_bytes: int
    repacked_bytes: int | None
    kv_bytes_per_1000_tokens: int | None
    machine: Machine
    fit: Fit | None
    problems: tuple[str, ...]


def inspect_model(path: Path) -> ModelReport:
    """Report on a file. Raises InputError where it is no GGUF file that can be read."""
    return report_on(read_model_file(path), look_at_machine(), machine.matrix_way)


def report_on(file: ModelFile, here: Machine, way: Callable[[int, int, int], int | None]) -> ModelReport:
    """Report on a file for a machine; `way` says how llama.cpp multiplies by a matrix there."""
    architecture = file.text("general.architecture") or ""
    vocabulary = len(_tokens(file))
    chat = _chat(file)
    weights = sum(tensor.size_bytes for tensor in file.tensors)
    repacked = _repacked_bytes(file, way)
    per_token = kv_bytes_per_token(file)
    trained = file.number(f"{architecture}.context_length")
    fit = None
    if per_token is not None and here.memory_bytes:
        fit = fit_into(
            here, weights + (repacked or 0), per_token, vocabulary=vocabulary, trained=trained or 8192
        )
    return ModelReport(
        file=str(file.path),
        file_bytes=file.size_bytes,
        gguf_version=file.version,
        architecture=architecture[:_SHORT],
        name=_short_text(file, "general.name"),
        size_label=_short_text(file, "general.size_label"),
        license=_short_text(file, "general.license"),
        parameters=sum(tensor.values for tensor in file.tensors),
        types=_types(file),
        context_trained=trained,
        vocabulary=vocabulary,
        chat=chat,
        output=_output_matrix(file, here, way),
        weights_bytes=weights,
        repacked_bytes=repacked,
        kv_bytes_per_1000_tokens=None if per_token is None else 1000 * per_token,
        machine=here,
        fit=fit,
        problems=tuple(_problems(file, vocabulary, chat, fit)),
    )


_SHORT = 120


def _short_text(file: ModelFile, key: str) -> str | None:
    found = file.text(key)
    return None if found is None else found[:_SHORT]


def _problems(file: ModelFile, vocabulary: int, chat: Chat, fit: Fit | None) -> list[str]:
    """Return why this file is not served as it is."""
    found = []
    kind = _short_text(file, "general.type")
    architecture = _short_text(file, "general.architecture")
    if not architecture:
        found.append("it does not say of which architecture it is")
    elif kind not in (None, "model") or architecture == "clip":
        found.append(f"it is no language model, but {kind or 'a part of one for images'} ({architecture})")
    elif file.number(f"{architecture}.block_count") is None:
        found.append(f"it does not say how many layers it has ({architecture}.block_count)")
    parts = file.number("split.count") or 1
    if parts > 1:
        found.append(
            f"it is part {(file.number('split.no') or 0) + 1} of {parts}: sizes are of this part alone; "
            "llama.cpp's llama-gguf-split --merge makes one file of them"
        )
    if not file.tensors:
        found.append("it has no weights")
    if vocabulary < 2:
        found.append("it has no vocabulary")
    if chat.problem is not None:
        found.append(chat.problem)
    if fit is not None and not fit.fits:
        found.append(f"it needs {fit.needed_bytes >> 20} MiB, and {fit.available_bytes >> 20} MiB are free")
    return found


def _tokens(file: ModelFile) -> tuple[bytes, ...]:
    found = file.metadata.get("tokenizer.ggml.tokens")
    return tuple(token for token in found if isinstance(token, bytes)) if isinstance(found, tuple) else ()


def _types(file: ModelFile) -> tuple[TypeShare, ...]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in file.tensors:
        counts[tensor.type_name] += 1
        sizes[tensor.type_name] += tensor.size_bytes
    return tuple(TypeShare(name, counts[name], size) for name, size in sizes.most_common())


def _repacked_bytes(file: ModelFile, way: Callable[[int, int, int], int | None]) -> int | None:
    """Return how much of the weights llama.cpp keeps once more, in a layout of its own; None: not known."""
    found = 0
    known: dict[tuple[int, int, int], int | None] = {}
    for tensor in file.tensors:
        if len(tensor.shape) not in (2, 3) or tensor.name.endswith("token_embd.weight"):  # 3: experts
            continue
        asked = (tensor.type, tensor.shape[0], tensor.shape[1])
        if asked not in known:
            known[asked] = way(*asked)
        if known[asked] is None:
            return None
        if known[asked] == machine.REPACKED:
            found += tensor.size_bytes
    output, tied = _find_output(file)
    if tied and output is not None and way(output.type, *output.shape) == machine.REPACKED:
        found += output.size_bytes
    return found


def _find_output(file: ModelFile) -> tuple[Tensor | None, bool]:
    """Return the output matrix, and whether it is the one that reads tokens, too."""
    found = file.tensor("output.weight")
    tied = found is None
    found = found or file.tensor("token_embd.weight")
    return (found, tied) if found is not None and len(found.shape) == 2 else (None, tied)


def _output_matrix(
    file: ModelFile, here: Machine, way: Callable[[int, int, int], int | None]
) -> OutputMatrix | None:
    matrix, tied = _find_output(file)
    if matrix is None:
        return None
    columns, rows = matrix.shape
    found = way(matrix.type, columns, rows)
    restricted: bool | None = False
    if found == machine.REPACKED:
        why = "llama.cpp repacks this matrix for kernels of its own"
    elif found == machine.NO_KERNEL:
        why = "llama.cpp has no kernel for one row of this type"
    elif rows != len(_tokens(file)):
        why = "it has another shape than a row for each token"
    elif found == machine.ROWS:
        restricted, why = True, "checked against full logits when the model is loaded"
    else:
        restricted, why = None, here.problem or "llama.cpp does not say"
    return OutputMatrix(matrix.name, tied, matrix.type_name, matrix.size_bytes, restricted, why)


class _FileTokenizer:
    """The tokenizer that a conversation's form needs (`chat.Tokenizer`), from the head of the file alone."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file
        self._tokens = _tokens(file)

    @property
    def bos(self) -> int:
        return self._number("tokenizer.ggml.bos_token_id")

    @property
    def eos(self) -> int:
        return self._number("tokenizer.ggml.eos_token_id")

    def _number(self, key: str) -> int:
        found = self._file.number(key)
        return found if found is not None and found < len(self._tokens) else -1

    def tokenize(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Return one token where the vocabulary has the text as a whole."""
        return [0] if text.encode() in self._tokens else [0, 0]

    def tokenize_plain(self, text: str) -> list[int]:
        return self.tokenize(text)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self._tokens[token].decode(errors="replace").encode()

    def meta(self, key: str) -> str | None:
        found = self._file.metadata.get(key)
        return str(found).lower() if isinstance(found, bool) else found if isinstance(found, str) else None


def _chat(file: ModelFile) -> Chat:
    try:
        chat = chat_of(_FileTokenizer(file))
    except InputError as error:
        return Chat("its own template", False, False, False, False, error.message)
    return Chat(chat.kind, chat.completes, chat.system_role, chat.tools, chat.thinks)
