"""Tools that a model names, proposals that fill the house, and what is told of an effect: who approved it,
and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.offered.custom import TOOL_SPEC, Parameter, prepare_tool_spec
from fazai.daemon.tools.offered.reconcile import apply_playbook
from fazai.errors import FazaiError
from fazai.loop.effects import Effect, EffectChange
from fazai.wire.actions import ToolSpecAction
from tests.daemon.live import until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain

APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
ADMIN = Principal("boss", "admin")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    with loop_world(tmp_path_factory.mktemp("names")) as found:
        yield found


def _spec(name: str, *argv: str) -> ToolSpecAction:
    return ToolSpecAction(name=name, argv=argv or ("/bin/df", "{path}"))


def _call(world: LoopWorld) -> ToolCall:
    return ToolCall(world.daemon.services, ADMIN, "s-1", "a-1", approved_by="boss")


@pytest.mark.parametrize("name", ["fleet_list", "reconcile_apply", "logs_search", "shell", "tool_spec"])
def test_a_tool_of_ones_own_takes_no_name_that_looks_like_anothers(world: LoopWorld, name: str) -> None:
    with pytest.raises(FazaiError, match=f"there is a tool {name} already"):
        world.daemon.call(lambda: prepare_tool_spec(_call(world), _spec(name)))


@pytest.mark.parametrize(
    "name", ["ｆleet", "free\u200bspace", "free space", "-x", "Free_space", "free_space\n"]
)
def test_names_of_tools_are_plain(world: LoopWorld, name: str) -> None:
    with pytest.raises(FazaiError, match="is no name of a tool"):
        world.daemon.call(lambda: prepare_tool_spec(_call(world), _spec(name)))


def test_what_an_admin_approved_by_a_name_is_never_replaced(world: LoopWorld) -> None:
    """Two sessions propose tools of one name, and both are approved."""
    call = _call(world)

    async def both() -> None:
        first, second = [
            await prepare_tool_spec(call, _spec("free_space", program)) for program in ("/bin/df", "/bin/rm")
        ]
        assert TOOL_SPEC.run is not None
        await TOOL_SPEC.run(call, first)
        await TOOL_SPEC.run(call, second)

    with pytest.raises(FazaiError, match="there is a tool free_space already"):
        world.daemon.call(both)
    (kept,) = world.daemon.call(world.daemon.services.store.sessions.tool_specs)
    assert (kept.argv, kept.approved_by) == (("/bin/df",), "boss")


@pytest.mark.parametrize("value", ["/\n", "a b", "a;b", "$(id)", "a\0", "ａ", ""])
def test_values_of_parameters_are_one_plain_word(value: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, Parameter)


def test_an_assistant_that_proposes_without_end_leaves_others_their_sessions(world: LoopWorld) -> None:
    services = world.daemon.services
    most = services.settings.config.loop.sessions // 8

    def effect(number: int) -> Effect:
        change = EffectChange(target="web", kind="program", identity="/bin/id", verb="run")
        return Effect(
            tool="reconcile.apply",
            changes=(replace_target(change, number),),
            base="",
            inventory="",
            policy=services.policy.generation,
            expires=4e9,
        )

    async def flood() -> tuple[int, str, str]:
        for number in range(10_000):
            try:
                await services.loop.propose(effect(number), Principal("bot", "operator", "t"), None)
            except Refusal as refusal:
                return number, str(refusal.code), refusal.message
        return 10_000, "", ""

    try:
        said = f"{most} proposals of bot wait for a person already"
        assert world.daemon.call(flood) == (most, "overloaded", said)
        world.open()
        other = Principal("person", "operator", "u")
        world.daemon.call(lambda: services.loop.propose(effect(-1), other, None))
    finally:
        waiting = [one for one in services.loop.all() if one.record.source == "mcp"]
        world.daemon.call(lambda: _abort_all(services.loop, waiting))


async def _abort_all(loop: Any, sessions: Any) -> None:
    for one in sessions:
        await loop.abort(one, "boss")


def replace_target(change: EffectChange, number: int) -> EffectChange:
    return msgspec.structs.replace(
        change, kind="opnsense.alias", target=f"fw-{number}", verb="create", after={"content": "x"}
    )


def test_the_run_says_who_approved_it_and_is_found_after_a_crash(tmp_path: Any) -> None:
    with loop_world(tmp_path) as found:
        session = found.open()
        found.model.answers[:] = [APPLY, DONE]
        shown = of_type(plain(found.ask(session)), "action")[0]
        services = found.daemon.services
        one = services.loop.find(session)
        effect = one.state.effects[shown["action_id"]]
        call = ToolCall(services, Principal("owner", "operator"), session, approved_by="boss")

        async def cut_off_and_settle() -> Any:
            """The task that carries it out is ended while the approval is being written."""
            assert apply_playbook.run is not None
            assert apply_playbook.settle is not None
            task = asyncio.ensure_future(apply_playbook.run(call, effect))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return await apply_playbook.settle(call, effect)

        settled = found.daemon.call(cut_off_and_settle)
        assert "applied it" in settled.note, settled
        planned = services.run_queue.records.get(effect.ref)
        assert planned is not None
        assert planned.approved_by == "boss"
        assert "blocklist" in found.world.aliases()
        found.client.post("/agent/abort", json={"session_id": session})
        until(lambda: one.state.status == "ended")
