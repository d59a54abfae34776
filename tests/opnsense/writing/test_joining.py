"""Changes of one kind in one call: one entry of the history, and whatever it did not do is written again."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.errors import DeviceError, FazaiError, Rejected, Unreachable, Unsure
from fazai.lab import Fault, LabFirewall
from fazai.model import Change, Joining, Resource, Verb
from fazai.providers.opnsense.provider import PROVIDER
from fazai.providers.opnsense.session import OpnsenseSession
from fazai.providers.opnsense.writing.bodies import nest_under
from fazai.providers.opnsense.writing.joining import _ALONE, _SET_TOGETHER, MOST_JOINED, count_joined
from fazai.providers.opnsense.writing.rehearsal import TRIALS
from tests.opnsense.helpers import Start, apply, apply_in, plan, resource, run, session, target

COUNT = 130


def alias(number: int, address: str = "192.0.2.1", **more: Any) -> Resource:
    fields = {"name": f"a{number:03}", "type": "host", "content": [address], **more}
    return resource("opnsense.alias", fields)


def changes_for(firewall: LabFirewall, wanted: list[Resource]) -> tuple[Change, ...]:
    return run(plan(target(firewall), wanted)).changes


async def write(work: OpnsenseSession, changes: tuple[Change, ...]) -> tuple[list[str], list[FazaiError]]:
    """As the engine: as many at once as the session joins, until one fails."""
    refs: list[str] = []
    while len(refs) < len(changes):
        rest = changes[len(refs) :]
        count = work.join(rest)
        if count == 1:
            refs.append(await work.write(rest[0]))
            continue
        done, error = await work.write_joined(rest[:count])
        refs += done
        if error is not None:
            return refs, [error]
    return refs, []


def write_all(firewall: LabFirewall, wanted: list[Resource]) -> tuple[list[str], list[FazaiError]]:
    async def both() -> tuple[list[str], list[FazaiError]]:
        async with session(target(firewall)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            assert not diff.errors
            return await write(work, diff.changes)

    return run(both())


@pytest.fixture
def made(start: Start) -> LabFirewall:
    firewall = start()
    run(apply(target(firewall), [alias(n) for n in range(COUNT)]))
    return firewall


def test_updates_go_in_hundreds(made: LabFirewall) -> None:
    wanted = [alias(n, "192.0.2.7", description="new") for n in range(COUNT)]
    writes, requests = made.box.config.writes, len(made.requests)
    refs, errors = write_all(made, wanted)
    assert (len(refs), errors) == (COUNT, [])
    assert made.box.config.writes - writes == 2  # entries of the history: 100 and 30
    paths = [path.removeprefix("/api/") for _, path, _ in list(made.requests)[requests:]]
    assert paths.count("firewall/alias/set") == 2
    assert not [path for path in paths if path.startswith("firewall/alias/setItem")]
    assert changes_for(made, wanted) == ()


def test_deletions_go_in_hundreds(made: LabFirewall) -> None:
    gone = [resource("opnsense.alias", {"name": f"a{n:03}"}, state="absent") for n in range(COUNT)]
    requests = len(made.requests)
    refs, errors = write_all(made, gone)
    assert (len(refs), errors) == (COUNT, [])
    deletes = [path for _, path, _ in list(made.requests)[requests:] if "/delItem/" in path]
    assert [path.count(",") + 1 for path in deletes] == [MOST_JOINED, COUNT - MOST_JOINED]
    assert changes_for(made, gone) == ()


def test_an_item_in_use_is_named(made: LabFirewall) -> None:
    """One item in use ends the whole call; then each is deleted by itself, until that one."""
    body = {"rule": {"interface": "lan", "source_net": "a003", "description": "uses it"}}
    assert made.call("POST", "/api/firewall/filter/addRule", body)["result"] == "saved"
    gone = [resource("opnsense.alias", {"name": f"a{n:03}"}, state="absent") for n in range(6)]
    refs, (error,) = write_all(made, gone)
    assert len(refs) == 2  # the last of a list goes first
    assert "a003" in str(error)
    names = {row["name"] for row in made.call("POST", "/api/firewall/alias/searchItem", {})["rows"]}
    assert {"a000", "a001", "a002", "a003"} <= names
    assert not {"a004", "a005"} & names


def test_a_refused_value_is_told_with_its_field(made: LabFirewall) -> None:
    wanted = [alias(n, "192.0.2.8", description="x" * 200) for n in range(4)]
    changes = changes_for(made, wanted)
    bad = Change(**{**_fields(changes[2]), "after": {"description": "two\nlines"}})

    async def joined() -> tuple[list[str], FazaiError | None]:
        async with session(target(made)) as work:
            await work.observe(wanted)
            return await work.write_joined([*changes[:2], bad, changes[3]])

    refs, error = run(joined())
    assert len(refs) == 2
    assert isinstance(error, Rejected)
    assert set(error.fields) == {"description"}
    assert [change.identity for change in changes_for(made, wanted)] == ["a002", "a003"]


def _fields(change: Change) -> dict[str, Any]:
    return {name: getattr(change, name) for name in change.__dataclass_fields__}


def test_what_did_not_stick_is_written_again(made: LabFirewall) -> None:
    """The call answers that all was saved, and somebody put one of them back meanwhile."""
    wanted = [alias(n, "192.0.2.9") for n in range(3)]
    path = next(name for name in made.box.catalogue.items if name.endswith("aliases.alias"))
    (before,) = (item for item in made.box.items(path).values() if item["name"] == "a001")

    async def joined() -> tuple[list[str], list[FazaiError]]:
        async with session(target(made)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            call, calls = work.api.call, []

            async def meddled(asked: Any) -> Any:
                answer = await call(asked)
                calls.append(asked.path)
                if asked.path == "firewall/alias/set":
                    ref = next(ref for ref, item in made.box.items(path).items() if item["name"] == "a001")
                    edit = made.box.config.edit()
                    edit.put(path, ref, before)
                    edit.commit("by hand", "admin", 0.0)
                return answer

            work.api.call = meddled  # type: ignore[method-assign, assignment]
            found = await write(work, diff.changes)
            assert [one.rpartition("/")[0] for one in calls if "setItem" in one] == ["firewall/alias/setItem"]
            return found

    refs, errors = run(joined())
    assert (len(refs), errors) == (3, [])
    assert changes_for(made, wanted) == ()


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_firewall_that_is_gone_leaves_it_open(made: LabFirewall, at: str) -> None:
    wanted = [alias(n, "192.0.2.10") for n in range(3)]

    async def joined() -> tuple[list[str], FazaiError | None]:
        async with session(target(made, retries=0)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            made.inject(Fault(kind="cut", at=at, path="firewall/alias/*", times=0))  # type: ignore[arg-type]
            return await work.write_joined(diff.changes)

    refs, error = run(joined())
    assert refs == []
    assert isinstance(error, Unreachable | Unsure)


def test_what_others_depend_on_goes_by_itself(start: Start) -> None:
    firewall = start()
    run(apply(target(firewall), [alias(n) for n in range(3)]))
    kinds = PROVIDER.kinds
    changes = changes_for(firewall, [alias(n, type="network", content=["10.0.0.0/8"]) for n in range(3)])
    assert {"type", "content"} <= set(changes[0].after)
    assert count_joined(kinds, changes) == 1  # the type decides what content may be
    created = changes_for(firewall, [alias(n) for n in range(5, 8)])
    assert [change.verb for change in created] == [Verb.CREATE] * 3
    assert count_joined(kinds, created) == 1  # the firewall would choose the uuids
    enabled = changes_for(firewall, [alias(n, enabled=False) for n in range(3)])
    assert count_joined(kinds, enabled) == 3
    assert count_joined(kinds, [*enabled[:2], *created]) == 2


@pytest.mark.parametrize("short", sorted(_SET_TOGETHER))
def test_what_is_gone_is_not_made_by_a_set_of_the_model(start: Start, short: str) -> None:
    """The kinds that go together are those of which the firewall refuses an item without its name."""
    firewall, kind = start(), PROVIDER.kinds[f"opnsense.{short}"]
    trial = TRIALS[short]
    fields = {name: "0" if kind.rows[name].type == "boolean" else "x" for name in _ALONE if name in kind.rows}
    sent = {name: text for name, text in fields.items() if name not in ("content", "categories")}
    body = nest_under(trial.tree, {"00000000-0000-4000-8000-000000000123": sent})
    writes = firewall.box.config.writes
    assert firewall.call("POST", f"/api/{trial.path}", body)["result"] == "failed"
    assert firewall.box.config.writes == writes


def test_rules_go_by_themselves(start: Start) -> None:
    """A set of the model would make a rule of one that is gone: one that passes everything."""
    firewall = start()
    rules = [resource("opnsense.rule", {"description": f"r{n}", "interface": ["lan"]}) for n in range(3)]
    run(apply(target(firewall), rules))
    wanted = [
        resource("opnsense.rule", {"description": f"r{n}", "interface": ["lan"], "log": True})
        for n in range(3)
    ]
    changes = changes_for(firewall, wanted)
    assert [set(change.after) for change in changes] == [{"log"}] * 3
    assert count_joined(PROVIDER.kinds, changes) == 1


def test_a_rule_that_is_gone_is_not_made_of_defaults(start: Start) -> None:
    """Somebody deletes it between the look and the write, which says one field alone."""
    firewall = start()
    rules = [resource("opnsense.rule", {"description": "r", "interface": ["lan"], "action": "block"})]
    run(apply(target(firewall), rules))
    wanted = [
        resource("opnsense.rule", {"description": "r", "interface": ["lan"], "action": "block", "log": True})
    ]

    async def late() -> None:
        async with session(target(firewall)) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            (change,) = diff.changes
            firewall.call("POST", f"/api/firewall/filter/delRule/{change.ref}", {})
            await work.write(change)

    with pytest.raises(DeviceError, match='"r" was deleted on fw-01 since it was looked at'):
        run(late())
    rows = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    assert "r" not in [row["description"] for row in rows]


def test_a_deletion_that_never_happened_is_not_undone_twice(start: Start) -> None:
    """Of kinds whose uuids the firewall chooses: what is still there is not made again."""
    firewall = start()
    fields = {"description": "job", "command": "firmware poll", "minutes": 5, "hours": 3}
    job = resource("opnsense.cron_job", fields)
    run(apply(target(firewall), [job]))
    gone = resource("opnsense.cron_job", fields, state="absent")

    async def undo() -> None:
        async with session(target(firewall)) as work:
            diff = work.diff([gone], await work.observe([gone]))
            (change,) = diff.changes
            await work.write(work.inverse(change, change.ref))  # its answer was lost, and so was the call

    run(undo())
    rows = firewall.call("POST", "/api/cron/settings/searchJobs", {})["rows"]
    assert len([row for row in rows if row["description"].startswith("job")]) == 1


def test_the_session_joins(start: Start) -> None:
    async def both() -> None:
        async with session(target(start())) as work:
            assert isinstance(work, Joining)
            await apply_in(work, [alias(1)])

    run(both())
