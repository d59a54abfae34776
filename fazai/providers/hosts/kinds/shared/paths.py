"""The base of the kinds whose items stand at one path each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping

from fazai.model import Value, Verb
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.kind import Act, Answers, Block, HostKind, Want
from fazai.providers.hosts.shell.preconditions import Precondition
from fazai.providers.hosts.shell.questions import KEPT_BYTES, ContentOf, FileAt, Output, PathState, Question
from fazai.providers.hosts.shell.writing import remove_path


class PathKind(HostKind):
    """A kind whose first identifying field is the path of the item."""

    def path(self, want: Want) -> str:
        """Return the path on the host."""
        return want.at(want.fields[self.identity[0]])

    def question(self, want: Want) -> FileAt:
        return FileAt(self.path(want))

    def ask(self, want: Want) -> Iterable[Question]:
        yield self.question(want)

    def path_state(self, want: Want, answers: Answers) -> PathState:
        """Return what is there. Raises DeviceError where that cannot be told."""
        return want.state(answers, self.question(want))

    def content_question(self, want: Want) -> ContentOf:
        """Return the question for the content that is kept, to be put back."""
        return ContentOf(self.path(want), KEPT_BYTES)

    def kept_content(self, want: Want, state: PathState, answers: Answers, *, private: bool) -> Blob:
        """Return the content as it was read, or its hash where it is too large, or was not asked for."""
        answer = answers.get(self.content_question(want))
        if isinstance(answer, Output) and answer.exit == 0:
            return Blob.of(answer.out, private=private)
        return Blob(None, state.sha256, state.size, private)

    def is_lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        content = before.get("content")
        return isinstance(content, Blob) and content.data is None  # too large to be kept

    def touches(self, want: Want) -> tuple[str, ...]:
        return (self.path(want),)


class WholePathKind(PathKind):
    """A kind whose item is all that stands at its path, and no part of it."""

    @abstractmethod
    def left(self, path: str, act: Act) -> Precondition:
        """Return the state that a change leaves which removes nothing."""

    @abstractmethod
    def put(self, path: str, act: Act) -> Iterator[Block]:
        """Iterate over the blocks that make the item or change it."""

    def remove(self, path: str, act: Act) -> Iterator[Block]:
        yield remove_path(path)

    def leaves(self, act: Act) -> tuple[Precondition, ...]:
        path = act.at(act.identity)
        return (Precondition(path, "missing") if act.verb is Verb.DELETE else self.left(path, act),)

    def write(self, act: Act) -> Iterator[Block]:
        steps = self.remove if act.verb is Verb.DELETE else self.put
        return steps(act.at(act.identity), act)
