"""First install, upgrade, failed install, removal, each cut at every step, under every init that there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from tests.campaign import in_full
from tests.supervisor.cutting import INITS, Site, site_of

pytestmark = pytest.mark.slow

_MOST = 90  # more commands than any of these scripts runs
every_init = pytest.mark.parametrize("init", INITS)


def within(init: str, folder: Path, steps: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    with site_of(init, folder / "machine") as site:

        async def run() -> None:
            async with site.host.session:
                try:
                    await steps(site)
                finally:
                    await site.end()

        asyncio.run(run())


async def cut_everywhere(
    site: Site, wanted: Callable[[], Any], signal: str, then: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Cuts at the first command, the second, … (in CI at each fourth); `then` looks, and makes it ready for
    the next."""
    for at in range(1, _MOST, 1 if in_full() else 4):
        if not await site.cut(wanted(), signal, at):
            assert at > 5  # it was cut at least that often
            return
        try:
            await then()
        except AssertionError as error:
            error.add_note(f"cut by {signal} at command {at}")
            raise
    raise AssertionError("it never ended")


@pytest.mark.parametrize("signal", ["TERM", "HUP"])
@every_init
def test_a_first_install_that_is_cut_leaves_nothing(init: str, signal: str, tmp_path: Path) -> None:
    async def steps(site: Site) -> None:
        async def nothing() -> None:
            if await site_done(site):
                await site.host.converge(site.gone)
            assert site.left() == []

        await cut_everywhere(site, site.agent, signal, nothing)
        assert await site.host.converge(site.agent()) == ()

    within(init, tmp_path, steps)


async def site_done(site: Site) -> bool:
    """Tell whether all was done when it was cut."""
    return not (await site.host.look(site.agent())).changes


@every_init
def test_a_first_install_that_is_killed_is_done_again_or_removed(init: str, tmp_path: Path) -> None:
    async def steps(site: Site) -> None:
        async def again() -> None:
            if site.left() and len(site.left()) % 2:  # straight away
                await site.host.converge(site.gone)
                assert site.left() == []
            await site.host.converge(site.agent())
            assert site.temporary() == []
            if init != "none":
                site.upgraded()
            await site.host.converge(site.gone)
            assert site.left() == []

        await cut_everywhere(site, site.agent, "KILL", again)

    within(init, tmp_path, steps)


@pytest.mark.parametrize("signal", ["TERM", "HUP"])
@every_init
def test_an_upgrade_that_is_cut_leaves_the_old_one_running(init: str, signal: str, tmp_path: Path) -> None:
    async def steps(site: Site) -> None:
        await site.host.converge(site.agent())
        await site.keep()
        await site.older()

        async def as_before() -> None:
            if not (await site.host.look(site.agent(interval=30))).changes:
                await site.host.converge(site.agent())
                await site.older()
            site.untouched()

        await cut_everywhere(site, lambda: site.agent(interval=30), signal, as_before)
        site.upgraded()
        await site.host.converge(site.gone)
        assert site.left() == []

    within(init, tmp_path, steps)


@every_init
def test_an_upgrade_that_is_killed_is_done_again(init: str, tmp_path: Path) -> None:
    async def steps(site: Site) -> None:
        await site.host.converge(site.agent())
        await site.keep()
        await site.older()

        async def again() -> None:
            await site.host.converge(site.agent(interval=30))
            site.upgraded()
            assert site.status()["interval_s"] == "30.000" or init == "cron"
            await site.host.converge(site.agent())
            await site.older()

        await cut_everywhere(site, lambda: site.agent(interval=30), "KILL", again)
        await site.host.converge(site.gone)
        assert site.left() == []

    within(init, tmp_path, steps)


@pytest.mark.parametrize("signal", ["TERM", "HUP", "KILL"])
@every_init
def test_a_removal_that_is_cut_is_done_by_the_next(init: str, signal: str, tmp_path: Path) -> None:
    async def steps(site: Site) -> None:
        await site.host.converge(site.agent())
        await site.keep()

        async def again() -> None:
            await site.host.converge(site.gone)
            assert site.left() == []
            await site.host.converge(site.agent())
            await site.keep()

        await cut_everywhere(site, lambda: site.gone, signal, again)
        assert site.left() == []

    within(init, tmp_path, steps)


#: How an install fails: what is declared besides, the program that fails and how, what is said.
_FAILURES: dict[tuple[str, str], tuple[dict[str, Any], str, str, str]] = {
    **{
        (init, "self-test"): ({"ca_file": "/nowhere/ca.pem"}, "", "", "/nowhere/ca.pem cannot be read")
        for init in INITS
    },
    ("systemd", "manager"): ({}, "systemctl", "case $1 in enable) echo broken >&2; exit 1;; esac", "broken"),
    ("openrc", "manager"): (
        {},
        "rc-update",
        '[ "$1$2" != "-qadd" ] || { echo broken >&2; exit 1; }',
        "broken",
    ),
    ("systemd", "start"): (
        {},
        "systemctl",
        'if [ "$1" = restart ] && grep -q \'S="30"\' '
        "/etc/fazai/telemetry.env; then systemctl stop $2; exit 0; fi",
        "did not come up",
    ),
    ("openrc", "start"): (
        {},
        "rc-service",
        'if [ "$2" = restart ] && grep -q \'S="30"\' '
        "/etc/fazai/telemetry.env; then rc-service $1 stop; exit 0; fi",
        "did not come up",
    ),
    ("cron", "start"): (
        {},
        "su",
        "case $4 in *--once*) ! grep -q 'S=\"60\"' /etc/fazai/telemetry.env && "
        "grep -qF 0.0.9 /opt/fazai/agent/telemetry.sh || exit 1;; esac",
        "did not come up",
    ),
}


@pytest.mark.parametrize(("init", "how"), sorted(_FAILURES))
def test_an_install_that_fails_leaves_what_was_there(init: str, how: str, tmp_path: Path) -> None:
    more, program, script, said = _FAILURES[init, how]

    async def steps(site: Site) -> None:
        wanted = site.agent(interval=30 if init != "cron" else 120, **more)
        if program:
            await site.fails(program, script)
        with pytest.raises(DeviceError, match=said):
            await site.write(wanted)
        assert site.left() == []
        if program:
            await site.fails(program, "")
        await site.host.converge(site.agent())
        await site.keep()
        await site.older()
        if program:
            await site.fails(program, script)
        with pytest.raises(DeviceError, match=said):
            await site.write(wanted)
        if init != "cron":
            site.untouched()
        assert site.temporary() == []
        if program:
            await site.fails(program, "")
        if not more:
            await site.host.converge(wanted)
            site.upgraded()

    within(init, tmp_path, steps)
