"""A session on one host (`model.Session`): one shell, one block of questions for all resources, and one block
of script a change, or for several that follow one another."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fazai.compat.language import zip_equal
from fazai.errors import DeviceError, FazaiError, Mark, Moved, Unreachable, Unsure
from fazai.masking import make_mask, secret_texts
from fazai.model import AgentRegistry, Change, Resource, Target, Verb
from fazai.providers.hosts import effects, planning
from fazai.providers.hosts.agent import registering
from fazai.providers.hosts.comparing import ComparingSession, KnownItem
from fazai.providers.hosts.effects import PathNames
from fazai.providers.hosts.facts import QUESTIONS, facts_of
from fazai.providers.hosts.kind import NOT_READ_BACK, Act, Answers, Block, HostKind, Want
from fazai.providers.hosts.planning import HostObservation, Item
from fazai.providers.hosts.shell import batching
from fazai.providers.hosts.shell.answers import ReplacedMeanwhile, read_answers
from fazai.providers.hosts.shell.channel import ShellChannel
from fazai.providers.hosts.shell.connection import ShellConnection
from fazai.providers.hosts.shell.faults import OutputRelay, moved_error, script_error
from fazai.providers.hosts.shell.preconditions import (
    MOVED,
    Precondition,
    check_lines,
    find_moved_path,
    read_side_effects,
)
from fazai.providers.hosts.shell.questions import (
    AnswerTooLong,
    Output,
    OutputOf,
    Question,
    RegisteredAgent,
    answer_bytes,
)
from fazai.providers.hosts.shell.quoting import encode_script, quote
from fazai.providers.hosts.shell.script import observe_script

if TYPE_CHECKING:
    from typing import Self  # novm

#: How often to look whether what was written works.
_PROOF_PAUSE_S = 0.2


class HostSession(ComparingSession):
    """One host under its kinds, through a shell, whatever the transport.

    `start` opens a shell (`ssh.transport`, `local.transport`): once when the host is first looked at, and
    again where that takes a second connection. `root`: the folder that stands for / there; `timeout_s`: for
    one block.
    """

    def __init__(
        self,
        target: Target,
        kinds: Mapping[str, HostKind],
        start: Callable[[], Awaitable[ShellChannel]],
        *,
        timeout_s: float,
        root: str = "",
        agents: AgentRegistry | None = None,
    ) -> None:
        super().__init__(target, kinds, root=root)
        self._agents = agents
        self.shell = ShellConnection(target, start, timeout_s=timeout_s, root=self._root)
        self._paths: dict[str, None] = {}  # all that was asked about
        self._memory: dict[object, Any] = {}
        self._joined: list[tuple[Block, dict[object, Any]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shell.close(busy=isinstance(error, asyncio.CancelledError))

    # -- looking ----------------------------------------------------------------------------------------

    async def observe(self, wanted: Sequence[Resource]) -> HostObservation:
        """Look at all resources in one block; in a second one, at the content of what differs."""
        answers: dict[Question, Any] = {}
        items: dict[tuple[str, str], Item] = {}
        wants = list(self._wants_to_ask(wanted, items))
        questions = [q for want in wants for q in self._kinds[want.resource.kind].ask(want)]
        self._paths.update((each.path, None) for each in questions if not isinstance(each, OutputOf))
        folders = effects.ambiguous_folders(self._paths)
        await self._ask(answers, [*questions, *(effects.folders_question(folders) if folders else ())])
        self.names = PathNames.read(folders, answers)
        more: list[Question] = []
        for want in wants:
            try:
                more += self._kinds[want.resource.kind].ask_more(want, answers)
            except DeviceError as error:
                items[want.key] = self._with_place(want, error)
        await self._ask(answers, more)
        for want in wants:
            if want.key not in items:
                beside = self._kinds[want.resource.kind].slow_to_read(want, answers)
                found = asyncio.to_thread(self._read, want, answers) if beside else None
                items[want.key] = self._read(want, answers) if found is None else await found
            item, known = items[want.key], self._items[want.key]
            known.want, known.answers = want, answers
            known.found = item
            if known.act is not None:
                known.after = item
        return HostObservation(items, effects.find_places(answers))

    def _wants_to_ask(self, wanted: Sequence[Resource], items: dict[tuple[str, str], Item]) -> Iterator[Want]:
        """Iterate over what can be asked of this host; a folder has no services, packages or accounts, and
        the error that says so is put among `items`."""
        for resource in wanted:
            if resource.listen:
                continue
            if (refused := self._needs_machine(resource)) is not None:
                items[resource.kind, resource.identity] = refused
            else:
                yield Want(resource, self._at)

    def _read(self, want: Want, answers: Answers) -> Item:
        try:
            return self._kinds[want.resource.kind].read(want, answers)
        except DeviceError as error:
            return self._with_place(want, error)

    def _with_place(self, want: Want, error: DeviceError) -> DeviceError:
        """Return the error with the resource that it belongs to; what questions know of it is the host
        alone."""
        if not isinstance(error, AnswerTooLong):
            return error
        text = f"{' '.join(want.key)}: {error.message}"
        return AnswerTooLong(text, where=want.resource.mark or self._target.name, hint=error.hint)

    async def _ask(self, answers: dict[Question, Any], questions: Iterable[Question]) -> None:
        """Ask what was not answered yet."""
        if self._agents is not None:
            asked = [q for q in dict.fromkeys(questions) if isinstance(q, RegisteredAgent)]
            answers.update({q: await registering.find_agent(self._agents, q) for q in asked})
        fresh = [q for q in dict.fromkeys(questions) if q not in answers]
        if not fresh and self.shell.is_open:
            return
        for alone in (False, True):
            limit = answer_bytes(fresh)
            result = await self.shell.run(observe_script(fresh, alone=alone), form="look", limit=limit)
            try:
                found = read_answers(fresh, b"\n" + result.out, self.shell.nonce, self._target.name)
            except ReplacedMeanwhile:
                if alone:
                    raise
                continue  # each file alone: only that one's answer depends on it
            answers.update(found)
            fresh = [q for q in fresh if q not in answers]
            if not fresh:
                return
        raise DeviceError(f"cannot tell what {fresh[0]} is", where=self._target.name)

    async def ask(self, *questions: Question) -> Answers:
        """Answer questions that belong to no resource; nothing is changed."""
        answers: dict[Question, Any] = {}
        await self._ask(answers, questions)
        return answers

    async def facts(self) -> Mapping[str, Any]:
        """Return the facts of the host (`model.Describing`), in one block."""
        return facts_of(await self.ask(*QUESTIONS.values()))

    # -- writing ----------------------------------------------------------------------------------------

    async def write(self, change: Change) -> str:
        """Carry out one change. Raises DeviceError with what the host said, Unreachable before anything was
        done, Unsure when the connection was cut while it was done."""
        act = self._make_act(change, self._memory)
        if act.undone and self._kinds[change.kind].asked:
            await self._check_left(change)
        try:
            await self._carry_out(act, change.kind, change.where)
        except Moved:
            raise
        except DeviceError:
            await self._take_back_half(change, act)
            raise
        return change.ref

    async def _check_left(self, change: Change) -> None:
        """Look at an item whose change is undone. Raises Moved when it is not as this run left it."""
        known = self._items[change.kind, change.identity]
        want, after = known.want, known.after
        if want is None or known.act is None:
            return
        found = (await self.observe([want.resource])).items[want.key]
        if isinstance(found, FazaiError):
            raise found
        if not self._kinds[change.kind].is_left(want, change.before, after, found):
            raise Moved("it is not as this run left it", path="", where=change.where)

    async def _take_back_half(self, change: Change, act: Act) -> None:
        """Take back what a change that failed has done all the same, as far as it can be told: a folder
        without its owner, one attribute of two."""
        left = self._kinds[change.kind].leaves(act)
        inverse = self.inverse(change, change.ref)
        if act.undone or not left or inverse is None:
            return
        if change.verb is Verb.UPDATE and change.after.keys() <= {"mode", "owner", "group"}:
            left = tuple(Precondition(each.path, each.type) for each in left)
        act = replace(self._make_act(inverse, self._memory), preconditions=left)
        with suppress(FazaiError):
            await self._carry_out(act, change.kind, change.where)

    def _make_act(self, change: Change, memory: dict[object, Any]) -> Act:
        undone = change.note == planning.UNDONE_NOTE
        known = self._items[change.kind, change.identity]
        first = known.act if undone else None  # what was seen since is what was written
        act = Act(
            verb=change.verb,
            identity=change.identity,
            before=change.before,
            after=change.after,
            have={**(known.seen if first is None else first.have), **change.before},
            options={} if undone else known.wanted_fields,
            token=secrets.token_hex(8),
            at=self._at,
            memory=memory,
            undone=undone,
            undoes="" if first is None else first.token,
            preconditions=self._preconditions(self._kinds[change.kind], known, undone),
        )
        if not undone:
            known.act, known.after = act, NOT_READ_BACK
        return act

    def _preconditions(self, kind: HostKind, known: KnownItem, undone: bool) -> tuple[Precondition, ...]:
        """Return the preconditions of a change: what was seen, or when it is undone what it left."""
        if undone:
            return kind.leaves(known.act) if known.act is not None else ()
        return kind.rests_on(known.want, known.answers) if known.want is not None else ()

    def join(self, changes: Sequence[Change]) -> int:
        """Return how many of these `write_joined` takes at once (`model.Joining`), and keep their scripts for
        it."""
        self._joined = []
        blocks: list[Block] = []
        for change in changes[: batching.MAX_CHANGES]:
            _, memory = self._joined[-1] if self._joined else (None, self._memory)
            memory = dict(memory)
            if not self._kinds[change.kind].joins:
                break
            try:
                parts = self._guarded_blocks(change.kind, self._make_act(change, memory))
                block, more = next(parts), next(parts, None)  # a large file's are made one by one
            except DeviceError:
                break  # `write` says it again
            if more is not None or not batching.can_join(blocks, block):
                break
            blocks.append(block)
            self._joined.append((block, memory))
        return max(1, len(blocks))

    async def write_joined(self, changes: Sequence[Change]) -> tuple[list[str], FazaiError | None]:
        """Carry out what was just joined; returns the refs of what is done, and why the next one is not.
        What the script for all does not do is written one by one, which can say what is wrong."""
        blocks, memories = zip(*self._joined)
        names = f"{changes[0].kind} {changes[0].identity} and {len(changes) - 1} more"
        try:
            result = await self.shell.run(
                batching.batch_script(blocks),
                setup=batching.setup_line(blocks),
                timeout_s=self.shell.timeout_s * len(blocks),
            )
            if result.exit:  # who was killed could not tidy up
                await self.shell.run(":", setup="fz_q; fz_tmp= fz_all=")
        except FazaiError as error:
            text = f"{error.message}, while {names} were written"
            return [], Unsure(text, where=changes[0].where, hint="run it again: it looks first")
        count = batching.count_done(result.out, self.shell.nonce) if result.exit else len(changes)
        refs = [change.ref for change in changes[:count]]
        if count:
            self._memory = {**memories[count - 1], **read_side_effects(result.out, self.shell.nonce)}
        try:
            for change in changes[count:]:
                refs.append(await self.write(change))
        except FazaiError as error:
            return refs, error
        return refs, None

    async def _carry_out(self, act: Act, kind: str, where: Mark | str) -> None:
        hidden = list(secret_texts([act.before, act.after, act.options], contents=True))
        mask = make_mask(hidden)
        want = self._items[kind, act.identity].want
        place = (want.resource.mark if want is not None else None) or where
        for block in self._guarded_blocks(kind, act):
            token = await registering.prepare(self._agents, block, place)
            mask = make_mask([*hidden, token]) if token else mask
            heard = None
            if block.command and self._say is not None:
                heard = OutputRelay(self._say, mask, lambda: self.shell.nonce)
            try:
                setup = f"fz_all= fz_tmp={quote(block.tmp) if block.tmp else ''}"
                setup += f" fz_token={quote(token)}" if token else " fz_token="  # not that of another block
                listener = heard.hear if heard is not None else None
                result = await self.shell.run(
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
            nonce = self.shell.nonce
            path = find_moved_path(act.preconditions, result.out, nonce) if result.exit == MOVED else None
            if path is not None:
                raise moved_error(path, path.removeprefix(self._root), place, act.undone)
            self._memory.update(read_side_effects(result.out, nonce))
            if result.exit:
                raise script_error(f"{kind} {act.identity}", place, result, mask)

    def _guarded_blocks(self, kind: str, act: Act) -> Iterator[Block]:
        """Iterate over the blocks that carry out an act, each with its preconditions in front."""
        for block in self._kinds[kind].write(act):
            check = "" if block.compares else check_lines(act.preconditions)
            if isinstance(block.script, str):
                yield replace(block, script=check + block.script, plain=check + block.plain)
            else:
                yield replace(block, script=(encode_script(check), *block.script))

    # -- what changes have to do with each other --------------------------------------------------------

    async def explains(self, moved: Moved, changes: Sequence[Change]) -> bool:
        """Tell whether these changes reach there (`model.Following`): by that name, or by another one of the
        same file."""
        touched = self._track(changes)
        acts = (known.act for known in self._items.values() if known.act is not None)
        rests = (each for act in acts for each in act.preconditions if each.path == moved.path)
        below = any(each.type == "directory" and each.sha256 for each in rests)  # all that is in a folder
        if touched.last((moved.path,), failed=True, below=below):
            return True
        question = effects.same_file_question(moved.path, touched.paths, below=below)
        answer = (await self.ask(question))[question]
        return isinstance(answer, Output) and answer.exit == 0

    async def hold(self) -> None:
        """Open no spare connection (`model.Session`): ours stays open."""

    async def _run_handler(self, service: str, handler: Resource, where: Mark | str) -> None:
        act = Act(
            verb=Verb.RUN,
            identity=handler.identity,
            after=handler.fields,
            options=handler.fields,
            token=secrets.token_hex(8),
            at=self._at,
            memory=self._memory,
        )
        await self._carry_out(act, handler.kind, where)

    async def probe(self) -> None:
        """Prove that a new connection works: a handler may have restarted what we came through. Ours stays
        open, to take back what was written if none does."""
        await self.shell.prove()

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """Wait until what was written works, for the kinds that `proves`; the rest was read back already.
        Returns why not."""
        waiting = self._items_to_prove(changes)
        until_s = asyncio.get_running_loop().time() + planning.PROOF_S
        failed: list[FazaiError] = []
        while waiting:
            seen = await self.observe([want.resource for want in waiting])
            late = asyncio.get_running_loop().time() > until_s
            name = self._target.name
            found = [
                planning.check_proof(self._kinds[want.resource.kind], want, seen.items[want.key], late, name)
                for want in waiting
            ]
            failed += [each for each in found if isinstance(each, FazaiError)]
            waiting = [want for want, each in zip_equal(waiting, found) if each is False]
            if waiting:
                await asyncio.sleep(_PROOF_PAUSE_S)
        return failed
