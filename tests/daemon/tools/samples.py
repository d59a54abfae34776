"""Tools that do what no tool of ours should: wait for ever, find too much, fail in each way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.tools.call import ToolCall
from fazai.errors import DeviceError
from fazai.loop.effects import Effect, EffectChange
from fazai.loop.tools import AnyTool, EffectTool, NoArgs, Observation, TargetName, Tool, ToolArgs


class FailArgs(ToolArgs, frozen=True, kw_only=True):
    how: Literal["device", "refusal", "slow", "defect"]


class MuchArgs(ToolArgs, frozen=True, kw_only=True):
    what: Literal["list", "object", "text", "nested", "numbers"]


class BlockArgs(ToolArgs, frozen=True, kw_only=True):
    target: TargetName
    address: Annotated[str, Meta(min_length=1, max_length=64)]


@Tool("sample.fail", "Fails.", timeout_s=0.01)
async def fail(call: ToolCall, args: FailArgs) -> Observation:
    if args.how == "device":
        raise DeviceError("the answer was no", where="fw-01", hint="look at its log")
    if args.how == "refusal":
        raise Refusal("conflict", "not now")
    if args.how == "defect":
        raise ValueError("inner words")
    await asyncio.Event().wait()
    raise AssertionError


_MUCH: dict[str, Any] = {
    "list": [{"name": f"rule {number}", "text": "é" * 50} for number in range(10_000)],
    "object": {f"key {number}": "x" * 100 for number in range(10_000)},
    "text": '"' * 1_000_000,
    "nested": {"small": 1, "large": {"inner": ["\n" * 300_000, 2, 3]}, "after": True},
    "numbers": [1234567890123456] * 100_000,
}


@Tool("sample.much", "Finds too much.")
async def find_much(call: ToolCall, args: MuchArgs) -> Observation:
    return Observation(note="much", data=_MUCH[args.what], citations=("kb:1",) * 100)


@EffectTool("sample.block", "Blocks an address.", timeout_s=30.0)
async def block(call: ToolCall, args: BlockArgs) -> Effect:
    change = EffectChange(
        target=args.target,
        kind="opnsense.alias",
        identity="blocklist",
        verb="update",
        before={"content": []},
        after={"content": [args.address]},
    )
    return Effect(tool="sample.block", changes=(change,), base="b", inventory="i", policy="p", expires=4e9)


@dataclass
class Gate:
    """A tool that waits until it is let on, and what became of its calls."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    ended: list[str] = field(default_factory=list)

    def tool(self) -> AnyTool:
        async def wait(call: ToolCall, args: NoArgs) -> Observation:
            self.running += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            finally:
                self.running -= 1
            self.ended.append("done")
            return Observation(note="it was let on", data=call.who.name)

        return Tool("sample.wait", "Waits.", taints=False, timeout_s=3600.0)(wait)


SAMPLES: tuple[AnyTool, ...] = (fail, find_much, block)
