"""Savepoints of release 26.1: whose revision works, what the timer brings back, whom it lets in again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from fazai.lab import Fault, LabFirewall, LabSettings
from tests.lab.helpers import connects, with_firewall

Work = Callable[["Timers", LabFirewall, httpx.AsyncClient], Awaitable[None]]


class Timers:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def schedule(self, delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
        timer = (self.now_s + delay_s, action)
        self._due.append(timer)
        return lambda: self._due.remove(timer)

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in [timer for timer in self._due if timer[0] <= self.now_s]:
            self._due.remove(timer)
            timer[1]()


def with_timers(work: Work, *faults: Fault) -> None:
    async def run(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        timers = Timers()
        firewall.box.schedule = timers.schedule
        await work(timers, firewall, client)

    with_firewall(run, LabSettings(auth_delay_s=0, release="26.1.11", faults=faults))


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post(f"/api/firewall/{path}", json=body or {})).json()
    return answer


async def savepoint(client: httpx.AsyncClient, controller: str = "filter") -> tuple[str, str]:
    """The revision as answered, and the one that names the entry in the history."""
    answered = (await post(client, f"{controller}/savepoint"))["revision"]
    newest = (await client.get("/api/core/backup/backups/this")).json()["items"][0]["id"]
    return answered, newest.removeprefix("config-").removesuffix(".xml")


async def add_rule(client: httpx.AsyncClient, text: str) -> None:
    await post(client, "filter/addRule", {"rule": {"interface": "lan", "description": text}})


async def stored(client: httpx.AsyncClient, text: str) -> int:
    return int((await post(client, "filter/searchRule", {"searchPhrase": text}))["total"])


def running(firewall: LabFirewall) -> set[str]:
    rules = firewall.box.running.items("filter", "Firewall.Filter.rules.rule")
    return {rule["description"] for rule in rules.values()}


def test_without_a_confirmation_the_rules_go_back_and_run() -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        _, revision = await savepoint(client)
        await add_rule(client, "mistake")
        await post(client, f"filter/apply/{revision}")
        timers.pass_s(59)
        assert await stored(client, "mistake") == 1
        assert "mistake" in running(firewall)
        timers.pass_s(1)
        assert await stored(client, "mistake") == 0
        assert "mistake" not in running(firewall)

    with_timers(work)


def test_the_revision_as_answered_watches_nothing() -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        answered, revision = await savepoint(client)
        assert answered != revision
        await add_rule(client, "kept")
        await post(client, f"filter/apply/{answered}")
        timers.pass_s(100)
        assert await stored(client, "kept") == 1
        assert (await post(client, f"filter/revert/{answered}"))["status"].startswith("unknown")

    with_timers(work)


def test_a_confirmed_change_stays() -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        _, revision = await savepoint(client)
        await add_rule(client, "good")
        await post(client, f"filter/apply/{revision}")
        assert (await post(client, f"filter/cancelRollback/{revision}"))["status"] == "\n\n"
        assert (await post(client, f"filter/cancelRollback/{revision}"))["status"] == ""
        timers.pass_s(100)
        assert await stored(client, "good") == 1

    with_timers(work)


def test_only_one_timer_runs() -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        _, first = await savepoint(client)
        await add_rule(client, "rule-1")
        await post(client, f"filter/apply/{first}")
        _, second = await savepoint(client)
        await add_rule(client, "rule-2")
        await post(client, f"filter/apply/{second}")
        assert (await post(client, f"filter/cancelRollback/{second}"))["status"] == ""
        timers.pass_s(100)
        assert (await stored(client, "rule-1"), await stored(client, "rule-2")) == (0, 0)

    with_timers(work)


@pytest.mark.parametrize("controller", ["filter", "source_nat", "one_to_one", "npt", "d_nat"])
def test_a_revert_brings_back_the_model_of_its_controller_alone(controller: str) -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        _, revision = await savepoint(client, controller)
        await add_rule(client, "later")
        await post(client, "alias/addItem", {"alias": {"name": "later", "type": "host"}})
        assert await post(client, f"{controller}/revert/{revision}") == {"status": "ok"}
        assert await stored(client, "later") == (1 if controller == "d_nat" else 0)
        aliases = await post(client, "alias/searchItem", {"searchPhrase": "later"})
        assert aliases["total"] == 1

    with_timers(work)


@pytest.mark.parametrize("controller", ["filter", "source_nat", "one_to_one", "npt", "d_nat"])
def test_the_timer_brings_back_the_rules_whoever_armed_it(controller: str) -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        _, revision = await savepoint(client, controller)
        await add_rule(client, "later")
        await post(client, f"{controller}/apply/{revision}")
        timers.pass_s(60)
        assert await stored(client, "later") == 0

    with_timers(work)


def test_the_timer_opens_the_door_that_a_rule_had_closed() -> None:
    async def work(timers: Timers, firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        _, revision = await savepoint(client)
        await add_rule(client, "locks us out")
        await post(client, f"filter/apply/{revision}")
        doors = [firewall.locked_out, await connects(firewall)]
        timers.pass_s(60)
        doors.append(firewall.locked_out)
        assert doors == [True, False, False]
        tries = [await connects(firewall) for _ in range(20)]  # the loop's next turns open the port
        assert tries[-1]

    with_timers(work, Fault(kind="lockout", rule="locks us out"))


def test_26_7_has_no_savepoints_and_ignores_a_revision() -> None:
    async def work(firewall: LabFirewall, client: httpx.AsyncClient) -> None:
        timers = Timers()
        firewall.box.schedule = timers.schedule
        newest = await add_and_name(client)
        for call in ("savepoint", f"cancelRollback/{newest}", f"revert/{newest}"):
            assert (await client.post(f"/api/firewall/filter/{call}", json={})).status_code == 404
        await add_rule(client, "later")
        await post(client, f"filter/apply/{newest}")
        timers.pass_s(100)
        assert await stored(client, "later") == 1

    async def add_and_name(client: httpx.AsyncClient) -> str:
        await add_rule(client, "first")
        items = (await client.get("/api/core/backup/backups/this")).json()["items"]
        return str(items[0]["id"]).removeprefix("config-").removesuffix(".xml")

    with_firewall(work)
