"""Keeps the entries of event rules where they belong: in a file that a job declares, by plans of that job.

What is wanted stands in the store. The keeper writes it to the job's file, asks for a plan when that changed,
and lets the plan be applied where it does nothing else and the policy allows it; otherwise it waits for a
person, as every plan does. An entry whose time is over leaves the file, and the next plan takes it out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from fazai.compat.timeouts import deadline
from fazai.daemon.events.announcer import Announcer, log_event
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.policy.book import PolicyBook
from fazai.daemon.rules.book import LOGGER, RuleBook
from fazai.daemon.runs.child import entries_path
from fazai.daemon.runs.queue import RunQueue
from fazai.errors import ExitCode, FazaiError, InputError, StateError
from fazai.files import replace_file
from fazai.plan import parse_plan
from fazai.policy.planned import RULE_ENTRIES, plan_effect
from fazai.rules.addresses import Address, parse_address
from fazai.rules.entries import parse_entries, render_entries
from fazai.rules.judging import explain_foreign_change
from fazai.store.daemon import DaemonStore, RunRecord
from fazai.store.rules import Entry
from fazai.wire.events import Level

_LOOK_S = 30.0
_AGAIN_S = 300.0  # after a run that failed, or a plan that the policy did not let through for now
_KEEP_S = 90 * 86400.0  # it is known so long that an address stood in an alias
_BY = "event rules"


class _Judgement(NamedTuple):
    """Verdict on who lets a plan be applied, if it may be; else whether it may be later, by itself."""

    approver: str | None
    again: bool


class _JobEntries(NamedTuple):
    """Entries of one job by alias: `standing` are to be in it, and has every alias of the job; `over` were in
    it once."""

    standing: dict[str, dict[Address, Entry]]
    over: dict[str, set[Address]]


class EntryKeeper:
    """The entries of one daemon, on its event loop."""

    def __init__(
        self,
        store: DaemonStore,
        run_queue: RunQueue,
        policy: PolicyBook,
        book: RuleBook,
        announcer: Announcer,
        state: Path,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._run_queue, self._policy = store, run_queue, policy
        self._book, self._announcer, self._state, self._now = book, announcer, state, now
        self._changed = asyncio.Event()
        self._due: dict[str, float] = {}  # jobs that are to be planned, and from when on
        self._planning: dict[str, asyncio.Task[None]] = {}
        self._files: dict[str, bytes] = {}
        self._aliases: dict[str, set[str]] = {}  # of each job: all that its file ever named
        self._found: dict[str, Mapping[str, Set[str]]] = {}  # what stood in the files at the start
        self._waiting: dict[str, str] = {}  # jobs whose plan the policy of that generation did not allow

    def _jobs(self) -> list[str]:
        return [name for name, job in self._run_queue.jobs.items() if job.entries]

    async def load(self) -> None:
        """Write the files that jobs are given, so that there is one before the first run. Raises
        StateError."""
        for job in self._jobs():
            path = entries_path(self._state, job)
            with contextlib.suppress(OSError):
                self._files[job] = path.read_bytes()
            with contextlib.suppress(InputError):
                read = parse_entries(self._files.get(job, b""), str(path), self._now())
                self._found[job] = {alias: frozenset(addresses) for alias, addresses in read.items()}
            self._aliases[job] = set(self._found.get(job, ()))
        entries = await self._store.rules.entries()
        await self._write_files(entries)
        for job in {entry.job for entry in entries} & set(self._jobs()):
            self._due[job] = self._now()  # what the daemon before had begun is looked at once

    def wake(self) -> None:
        """Look at the entries soon: some came."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the entries until it is cancelled."""
        try:
            while True:
                try:
                    wait_s = await self.step()
                except StateError as error:
                    self._say("error", f"the entries cannot be read or written: {error}")
                    wait_s = _LOOK_S
                with contextlib.suppress(TimeoutError):
                    async with deadline(wait_s):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            for task in self._planning.values():
                task.cancel()
            await asyncio.gather(*self._planning.values(), return_exceptions=True)

    async def step(self) -> float:
        """Write what changed, and plan what is due; return the seconds until something may be due again.
        Raises StateError."""
        now = self._now()
        await self._store.rules.drop_expired_entries(now - _KEEP_S)
        entries = await self._store.rules.entries()
        for job in await self._write_files(entries):
            self._due[job] = now
        for job in [job for job, asked in self._waiting.items() if asked != self._policy.generation]:
            self._due[job] = now  # the policy is another one by now
        for job in [job for job, since in self._due.items() if since <= now and job not in self._planning]:
            del self._due[job]
            self._waiting.pop(job, None)
            task = self._planning[job] = asyncio.get_running_loop().create_task(self._plan(job))
            task.add_done_callback(lambda _, job=job: self._planned(job))  # type: ignore[misc]
        ends = [entry.until for entry in entries if entry.until > now]
        due = [since for job, since in self._due.items() if job not in self._planning]
        return max(0.05, min((*ends, *due, now + _LOOK_S)) - now)

    def _planned(self, job: str) -> None:
        del self._planning[job]
        self._changed.set()

    # -- files

    async def _write_files(self, entries: Iterable[Entry]) -> list[str]:
        """Write the files whose content changed, and return their jobs. Raises StateError."""
        written = []
        for job, found in self._sort_entries(entries).items():
            rows = [
                (entry.alias, entry.address, entry.until, entry.why)
                for standing in found.standing.values()
                for entry in standing.values()
            ]
            data = render_entries(found.standing, rows)
            if data != self._files.get(job):
                await asyncio.to_thread(self._write, entries_path(self._state, job), data)
                self._files[job] = data
                written.append(job)
        return written

    def _sort_entries(self, entries: Iterable[Entry]) -> dict[str, _JobEntries]:
        """Sort all entries by job and alias. One stands until its time is over; what is put into `never` is
        let go. An alias that a file named stays in it, without an entry: a playbook may still ask for it."""
        rules, now = self._book.rules, self._now()
        found = {job: _JobEntries({}, {}) for job in self._jobs()}
        for entry in entries:  # once, whatever number of jobs there is: there may be very many
            of_job, address = found.get(entry.job), parse_address(entry.address)
            if of_job is None or address is None:
                continue
            protected = any(address in network for network in rules.never)
            if entry.until > now and not protected and self._may_stand(entry):
                of_job.standing.setdefault(entry.alias, {})[address] = entry
            else:
                of_job.over.setdefault(entry.alias, set()).add(address)
        named = rules.aliases()
        for job, of_job in found.items():
            aliases = self._aliases.setdefault(job, set())
            aliases.update(named.get(job, ()), of_job.standing, of_job.over)
            for alias in aliases:
                of_job.standing.setdefault(alias, {})
        return found

    def _may_stand(self, entry: Entry) -> bool:
        """Return whether nothing can be known to protect an entry. As long as nobody knows what `never` says,
        only those stand that stood before: others may have been let go because of it."""
        found = self._found.get(entry.job, {})
        return self._book.knows_never or entry.address in found.get(entry.alias, ())

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, data)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from None

    # -- plans

    async def _plan(self, job: str) -> None:
        """Plan a job, and let the plan be applied where that is allowed. Whatever fails is tried again
        later."""
        try:
            again = await self._plan_once(job)
        except FazaiError as error:
            self._say("error", f"the entries of {job} are not where they belong: {error}")
            again = True
        if again:
            self._due.setdefault(job, self._now() + _AGAIN_S)

    async def _plan_once(self, job: str) -> bool:
        """Return whether it is to be tried again later. Raises Refusal, StateError, InputError."""
        queue = self._run_queue
        taken = await queue.enqueue(queue.jobs[job], "check", "rule", _BY)
        record = await queue.wait_ended(taken.run_id)
        if record.plan_hash is None:
            return record.exit_code != ExitCode.OK
        judgement = await self._judge(job, record)
        if judgement.approver is None:
            return judgement.again
        approved = await self._approve(record, record.plan_hash, judgement.approver)
        if approved is None:
            return True
        if approved.exit_code == ExitCode.STALE:
            self._due[job] = self._now()
        return approved.exit_code not in (ExitCode.OK, ExitCode.STALE)

    async def _judge(self, job: str, record: RunRecord) -> _Judgement:
        """Let the policy decide on a plan, if it does nothing else than what rules want. Raises StateError,
        InputError."""
        data = await self._store.plan(record.run_id)
        plan = parse_plan(data or b"", Path(record.run_id))
        effect = plan_effect(
            plan,
            RULE_ENTRIES,
            policy=self._policy.generation,
            expires=self._now() + self._run_queue.jobs[job].plan_ttl_s,
            ref=record.run_id,
        )
        found = self._sort_entries(await self._store.rules.entries())[job]
        wanted = {alias: standing.keys() for alias, standing in found.standing.items()}
        foreign = explain_foreign_change(effect.changes, wanted, found.over)
        if foreign is not None:
            self._say("warning", f"the plan of {job} waits for a person: {foreign}", record.run_id)
            return _Judgement(None, False)
        decision = await self._policy.claim(effect, tainted=True)
        if decision.verdict == "allow":
            return _Judgement(f"policy:{decision.rule}", False)
        self._waiting[job] = effect.policy
        self._say("warning", f"the plan of {job} waits for a person: {decision.reason}", record.run_id)
        return _Judgement(None, decision.cap)

    async def _approve(self, record: RunRecord, plan_hash: str, by: str) -> RunRecord | None:
        """Apply a plan that the policy allows, and return the run once it has ended; None where the plan no
        longer holds."""
        try:
            taken = await self._run_queue.approve(record, plan_hash, by, _BY)
        except Refusal as error:
            self._say("warning", f"a plan was allowed and is not applied: {error}", record.run_id)
            return None
        return await self._run_queue.wait_ended(taken.run_id)

    def _say(self, level: Level, text: str, run_id: str | None = None) -> None:
        self._announcer.say(level, log_event(level, text, LOGGER, run_id=run_id), LOGGER)
