"""Small GGUF files, sound ones and others, written for the tests of what reads them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from fazai.worker.modelfile.gguf import TYPES

Value = bool | int | float | str | list[Any] | bytes
ALIGNMENT = 32


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def typed(value: Value) -> bytes:
    """A value with its type before it; bytes are taken as they are."""
    match value:
        case bytes():
            return value
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(str(part)) for part in value)
    return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)


def head(n_tensors: int, n_keys: int, *, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + struct.pack("<Iqq", version, n_tensors, n_keys)


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}qIQ", len(shape), *shape, kind, offset)


def gguf(values: dict[str, Value], tensors: dict[str, tuple[tuple[int, ...], str]]) -> bytes:
    """A sound file, its weights all zero."""
    numbers = {name: number for number, (name, _, _) in TYPES.items()}
    rows, offset = [], 0
    for name, (shape, kind) in tensors.items():
        rows.append(tensor(name, shape, numbers[kind], offset))
        _, block, block_bytes = TYPES[numbers[kind]]
        count = 1
        for n in shape:
            count *= n
        offset += -(-(count // block * block_bytes) // ALIGNMENT) * ALIGNMENT
    found = head(len(tensors), len(values))
    found += b"".join(text(key) + typed(value) for key, value in values.items()) + b"".join(rows)
    return found + bytes(-len(found) % ALIGNMENT + offset)


#: Of the shape of the demo's weights, with a vocabulary of eight.
TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "a", "b"]
VALUES: dict[str, Value] = {
    "general.architecture": "gemma3",
    "general.type": "model",
    "general.name": "Small",
    "general.size_label": "1K",
    "gemma3.context_length": 4096,
    "gemma3.embedding_length": 256,
    "gemma3.block_count": 2,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.key_length": 256,
    "gemma3.attention.value_length": 256,
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
}
TENSORS = {
    "token_embd.weight": ((256, 8), "Q8_0"),
    "blk.0.ffn_up.weight": ((256, 64), "Q4_K"),
    "blk.0.attn_norm.weight": ((256,), "F32"),
}


def write(folder: Path, raw: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path
