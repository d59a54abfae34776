"""The Gemma worker over its socket, beside llama-bench and llama-server of the same llama.cpp release.

`python -m bench.llama_peers` builds the peers. Contenders take turns, one turn that does not count and
then several. The machine's speed drifts within minutes, so two contenders are compared turn by turn, and
what is printed is the median of those ratios. All load the same weights with the same threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import gemma_client, gemma_fairness, llama_peers
from bench.gemma_cases import CASES, SAMPLED, Case, copied, judge
from bench.gemma_client import Turns, Worker
from bench.llama_peers import Answer, LlamaServer

THREADS, CONTEXT, SLOTS = 2, 8192, 8
TIMEOUT_MS = 600_000  # an answer that a busy machine makes slow is one all the same
TOKENS, SESSION_TOKENS, PROMPT_TOKENS = 128, 48, 500
GREEDY: dict[str, Any] = {"temperature": 0.0}
TOPICS = (
    "a river", "a lighthouse", "an old bridge", "the harbour", "a mountain village", "a night train",
    "the desert", "a clockmaker", "a storm at sea", "an orchard", "a library", "the first snow",
)  # fmt: skip
# Words that are one token each after a space; a prompt's length is counted again by the servers.
WORDS = (
    "river", "house", "stone", "water", "green", "small", "tree", "road", "night", "morning", "table",
    "paper", "window", "garden", "summer", "winter", "music", "letter", "story", "market", "bridge", "island",
)  # fmt: skip


def chat(prompt: str) -> str:
    """What the worker makes of a first question to a base model (fazai.worker.chat): the text itself."""
    return prompt


@dataclass(frozen=True, slots=True)
class Field:
    """Who takes part: the worker, a llama-server with one slot and one with eight, and the weights."""

    model: Path
    ours: Worker
    one: LlamaServer
    eight: LlamaServer
    turns: Turns
    cases: tuple[Case, ...] = CASES

    @property
    def rounds(self) -> int:
        return self.turns.rounds


def median(values: Sequence[Any], of: Callable[[Any], float] = float) -> float:
    return statistics.median(of(value) for value in values)


def ratio(one: Sequence[Any], other: Sequence[Any], of: Callable[[Any], float] = float) -> float:
    return statistics.median(of(a) / of(b) for a, b in zip(one, other, strict=True))


def _story(number: int) -> str:
    return f"Write a long story about {TOPICS[number % len(TOPICS)]}."


def _server_params(tokens: int, sampling: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Only the samplers that the worker runs too: llama-server's others would cost it time."""
    chain = ["top_k", "top_p", "temperature"]
    return {"n_predict": tokens, "seed": seed, "samplers": chain, "min_p": 0.0, **sampling}


# --- one stream ------------------------------------------------------------------------------------------


def one_stream(field: Field) -> list[str]:
    share: list[float] = []
    outside: list[float] = []

    def ours(sampling: Mapping[str, Any]) -> Callable[[int], float]:
        def go(number: int) -> float:
            before = field.ours.counters()
            got = asyncio.run(field.ours.once(_story(number), max_tokens=TOKENS, seed=number, **sampling))
            after = field.ours.counters()
            decoding = (
                after["fazai_worker_decode_seconds_total"] - before["fazai_worker_decode_seconds_total"]
            )
            if sampling is SAMPLED and number:
                share.append((got.end_s - decoding) / decoding)
                outside.append((got.end_s - decoding) / got.tokens)
            return got.rate

        return go

    def server(sampling: Mapping[str, Any]) -> Callable[[int], float]:
        def go(number: int) -> float:
            params = _server_params(TOKENS, sampling, number)
            return asyncio.run(field.one.complete(chat(_story(number)), **params)).rate

        return go

    got = field.turns.run(
        {
            "llama-bench tg": lambda _: llama_peers.bench(field.model, THREADS, "-p", "0", "-n", str(TOKENS)),
            "llama-bench tg, GOMP_SPINCOUNT=20000": lambda _: llama_peers.bench(
                field.model, THREADS, "-p", "0", "-n", str(TOKENS), GOMP_SPINCOUNT="20000"
            ),
            "worker, sampled": ours(SAMPLED),
            "llama-server, sampled": server(SAMPLED),
            "worker, greedy": ours(GREEDY),
            "llama-server, greedy": server(GREEDY),
        },
    )
    bare = got["llama-bench tg"]
    rows = ["| one stream, free text | tokens/s | of llama-bench |", "|---|---|---|"]
    rows += [f"| {name} | {median(rates):.1f} | {ratio(rates, bare):.3f} |" for name, rates in got.items()]
    return [
        *rows,
        "",
        f"Beyond `llama_decode`, sampled, from the request to its end: {median(share):.1%}"
        f" ({median(outside) * 1e6:.0f} µs a token). {TOKENS} tokens, medians of {field.rounds}.",
    ]


# --- first token -----------------------------------------------------------------------------------------


def _long_prompt(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def first_token(field: Field) -> list[str]:
    probe = asyncio.run(field.ours.once(_long_prompt(-1, 100), max_tokens=1))
    words = 100 + PROMPT_TOKENS - probe.prompt_tokens

    async def ours(number: int) -> tuple[Answer, Answer]:
        async with field.ours.session(max_tokens=8, **GREEDY) as session_id:
            cold = await field.ours.generate(session_id, _long_prompt(number, words))
            return cold, await field.ours.generate(session_id, "And what comes next?")

    async def server(number: int) -> tuple[Answer, Answer]:
        prompt, params = chat(_long_prompt(number, words)), _server_params(8, GREEDY, 0)
        cold = await field.one.complete(prompt, **params)
        again = f"{prompt}{cold.text}<end_of_turn>\n{chat('And what comes next?')}"
        return cold, await field.one.complete(again, **params)

    pp = ("-p", str(PROMPT_TOKENS), "-n", "0")
    got = field.turns.run(
        {
            "bare": lambda _: PROMPT_TOKENS / llama_peers.bench(field.model, THREADS, *pp),
            "worker": lambda number: asyncio.run(ours(number)),
            "llama-server": lambda number: asyncio.run(server(number)),
        },
    )
    assert {cold.prompt_tokens for cold, _ in got["worker"] + got["llama-server"]} == {PROMPT_TOKENS}
    bare = got["bare"]
    rows = [
        f"| first token, prompt of {PROMPT_TOKENS} | cold | of bare prefill | second turn | of cold |",
        "|---|---|---|---|---|",
        f"| llama-bench pp{PROMPT_TOKENS} (prefill alone) | {median(bare) * 1000:.0f} ms | 1.000 | | |",
    ]
    for name in ("worker", "llama-server"):
        cold, warm = ([pair[k].first_s for pair in got[name]] for k in (0, 1))
        of_bare, of_cold = ratio(cold, bare), ratio(warm, cold)
        times = (
            f"{median(cold) * 1000:.0f} ms",
            f"{of_bare:.3f}",
            f"{median(warm) * 1000:.0f} ms",
            f"{of_cold:.3f}",
        )
        rows.append(f"| {name} | {' | '.join(times)} |")
    return [*rows, "", f"Every prompt is new from its first word. Medians of {field.rounds}."]


# --- several sessions ------------------------------------------------------------------------------------

Ask = Callable[[int], Awaitable[Answer]]


def at_once(ask: Ask, numbers: Sequence[int]) -> tuple[float, list[Answer]]:
    async def go() -> tuple[float, list[Answer]]:
        begun = time.perf_counter()
        answers = await asyncio.gather(*(ask(number) for number in numbers))
        return time.perf_counter() - begun, list(answers)

    return asyncio.run(go())


def one_by_one(ask: Ask, numbers: Sequence[int]) -> tuple[float, list[Answer]]:
    async def go() -> tuple[float, list[Answer]]:
        begun = time.perf_counter()
        answers = [await ask(number) for number in numbers]
        return time.perf_counter() - begun, answers

    return asyncio.run(go())


def _rate(result: tuple[float, list[Answer]]) -> float:
    return sum(answer.tokens for answer in result[1]) / result[0]


def _actions_a_second(result: tuple[float, list[Answer]]) -> float:
    return len(result[1]) / result[0]


def sessions(field: Field) -> list[str]:
    async def ours(number: int) -> Answer:
        return await field.ours.once(_story(number), max_tokens=SESSION_TOKENS, seed=number, **SAMPLED)

    async def server(number: int) -> Answer:
        params = _server_params(SESSION_TOKENS, SAMPLED, number)
        return await field.eight.complete(chat(_story(number)), **params)

    def at_once_of(ask: Ask, n: int, turn: int) -> tuple[float, list[Answer]]:
        return at_once(ask, range(turn * SLOTS, turn * SLOTS + n))

    contenders: dict[str, Callable[[int], Any]] = {
        "serial": lambda turn: one_by_one(ours, range(turn * SLOTS, turn * SLOTS + SLOTS)),
    }
    for n in (1, 2, 4, 8):
        contenders[f"ours {n}"] = partial(at_once_of, ours, n)
        contenders[f"server {n}"] = partial(at_once_of, server, n)
    got = field.turns.run(contenders)
    serial = got["serial"]
    rows = [
        "| sessions at once, free text | worker, tokens/s in all | llama-server -np 8 | worker / llama-server"
        " | worker / one after the other |",
        "|---|---|---|---|---|",
    ]
    for n in (1, 2, 4, 8):
        mine, theirs = got[f"ours {n}"], got[f"server {n}"]
        times = (f"{ratio(mine, theirs, _rate):.2f}", f"{ratio(mine, serial, _rate):.2f}")
        rows.append(
            f"| {n} | {median(mine, _rate):.1f} | {median(theirs, _rate):.1f} | {' | '.join(times)} |"
        )
    return [
        *rows,
        "",
        f"{SESSION_TOKENS} tokens each, prompts included in the time; eight one after the other:"
        f" {median(serial, _rate):.1f} tokens/s. Medians of {field.rounds}.",
    ]


# --- JSON ------------------------------------------------------------------------------------------------


def answers(ours: Worker, wanted: int) -> list[str]:
    """The worker's alone: as many answers in all, of each schema in turn, eight at once."""
    found = {case.title: Counter[str]() for case in CASES}
    tokens: dict[str, list[int]] = {case.title: [] for case in CASES}
    names, number = 0, 0
    while sum(len(each) for each in tokens.values()) < wanted:
        for case in CASES:
            got = at_once(partial(_ask, ours, case), range(number, number + SLOTS))[1]
            found[case.title].update(judge(answer, case) for answer in got)
            tokens[case.title] += [answer.tokens for answer in got]
            if case is CASES[-1]:
                names += sum(copied(answer, number + at) for at, answer in enumerate(got))
        number += SLOTS
    rows = [
        "| under a schema | answers | valid | by length | tokens, median and most |",
        "|---|---|---|---|---|",
    ]
    for title, ends in found.items():
        cells = (
            ends.total(),
            ends["valid"],
            ends["length"],
            f"{median(tokens[title]):.0f}, {max(tokens[title])}",
        )
        rows.append(f"| {title} | {' | '.join(map(str, cells))} |")
    ends = sum(found.values(), Counter[str]())
    others = {reason: count for reason, count in ends.items() if reason != "valid"}
    return [
        *rows,
        "",
        f"Valid: {ends['valid']} of {ends.total()}, by length {ends['length']} ; ended otherwise:"
        f" {others or 'none'}. Names copied: {names} of {number * 3}.",
    ]


def actions(field: Field) -> list[str]:
    rows = [
        "| JSON by schema | tokens/s | llama-server | ratio | actions/s | llama-server | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    checked, good = 0, 0
    for case in field.cases:
        got = _action_turns(field, case)
        for n in (1, 8):
            mine, theirs = got[f"ours {n}"], got[f"server {n}"]
            cells = [f"{case.title}, {n} at once"]
            for of, places in ((_rate, 0), (_actions_a_second, 2)):
                cells += [f"{median(x, of):.{places}f}" for x in (mine, theirs)]
                cells.append(f"{ratio(mine, theirs, of):.2f}")
            rows.append(f"| {' | '.join(cells)} |")
            said = [answer for result in mine for answer in result[1]]
            checked, good = checked + len(said), good + sum(judge(answer, case) == "valid" for answer in said)
    return [*rows, "", f"Valid: {good} of {checked} (temperature 1). Medians of {field.rounds}."]


async def _ask(ours: Worker, case: Case, number: int) -> Answer:
    """A session of its own for each, as an agent would."""
    asked = {"max_tokens": case.max_tokens, "seed": number, "json_schema": case.schema, **case.sampling}
    asked["timeout_ms"] = TIMEOUT_MS
    return await ours.once(case.task(number), system=case.system, **asked)


async def _ask_server(server: LlamaServer, case: Case, number: int) -> Answer:
    params = _server_params(case.max_tokens, case.sampling, number)
    prompt = chat(f"{case.system}\n\n{case.task(number)}")
    return await server.complete(prompt, json_schema=case.schema, **params)


def _action_turns(field: Field, case: Case) -> dict[str, list[Any]]:
    ours = partial(_ask, field.ours, case)
    one, eight = partial(_ask_server, field.one, case), partial(_ask_server, field.eight, case)
    return field.turns.run(
        {
            "ours 1": lambda turn: one_by_one(ours, range(turn * 4, turn * 4 + 4)),
            "server 1": lambda turn: one_by_one(one, range(turn * 4, turn * 4 + 4)),
            "ours 8": lambda turn: at_once(ours, range(turn * 8, turn * 8 + 8)),
            "server 8": lambda turn: at_once(eight, range(turn * 8, turn * 8 + 8)),
        },
    )


# --- abort, memory, limits -------------------------------------------------------------------------------


def aborts(field: Field, times: int = 100) -> list[str]:
    token_s = 1 / median([asyncio.run(field.ours.once(_story(n), max_tokens=64)).rate for n in range(3)])
    late = asyncio.run(_aborts(field.ours, times))
    within = sum(s <= token_s + 0.005 for s in late)
    return [
        "| abort (from another connection) to the last token | median | slowest | within one token + 5 ms |",
        "|---|---|---|---|",
        f"| one token: {token_s * 1000:.1f} ms | {median(late) * 1000:.1f} ms | {max(late) * 1000:.1f} ms"
        f" | {within} of {times} |",
    ]


async def _aborts(ours: Worker, times: int) -> list[float]:
    """From writing the abort to the stream's end, which is behind the last token."""
    late = []
    chance = random.Random(1)
    for number in range(times):
        async with (
            ours.session() as session_id,
            ours.connection() as (reader, writer),
            ours.connection() as other,
        ):
            message = {"type": "generate", "session_id": session_id, "prompt": _story(number), "stream": True}
            writer.write(json.dumps({**message, "params": {"max_tokens": 500}}).encode() + b"\n")
            for _ in range(chance.randint(1, 8)):
                await reader.readline()
            await asyncio.sleep(chance.random() / 90)  # anywhere between two tokens
            begun = time.perf_counter()
            other[1].write(json.dumps({"type": "abort", "session_id": session_id}).encode() + b"\n")
            while (event := json.loads(await reader.readline()))["type"] == "token":
                pass
            late.append(time.perf_counter() - begun)
            assert event["reason"] == "aborted", event
            await other[0].readline()
    return late


def memory(field: Field) -> list[str]:
    """After the rest ran. The cache of Gemma 3 270M: 18 layers, 256 numbers of 2 bytes for key and value."""
    model, cache = field.model.stat().st_size, 18 * 256 * 2 * 2 * CONTEXT
    rows = [
        "| memory after the runs | resident | anonymous | file pages | resident over model + KV |",
        "|---|---|---|---|---|",
    ]
    for name, pid in (("worker", field.ours.pid), ("llama-server -np 8", field.eight.pid)):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        of = {
            line.split(":")[0]: int(line.split()[1]) * 1024
            for line in lines
            if line.startswith(("VmRSS", "Rss"))
        }
        over = f"{(of['VmRSS'] - model - cache) / 2**20:.0f} MiB" if pid == field.ours.pid else ""
        cells = " | ".join(f"{of[key] / 2**20:.0f} MiB" for key in ("VmRSS", "RssAnon", "RssFile"))
        rows.append(f"| {name} | {cells} | {over} |")
    note = f"Weights {model / 2**20:.0f} MiB, KV cache of {CONTEXT} tokens {cache / 2**20:.0f} MiB."
    return [*rows, "", note]


def limits(field: Field) -> list[str]:
    """Every weight is read once a token, so bandwidth bounds the rate."""
    numpy: Any = importlib.import_module("numpy")
    arrays = [numpy.ones(1 << 26, dtype=numpy.float32) for _ in range(THREADS)]

    def read() -> float:
        threads = [threading.Thread(target=numpy.dot, args=(array, array)) for array in arrays]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(int(array.nbytes) for array in arrays) / (time.perf_counter() - begun)

    best = max(read() for _ in range(10))
    model = field.model.stat().st_size
    return [
        f"Reading memory with {THREADS} threads: {best / 1e9:.1f} GB/s at best; {model / 1e6:.0f} MB of"
        f" weights a token: at most {best / model:.0f} tokens/s in one stream."
    ]


ANSWERS = "answers"
SECTIONS = (
    ANSWERS,
    "one_stream",
    "first_token",
    "sessions",
    "actions",
    "aborts",
    "memory",
    "limits",
    "fairness",
)


def main(rounds: int = 5, checks: int = 100) -> list[str]:
    return list(measure(rounds, checks))


def measure(
    rounds: int, checks: int, only: Sequence[str] = SECTIONS, cases: tuple[Case, ...] = CASES
) -> Iterator[str]:
    """Lines of Markdown as they are known."""
    from fazai.worker.demo import find_demo_model

    model, before = find_demo_model(llama_peers.FOLDER), os.getloadavg()[0]
    if "fairness" in only:  # a worker at a time, and no peer
        yield from (*gemma_fairness.fairness(model, rounds, THREADS), "")
        yield f"Load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} now."
        only = [name for name in only if name != "fairness"]
    if not only:
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def server(slots: int) -> LlamaServer:
            log = folder / f"server-{slots}.log"
            return stack.enter_context(
                llama_peers.running(model, threads=THREADS, slots=slots, context=CONTEXT, log=log)
            )

        sizes = {"threads": THREADS, "slots": SLOTS, "context": CONTEXT}
        mine = stack.enter_context(gemma_client.running(model, folder, **sizes))
        yield f"llama-cpp-python {llama_peers.release()}, {THREADS} threads, {model.name}."
        if ANSWERS in only:  # of the worker alone: no peers are needed
            yield from ("", *answers(mine, checks), "")
        beside = [name for name in only if name != ANSWERS]
        if not beside:
            return
        one, eight = server(1), server(SLOTS)
        field = Field(model, mine, one, eight, Turns((mine.pid, one.pid, eight.pid), rounds), cases)
        measured: dict[str, Callable[[Field], list[str]]] = {
            "one_stream": one_stream,
            "first_token": first_token,
            "sessions": sessions,
            "actions": actions,
            "aborts": aborts,
            "memory": memory,
            "limits": limits,
        }
        for name in beside:
            field.turns.foreign.clear()
            yield from ("", *measured[name](field), "")
            load = f"Load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} now."
            disturbed = field.turns.foreign
            if disturbed:
                load += f" Other processes took {median(disturbed):.0%} of the CPU time in the median"
                load += f" measurement, {max(disturbed):.0%} at worst."
            yield load


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.gemma")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--actions", type=int, default=100, help="how many JSON answers are checked at least")
    parser.add_argument("only", nargs="*", help=f"some of {', '.join(SECTIONS)}", default=SECTIONS)
    parser.add_argument(
        "--case",
        action="append",
        choices=[case.title for case in CASES],
        help="of `actions`; may be repeated",
    )
    arguments = parser.parse_args()
    chosen = tuple(case for case in CASES if case.title in (arguments.case or [case.title]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    for line in measure(arguments.rounds, arguments.actions, arguments.only, chosen):
        print(line, flush=True)
