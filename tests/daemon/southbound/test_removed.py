"""Agents that were removed: whoever lists agents sees them on demand alone, and after a month nobody does."""

from __future__ import annotations

import time
from typing import Any

from fazai.store.certificates import CertificateRecord, Revocation
from tests.daemon.live import until
from tests.daemon.southbound.world import World

MONTH_S = 30 * 86_400.0


def listed(world: World, **query: str) -> dict[str, dict[str, Any]]:
    with world.live.client() as http:
        answer = http.get("/agents", params=query)
        assert answer.status_code == 200, answer.text
        return {row["agent_id"]: row for row in answer.json()["agents"] if row["protocol"] == "websocket"}


def metric(world: World, state: str) -> int:
    with world.live.client() as http:
        (line,) = [
            one for one in http.get("/metrics").text.splitlines() if f'agents{{state="{state}"}}' in one
        ]
        return int(float(line.split()[-1]))


def give(world: World, name: str, now: float, mark: str = "") -> None:
    """Issue a certificate as `fazai pki issue` has it in the state."""
    record = CertificateRecord(
        f"{mark or name}-f", f"{mark or name}-s", name, "issued", now, now, now + MONTH_S
    )
    world.certificates.add_certificate(record)


def revoke(world: World, name: str, at: float | None = None) -> None:
    world.certificates.revoke(Revocation(name, time.time() if at is None else at, "sold"))


def test_an_agent_that_was_removed_is_listed_on_demand(world: World) -> None:
    with world.agent("edge-7") as agent, world.agent("edge-8"):
        give(world, "edge-9", time.time())
        until(lambda: sorted(listed(world)) == ["edge-7", "edge-8", "edge-9"])
        revoke(world, "edge-7")
        revoke(world, "edge-9")  # which was never here
        assert agent.closed()[1].startswith("bad_certificate: the certificate of edge-7 was revoked")
        until(lambda: sorted(listed(world)) == ["edge-8"])
        both = listed(world, removed="true")
        assert sorted(both) == ["edge-7", "edge-8", "edge-9"]
        for name in ("edge-7", "edge-9"):
            row = both[name]
            assert row["state"] == "closing"
            assert row["removed_at"]
            assert f"the certificate of {name} was revoked at " in row["last_error"]
            assert "(sold)" in row["last_error"]
            assert world.row(name)["removed_at"] == row["removed_at"]  # who asks for it by name is told
        assert "removed_at" not in both["edge-8"]
        assert (metric(world, "closing"), metric(world, "observation")) == (0, 1)
        texts = [one["reason"] for one in world.events("edge-9", "agent") if one["state"] == "closing"]
        assert len(texts) == 1
        with world.live.client() as http:
            answer = http.get("/agents", params={"removed": "perhaps"})
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_query")


def test_one_that_is_enrolled_anew_is_listed_again(world: World) -> None:
    with world.agent("edge-7"):
        until(lambda: "edge-7" in listed(world))
        revoke(world, "edge-7")
        until(lambda: listed(world) == {})
        give(world, "edge-7", time.time(), "second")
        until(lambda: "edge-7" in listed(world))
        assert "removed_at" not in listed(world)["edge-7"]


def test_what_was_removed_a_month_ago_is_gone(world: World) -> None:
    with world.agent("edge-7"), world.agent("edge-8"), world.agent("edge-9"):
        until(lambda: sorted(listed(world)) == ["edge-7", "edge-8", "edge-9"])
        recently = time.time() - MONTH_S + 60
        revoke(world, "edge-7", recently)
        revoke(world, "edge-8", time.time() - MONTH_S - 60)
        until(lambda: sorted(listed(world, removed="true")) == ["edge-7", "edge-9"])
    store: Any = world.live.services.store

    def stored() -> dict[str, float | None]:
        return {row.agent_id: row.removed_at for row in world.live.call(store.agents)}

    until(lambda: stored() == {"edge-7": recently, "edge-9": None})  # as a daemon that starts reads them
