"""Writes a model report for people."""

from __future__ import annotations

from collections.abc import Iterator

from fazai.worker.modelfile.report import Chat, ModelReport


def report_lines(report: ModelReport) -> Iterator[str]:
    """Yield the lines of a report: a label and what is said of it, without what would move a terminal's
    cursor."""
    for label, text in _rows(report):
        yield f"{label:<14} {''.join(char if char.isprintable() else '?' for char in text)}"


def _rows(report: ModelReport) -> Iterator[tuple[str, str]]:
    known = [report.name, report.size_label, f"architecture {report.architecture or 'unknown'}"]
    yield "model", ", ".join(part for part in known if part)
    if report.license:
        yield "license", report.license
    yield "file", f"{report.file}, {_size(report.file_bytes)}, GGUF {report.gguf_version}"
    yield "parameters", f"{_count(report.parameters)}"
    shares = ", ".join(f"{share.type} {_size(share.bytes)} ({share.tensors})" for share in report.types)
    yield "tensors", shares or "none"
    trained = "unknown" if report.context_trained is None else f"{report.context_trained} tokens"
    yield "context", f"trained for {trained}"
    yield "vocabulary", f"{report.vocabulary} tokens"
    yield "conversations", _conversations(report.chat)
    yield from _output_rows(report)
    yield from _memory_rows(report)
    yield from _machine_rows(report)
    for problem in report.problems:
        yield "not served", problem
    if not report.problems:
        yield "served", "yes" if not report.machine.problem else "yes, once the worker is installed"


def _conversations(chat: Chat) -> str:
    if chat.problem is not None:
        return "its own template, which cannot be used"
    if chat.base_model:
        return "none: a base model, which continues text; give it --stop and an example or two"
    said = [
        chat.template,
        "a turn for the system" if chat.system_role else "system text before the first question",
    ]
    if chat.thinks:
        said.append("thoughts, which the worker does not ask for")
    tools = "declarations of tools, which the worker does not use: --json-schema types its actions"
    said.append(tools if chat.tools else "no tools; --json-schema types its actions")
    return "; ".join(said)


def _output_rows(report: ModelReport) -> Iterator[tuple[str, str]]:
    matrix = report.output
    if matrix is None:
        yield "output matrix", "not found"
        return
    tied = "tied: it reads tokens, too" if matrix.tied else "separate"
    yield "output matrix", f"{matrix.tensor}, {matrix.type}, {_size(matrix.bytes)}, {tied}"
    expected = {True: "expected", False: "no", None: "not known"}[matrix.restricted_logits]
    yield "few logits", f"{expected}: {matrix.why}"


def _memory_rows(report: ModelReport) -> Iterator[tuple[str, str]]:
    repacked = report.repacked_bytes
    once_more = f"; {_size(repacked)} of them once more, repacked" if repacked else ""
    yield "weights", f"{_size(report.weights_bytes)}, mapped from the file{once_more}"
    per_thousand = report.kv_bytes_per_1000_tokens
    cost = "not known for this architecture" if per_thousand is None else _size(per_thousand)
    yield "KV cache", f"{cost} for each 1,000 tokens of --context"


def _machine_rows(report: ModelReport) -> Iterator[tuple[str, str]]:
    here, fit = report.machine, report.fit
    free = _size(here.memory_bytes) if here.memory_bytes else "unknown memory"
    yield "this machine", f"{here.cores} cores, {free} free"
    if here.problem:
        yield "llama.cpp", here.problem
    else:
        gpu = "--gpu-layers can be used" if here.gpu else "no GPU: --gpu-layers is refused"
        yield "llama.cpp", f"{here.llama_cpp}; {'; '.join(here.devices)}; {gpu}"
    if fit is not None and fit.fits:
        yield (
            "suggested",
            f"--context {fit.context} --slots {fit.slots}: about {_size(fit.needed_bytes)} in all",
        )


def _size(n: int) -> str:
    """Return bytes for people, in MiB or GiB."""
    if n >= 10 << 30:
        return f"{n / (1 << 30):.0f} GiB"
    return (
        f"{n / (1 << 30):.1f} GiB" if n >= 1 << 30 else f"{n / (1 << 20):.{0 if n >= 10 << 20 else 1}f} MiB"
    )


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} billion" if n >= 10**9 else f"{n / 1e6:.0f} million"
