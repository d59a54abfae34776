"""Values, resources, observations and errors as JSON and back; and what the other side may say instead."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.errors import (
    AccessDenied,
    DeviceError,
    FazaiError,
    Mark,
    Moved,
    NotAvailable,
    Refused,
    Unreachable,
    Unsure,
    VerifyError,
)
from fazai.model import Change, Resource, Secret, Target, Verb
from fazai.providers.hosts.agent.health import AgentReport
from fazai.providers.hosts.agent.layout import AgentFile
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.effects import PathNames
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.planning import HostObservation
from fazai.providers.hosts.remote.failures import Places, decode_error, encode_error
from fazai.providers.hosts.remote.messages import (
    RemoteObservation,
    decode_changes,
    decode_observation,
    decode_output,
    decode_resource,
    encode_change,
    encode_observation,
    encode_resource,
)
from fazai.providers.hosts.remote.session import AgentSession
from fazai.providers.hosts.remote.values import Malformed, decode_value, encode_value
from fazai.providers.hosts.shell.answers import ReplacedMeanwhile
from fazai.providers.hosts.shell.questions import AnswerTooLong, PathState
from tests.campaign import with_examples
from tests.hosts.cases import CASES
from tests.hosts.helpers import HOSTILE, Host, resource
from tests.hosts.kinds.test_kinds import place

KINDS = {name: kind for name, kind in load_host_kinds().items() if kind.by_agent}

BOUND = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

#: Also halves of characters, as names of files have them, and names that begin as our marks do.
texts = st.text(max_size=20) | st.text(st.characters(), max_size=8) | st.sampled_from(HOSTILE)
texts |= (
    texts.map(lambda text: f"${text}") | st.just("\ud800") | st.sampled_from(["$secret", "$map", "$pairs"])
)
blobs = st.builds(Blob.of, st.binary(max_size=40), private=st.booleans())
blobs |= st.builds(lambda blob: Blob(None, blob.sha256, blob.size, blob.private), blobs)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=20),
    st.builds(Secret, texts),
    blobs,
    st.builds(PathState, st.sampled_from(["file", "missing"]), real=texts, mode=st.integers(0, 4095)),
    st.builds(AgentFile, texts, st.binary(max_size=9), st.just("0644")),
    st.builds(
        AgentReport, st.booleans(), st.integers(0, 2**31), status=st.dictionaries(texts, texts, max_size=2)
    ),
)
values = st.recursive(
    leaves,
    lambda more: (
        st.lists(more, max_size=4)
        | st.lists(more, max_size=4).map(tuple)
        | st.dictionaries(texts, more, max_size=4)
    ),
    max_leaves=12,
)


def through_wire(data: Any) -> Any:
    """As the other side reads it: UTF-8 that every reader of JSON takes."""
    return json.loads(json.dumps(data, ensure_ascii=False, allow_nan=False).encode())


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types; contents with what is not part of their equality."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Blob):
        return (one.data, one.sha256, one.size, one.private) == (
            other.data,
            other.sha256,
            other.size,
            other.private,
        )
    return bool(one == other)


@given(values)
@settings(parent=BOUND)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(decode_value(through_wire(encode_value(value))), value)


def test_what_no_kind_has_is_not_sent() -> None:
    for value in ({1, 2}, object(), {1: "x"}, Mark("f", 1, 1), Exception()):
        with pytest.raises(TypeError):
            encode_value(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda more: st.lists(more, max_size=4) | st.dictionaries(st.text(max_size=6), more, max_size=4),
    max_leaves=10,
)
marks = st.sampled_from(
    [
        *("$secret", "$bytes", "$blob", "$map", "$pairs", "$tuple", "$int", "$float", "$text", "$error"),
        *("$path", "$agent_report", "$agent_file", "$nothing"),
    ]
)
marked = st.recursive(
    json_values,
    lambda more: st.dictionaries(marks, more, min_size=1, max_size=2) | st.lists(more, max_size=3),
    max_leaves=8,
)


@given(marked)
@settings(parent=BOUND, max_examples=100)
def test_anything_else_is_malformed_and_nothing_worse(data: Any) -> None:
    try:
        found = decode_value(data)
    except Malformed:
        return
    assert same(decode_value(encode_value(found)), found) or "nan" in repr(found)


@pytest.mark.parametrize(
    "data",
    [
        {"$secret": 5},
        {"$secret": "x", "more": 1},
        {"$unknown": 1},
        {"$bytes": "not base64!"},
        {"$bytes": "YQ"},
        {"$int": "1_0"},
        {"$int": "9" * 1000},
        {"$int": "²"},
        {"$float": "1e3"},
        {"$text": "//79"},
        {"$pairs": [["a", 1], ["a", 2]]},
        {"$pairs": [["a"]]},
        {"$blob": {"sha256": "0" * 64, "size": 1, "data": "YQ=="}},
        {"$blob": {"sha256": "0" * 63, "size": 1}},
        {"$blob": {"sha256": "0" * 64, "size": -1}},
        {"$blob": {"sha256": "0" * 64, "size": True}},
        {"$path": {"type": "file"}},
        {"$path": {**encode_value(PathState("file"))["$path"], "mode": "0644"}},
        {"$agent_file": {"path": "/x", "data": "text", "mode": "0644", "owned": False}},
        float("inf"),
    ],
)
def test_what_no_encoder_makes_is_refused(data: Any) -> None:
    with pytest.raises(Malformed):
        decode_value(data)


def test_depth_is_bounded() -> None:
    data: Any = 1
    for _ in range(1000):
        data = {"$tuple": [data]}
    with pytest.raises(Malformed, match="nested too deeply"):
        decode_value(data)


# -- resources ------------------------------------------------------------------------------------------


def wanted_resources() -> list[Resource]:
    found = []
    for kind in KINDS.values():
        ((_, fields),) = yaml.safe_load(kind.example.replace("{{", "").replace("}}", "")).items()
        found.append(resource(kind.name, fields))
    for case in CASES:
        found.append(resource(case.kind, case.make))
        found.append(resource(case.kind, {**case.make, **(case.change or {})}))
    for name in HOSTILE:
        found.append(resource("host.file", {"path": f"/d {name}/{name}", "content": Secret(name)}))
        found.append(resource("host.link", {"path": f"/{name}x", "target": name}))
        found.append(resource("host.command", {"argv": ["echo", name], "creates": "/x"}))
    found.append(
        resource("host.user", {"name": "app", "password": Secret("$6$abc$def"), "groups": ["b", "a"]})
    )
    return found


@pytest.mark.parametrize("wanted", wanted_resources(), ids=lambda each: f"{each.kind} {each.identity[:20]!a}")
def test_a_resource_is_read_by_its_kind_as_it_was_sent(wanted: Resource) -> None:
    data = through_wire(encode_resource(wanted))
    assert isinstance(data["identity"], str)  # for people, whoever reads it
    found = decode_resource(data, KINDS)
    assert (found.kind, found.identity, found.state) == (wanted.kind, wanted.identity, wanted.state)
    assert same(dict(sorted(found.fields.items())), dict(sorted(wanted.fields.items())))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "host.nothing"}, "there is no kind 'host.nothing'"),
        ({"kind": ["host.file"]}, "there is no kind"),
        ({"identity": "/b"}, "another one than its identity says"),
        ({"state": "gone"}, "no resource of host.file"),
        ({"fields": []}, "no resource of host.file"),
        ({"fields": {"path": "/a", "mode": "0644; id"}}, "mode is no mode"),
        ({"fields": {"path": "/a", "mode": 420}}, "mode must be text"),
        ({"fields": {"path": "/a", "mode": "644"}}, "not as its kind says it"),
        ({"fields": {"path": "/a", "owner": "root; id"}}, "owner is no name of a user"),
        ({"fields": {"path": "/x/../a"}}, 'path must not hold ".."'),
        ({"fields": {"path": "/a", "shell": "id"}}, "shell host.file has no such field"),
        ({"fields": {"path": "/a", "content": {"$secret": "text"}}}, "not as its kind says it"),
        ({"fields": {"path": "/a", "backup": {"$tuple": []}}}, "backup must be true or false"),
        ({"listen": ["x"]}, "no resource of host.file"),
        ({"more": 1}, "no resource"),
    ],
)
def test_what_a_kind_would_not_read_is_refused(changed: Mapping[str, Any], said: str) -> None:
    """A word that stands in a script unquoted, such as a mode, is one that the kind knows."""
    data = {**encode_resource(resource("host.file", {"path": "/a"})), **changed}
    with pytest.raises(Malformed, match=said.replace(".", r"\.")):
        decode_resource(data, KINDS)


@given(st.sampled_from(sorted(KINDS)), st.data())
@settings(parent=BOUND, max_examples=60)
def test_fields_of_any_type_are_no_more_than_malformed(name: str, data: Any) -> None:
    kind = KINDS[name]
    fields = {spec.name: data.draw(json_values | marked) for spec in kind.specs if data.draw(st.booleans())}
    try:
        decode_resource({"kind": name, "identity": "x", "state": "present", "fields": fields}, KINDS)
    except Malformed:
        return


# -- observations, errors -------------------------------------------------------------------------------

ERRORS: list[FazaiError] = [
    DeviceError("no", where="box", hint="look"),
    AccessDenied("denied", where=Mark("host.file\0/a", 0, 0), hint="become: true"),
    NotAvailable("needs a machine", where="box/host.file/a"),
    Moved("changed", path="/a\udcff", where="box", hint="run it again"),
    AnswerTooLong("more than 1 MiB", where="elsewhere"),
    ReplacedMeanwhile("replaced"),
    Refused("not here"),
    Unreachable("cut", stage="read", where="box"),
    Unsure("maybe", where="box/host.file/a"),
    VerifyError("does not run"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_come_back_with_the_controllers_places(error: FazaiError) -> None:
    places = Places("web")
    places.note(resource("host.file", {"path": "/a"}, mark=Mark("site.yml", 3, 5)))
    found = decode_error(through_wire(encode_error(error, "box")), places)
    assert (type(found), repr(found), found.hint) == (type(error), repr(error), error.hint)
    assert getattr(found, "path", None) == getattr(error, "path", None)
    assert getattr(found, "stage", None) == getattr(error, "stage", None)
    expected = {"box": "web", "box/host.file/a": "web/host.file/a", "host.file\0/a:0:0": "site.yml:3:5"}
    assert str(found.where) == expected.get(str(error.where), str(error.where))


@pytest.mark.parametrize(
    "data",
    [
        {"$error": {"class": "SystemExit", "message": "x"}},
        {"$error": {"class": "Moved", "message": "x"}},
        {"$error": {"class": "DeviceError", "message": 5}},
        {"$error": {"class": "DeviceError", "message": "x", "exit_code": 0}},
        {"$error": {"class": "Unreachable", "message": "x", "stage": "elsewhere"}},
        {"$error": {"class": "DeviceError", "message": "x", "where": {"of": ["host.file", "/b"]}}},
        {"$error": {"class": "DeviceError", "message": "x", "where": 7}},
        {"$error": {"class": ["DeviceError"], "message": "x"}},
        {"$error": 1},
        None,
    ],
)
def test_errors_of_no_class_are_refused(data: Any) -> None:
    with pytest.raises(Malformed):
        decode_error(data, Places("web"))


def test_an_observation_comes_back_with_its_digest() -> None:
    wanted = [resource("host.file", {"path": f"/{name}"}) for name in "abc"]
    items: dict[tuple[str, str], Any] = {
        ("host.file", "/a"): {"mode": "0644", "content": Blob.of("x")},
        ("host.file", "/b"): None,
        ("host.file", "/c"): DeviceError("there is a directory"),
    }
    names = PathNames({"/etc\udcff": "/real"}, {"/l": "/x"})
    seen = HostObservation(items, {"/a": "/srv/a\0/srv/b"})
    data = through_wire(encode_observation(wanted, RemoteObservation(seen, names, "/srv"), "box"))
    places = Places("web")
    found = decode_observation(data, wanted, places)
    assert found.seen.digest == seen.digest
    assert (found.root, found.names.folders, found.names.links) == ("/srv", names.folders, names.links)


def test_changes_travel_by_name_and_hash() -> None:
    change = Change(
        "web", "host.file", "/a", Verb.UPDATE, {"content": Secret("old")}, {"content": Secret("n")}, "/a"
    )
    data = through_wire([encode_change(change, undo=True)])
    assert "old" not in json.dumps(data)
    (found,) = decode_changes(data, 5)
    assert (found.key, found.verb, found.undo, len(found.sha256)) == (
        ("host.file", "/a"),
        Verb.UPDATE,
        True,
        64,
    )
    for wrong in ([], data * 6, [{**data[0], "verb": "explode"}], [{**data[0], "sha256": "x"}], [5], None):
        with pytest.raises(Malformed):
            decode_changes(wrong, 5)
    for wrong in ([["stdlog", "x"]], [["stdout"]], [["stdout", 5]], {}):
        with pytest.raises(Malformed):
            decode_output(wrong)


# -- an agent that lies ---------------------------------------------------------------------------------


class Liar:
    """A relay whose agent answers with true observations, altered."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    async def request(self, agent: str, message: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.answers.pop(0)
        return found


def altered(data: Any, chance: random.Random) -> Any:
    """The same with one place of it, at random, replaced by something else."""
    data = copy.deepcopy(data)
    at: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        children = list(node.items() if isinstance(node, dict) else enumerate(node))
        for key, child in children:
            at.append((node, key))
            if isinstance(child, dict | list):
                walk(child)

    walk(data)
    node, key = chance.choice(at)
    odd: list[Any] = [None, 5, -1, True, "", "x" * 300, [], {}, {"$secret": "s"}, {"$map": {}}, 1e300]
    odd += [{"$path": 1}, {"$blob": {"sha256": "0" * 64, "size": 3}}, [["a", "b"]], {"$error": {}}, "\udcff"]
    if chance.random() < 0.2 and isinstance(node, dict):
        del node[key]
    else:
        node[key] = chance.choice(odd)
    return data


@with_examples(400, 2000)
def test_an_agent_that_lies_is_an_error_of_that_host_and_no_defect(tmp_path: Path, count: int) -> None:
    """Altered observations and results: an error of ours, or a plan; never another exception."""
    chance = random.Random(12)
    table = {(case.kind, str(case.make.get("path"))): case for case in CASES if case.change}
    wanted = [resource(case.kind, case.make, mark=Mark("site.yml", 1, 1)) for case in table.values()]
    wanted.append(resource("host.user", {"name": "app", "groups": ["a"]}))
    for case in table.values():
        with suppress(OSError):
            place(tmp_path, case.before)

    async def observe() -> RemoteObservation:
        session = Host.local(tmp_path).session
        async with session:
            return RemoteObservation(await session.observe(wanted), session.names, str(tmp_path))

    seen = asyncio.run(observe())
    true = {"ok": True, "action_id": "x", "observation": encode_observation(wanted, seen, "box")}
    result = {
        "ok": True,
        "result": {"done": ["/a"], "output": [["stdout", "x"]], "errors": [], "explains": True},
    }
    refusal = {"ok": False, "code": "internal", "error": "x", "hint": "y", "action_id": "z"}
    target = Target("web", "agent", "write", {})
    file = next(each for each in wanted if each.kind == "host.file")
    change = Change("web", file.kind, file.identity, Verb.CREATE, {}, dict(file.fields), file.identity)

    async def run() -> int:
        plans = 0
        for _ in range(count):
            answers = [
                altered(true, chance),
                *[altered(chance.choice([result, refusal]), chance) for _ in range(4)],
            ]
            relay = Liar(answers)
            session = AgentSession(target, KINDS, nullcontext(relay), "box", timeout_s=1)
            await session.__aenter__()
            session.listen(lambda stream, text: None)
            try:
                found = session.diff(wanted, await session.observe(wanted))
                plans += len(found.steps) + len(found.errors) > 0
            except FazaiError:
                session._items[file.kind, file.identity].want = None
            relay.answers = answers[-4:]
            _, error = await session.write_joined([change])
            assert error is None or isinstance(error, FazaiError)
            for step in (
                session.explains(Moved("x", path="/a"), []),
                session.verify([change]),
            ):
                try:
                    await step
                except FazaiError:
                    continue
        return plans

    assert count / 20 < asyncio.run(run()) < count - count / 20  # both happen
