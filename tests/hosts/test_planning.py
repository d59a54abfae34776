"""What a plan of a host rests on: the digest of what was seen, names of handlers, proofs.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import pytest

from fazai.errors import AccessDenied, FazaiError, Mark, NotAvailable, VerifyError
from fazai.model import Activate, Change, Diff, LookAgain, Resource
from fazai.providers.hosts.effects import PathNames
from fazai.providers.hosts.kind import Act, Answers, Block, Have, HostKind, Want
from fazai.providers.hosts.planning import (
    HostObservation,
    _short_title,
    check_proof,
    label_handlers,
    plan_host_steps,
)
from fazai.providers.hosts.shell.questions import FileAt, Question

KEY = ("host.file", "/etc/motd")
SEEN = HostObservation({KEY: {"mode": "0644", "owner": "root"}})


class Content:
    """As a file's content is seen: by its hash."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256


@pytest.mark.parametrize(
    "other",
    [
        {},
        {KEY: None},
        {KEY: {"mode": "0600", "owner": "root"}},
        {KEY: {"mode": "0644"}},
        {KEY: {"mode": "0644", "owner": "root", "content": Content("a")}},
        {KEY: NotAvailable("no such thing")},
        {("host.file", "/etc/issue"): {"mode": "0644", "owner": "root"}},
    ],
)
def test_the_digest_tells_what_was_seen(other: Mapping[tuple[str, str], Any]) -> None:
    """A saved plan is stale when it is another one."""
    assert HostObservation(other).digest != SEEN.digest


def test_the_digest_is_the_same_for_the_same() -> None:
    assert HostObservation({KEY: {"owner": "root", "mode": "0644"}}).digest == SEEN.digest
    one, same, other = (HostObservation({KEY: {"content": Content(text)}}).digest for text in ("a", "a", "b"))
    assert one == same != other


def test_the_digest_tells_where_links_lead() -> None:
    there, elsewhere = (HostObservation(SEEN.items, {"/etc/motd": place}) for place in ("/run/a", "/run/b"))
    assert len({SEEN.digest, there.digest, elsewhere.digest}) == 3


@pytest.mark.parametrize(
    ("identity", "title"),
    [
        ("/etc/motd", "file /etc/motd"),
        ("line\nof many", "file line"),
        ("x" * 40, f"file {'x' * 40}"),
        ("x" * 41, f"file {'x' * 39}…"),
    ],
)
def test_a_title_is_short(identity: str, title: str) -> None:
    assert _short_title(Resource("host.file", identity, {})) == title


def handler(kind: str, name: str, *listen: str, identity: str = "i") -> Resource:
    return Resource(kind, identity, {}, name=name, listen=listen)


def test_handlers_are_known_by_their_names() -> None:
    one, two = handler("host.service", "reload", "reload"), handler("host.command", "", "rebuild", "again")
    assert label_handlers([one, two], frozenset()) == {"reload": one, "rebuild": two}


@pytest.mark.parametrize(
    ("pending", "label"),
    [
        (frozenset[str](), "reload (host.service nginx)"),
        (frozenset({"reload (host.service nginx)"}), "reload (host.service nginx)"),
        (frozenset({"reload (ssh.service nginx)"}), "reload (ssh.service nginx)"),
        (frozenset({"reload"}), "reload (host.service nginx)"),
    ],
)
def test_a_second_handler_of_a_name_has_its_kind_in_it(pending: frozenset[str], label: str) -> None:
    one = handler("host.command", "reload", "reload")
    two = handler("host.service", "reload", "reload", identity="nginx")
    assert list(label_handlers([one, two], pending)) == ["reload", label]


class Proving:
    """A kind whose proof is given."""

    def __init__(self, said: str | None) -> None:
        self.said = said

    def proof(self, want: Want, found: object) -> str | None:
        return self.said

    def describe_unproven(self, found: object) -> str:
        return "it does not deliver"


@pytest.mark.parametrize(
    ("said", "late", "waits", "failure"),
    [
        (None, False, False, None),  # it works
        (None, True, False, None),
        ("", False, True, None),  # not yet
        ("", True, False, "host.agent fazai: it does not deliver within 15 s"),
        ("it is refused", False, False, "host.agent fazai: it is refused"),
        ("it is refused", True, False, "host.agent fazai: it is refused"),
    ],
)
@pytest.mark.parametrize("mark", [None, Mark("play.yml", 3, 1)])
def test_a_proof_is_waited_for(
    said: str | None, late: bool, waits: bool, failure: str | None, mark: Mark | None
) -> None:
    want = Want(Resource("host.agent", "fazai", {}, mark=mark), str)
    found = check_proof(cast("HostKind", Proving(said)), want, {}, late, "web-1")
    if failure is None:
        assert found is not waits
        return
    assert isinstance(found, VerifyError)
    hint = "what was written stays; look at: fazai agents status"
    assert (found.message, found.where, found.hint) == (failure, mark or "web-1", hint)


def test_what_cannot_be_seen_is_no_proof() -> None:
    want = Want(Resource("host.agent", "fazai", {}), str)
    error = NotAvailable("gone")
    assert check_proof(cast("HostKind", Proving(None)), want, error, False, "h") is error


def test_the_digest_does_not_depend_on_the_order_and_takes_any_name() -> None:
    odd = ("host.file", "/srv/\udcff")  # a name that is not UTF-8
    items: dict[tuple[str, str], Any] = {KEY: None, odd: {"mode": "0644"}}
    places = {"/a": "/run/a", "/b": "/run/b"}
    one = HostObservation(items, places)
    assert one.digest == HostObservation(_turned(items), _turned(places)).digest
    assert one.digest != HostObservation({**items, KEY: NotAvailable("no such thing")}, places).digest
    assert one.digest != HostObservation(items, {**places, "/b": "/run/c"}).digest


def _turned(items: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(reversed(list(items.items())))


# -- the steps of a host


class Simple(HostKind):
    """A kind whose resources are files; one called `any` may alter anything, as a command does."""

    name, summary, example = "host.simple", "", ""
    specs, identity = (), ("path",)

    def ask(self, want: Want) -> Iterable[Question]:
        return (FileAt(want.resource.identity),)

    def touches(self, want: Want) -> tuple[str, ...] | None:
        return None if want.resource.identity.startswith("any") else (want.resource.identity,)

    def read(self, want: Want, answers: Answers) -> Have | None:
        return None

    def write(self, act: Act) -> Iterator[Block]:
        return iter(())

    def claim(self, want: Want, have: Mapping[str, Any] | None) -> str:
        return str(want.fields.get("claim", ""))

    def spans_below(self, want: Want) -> bool:
        return bool(want.fields.get("spans"))


SIMPLE = {"host.simple": Simple()}


def simple(path: str, **fields: Any) -> Resource:
    notify = fields.pop("notify", ())
    return Resource("host.simple", path, fields, notify=notify, mark=fields.pop("mark", None))


def planned(
    *wanted: tuple[Resource, object],
    handlers: Mapping[str, Resource] | None = None,
    pending: frozenset[str] = frozenset(),
) -> Diff:
    """The plan of these resources, each with what was seen of it."""
    wants = [Want(resource, str) for resource, _ in wanted]
    items: Any = {(resource.kind, resource.identity): found for resource, found in wanted}
    return plan_host_steps("web-1", SIMPLE, wants, items, handlers or {}, pending, PathNames({}, {}))


def told(diff: Diff) -> list[str]:
    return [
        f"look after {step.after}"
        if isinstance(step, LookAgain)
        else f"{step.identity} {step.note}".strip()
        if isinstance(step, Change)
        else f"activate {step.service}"
        for step in diff.steps
        if isinstance(step, LookAgain | Change | Activate)
    ]


THERE: dict[str, Any] = {}
DENIED, FAILED, GONE = AccessDenied("no entry"), FazaiError("no answer"), NotAvailable("not here")


@pytest.mark.parametrize(
    ("wanted", "steps", "unchanged", "errors"),
    [
        ([("/a", None), ("/b", None)], ["/a", "/b"], 0, []),
        ([("/a", None), ("/b", THERE)], ["/a"], 1, []),
        # The second look is told the last change that it is for, and there is one alone.
        ([("/a", None), ("/a/b", THERE)], ["/a", "look after simple /a"], 1, []),
        (
            [("/x", None), ("/a", None), ("/a/b", THERE), ("/a/c", THERE)],
            ["/x", "/a", "look after simple /a"],
            2,
            [],
        ),
        ([("/x", THERE), ("/a", THERE), ("/a/b", None)], ["/a/b"], 2, []),
        # Behind a program all may be otherwise, and what is not known yet is planned as if it were not there.
        ([("any", None), ("/b", THERE)], ["any", "look after simple any"], 1, []),
        ([("any", None), ("/b", None)], ["any", "look after simple any", "/b after simple any"], 0, []),
        ([("any", None), ("/b", FAILED)], ["any", "look after simple any", "/b after simple any"], 0, []),
        ([("/x", None), ("/b", FAILED)], ["/x"], 0, ["no answer"]),
        ([("/b", FAILED), ("any", None)], ["any"], 0, ["no answer"]),
        # No program mends it that a folder may not be entered; a change of the folder may.
        ([("any", None), ("/b", DENIED)], ["any"], 0, ["no entry"]),
        (
            [("any", None), ("/b", NotAvailable("not here"))],
            ["any", "look after simple any"],
            0,
            ["not here"],
        ),
    ],
)
def test_the_steps_of_a_host(
    wanted: list[tuple[str, object]], steps: list[str], unchanged: int, errors: list[str]
) -> None:
    diff = planned(*((simple(path), found) for path, found in wanted))
    assert told(diff) == steps
    assert (diff.unchanged, [error.message for error in diff.errors]) == (unchanged, errors)


def test_what_concerns_all_below_a_path_is_looked_at_again_after_changes_there() -> None:
    change = (simple("/a/b"), None)
    assert told(planned(change, (simple("/a"), THERE))) == ["/a/b", "look after simple /a/b"]  # it made /a
    assert told(planned((simple("/a/b"), None), (simple("/a/b/c/d"), THERE)))[1:] == [
        "look after simple /a/b"
    ]
    gone = (Resource("host.simple", "/a/b", {}, "absent"), THERE)
    assert told(planned(gone, (simple("/a"), THERE))) == ["/a/b"]
    assert told(planned(gone, (simple("/a", spans=True), THERE)))[:2] == ["/a/b", "look after simple /a/b"]


def test_a_second_look_is_for_all_from_there_on() -> None:
    wanted = [simple(path) for path in ("/x", "any", "/b", "/c")]
    (look,) = [s for s in planned(*((each, None) for each in wanted)).steps if isinstance(s, LookAgain)]
    assert look.rest == tuple(wanted[2:])


OLD = ("old", "older", "oldest")


def test_handlers_run_in_their_order_and_those_that_are_none_are_named() -> None:
    handlers = {name: handler("host.simple", name, name) for name in ("second", "first", "idle")}
    diff = planned(
        (simple("/a", notify=("first", "second")), None),
        handlers=handlers,
        pending=frozenset({"old", "first", "older", "oldest"}),
    )
    assert told(diff) == ["/a", "activate second", "activate first", *(f"activate {name}" for name in OLD)]
    assert diff.notes == tuple(f'an earlier run notified "{name}", which is no handler now' for name in OLD)


def test_a_name_that_only_one_host_may_have_is_claimed_where_it_is_declared() -> None:
    mark = Mark("play.yml", 3, 1)
    diff = planned(
        (simple("/a", claim="agent x"), THERE),
        (simple("/b", claim="agent y", mark=mark), None),
        (simple("/c"), None),
    )
    assert diff.claims == (("agent x", "web-1"), ("agent y", mark))
