"""The action loop: what the daemon itself takes for an action, what the model computes anew in an iteration,
an iteration beside llama-server with its own grammar, an approval until the first write, large schemas.

Only when asked for: the worker, the demo model, llama-server (`python -m bench.llama_peers`).
"""

from __future__ import annotations

import asyncio
import cProfile
import itertools
import json
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from bench import gemma_client, llama_peers
from bench.evaluation.__main__ import demo_model
from bench.evaluation.models import Contender
from bench.evaluation.person import run_trial
from bench.evaluation.tasks import Task, WorldSpec
from bench.evaluation.world import EvalWorld, eval_world, until
from bench.gemma_client import Worker
from bench.llama_peers import Answer, LlamaServer
from fazai.daemon.tools.table import TABLE
from fazai.loop import prompt
from fazai.loop.journal import Observed, SessionState
from fazai.loop.schema import build_action_schema

_NAMES: dict[Any, Any] = {
    "firewalls": ("fw-01", "fw-02", "fw-03"),
    "hosts": ("db-01", "web-01"),
    "targets": ("fw-01", "fw-02", "fw-03"),
    "playbooks": ("audit", "branch", "core", "edge"),
    "sessions": (),
}
_POLL_S = 5.0  # so that looks at firewalls take little of what is measured
_WARM = 5  # actions that do not count
_APPLY = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}


def main(rounds: int = 7, actions: int = 60) -> list[str]:
    """Make all tables."""
    rows = [*own_time(actions), "", *approval_to_write(rounds), ""]
    with tempfile.TemporaryDirectory() as folder, _worker(Path(folder)) as worker:
        rows += [*computed_tokens(worker), "", *large_schemas(worker), ""]
        log = Path(folder, "llama.log")
        with llama_peers.running(demo_model(), threads=2, slots=1, context=8192, log=log) as server:
            rows += iterations(worker, server, rounds)
    return rows


# --- the daemon's own time ---------------------------------------------------------------------------------


def own_time(actions: int) -> list[str]:
    """Return what passes between the end of an answer and the next request to the model."""
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "use_tool fleet.list": lambda n: {
            "action": "use_tool",
            "name": "fleet.list",
            "args": {"limit": n % 400 + 1},
        },
        "use_tool kb.search": lambda n: {
            "action": "use_tool",
            "name": "kb.search",
            "args": {"query": f"tunnel {n}"},
        },
        "commit_kb": lambda n: {"action": "commit_kb", "title": f"t{n}", "snippet": f"text {n}", "tags": []},
    }
    rows = [
        "| action | CPU of the daemon for it, the model's client apart | passes on the clock |",
        "|---|---|---|",
    ]
    for name, make in kinds.items():
        cpu, gaps = _own(make, actions)
        rows.append(f"| {name} | {cpu * 1000:.1f} ms | {statistics.median(gaps) * 1000:.1f} ms |")
    return [
        *rows,
        "",
        f"Means and medians of {actions} actions. The CPU is that of the event loop under a profiler, which"
        " adds to it; the clock runs from an answer's last byte to the next request's first, with what the"
        " disk and other processes take.",
    ]


def _own(make: Callable[[int], dict[str, Any]], actions: int) -> tuple[float, list[float]]:
    """Return the CPU of the daemon's loop for an action, and the seconds between answers and the requests
    after them."""
    numbers = itertools.count()
    gaps: list[float] = []
    sent: list[float] = []
    profile = cProfile.Profile(time.thread_time)
    worlds: list[EvalWorld] = []

    def answer(body: dict[str, Any]) -> str:
        number = next(numbers)
        if number == _WARM:
            worlds[0].loop.call_soon_threadsafe(profile.enable)
        if number > _WARM:
            gaps.append(time.perf_counter() - sent[-1])
        last = number >= actions + _WARM
        text = json.dumps({"action": "done", "result": "."} if last else make(number))
        sent.append(time.perf_counter())
        return text

    task = Task(id="own", group="steps", objective="Look around.", good=[], iterations=actions + _WARM + 2)
    contender = Contender("loop", lambda task, trial: answer)
    with _world(contender, task) as world:
        worlds.append(world)
        trial = run_trial(world, task, {})
        world.on_loop(_disable(profile))
    if len(gaps) < actions:
        raise RuntimeError(f"{len(gaps)} of {actions} actions: {trial.status}, {trial.why}")
    return (_spent(profile, "driver.py", "_step") - _spent(profile, "conversation.py", "ask")) / actions, gaps


async def _disable(profile: cProfile.Profile) -> None:
    profile.disable()


def _spent(profile: cProfile.Profile, file: str, function: str) -> float:
    """Return the seconds in a function of the loop and in what it calls."""
    stats = cast("dict[tuple[str, int, str], tuple[Any, ...]]", vars(pstats.Stats(profile))["stats"])
    found = [
        row[3] for (path, _, name), row in stats.items() if name == function and path.endswith(f"loop/{file}")
    ]
    return float(sum(found))


@contextmanager
def _world(contender: Contender, task: Task) -> Iterator[EvalWorld]:
    with (
        tempfile.TemporaryDirectory() as folder,
        contender.serving(task, 0) as url,
        eval_world(Path(folder), WorldSpec(), endpoint=url, model="m", socket=None, poll_s=_POLL_S) as world,
    ):
        yield world


# --- approvals ---------------------------------------------------------------------------------------------


def approval_to_write(rounds: int) -> list[str]:
    """Return what passes between an approval and the first write, beside one observation of the target."""
    waits, looks = [], []
    for _ in range(rounds):
        wait, look = _one_approval()
        waits.append(wait)
        looks.append(look)
    rows = ["| | median |", "|---|---|"]
    rows.append(f"| approval to the first write | {statistics.median(waits) * 1000:.0f} ms |")
    rows.append(f"| a run of its own that only looks | {statistics.median(looks) * 1000:.0f} ms |")
    return rows


def _one_approval() -> tuple[float, float]:
    answers = iter([_APPLY, {"action": "done", "result": "."}])
    task = Task(id="approve", group="steps", objective="Apply edge.", good=[])
    contender = Contender("loop", lambda task, trial: lambda body: json.dumps(next(answers)))
    with _world(contender, task) as world:
        look = _time_plan(world)
        session = world.post("/agent/sessions", {})["session_id"]
        world.post_stream("/agent/generate", {"session_id": session, "objective": task.objective})
        waiting = world.get(f"/agent/sessions/{session}")["session"]["waiting"]
        revisions = world.firewalls["fw-01"].box.config.history
        count = len(revisions)
        said = {name: waiting[name] for name in ("action_id", "plan_hash")}
        approved = time.time()
        world.post("/agent/approve", {"session_id": session, **said})
        until(lambda: len(revisions) > count)
        return time.time() - approved, look


def _time_plan(world: EvalWorld) -> float:
    begun = time.perf_counter()
    run = world.post("/runs", {"playbook": "core", "mode": "check"})["run_id"]
    until(lambda: world.get(f"/runs/{run}")["run"].get("exit_code") is not None)
    return time.perf_counter() - begun


# --- the worker --------------------------------------------------------------------------------------------


@contextmanager
def _worker(folder: Path) -> Iterator[Worker]:
    with gemma_client.running(demo_model(), folder, threads=2, slots=1, context=8192) as worker:
        yield worker


def turns_of_session(count: int) -> list[str]:
    """Return the turns of a session in which a model looks at one thing after another."""
    state = SessionState()
    state.objective = "Which firewall has drifted, and what is full?"
    turns = [
        prompt.opening_turn(state, "3 firewalls, 2 hosts; playbooks: audit, branch, core, edge", "", "aa")
    ]
    for number in range(count - 1):
        data = [{"name": f"fw-{n:02}", "kind": "firewall", "up": True, "load1": number + n} for n in range(4)]
        text = msgspec.json.encode(data).decode()
        shown = Observed(at=0.0, action_id="a", note="4 machines", text=text, digest="", mark=f"m{number:03}")
        turns.append(prompt.next_turn((shown,)))
    return turns


def computed_tokens(worker: Worker) -> list[str]:
    """Return the tokens that each iteration computed, beside those that were new."""
    schema = _tool_schema()  # as no long text has to be waited for

    async def run() -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        before = 0
        async with worker.session(system=prompt.system_text(TABLE), temperature=0.0) as session:
            for number, turn in enumerate(turns_of_session(6)):
                got = await worker.generate(
                    session, turn, json_schema=schema, max_tokens=200, seed=number, timeout_ms=600_000
                )
                found.append((got.prompt_tokens - before, got.prompt_tokens - got.cached_tokens))
                before = got.prompt_tokens + got.tokens
        return found

    counts = asyncio.run(run())
    rows = ["| iteration | new tokens | computed | ratio |", "|---|---|---|---|"]
    rows += [
        f"| {n} | {new} | {computed} | {computed / new:.2f} |" for n, (new, computed) in enumerate(counts, 1)
    ]
    return rows


def large_schemas(worker: Worker) -> list[str]:
    """Return how long the first answer takes under the schema of a fleet of so many targets."""
    rows = ["| targets | schema | to the first token, compiled anew | the same again |", "|---|---|---|---|"]
    for count in (3, 500, 2000, 5000):
        names = {**_NAMES, "targets": tuple(f"edge-{n:05}.example.test" for n in range(count))}
        begun = time.perf_counter()
        schema = build_action_schema(TABLE, names)
        built = time.perf_counter() - begun
        first, again = (_first_token(worker, schema) for _ in range(2))
        size = len(msgspec.json.encode(schema))
        rows.append(
            f"| {count:,} | {size:,} bytes, built in {built * 1000:.0f} ms | {first:.2f} s | {again:.2f} s |"
        )
    return rows


def _first_token(worker: Worker, schema: dict[str, Any]) -> float:
    got = asyncio.run(worker.once("Hi", json_schema=schema, max_tokens=1, timeout_ms=600_000))
    return got.end_s


# --- beside llama-server -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spent:
    """One iteration: seconds on the clock, seconds of CPU of the process, tokens of the answer."""

    wall_s: float
    cpu_s: float
    tokens: int


def iterations(worker: Worker, server: LlamaServer, rounds: int) -> list[str]:
    """Return the time of an iteration: one `use_tool` with what it showed before in the prompt."""
    schema = _tool_schema()
    turns = turns_of_session(5)
    system = prompt.system_text(TABLE)

    async def ours(number: int) -> list[Spent]:
        async with worker.session(system=f"{number}\n{system}", temperature=0.0) as session:

            async def ask(turn: str) -> Answer:
                return await worker.generate(
                    session, turn, json_schema=schema, max_tokens=200, timeout_ms=600_000
                )

            return [await _spend(worker.pid, ask, turn) for turn in turns]

    async def theirs(number: int) -> list[Spent]:
        text = [f"{number}\n{system}\n\n"]

        async def ask(turn: str) -> Answer:
            text.append(turn)
            got = await server.complete(
                "".join(text), json_schema=schema, n_predict=200, cache_prompt=True, temperature=0.0
            )
            text.append(got.text)
            return got

        return [await _spend(server.pid, ask, turn) for turn in turns]

    found: dict[str, list[list[Spent]]] = {"worker": [], "llama-server": []}
    for number in range(rounds + 1):  # the first does not count
        for name, go in (("worker", ours), ("llama-server", theirs)):
            spent = asyncio.run(go(number))
            if number:
                found[name].append(spent[1:])
    return _iteration_rows(found, rounds)


async def _spend(pid: int, ask: Callable[[str], Awaitable[Answer]], turn: str) -> Spent:
    cpu, begun = _cpu_s(pid), time.perf_counter()
    got = await ask(turn)
    return Spent(time.perf_counter() - begun, _cpu_s(pid) - cpu, got.tokens)


def _cpu_s(pid: int) -> float:
    """Return the CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _iteration_rows(found: Mapping[str, Sequence[Sequence[Spent]]], rounds: int) -> list[str]:
    rows = [
        "| an iteration with one `use_tool`, the second and later | clock | CPU | tokens | actions/s |",
        "|---|---|---|---|---|",
    ]
    middle: dict[str, tuple[float, float]] = {}
    for name, turns in found.items():
        ones = [one for turn in turns for one in turn]
        wall, cpu, tokens = (
            statistics.median(getattr(one, field) for one in ones) for field in Spent.__slots__
        )
        middle[name] = (wall, cpu)
        rows.append(
            f"| {name} | {wall * 1000:.0f} ms | {cpu * 1000:.0f} ms | {tokens:.0f} | {1 / wall:.2f} |"
        )
    wall, cpu = (middle["llama-server"][n] / middle["worker"][n] for n in (0, 1))
    return [
        *rows,
        "",
        f"llama-server takes {wall:.1f} times as long, and {cpu:.1f} times the CPU ({rounds} rounds).",
    ]


def _tool_schema() -> dict[str, Any]:
    """Return the action schema with `use_tool` alone."""
    schema = build_action_schema(TABLE, _NAMES)
    tools = [one for one in schema["anyOf"] if one["properties"]["action"] == {"const": "use_tool"}]
    return {**schema, "anyOf": tools}
