"""The base of all kinds of hosts: typed fields, comparison with what is there, and scripts that change it.

A kind is pure: it says what to ask (`ask`, `ask_more`), how to read the answers (`read`), and which script
makes a change (`write`). The session does the I/O, the engine decides.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from typing import Any, Final

from fazai.compat.language import dataclass
from fazai.errors import AccessDenied, DeviceError, spelling_hint
from fazai.model import FieldSpec, Problem, Resource, Value, Verb
from fazai.providers.hosts.fieldtypes import canonical_value
from fazai.providers.hosts.shell.preconditions import Precondition
from fazai.providers.hosts.shell.questions import (
    KEPT_BYTES,
    Answer,
    ContentOf,
    FileAt,
    Output,
    OutputOf,
    PathState,
    Question,
    find_output,
)
from fazai.providers.hosts.shell.walking import UNSAFE, UNSAFE_HINT

#: Stands for an item that was not read back since it was written.
NOT_READ_BACK: Final = object()
#: The field of nearly all kinds that says whether the item is to be there.
PRESENCE: Final = FieldSpec("state", "choice", choices=("present", "absent"))

Answers = Mapping[Question, Answer]
#: Names of Ansible's modules for the fields by which our kinds name their items.
_ANSIBLE: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("dest", "destfile", "name", "file", "filename"), ("path",)),
    **dict.fromkeys(("path", "destination"), ("dest",)),
    **dict.fromkeys(("pkg", "package", "service", "unit", "key", "login", "username"), ("name",)),
    **dict.fromkeys(("cmd", "_raw_params", "command"), ("shell",)),
    "src": ("target",),
}
#: The fields of an item as they are on the host.
Have = Mapping[str, Value]
#: The verb of a change, and the fields before and after it.
Difference = tuple[Verb, Mapping[str, Value], Mapping[str, Value]]


@dataclass(frozen=True, slots=True)
class Want:
    """A resource for one host. `at` turns a path of a field into one of the host (`root:`)."""

    resource: Resource
    at: Callable[[str], str]

    @property
    def fields(self) -> Mapping[str, Value]:
        return self.resource.fields

    @property
    def absent(self) -> bool:
        return self.resource.state == "absent"

    @property
    def key(self) -> tuple[str, str]:
        """The kind and identity of the resource."""
        return self.resource.kind, self.resource.identity

    def error(self, what: str, hint: str | None = None, kind: type[DeviceError] = DeviceError) -> DeviceError:
        """Return the error for an item that is not what it must be to be managed: `what` says how."""
        where = self.resource.mark or self.resource.identity
        return kind(f"{' '.join(self.key)}: {what}", where=where, hint=hint)

    def denied_error(self) -> DeviceError:
        """Return the error for a path that cannot be looked at."""
        return self.error("a folder above it may not be entered", "become: true", AccessDenied)

    def state(self, answers: Answers, question: FileAt) -> PathState:
        """Return the state of a path. Raises DeviceError where it cannot be trusted, AccessDenied where a
        folder above it may not be entered."""
        state = answers[question]
        assert isinstance(state, PathState)
        self.refuse_unsafe(state.unsafe)
        if state.type == "denied":
            raise self.denied_error()
        return state

    def output(self, answers: Answers, question: ContentOf | OutputOf) -> Output:
        """Return the answer to a question that walks to a path. Raises DeviceError where it cannot be
        trusted."""
        answer = find_output(answers, question)
        self.refuse_unsafe(answer.text.strip() if answer.exit == UNSAFE else "")
        return answer

    def refuse_unsafe(self, why: str) -> None:
        """Refuse a path that somebody else can lead elsewhere: `why` says it, empty: nobody can. Raises
        DeviceError."""
        if why:
            hint = UNSAFE_HINT if why.startswith("unsafe") else None
            raise self.error(why, "become: true" if why.endswith("permission denied") else hint)


@dataclass(frozen=True, slots=True)
class Act:
    """A change to be written. `have`: all that was seen of the item, with what the change leaves alone;
    `options`: the resource's fields (none when something is `undone`); `token` names temporary files;
    `memory` is the session's: what a kind wants to know of its earlier changes on this host."""

    verb: Verb
    identity: str
    after: Mapping[str, Value]
    options: Mapping[str, Value]
    token: str
    at: Callable[[str], str]
    memory: dict[object, Any]
    before: Mapping[str, Value] = field(default_factory=dict)
    have: Mapping[str, Value] = field(default_factory=dict)
    undone: bool = False
    undoes: str = ""  # the token of the change that is undone
    preconditions: tuple[Precondition, ...] = ()


@dataclass(frozen=True, slots=True)
class FileReplacement:
    """A file replaced as a whole, in parts, so that one script can replace several (`batching`)."""

    path: str
    fill: tuple[bytes, ...]  # commands that append the content to "$fz_tmp"
    mode: str
    account: str  # a word of the script; empty: nobody else's
    ending: str  # lines that give "$fz_tmp" the name
    kept: bool = False  # the mode is that of the file that is there


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of script that is carried out as a whole. `tmp`: removed when the connection is cut.

    `at`: the path that it changes, said when `plain` does the same under `set -e` in a shell that others use
    after it, where nobody else can move anything on the way there. `below` is, once it is done, "ours" where
    that holds below the path as well, "loose" where nobody knows. `put`: a file in parts. `compares`: it
    looks itself at what its change rests on, or changes nothing yet; otherwise that is done before its
    script. `enrols`: the remote agent for which a new token is in fz_token; `revokes`: the one whose
    certificates are revoked before.
    """

    script: str | tuple[bytes, ...]
    tmp: str | None = None
    timeout_s: float | None = None
    command: bool = False  # its output is shown as it comes
    at: str | None = None
    plain: str = ""
    below: str = ""
    put: FileReplacement | None = None
    compares: bool = False
    enrols: str = ""
    revokes: str = ""


class HostKind(ABC):
    """Base of all kinds (`model.Kind`); one instance stands for one kind."""

    name: str
    summary: str
    example: str
    identity: tuple[str, ...]
    options: frozenset[str] = frozenset()  # fields that are no state: they say how to write
    specs: tuple[FieldSpec, ...]
    ordered = False
    joins = False  # its changes may be written together with others (`batching`)
    machine = False  # needs a running machine: a folder (`root:`) has no such thing
    runs = False  # may be a handler
    asked = False  # no script compares it: it is looked at before it is taken back
    hollow = False  # what it makes is empty: below it nothing comes into being
    by_hash = ""  # the field whose content is compared by its hash alone
    by_agent = True  # works through the agent of a host, which has its machine and nothing else
    programs: frozenset[str] = frozenset(("validate",))  # fields whose text is run as a program on the host
    proves = False  # what was written has to show itself: `proof` is asked until it says so

    @cached_property
    def fields(self) -> Mapping[str, FieldSpec]:
        return {spec.name: spec for spec in self.specs}

    # -- before any contact -----------------------------------------------------------------------------

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        """Return the identity's text in canonical form, or the problem of a field that names the item."""
        parts = []
        for name in self.identity:
            if fields.get(name) in (None, ""):
                return self.find_misnamed(name, fields) or Problem(name, "is missing: it names the item")
            value, problem = canonical_value(self.fields[name], fields[name])
            if problem is not None:
                return problem
            parts.append(str(value))
        return " ".join(parts)

    def find_misnamed(self, name: str, fields: Mapping[str, Value]) -> Problem | None:
        """Return the problem of a field that was meant to be this one, which is missing: it stands under
        Ansible's name, or is misspelt."""
        for word in fields:
            if word in self.fields:
                continue
            if name in _ANSIBLE.get(word, ()) or spelling_hint(word, (name,)):
                return Problem(None, f'there is no field "{word}"', f'did you mean "{name}"?')
        return None

    def normalise(self, fields: Mapping[str, Value], state: str) -> tuple[dict[str, Value], list[Problem]]:
        """Return canonical values, and everything that is wrong with them. `state` may also stand among the
        fields, as in Ansible."""
        found: dict[str, Value] = {}
        problems: list[Problem] = []
        for name, value in fields.items():
            spec = self.fields.get(name)
            if spec is None:
                hint = spelling_hint(name, self.fields) or f"see: fazai kinds {self.name}"
                problems.append(Problem(name, f"{self.name} has no such field", hint))
            elif value is not None:
                found[name], problem = canonical_value(spec, value)
                if problem is not None:
                    problems.append(problem)
        absent = found.get("state", state) == "absent"
        if not absent:
            missing = (s.name for s in self.specs if s.required and s.name not in found)
            problems += [Problem(name, "is missing") for name in missing if name not in fields]
        if not problems:
            problems += self.problems(found, absent)
        return found, problems

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        """Iterate over what is wrong beyond the types; may bring `fields` into their canonical form."""
        return ()

    # -- questions and answers --------------------------------------------------------------------------

    @abstractmethod
    def ask(self, want: Want) -> Iterable[Question]:
        """Return the questions whose answers it takes to compare."""

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        """Return further questions, now that something differs; they cost a second round trip."""
        return ()

    def slow_to_read(self, want: Want, answers: Answers) -> bool:
        """Tell whether `read` may take seconds: it then runs in a thread, while others go on."""
        return False

    @abstractmethod
    def read(self, want: Want, answers: Answers) -> Have | None:
        """Return the item as it is; None when it is not there. Raises DeviceError when that cannot be
        said."""

    def differing(self, want: Want, have: Have) -> dict[str, Any]:
        """Return the wanted values of the fields that differ."""
        return {k: v for k, v in self.declared(want).items() if have.get(k) != v}

    def declared(self, want: Want) -> dict[str, Any]:
        """Return the fields that are written when the item is made."""
        return {k: v for k, v in want.fields.items() if k not in self.options and k not in self.identity}

    def removed(self, have: Have) -> dict[str, Value]:
        """Return the fields of an item that goes, to make it again."""
        return {k: v for k, v in have.items() if k not in ("uid", "gid", "shared")}

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        """Return the verb with the fields before and after; None when all is as wanted."""
        if want.absent:
            return None if have is None else (Verb.DELETE, self.removed(have), {})
        if have is None:
            return Verb.CREATE, {}, self.declared(want)
        after = self.differing(want, have)
        return (Verb.UPDATE, {k: have[k] for k in after if k in have}, after) if after else None

    def proof(self, want: Want, have: Have | None) -> str | None:
        """Return why what was written does not work, for a kind that `proves`: None when it works, "" while
        that is open."""
        return None

    def describe_unproven(self, have: Have | None) -> str:
        """Return what is said of what did not show within the time that it works."""
        return "it does not deliver"

    # -- what it has to do with others ------------------------------------------------------------------

    def claim(self, want: Want, have: Have | None) -> str:
        """Return the name that only one host of a run may have, such as that of an agent; empty: none."""
        return ""

    def touches(self, want: Want) -> tuple[str, ...] | None:
        """Return the paths on the host that a change may bring into being, alter or remove; None: any."""
        return None

    def reaches_further(self, want: Want) -> bool:
        """Return whether a change alters more than the paths that it touches, such as the running kernel."""
        return False

    def rests_on(self, want: Want, answers: Answers) -> tuple[Precondition, ...]:
        """Return the preconditions of a change, out of what was seen: it is written only while they hold."""
        questions = list(self.ask(want))
        found = []
        for question in questions:
            state = answers.get(question)
            if isinstance(question, FileAt) and isinstance(state, PathState):
                contents = [q for q in questions if isinstance(q, ContentOf) and q.path == question.path]
                contents.append(ContentOf(question.path, KEPT_BYTES))
                read = (answers.get(content) for content in contents)
                data = next((each.out for each in read if isinstance(each, Output) and not each.exit), None)
                sha256 = "" if data is None else hashlib.sha256(data).hexdigest()
                found.append(Precondition.of(question.path, state, sha256))
        return tuple(found)

    def leaves(self, act: Act) -> tuple[Precondition, ...]:
        """Return the state that a change leaves, as far as it is known: it is taken back only while that
        holds."""
        return ()

    def is_left(self, want: Want, wrote: Mapping[str, Value], after: object, found: Have | None) -> bool:
        """Tell, for a kind that is `asked`, whether an item is as this run left it: as it was read back or,
        if that was not done, as it was to be. `wrote`: the fields that were written."""
        return self.compare(want, found) is None if after is NOT_READ_BACK else found == after

    def spans_below(self, want: Want) -> bool:
        """Tell whether a change concerns all that is below its path as well."""
        return False

    # -- writing ----------------------------------------------------------------------------------------

    def is_lasting(self, verb: Verb, before: Mapping[str, Value], options: Mapping[str, Value]) -> bool:
        """Tell whether nothing takes this change back."""
        return verb is Verb.RUN

    @abstractmethod
    def write(self, act: Act) -> Iterator[Block]:
        """Iterate over the blocks that carry out the change. A block fails when its script does."""
