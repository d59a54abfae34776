"""A session on one host (`model.Session`): one shell, one question for all resources, one block a change."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fazai.echoes import masked, secret_texts
from fazai.errors import DeviceError, FazaiError, Moved, NotAvailable, Unreachable, Unsure
from fazai.hosts import effects, planning, together
from fazai.hosts.answers import read_answers
from fazai.hosts.base import MOVED, Base, checked, moved_path, reported
from fazai.hosts.effects import Names, Touched, folders_of, paths_of, reads, same_file, touched_by, where_are
from fazai.hosts.facts import QUESTIONS, facts_of
from fazai.hosts.faults import Lines, failed, moved_on
from fazai.hosts.kind import UNKNOWN, Act, Answers, Block, HostKind, Want
from fazai.hosts.planning import Seen
from fazai.hosts.questions import AnswerTooLong, Output, Question, answer_bytes
from fazai.hosts.quoting import encoded
from fazai.hosts.script import observe_script
from fazai.hosts.second import end_shell, prove_connection
from fazai.hosts.shell import Channel, Ended, Form, Listener, Result, Shell
from fazai.model import Activate, Change, Diff, Resource, Target, Verb

__all__ = ["HostSession"]

#: How often to look whether what was written works.
_PROOF_PAUSE_S = 0.2


class HostSession:
    """`start` opens the shell; it is called once, when the host is first looked at."""

    def __init__(
        self,
        target: Target,
        kinds: Mapping[str, HostKind],
        start: Callable[[], Awaitable[Channel]],
        *,
        timeout_s: float,
        root: str = "",
    ) -> None:
        self._target, self._kinds = target, kinds
        self._start, self._timeout_s = start, timeout_s
        self._root = root.rstrip("/")
        self._channel: Channel | None = None
        self._shell: Shell | None = None
        self._seen: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._wanted: dict[tuple[str, str], Resource] = {}
        self._answers: dict[tuple[str, str], Answers] = {}  # out of which each was read last
        self._acts: dict[tuple[str, str], Act] = {}  # as they were written
        self._after: dict[tuple[str, str], object] = {}  # what was seen of them then
        self._names = Names((), {})
        self._paths: dict[str, None] = {}  # all that was asked about
        self._memory: dict[object, Any] = {}
        self._joined: list[tuple[Block, dict[object, Any]]] = []
        self._handlers: Mapping[str, Resource] = {}
        self._say: Callable[[str, str], None] | None = None

    @property
    def round_trips(self) -> int:
        """Blocks that were sent so far."""
        return self._shell.blocks if self._shell is not None else 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None and isinstance(error, asyncio.CancelledError):
            await self._end()
        elif self._channel is not None:
            await self._channel.close()
        self._channel = self._shell = None

    # -- looking ----------------------------------------------------------------------------------------

    async def observe(self, wanted: Sequence[Resource]) -> Seen:
        """One block that answers for all resources; a second one for the content of what differs."""
        answers: dict[Question, Any] = {}
        items: dict[tuple[str, str], Mapping[str, Any] | FazaiError | None] = {}
        wants = list(self._askable(wanted, items))
        questions = [q for want in wants for q in self._kinds[want.resource.kind].ask(want)]
        self._paths.update(dict.fromkeys(paths_of(questions)))
        folders = folders_of(self._paths)
        await self._ask(answers, [*questions, *(where_are(folders) if folders else ())])
        self._names = Names(folders, answers)
        more: list[Question] = []
        for want in wants:
            try:
                more += self._kinds[want.resource.kind].more(want, answers)
            except DeviceError as error:
                items[want.resource.kind, want.resource.identity] = self._placed(want, error)
        await self._ask(answers, more)
        for want in wants:
            key = want.resource.kind, want.resource.identity
            if key not in items:
                beside = self._kinds[want.resource.kind].slow_to_read(want, answers)
                found = asyncio.to_thread(self._read, want, answers) if beside else None
                items[key] = self._read(want, answers) if found is None else await found
            self._wanted[key] = want.resource
            self._answers[key] = answers
            self._seen.pop(key, None)
            if key in self._acts:
                self._after[key] = items[key]
        self._seen.update({key: item for key, item in items.items() if isinstance(item, Mapping)})
        return Seen(items, effects.places_of(answers))

    def _askable(
        self, wanted: Sequence[Resource], items: dict[tuple[str, str], Mapping[str, Any] | FazaiError | None]
    ) -> Iterator[Want]:
        """What can be asked of this host: a folder has no services, packages or accounts."""
        for resource in wanted:
            if resource.listen:
                continue
            if (refused := self._no_machine(resource)) is not None:
                items[resource.kind, resource.identity] = refused
            else:
                yield Want(resource, self._at)

    def _no_machine(self, resource: Resource) -> FazaiError | None:
        if not self._root or not self._kinds[resource.kind].machine:
            return None
        text = f"{resource.kind} needs a running machine, and {self._target.name} is a folder"
        hint = "leave it out: when: root is not defined"
        return NotAvailable(text, where=resource.mark or self._target.name, hint=hint)

    def _read(self, want: Want, answers: Answers) -> Mapping[str, Any] | FazaiError | None:
        try:
            return self._kinds[want.resource.kind].read(want, answers)
        except DeviceError as error:
            return self._placed(want, error)

    def _placed(self, want: Want, error: DeviceError) -> DeviceError:
        """The error with the resource that it belongs to; what questions know of it is the host alone."""
        if not isinstance(error, AnswerTooLong):
            return error
        text = f"{want.resource.kind} {want.resource.identity}: {error.message}"
        return AnswerTooLong(text, where=want.resource.mark or self._target.name, hint=error.hint)

    async def _ask(self, answers: dict[Question, Any], questions: Iterable[Question]) -> None:
        """Ask what was not answered yet."""
        fresh = [q for q in dict.fromkeys(questions) if q not in answers]
        if not fresh and self._shell is not None:
            return
        for alone in (False, True):
            limit = answer_bytes(fresh)
            result = await self._run(observe_script(fresh, alone=alone), form="look", limit=limit)
            assert self._shell is not None
            answers.update(read_answers(fresh, b"\n" + result.out, self._shell.nonce, self._target.name))
            fresh = [q for q in fresh if q not in answers]
            if not fresh:
                return
        raise DeviceError(f"cannot tell what {fresh[0]} is", where=self._target.name)

    async def ask(self, *questions: Question) -> Answers:
        """The answers to questions that belong to no resource; nothing is changed."""
        answers: dict[Question, Any] = {}
        await self._ask(answers, questions)
        return answers

    async def facts(self) -> Mapping[str, Any]:
        """What the host is (`model.Describing`), in one block."""
        answers: dict[Question, Any] = {}
        await self._ask(answers, QUESTIONS.values())
        return facts_of(answers)

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Any,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        """Nothing of a host is pruned: only what is declared is managed."""
        wants = [Want(resource, self._at) for resource in wanted if not resource.listen]
        self._handlers = planning.labels([resource for resource in wanted if resource.listen])
        name = self._target.name
        found = planning.work_out(name, self._kinds, wants, seen.items, self._handlers, pending, self._names)
        due = (self._handlers.get(step.service) for step in found.steps if isinstance(step, Activate))
        refused = (self._no_machine(handler) for handler in due if handler is not None)
        return replace(found, errors=(*found.errors, *(error for error in refused if error is not None)))

    # -- writing ----------------------------------------------------------------------------------------

    async def write(self, change: Change) -> str:
        """Carry out one change. Raises DeviceError with what the host said, Unreachable before anything was
        done, Unsure when the connection was cut while it was done."""
        act = self._act(change, self._memory)
        if act.undone and self._kinds[change.kind].asked:
            await self._still(change)
        try:
            await self._carry_out(act, change.kind, change.where)
        except Moved:
            raise
        except DeviceError:
            await self._take_back_half(change, act)
            raise
        return change.ref

    async def _still(self, change: Change) -> None:
        """Raise Moved when an item is not as this run left it."""
        key = change.kind, change.identity
        if key not in self._wanted or key not in self._acts:
            return
        want, after = Want(self._wanted[key], self._at), self._after.get(key, UNKNOWN)
        found = (await self.observe([want.resource])).items[key]
        if isinstance(found, FazaiError):
            raise found
        if not self._kinds[change.kind].is_left(want, change.before, after, found):
            raise Moved("it is not as this run left it", path="", where=change.where)

    async def _take_back_half(self, change: Change, act: Act) -> None:
        """What a change that failed has done all the same, as far as it can be told: a folder without its
        owner, one attribute of two."""
        left = self._kinds[change.kind].leaves(act)
        inverse = self.inverse(change, change.ref)
        if act.undone or not left or inverse is None:
            return
        if change.verb is Verb.UPDATE and change.after.keys() <= {"mode", "owner", "group"}:
            left = tuple(Base(base.path, base.type) for base in left)
        with suppress(FazaiError):
            await self._carry_out(
                replace(self._act(inverse, self._memory), base=left), change.kind, change.where
            )

    def _act(self, change: Change, memory: dict[object, Any]) -> Act:
        key = change.kind, change.identity
        undone = change.note == planning.UNDONE
        resource = self._wanted.get(key)
        first = self._acts.get(key) if undone else None  # what was seen since is what was written
        act = Act(
            verb=change.verb,
            identity=change.identity,
            before=change.before,
            after=change.after,
            have={**(self._seen.get(key, {}) if first is None else first.have), **change.before},
            options={} if undone or resource is None else resource.fields,
            token=secrets.token_hex(8),
            at=self._at,
            memory=memory,
            undone=undone,
            undoes="" if first is None else first.token,
            base=self._base(key, undone),
        )
        if not undone:
            self._acts[key] = act
            self._after.pop(key, None)
        return act

    def _base(self, key: tuple[str, str], undone: bool) -> tuple[Base, ...]:
        """What a change rests on: what was seen, or when it is undone what it left."""
        kind = self._kinds[key[0]]
        if undone:
            return kind.leaves(self._acts[key]) if key in self._acts else ()
        if key not in self._wanted:
            return ()
        return kind.rests_on(Want(self._wanted[key], self._at), self._answers[key])

    def join(self, changes: Sequence[Change]) -> int:
        """How many of these `write_joined` takes at once (`model.Joining`). Their scripts are kept for it."""
        self._joined = []
        blocks: list[Block] = []
        for change in changes[: together.MOST]:
            memory = dict(self._joined[-1][1] if self._joined else self._memory)
            if not self._kinds[change.kind].joins:
                break
            try:
                parts = self._blocks(change.kind, self._act(change, memory))
                block, more = next(parts), next(parts, None)  # a large file's are made one by one
            except DeviceError:
                break  # `write` says it again
            if more is not None or not together.fits(blocks, block):
                break
            blocks.append(block)
            self._joined.append((block, memory))
        return max(1, len(blocks))

    async def write_joined(self, changes: Sequence[Change]) -> tuple[list[str], FazaiError | None]:
        """Carry out what was just joined; returns the refs of what is done, and why the next one is not.
        What the script for all does not do is written one by one, which can say what is wrong."""
        blocks, memories = zip(*self._joined, strict=True)
        names = f"{changes[0].kind} {changes[0].identity} and {len(changes) - 1} more"
        try:
            result = await self._run(
                together.script(blocks),
                setup=together.setup(blocks),
                timeout_s=self._timeout_s * len(blocks),
            )
            if result.exit:  # who was killed could not tidy up
                await self._run(":", setup="fz_q; fz_tmp= fz_all=")
        except FazaiError as error:
            text = f"{error.message}, while {names} were written"
            return [], Unsure(text, where=changes[0].where, hint="run it again: it looks first")
        assert self._shell is not None
        count = together.done(result.out, self._shell.nonce) if result.exit else len(changes)
        refs = [change.ref for change in changes[:count]]
        if count:
            self._memory = {**memories[count - 1], **reported(result.out, self._shell.nonce)}
        try:
            for change in changes[count:]:
                refs.append(await self.write(change))
        except FazaiError as error:
            return refs, error
        return refs, None

    async def _carry_out(self, act: Act, kind: str, where: str) -> None:
        mask = masked(secret_texts([act.before, act.after, act.options], contents=True))
        resource = self._wanted.get((kind, act.identity))
        place = (resource.mark if resource is not None else None) or where
        for block in self._blocks(kind, act):
            heard = None
            if block.command and self._say is not None:
                heard = Lines(self._say, mask, self._nonce)
            try:
                setup = f"fz_all= fz_tmp={planning.word(block.tmp) if block.tmp else ''}"
                listener = heard.hear if heard is not None else None
                result = await self._run(
                    block.script,
                    setup=setup,
                    timeout_s=block.timeout_s,
                    listener=listener,
                    form="command" if block.command else "act",
                )
            except Unreachable as error:
                text = f"{error.message}, while {kind} {act.identity} was written"
                raise Unsure(text, where=where, hint="run it again: it looks first") from None
            finally:
                if heard is not None:
                    heard.end()
            nonce = self._nonce()
            if result.exit == MOVED and (path := moved_path(act.base, result.out, nonce)) is not None:
                raise moved_on(path, path.removeprefix(self._root), place, act.undone)
            self._memory.update(reported(result.out, nonce))
            if result.exit:
                raise failed(f"{kind} {act.identity}", place, result, mask)

    def _blocks(self, kind: str, act: Act) -> Iterator[Block]:
        """What carries it out, each step only while what it rests on is so."""
        for block in self._kinds[kind].write(act):
            if block.compares or not act.base:
                yield block
            elif isinstance(block.script, str):
                compared = checked(act.base)
                yield replace(block, script=compared + block.script, plain=compared + block.plain)
            else:
                yield replace(block, script=(encoded(checked(act.base)), *block.script))

    # -- what changes have to do with each other --------------------------------------------------------

    async def explains(self, moved: Moved, changes: Sequence[Change]) -> bool:
        """Whether these changes reach there (`model.Following`): by that name, or by another one of the same
        file."""
        touched, bases = self._touched(changes), (base for act in self._acts.values() for base in act.base)
        below = effects.spanned(bases, moved.path)
        if touched.last((moved.path,), failed=True, below=below):
            return True
        question = same_file(moved.path, touched.paths, below=below)
        answer = (await self.ask(question))[question]
        return isinstance(answer, Output) and answer.exit == 0

    def affected(self, changes: Sequence[Change], resources: Sequence[Resource]) -> list[Resource]:
        """Those that these changes may have altered, by the names of their paths (`model.Following`)."""
        touched = self._touched(changes)
        return [
            resource
            for resource in resources
            if not resource.listen
            and touched.last(reads(self._kinds[resource.kind], Want(resource, self._at)), failed=True)
        ]

    def exposed(self, resources: Sequence[Resource]) -> list[Resource]:
        """Those of which files alone tell (`model.Following`)."""
        return [r for r in resources if reads(self._kinds[r.kind], Want(r, self._at)) is not None]

    def _touched(self, changes: Sequence[Change]) -> Touched:
        made = ((self._wanted[change.kind, change.identity], change.verb) for change in changes)
        wants = [(Want(resource, self._at), verb) for resource, verb in made]
        return touched_by(self._kinds, wants, self._names)

    def inverse(self, change: Change, ref: str) -> Change | None:
        """Create and delete swap; what was changed goes back. None: nothing takes it back."""
        resource = self._wanted.get((change.kind, change.identity))
        options = {} if resource is None else resource.fields
        if self._kinds[change.kind].lasting(change.verb, change.before, options):
            return None
        verb = {Verb.CREATE: Verb.DELETE, Verb.DELETE: Verb.CREATE}.get(change.verb, change.verb)
        return replace(
            change, verb=verb, before=change.after, after=change.before, ref=ref, note=planning.UNDONE
        )

    async def hold(self) -> None:
        """Our connection stays open; nothing to do."""

    def listen(self, say: Callable[[str, str], None]) -> None:
        """What commands print goes there, line by line, without secrets (`model.Talking`)."""
        self._say = say

    async def activate(self, service: str) -> None:
        """Run a handler. One that is not declared any more has nothing to run."""
        handler = self._handlers.get(service)
        if handler is None:
            return
        if (refused := self._no_machine(handler)) is not None:
            raise refused
        act = Act(
            verb=Verb.RUN,
            identity=handler.identity,
            before={},
            after=handler.fields,
            have={},
            options=handler.fields,
            token=secrets.token_hex(8),
            at=self._at,
            memory=self._memory,
        )
        await self._carry_out(act, handler.kind, str(handler.mark or f"{self._target.name}/{service}"))

    async def probe(self) -> None:
        """A handler may have restarted what we came through: prove that a new connection works. Ours stays
        open, to take back what was written if none does."""
        await prove_connection(self._start)

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """What was written was read back already; some kinds must also show that it works."""
        keys = {(c.kind, c.identity) for c in changes if self._kinds[c.kind].proves}
        waiting = [Want(self._wanted[key], self._at) for key in sorted(keys) if key in self._wanted]
        until_s = asyncio.get_running_loop().time() + planning.PROOF_S
        failed: list[FazaiError] = []
        while waiting:
            seen = await self.observe([want.resource for want in waiting])
            late = asyncio.get_running_loop().time() > until_s
            waiting = [
                want
                for want in waiting
                if planning.unproved(self._kinds, want, seen, late, self._target.name, failed)
            ]
            if waiting:
                await asyncio.sleep(_PROOF_PAUSE_S)
        return failed

    # -- the shell --------------------------------------------------------------------------------------

    def _nonce(self) -> str:
        assert self._shell is not None
        return self._shell.nonce

    def _at(self, path: str) -> str:
        return f"{self._root}{path}" if self._root else path

    async def _run(
        self,
        script: str | Iterable[bytes],
        *,
        setup: str = "fz_tmp= fz_all=",
        timeout_s: float | None = None,
        listener: Listener | None = None,
        form: Form = "act",
        limit: int | None = None,
    ) -> Result:
        if self._shell is None:
            self._channel = await self._start()
            self._shell = Shell(self._channel, self._target.name, self._root)
        seconds = timeout_s or self._timeout_s
        try:
            return await self._shell.run(
                script, timeout_s=seconds, setup=setup, listener=listener, form=form, limit=limit
            )
        except TimeoutError:
            why = await self._end()
            text = f"{self._target.name}: no answer within {seconds:g} s"
            if why:
                text += f", and what runs there was not ended and may go on: {why}"
            where = self._target.where("timeout")
            raise Unreachable(text, stage="answer", where=where, hint="a larger timeout:") from None
        except Unreachable:  # where the next block begins is not known any more
            assert self._channel is not None
            await self._channel.close(busy=True)
            raise
        except Ended as ended:
            assert self._channel is not None
            raise await self._channel.refusal(ended.err.decode("utf-8", "replace").strip()) from None

    async def _end(self) -> str:
        """Close the connection of a shell that still runs something, which is ended; where that takes another
        connection, through one. Returns why it may go on all the same."""
        assert self._channel is not None
        pid, why = self._shell.pid if self._shell is not None else None, ""
        if pid is not None and not self._channel.ends_all:
            why = await end_shell(self._start, pid, self._target.name)
        await self._channel.close(busy=True)
        return why
