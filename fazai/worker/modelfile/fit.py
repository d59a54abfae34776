"""How much memory a model takes, and which --context and --slots suit a machine."""

from __future__ import annotations

from dataclasses import dataclass

from fazai.worker.modelfile.gguf import ModelFile
from fazai.worker.modelfile.machine import Machine

_KV_VALUE_BYTES = 2  # of a key or a value, F16
#: Measured with the demo's weights (docs/benchmarks-worker.md): Python, libraries and buffers; for each token
#: of the vocabulary llama.cpp's own table, and llguidance's.
_REST_BYTES = 64 << 20
_TOKEN_BYTES = 168 + 228
#: Of what is left beside the weights; the rest is for what else the machine does.
_SHARE = 0.75
#: What one generation holds, mostly; fewer slots are better than shorter conversations.
_SLOT_TOKENS, _LEAST_TOKENS = 8192, 1024
#: Of the cache, once more: beginnings that closed sessions leave.
_PREFIXES = 1 / 8


@dataclass(frozen=True, slots=True)
class Fit:
    """The options that suit a machine, and what they take there. Without `fits` they are the least."""

    context: int
    slots: int
    needed_bytes: int
    available_bytes: int
    fits: bool


def kv_bytes_per_token(file: ModelFile) -> int | None:
    """Return what one token takes in the KV cache of all layers, as the worker keeps it; None where the
    architecture keeps something else."""
    name = file.text("general.architecture") or ""
    layers, width = file.number(f"{name}.block_count"), file.number(f"{name}.embedding_length")
    heads = _of_layers(file, f"{name}.attention.head_count", layers)
    if layers is None or not 0 < layers <= 4096 or heads is None or not heads[0]:
        return None
    if any(key.startswith((f"{name}.ssm.", f"{name}.attention.kv_lora_rank")) for key in file.metadata):
        return None
    kv_heads = _of_layers(file, f"{name}.attention.head_count_kv", layers) or heads
    sliding = _sliding_layers(file, f"{name}.attention.sliding_window_pattern", layers)
    sizes = []
    for part in ("key", "value"):
        whole = file.number(f"{name}.attention.{part}_length") or (width or 0) // heads[0]
        window = file.number(f"{name}.attention.{part}_length_swa") or whole
        sizes.append((whole, window))
    kept = layers - (file.number(f"{name}.attention.shared_kv_layers") or 0)
    if name == "gemma3n":  # its later layers use the cache of the twentieth; llama.cpp knows that by itself
        kept = min(20, layers)
    return sum(
        kv_heads[n] * sum(size[sliding[n]] for size in sizes) * _KV_VALUE_BYTES for n in range(max(0, kept))
    )


def _of_layers(file: ModelFile, key: str, layers: int | None) -> list[int] | None:
    """Return a number of each layer: the file has one for all, or a list."""
    found = file.metadata.get(key)
    if isinstance(found, bool) or layers is None or layers > 4096:
        return None
    if isinstance(found, int):
        return [found] * layers
    if isinstance(found, tuple) and len(found) >= layers and all(isinstance(n, int) for n in found):
        return [int(n) for n in found]
    return None


def _sliding_layers(file: ModelFile, key: str, layers: int) -> list[bool]:
    """Return which layers look at a window alone: the file has a list, or a number n: all but each n-th."""
    found = _of_layers(file, key, layers)
    period = file.number(key)
    if period:
        return [n % period < period - 1 for n in range(layers)]
    return [bool(n) for n in found] if found else [False] * layers


def fit_into(here: Machine, weights_bytes: int, per_token: int, *, vocabulary: int, trained: int) -> Fit:
    """Return what suits a machine: as many tokens as fit, for as many generations as its cores are worth."""
    slots = 8 if here.cores >= 4 else 4
    rest = _REST_BYTES + vocabulary * _TOKEN_BYTES
    cell_bytes = per_token * (1 + _PREFIXES)

    def needed(context: int, slots: int) -> int:
        logits = 4 * vocabulary * (2 * slots + 8)
        return int(weights_bytes + rest + logits + context * cell_bytes)

    left = here.memory_bytes - needed(0, slots)
    context = min(int(left * _SHARE / cell_bytes) if cell_bytes else trained, trained, slots * _SLOT_TOKENS)
    least = min(_LEAST_TOKENS, trained)
    context = max(context // 1024 * 1024, least)
    slots = max(1, min(slots, context // 1024))
    total = needed(context, slots)
    return Fit(context, slots, total, here.memory_bytes, total <= here.memory_bytes)
