"""python -m bench.evaluation: lets contenders try the tasks, and prints what they are worth.

Ends with 1 where anything happened that nobody allowed, or where the oracle does not reach everything.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from bench import gemma_client
from bench.evaluation import models
from bench.evaluation.judge import Verdict, judge, unproven
from bench.evaluation.models import Contender
from bench.evaluation.person import run_trial
from bench.evaluation.report import table
from bench.evaluation.tasks import Task, load_tasks, record, recorded
from bench.evaluation.world import digest, eval_world

_ANSWER_MS = 600_000  # a slow answer is one all the same
_SCRIPTED = ("oracle", "random", "obedient")


def main(given: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(given)
    tasks = [task for task in load_tasks() if not asked.task or any(one in task.id for one in asked.task)]
    found: dict[str, list[Verdict]] = {}
    digests: dict[str, str] = {}
    with _contenders(asked) as contenders:
        for one in contenders:
            found[one.name] = _let_try(one, tasks, asked, digests)
    if asked.record:
        record(digests)
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.encode(found))
    print("\n".join(table(found)))
    return exit_code(found)


def exit_code(found: dict[str, list[Verdict]]) -> int:
    """Say what was wrong, and return the exit code."""
    wrong = [f"{name}, {one.task}: {text}" for name, ones in found.items() for one in ones
             for text in one.false_effects]  # fmt: skip
    failed = [f"oracle, {one.task}: {text}" for one in found.get("oracle", ()) for text in one.faults]
    for line in (*wrong, *failed):
        print(line, file=sys.stderr)
    return 1 if wrong or failed else 0


def _let_try(
    contender: Contender, tasks: Sequence[Task], asked: argparse.Namespace, digests: dict[str, str]
) -> list[Verdict]:
    if contender.name == "obedient":
        tasks = [task for task in tasks if task.obeys]
    good = recorded()
    params: dict[str, Any] = {}
    if contender.make is None:
        params = {"temperature": asked.temperature, "timeout_ms": _ANSWER_MS}

    def once(number: int) -> Verdict:
        task, trial = tasks[number // asked.trials], number % asked.trials
        with (
            tempfile.TemporaryDirectory() as folder,
            contender.serving(task, trial) as url,
            eval_world(
                Path(folder), task.world, endpoint=url, model=contender.model, socket=contender.socket
            ) as world,
        ):
            tried = run_trial(world, task, params)
        if contender.name == "oracle" and asked.record and not any(unproven(task, tried)):
            digests[task.id] = good[task.id] = digest(tried.after)
        verdict = judge(task, tried, good.get(task.id))
        if contender.name == "oracle":
            verdict.faults += unproven(task, tried)
        if asked.verbose:
            said = "passed" if verdict.passed else "; ".join([*verdict.faults, *verdict.false_effects])
            print(f"{contender.name}, {task.id}, {trial}: {said}", file=sys.stderr, flush=True)
        return verdict

    with ThreadPoolExecutor(asked.jobs) as pool:
        return list(pool.map(once, range(len(tasks) * asked.trials)))


@contextlib.contextmanager
def _contenders(asked: argparse.Namespace) -> Iterator[list[Contender]]:
    makers = {"oracle": models.oracle, "random": models.random_valid(asked.seed), "obedient": models.obedient}
    made = [Contender(name, makers[name]) for name in asked.contender or _SCRIPTED if name in makers]
    with contextlib.ExitStack() as stack:
        if asked.endpoint:
            made.append(Contender(asked.name, endpoint=asked.endpoint, model=asked.name))
        file = asked.model or (demo_model() if asked.demo_model else None)
        if file is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            worker = stack.enter_context(
                gemma_client.running(
                    file, folder, threads=asked.threads, slots=asked.jobs, context=asked.context
                )
            )
            made.append(Contender(file.stem, socket=worker.path))
        yield made


def demo_model() -> Path:
    """Return the weights of Gemma 3 270M."""
    from fazai.worker.demo import find_demo_model

    return find_demo_model(Path.home() / ".cache" / "fazai")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation", description=__doc__)
    parser.add_argument("--task", action="append", help="only tasks whose id has this in it")
    parser.add_argument("--contender", action="append", choices=(*_SCRIPTED, "none"), help="of the scripted")
    parser.add_argument("--demo-model", action="store_true", help="Gemma 3 270M through the worker")
    parser.add_argument("--model", type=Path, help="a GGUF file, through the worker")
    parser.add_argument("--endpoint", help="an OpenAI-compatible URL that ends before /chat/completions")
    parser.add_argument("--name", default="endpoint", help="the endpoint's model")
    parser.add_argument("--temperature", type=float, default=0.0, help="of a model")
    parser.add_argument("--context", type=int, default=16384, help="tokens of the worker")
    parser.add_argument("--threads", type=int, default=2, help="of the worker")
    parser.add_argument("--trials", type=int, default=4, help="of each task")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once")
    parser.add_argument("--seed", type=int, default=1, help="of the random actions")
    parser.add_argument("--record", action="store_true", help="keep the oracle's end states as the good ones")
    parser.add_argument("--json", type=Path, help="a file for every verdict")
    parser.add_argument("--verbose", action="store_true", help="say each verdict as it comes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
