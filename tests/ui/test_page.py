"""The operators' page in a real browser. Each test ends with: no error on the console, no violation of the
policy (`page` looks), nothing asked of another machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.runs.config import Polling
from fazai.lab import Fault
from fazai.timestamps import utc_now
from fazai.wire.events import LogEvent
from tests.daemon.live import Live, live, token, until
from tests.daemon.runs_world import World, world
from tests.daemon.southbound.client import execute
from tests.daemon.southbound.world import agents_world
from tests.ui.browser import Page
from tests.ui.world import HOSTILE, RUN, change, drifting_run, hosts, register, report, series

pytestmark = pytest.mark.slow

ROWS = "#fleet tbody tr:not(.space)"
SHOTS = Path(__file__).parents[2] / "docs" / "img"


class Site:
    """A daemon, and a page that looks at it."""

    def __init__(self, daemon: Live, client: httpx.Client, page: Page) -> None:
        self.daemon = daemon
        self.client = client
        self.page = page

    def open(self, place: str = "") -> Page:
        self.page.go(f"{self.daemon.url}/ui{place}")
        return self.page


@pytest.fixture
def site(page: Page, tmp_path: Path) -> Iterator[Site]:
    with live(tmp_path) as daemon, daemon.client() as client:
        yield Site(daemon, client, page)
        page.go("about:blank")  # its streams end before the daemon does
        foreign = [url for url in page.requests if not url.startswith((daemon.url, "about:"))]
        assert foreign == []


def names(page: Page) -> list[str]:
    return page.texts(f"{ROWS} a")


# -- the fleet


def test_two_thousand_hosts_in_a_few_rows(site: Site) -> None:
    hosts(site.client, [f"host-{number:04d}" for number in range(2000)])
    page = site.open()
    page.until("document.getElementById('summary').textContent.startsWith('2,000 machines: 2,000 up')")
    assert names(page)[:3] == ["host-0000", "host-0001", "host-0002"]
    assert page.count(ROWS) <= 60
    assert page.count("*") <= 1500
    for share in (0.25, 0.5, 1.0):
        page.run(
            "(share) => { const one = document.getElementById('fleet');"
            " one.scrollTop = share * one.scrollHeight; }",
            share,
        )
        page.until(
            "(share) => { const rows = [...document.querySelectorAll('#fleet tbody tr:not(.space)')];"
            " const box = document.getElementById('fleet').getBoundingClientRect();"
            " const seen = rows.filter((row) => { const r = row.getBoundingClientRect();"
            " return r.bottom > box.top + 33 && r.top < box.bottom; });"
            " const wanted = share * (2000 - seen.length);"
            " return seen.length >= 15 && Math.abs(Number(seen[0].dataset.index) - wanted) < 12; }",
            share,
        )
        assert page.count(ROWS) <= 60
        assert page.count("*") <= 1500
    assert names(page)[-1] == "host-1999"
    assert page.run("document.querySelector('table.fleet').getAttribute('aria-rowcount')") == "2001"
    assert (
        page.run("document.querySelector('#fleet tbody tr:not(.space):nth-last-child(2)').ariaRowIndex")
        == "2001"
    )


def test_filter_and_sort(site: Site) -> None:
    hosts(site.client, [f"host-{number:02d}" for number in range(30)])
    register(site.daemon, "fw-01", up=True)
    register(site.daemon, "fw-02", up=False)
    drifting_run(site.client)
    page = site.open()
    page.until("document.getElementById('summary').textContent.startsWith('32 machines: 31 up, 1 down')")
    assert "2 drifted" in page.text("#summary")
    assert names(page)[:3] == ["fw-02", "fw-01", "host-00"]  # what asks for attention
    page.run("document.getElementById('filter').focus()")
    page.type("host-1")
    page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length === 10")
    assert "10 shown" in page.text("#summary")
    page.run("document.getElementById('filter').select()")
    page.type("25.7.4")
    page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length === 2")
    assert names(page) == ["fw-02", "fw-01"]  # down before drifted
    assert page.run("document.querySelector('th[data-column=state]').ariaSort") == "ascending"
    page.click("th[data-column=state] button")
    page.until("document.querySelector('#fleet tbody tr:not(.space) a').textContent === 'fw-01'")
    page.click("th[data-column=name] button")
    page.until("document.querySelector('th[data-column=name]').ariaSort === 'ascending'")
    assert names(page) == ["fw-01", "fw-02"]
    assert page.text(f"{ROWS}[data-index='0'] .drifted") == "2 pending"
    assert page.text(f"{ROWS}[data-index='1'] .drifted") == "unreachable"
    page.choose("#state", "down")
    page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length === 1")
    assert page.text(f"{ROWS} .state") == "down"


def test_a_host_that_falls_silent_is_seen(site: Site) -> None:
    hosts(site.client, ["web-1", "web-2"])
    services = site.daemon.services
    site.daemon.call(lambda: services.store.mark_silent({"web-1": True}))
    page = site.open()
    page.until(
        "document.getElementById('summary').textContent.startsWith('2 machines: 1 up, 1 down or silent')"
    )
    assert page.texts(f"{ROWS} .state") == ["silent", "up"]


def test_remote_agents_stand_in_the_rows_of_their_machines(page: Page, tmp_path: Path) -> None:
    with agents_world(tmp_path) as world, world.live.client() as client:
        hosts(client, ["edge-7", "web-1"])
        with world.agent("edge-7") as seven, world.agent("edge-8"), world.relay() as relay:
            relay.begin("edge-7", execute("a-1"))
            request = seven.recv()
            seven.send({"ok": False, "action_id": "a-1", "error": "no", "code": "not_allowed"})
            assert relay.recv()["answer"]["code"] == "not_allowed"
            assert request["action_id"] == "a-1"
            page.go(f"{world.live.url}/ui")
            page.until("document.getElementById('summary').textContent.startsWith('3 machines: 3 up')")
            assert names(page) == ["edge-7", "edge-8", "web-1"]
            assert page.texts(f"{ROWS} td:nth-child(3)") == ["host", "agent", "host"]
            first, second, third = page.texts(f"{ROWS} td:nth-child(7)")
            assert re.fullmatch(r"observation(, [0-9.]+ ms)?, not_allowed", first), first
            assert re.fullmatch(r"observation(, [0-9.]+ ms)?", second), second
            assert third == ""
            page.choose("#kind", "agent")
            page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length === 2")
            page.go(f"{world.live.url}/ui#/machine/agent/edge-8")
            page.until("document.querySelector('#facts') !== null")
            facts = page.text("#facts")
            assert "observation" in facts
            assert "state.observe" in facts
        page.go("about:blank")
        page.go(f"{world.live.url}/ui")
        page.until("document.getElementById('summary').textContent.startsWith('3 machines: 2 up, 1 down')")
        assert page.text(f"{ROWS}[data-index='0'] .state") == "down"  # edge-7 still reports
        page.go("about:blank")


# -- the keyboard


def focused(page: Page) -> str:
    found: str = page.run(
        "(() => { const one = document.activeElement;"
        " return one.id || one.closest('th')?.dataset.column || one.textContent || one.tagName; })()"
    )
    return found


def test_the_order_of_the_keyboard(site: Site) -> None:
    hosts(site.client, [f"host-{number:03d}" for number in range(300)])
    page = site.open()
    page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length > 5")
    seen = []
    for _ in range(21):
        page.key("Tab")
        seen.append(focused(page))
    columns = ["state", "name", "kind", "seen", "drift", "version", "agent", "load", "cpu", "memory", "disk"]
    menu = ["Fleet", "Events", "Runs", "Sessions ", "Knowledge"]
    wanted = ["skip", *menu, "filter", "kind", "state", *columns, "host-000"]
    if "fleet" in seen:  # a browser may let the keyboard scroll what scrolls
        seen.remove("fleet")
        page.key("Tab")
        seen.append(focused(page))
    assert seen == wanted
    for key, name in (("ArrowDown", "host-001"), ("End", "host-299"), ("ArrowUp", "host-298")):
        page.key(key)
        assert focused(page) == name
        inside = page.run(
            "(() => { const box = document.getElementById('fleet').getBoundingClientRect();"
            " const one = document.activeElement.getBoundingClientRect();"
            " return one.top >= box.top && one.bottom <= box.bottom; })()"
        )
        assert inside
    page.key("Enter")
    page.until("location.hash === '#/machine/host/host-298'")
    page.until("document.querySelector('#facts') !== null")
    assert page.text("h1.machine") == "host-298"


# -- events


def test_a_live_event_pause_and_filter(site: Site) -> None:
    page = site.open("#/events")
    page.until("document.getElementById('link').textContent === 'live'")
    site.daemon.publish(LogEvent(timestamp=utc_now(), level="error", message="the first one", target="fw-01"))
    page.until("document.querySelector('.event.bad')?.textContent.includes('the first one')")
    page.click("#pause")
    site.daemon.publish(
        *[LogEvent(timestamp=utc_now(), level="info", message=f"later {n}") for n in range(5)]
    )
    page.until("document.getElementById('summary').textContent === 'paused, 5 new events'")
    assert not any("later" in text for text in page.texts(".event"))
    page.click("#pause")
    page.until("document.querySelector('.event').textContent.includes('later 4')")
    page.run("document.getElementById('filter').focus()")
    page.type("fw-01")
    page.until("document.querySelectorAll('.event').length === 1")
    site.daemon.publish(
        LogEvent(timestamp=utc_now(), level="info", message="not this"),
        LogEvent(timestamp=utc_now(), level="info", message="fw-01 again"),
    )
    page.until("document.querySelectorAll('.event').length === 2")
    page.choose("#level", "error")
    page.until("document.querySelectorAll('.event').length === 1")


def test_what_there_is_not_is_said(site: Site) -> None:
    page = site.page
    site.open("#/fleet")
    page.until("document.querySelector('#summary').textContent.startsWith('No machine yet')")
    assert page.run("document.querySelector('#fleet').offsetHeight") == 0
    site.open("#/run/01KANHC0E8M5T3W9Q7Z2R4V6XZ")
    page.until("document.querySelector('main').innerText.includes('does not know this run')")
    assert "Targets" not in page.run("document.querySelector('main').innerText")
    page.faults.clear()  # the browser's own word of the 404


def test_many_events_stay_few_lines(site: Site) -> None:
    page = site.open("#/events")
    page.until("document.getElementById('link').textContent === 'live'")
    site.daemon.publish(
        *[LogEvent(timestamp=utc_now(), level="info", message=f"event {n}") for n in range(3000)]
    )
    page.until("document.querySelector('.event')?.textContent.includes('event 2999')")
    assert page.count(".event") <= 300
    assert page.text("#summary").startswith("2,000 events")


def test_it_comes_back_and_shows_a_gap(page: Page, tmp_path: Path) -> None:
    """The daemon goes away and comes back on its port, with its history trimmed meanwhile."""
    from fazai.store.daemon import StoreLimits

    page.expected = ["ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_EMPTY"]
    with live(tmp_path) as daemon:
        port = daemon.port
        page.go(f"{daemon.url}/ui#/events")
        page.until("document.getElementById('link').textContent === 'live'")
        daemon.publish(LogEvent(timestamp=utc_now(), level="info", message="before"))
        page.until("document.querySelector('.event')?.textContent.includes('before')")
    page.until("document.getElementById('link').textContent.includes('coming back')")
    away = StoreLimits(events_bytes=2000, upkeep_s=0.05)
    with live(tmp_path, away) as daemon:  # on another port: nobody listens to it
        daemon.publish(
            *[
                LogEvent(timestamp=utc_now(), level="info", message=f"{n:04d} " + "x" * 200)
                for n in range(200)
            ]
        )
        page_first = daemon.services.store.event_range
        end = 500
        while page_first()[0] < 100 and end:
            daemon.publish(LogEvent(timestamp=utc_now(), level="info", message="y" * 200))
            end -= 1
        assert page_first()[0] >= 100
    with live(tmp_path, listen_port=port) as daemon:
        page.until("document.getElementById('link').textContent === 'live'")
        page.until("[...document.querySelectorAll('.event[data-type=gap]')].length === 1")
        assert "are not shown here: no longer kept" in page.text(".event[data-type=gap]")
        daemon.publish(LogEvent(timestamp=utc_now(), level="info", message="after"))
        page.until("document.querySelector('.event').textContent.includes('after')")
        page.go("about:blank")
    page.faults[:] = [
        one for one in page.faults if "ERR_CONNECTION" not in one and "ERR_INCOMPLETE" not in one
    ]


# -- a machine


def drawn(page: Page, chart: str) -> list[int]:
    """The number of points of each line."""
    found: list[int] = page.run(
        "(chart) => [...document.querySelectorAll(`[data-chart=${chart}] path`)]"
        ".map((one) => (one.getAttribute('d').match(/[ML]/g) ?? []).length)",
        chart,
    )
    return found


def test_charts_of_a_host(site: Site) -> None:
    series(site.client, "web-1")
    page = site.open("#/machine/host/web-1")
    page.until("document.querySelectorAll('.chart path').length === 10")
    page.until("document.querySelector('[data-chart=load1] path').getAttribute('d').length > 100")
    for chart, lines in (("load1", 3), ("cpu_busy_ratio", 1), ("used", 2), ("receive", 2), ("disk_used", 2)):
        counts = drawn(page, chart)
        assert len(counts) == lines
        assert all(count >= 57 for count in counts), (chart, counts)
        high = page.run(
            "(chart) => { const box = document.querySelector(`[data-chart=${chart}] path`).getBBox();"
            " return box.width > 200 && box.height >= 0; }",
            chart,
        )
        assert high
    assert "MiB/s" in page.text("[data-chart=receive] .said")
    assert page.run("document.querySelector('[data-chart=load1] svg').getAttribute('aria-label')").startswith(
        "Load: 1 min now "
    )
    page.run("document.querySelector('[data-chart=load1] svg').focus()")
    page.key("Home")
    first = page.text("[data-chart=load1] .said")
    page.key("ArrowRight")
    assert page.text("[data-chart=load1] .said") != first
    page.choose("#range", "86400")
    page.until("document.querySelectorAll('[data-chart=load1] .hour').length >= 4")
    assert page.text("#facts").startswith("Stateup")


def test_a_firewall_and_a_target(site: Site) -> None:
    register(site.daemon, "fw-02", up=False)
    drifting_run(site.client)
    site.page.expected = ["status of 404"]  # it is in the store alone, nobody polls it
    page = site.open("#/machine/firewall/fw-02")
    page.until("document.getElementById('facts')?.textContent.includes('no answer within 10 s')")
    page.until("document.querySelector('.event.bad') !== null")
    page = site.open("#/machine/any/fw-01")
    page.until("document.getElementById('facts')?.textContent.includes('2 changes pending')")
    page.click("#facts a")
    page.until(f"location.hash === '#/run/{RUN}'")


# -- runs


def test_a_run_and_its_diff(site: Site) -> None:
    drifting_run(site.client)
    page = site.open("#/runs")
    page.until("document.querySelectorAll('#runs tbody tr').length === 1")
    assert "unreachable" in page.text("#runs tbody tr")
    page.click("#runs tbody a")
    page.until("document.querySelectorAll('.change').length === 2")
    gone, come = page.texts(".diff .gone"), page.texts(".diff .come")
    assert gone == ["-content: 203.0.113.9", "-description: old"]
    assert come == ["+content: 198.51.100.7", "+description: new", "+password: ***"]
    assert "fw-02: no answer" in page.text("[data-target=fw-02]")
    assert page.count("#approve") == 0


def test_lists_that_differ_in_order_are_shown_whole(site: Site) -> None:
    """What came and what went says nothing of the order, nor of how often."""
    lists = {
        "order": (["a", "b", "c"], ["c", "b", "d"]),
        "twice": (["a", "b"], ["b", "b"]),
        "few": (["a", "b", "c"], ["a", "c", "d"]),
    }
    before, after = ({name: pair[at] for name, pair in lists.items()} for at in (0, 1))
    drifting_run(site.client, change("fw-01", "listed", before=before, after=after))
    page = site.open(f"#/run/{RUN}")
    page.until("document.querySelectorAll('.change').length === 3")
    whole = ["order", "twice"]
    gone = [f"-{name}: {json.dumps(before[name], separators=(',', ':'))}" for name in whole]
    come = [f"+{name}: {json.dumps(after[name], separators=(',', ':'))}" for name in whole]
    assert page.texts(".change:last-child .diff .gone") == [*gone, "-few: b"]
    assert page.texts(".change:last-child .diff .come") == [*come, "+few: d"]


def test_a_large_run_is_drawn_when_it_is_opened(site: Site) -> None:
    changes = [change(f"fw-{n // 50:02d}", f"alias {n}") for n in range(900)]
    drifting_run(site.client, *changes)
    page = site.open(f"#/run/{RUN}")
    page.until("document.querySelectorAll('details.target').length === 18")
    assert page.count("*") <= 1500
    page.click("[data-target=fw-05] summary")
    page.until("document.querySelectorAll('[data-target=fw-05] .change').length === 50")


@pytest.fixture
def edge(page: Page, tmp_path: Path) -> Iterator[World]:
    """A daemon that may run `edge` against a firewall of the lab, and watches that firewall."""
    inventory = (str(tmp_path / "inventory.yml"),)
    with world(
        tmp_path, daemon={"inventory": inventory}, polling=Polling(every_s=0.3, timeout_s=20)
    ) as found:
        yield found
        page.go("about:blank")


def waiting(edge: World) -> tuple[str, str]:
    """A run that left a plan, and the plan's hash."""
    run_id = edge.started(edge.run())
    assert edge.ended(run_id)["plan_state"] == "pending"
    return run_id, edge.plan(run_id)["plan_hash"]


def test_a_plan_is_shown_approved_and_applied(edge: World, page: Page) -> None:
    run_id, plan_hash = waiting(edge)
    page.expected = ["status of 404"]  # of a run that was only just begun there are no changes yet
    page.go(f"{edge.daemon.url}/ui#/runs")
    page.until("document.querySelector('#runs td .drifted') !== null")
    page.click("#runs td a.drifted")  # it says: approve
    page.until("document.getElementById('approve') !== null")
    assert page.run("location.hash") == f"#/run/{run_id}"
    assert page.texts(".change .what strong") == ["+ opnsense.alias blocklist"]
    assert '+content: ["192.0.2.7"]' in page.texts(".diff .come")
    assert page.text("#approve") == "Approve 1 change on 1 target"
    assert plan_hash in page.text(".approve p:first-child")
    page.run("document.getElementById('approve').focus()")
    page.key("Enter")
    page.until(
        "(text) => document.getElementById('approve').textContent === text",
        f"Really apply plan {plan_hash[:12]}",
    )
    assert "blocklist" not in edge.aliases()
    page.key("Enter")
    page.until("(before) => location.hash !== before", f"#/run/{run_id}")
    applied = page.run("location.hash").removeprefix("#/run/")
    assert edge.ended(applied)["exit_code"] == 0
    assert "blocklist" in edge.aliases()
    page.until("document.getElementById('facts').textContent.startsWith('Resultconverged')")
    page.until("document.querySelector('[data-target=fw-01] .change .quiet').textContent === 'done'")
    page.go(f"{edge.daemon.url}/ui#/run/{run_id}")
    page.until("document.querySelectorAll('.change').length === 1")
    assert page.count("#approve") == 0  # a plan is approved once


def signed_in(page: Page, text: str, who: str) -> None:
    page.until("document.activeElement.id === 'token'")
    page.type(text)
    page.key("Enter")
    page.until("(who) => document.getElementById('who').textContent === who", who)


def test_who_may_not_approve_sees_no_button(edge: World, page: Page) -> None:
    run_id, _ = waiting(edge)
    viewer, operator = (token(edge.folder, name, name) for name in ("viewer", "operator"))
    until(lambda: edge.client.get("/runs").status_code == 401)
    page.expected = ["status of 401"]
    page.go(f"{edge.daemon.url}/ui#/run/{run_id}")
    signed_in(page, viewer, "token:viewer (viewer)")
    page.until("document.querySelectorAll('.change').length === 1")
    page.until("document.getElementById('facts').textContent.includes('pending')")
    assert page.count("#approve") == 0
    page.click("#leave")
    signed_in(page, operator, "token:operator (operator)")
    page.until("document.getElementById('approve') !== null")


def test_a_firewall_is_shown_as_the_poller_finds_it(edge: World, page: Page) -> None:
    until(lambda: [one.get("up") for one in edge.client.get("/fleet").json()["rows"]] == [True])  # once asked
    page.go(f"{edge.daemon.url}/ui")
    page.until("document.getElementById('summary').textContent.startsWith('1 machine: 1 up')")
    cells = page.texts(f"{ROWS} td")
    figures = edge.client.get("/opn/list").json()["items"][0]
    assert (cells[0], cells[1], cells[2]) == ("up", "fw-01", "firewall")
    assert figures["version"] in cells
    assert cells[8:10] == ["6 %", "20 %"]  # CPU and memory
    page.click(f"{ROWS} a")
    page.until("document.querySelectorAll('section[aria-label=Firewall] tbody tr').length === 4")
    assert page.text("section[aria-label=Firewall] dl").startswith("CPU6 %Memory20 %States0Uptime")
    rows = page.run(
        "[...document.querySelectorAll('section[aria-label=Firewall] tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert ["LAN", "up", "192.168.1.1/24"] in [[*row[:2], row[2].split(",")[0]] for row in rows]
    edge.firewall.inject(Fault(kind="cut", path="*"))
    until(lambda: not edge.client.get("/fleet").json()["rows"][0]["up"])
    page.go(f"{edge.daemon.url}/ui#/fleet")
    page.until("document.getElementById('summary').textContent.startsWith('1 machine: 0 up')")
    assert page.texts(f"{ROWS} .state") == ["down"]


# -- who may look


def test_login_with_a_token(page: Page, tmp_path: Path) -> None:
    page.expected = ["status of 401"]
    text = token(tmp_path, "night", "viewer")
    with live(tmp_path) as daemon, daemon.client(text) as client:
        page.go(f"{daemon.url}/ui")
        page.until("document.activeElement.id === 'token'")
        page.type("wrong")
        page.key("Enter")
        page.until("document.querySelector('[role=alert]').textContent.includes('not valid')")
        assert client.post("/ingest", json={}).status_code == 403
        page.until("document.activeElement.id === 'token'")
        page.type(text)
        page.key("Enter")
        page.until("document.getElementById('who').textContent === 'token:night (viewer)'")
        page.until("document.getElementById('summary').textContent.startsWith('No machine yet')")
        assert page.run("sessionStorage.length") == 1
        assert page.run("localStorage.length + document.cookie.length") == 0
        assert not any(text in url for url in page.requests)
        page.go(f"{daemon.url}/ui#/events")
        page.until("document.getElementById('link').textContent === 'live'")
        page.click("#leave")
        page.until("document.activeElement.id === 'token'")
        assert page.run("sessionStorage.length") == 0
        page.go("about:blank")


# -- what devices say is text


def test_hostile_names_and_messages_are_text(site: Site) -> None:
    hosts(site.client, [HOSTILE, "javascript:alert(1)", "..", "a/b?c#d"])
    markup = (
        "<script>document.body.dataset.hacked=1</script><img src=x onerror=document.body.dataset.hacked=1>"
    )
    site.daemon.publish(
        LogEvent(timestamp=utc_now(), level="error", message=markup, logger=markup, target=markup)
    )
    outcome = {
        "type": "outcome",
        "target": HOSTILE,
        "status": "failed",
        "errors": [markup],
        "notes": [markup],
    }
    fields: dict[str, Any] = {
        "before": {markup: markup},
        "after": {markup: [markup]},
        "error": markup,
        "note": markup,
    }
    report(site.client, RUN, change(HOSTILE, markup, **fields), outcome)
    page = site.open()
    page.expected = ["status of 404"]
    page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length === 4")
    assert HOSTILE in names(page)
    for name in ("..", "a/b?c#d", "javascript:alert(1)", HOSTILE):
        page.until(
            "(name) => { const all = [...document.querySelectorAll('#fleet a')];"
            " const one = all.find((a) => a.textContent === name);"
            " one?.click(); return !!one; }",
            name,
        )
        page.until("document.getElementById('facts') !== null")
        assert page.text("h1.machine") == name
        page.until("document.querySelector('[data-chart=load1] path') !== null")
        site.open("#/fleet")
        page.until("document.querySelectorAll('#fleet tbody tr:not(.space)').length === 4")
    site.open("#/events")
    page.until(
        "(text) => [...document.querySelectorAll('.event .text')]"
        ".some((one) => one.textContent.includes(text))",
        markup,
    )
    site.open(f"#/run/{RUN}")
    page.until("document.querySelectorAll('.diff .come').length === 1")
    assert markup in page.text(".diff .gone")
    site.open(f"#/run/{HOSTILE}")
    page.until("document.querySelector('main').innerText.includes('does not know this run')")
    assert page.count("main img, main script") == 0
    assert page.run("document.body.dataset.hacked") is None


def test_markup_cannot_be_written_at_all(site: Site) -> None:
    """The policy stops what a later mistake would let through."""
    page = site.open()
    page.expected = ["Trusted", "ContentSecurityPolicyIssue", "Content Security Policy", "unsafe-eval"]
    page.until("document.getElementById('summary') !== null")
    script = "document.createElement('script').text = '1'"
    for sink in ("document.body.innerHTML = '<b>x</b>'", script, "document.write('<b>x</b>')"):
        said = page.run(
            f"(() => {{ try {{ {sink}; return 'written'; }} catch (e) {{ return String(e); }} }})()"
        )
        assert "TypeError" in said
        assert "Trusted" in said
    handler = (
        "document.body.setAttribute('onclick', 'document.body.dataset.hacked = 1'); document.body.click()"
    )
    page.run(f"(() => {{ try {{ {handler}; }} catch {{ return; }} }})()")
    assert page.run("document.body.dataset.hacked") is None
    page.until("true")
    assert any("TrustedHTML" in one for one in page.faults)


# -- how it looks


def test_small_screens_need_no_sideways_scrolling(site: Site) -> None:
    hosts(site.client, [f"a-host-with-quite-a-long-name-{number:03d}.example.net" for number in range(200)])
    series(site.client, "web-1")
    drifting_run(site.client)
    page = site.page
    page.size(360, 640, touch=True)
    for place, ready in (
        ("#/fleet", "document.querySelectorAll('#fleet tbody tr:not(.space)').length > 5"),
        ("#/events", "document.querySelectorAll('.event').length > 5"),
        ("#/runs", "document.querySelectorAll('#runs tbody tr').length === 1"),
        (f"#/run/{RUN}", "document.querySelectorAll('.change').length === 2"),
        ("#/machine/host/web-1", "document.querySelectorAll('.chart path').length > 5"),
    ):
        site.open(place)
        page.until(ready)
        assert page.run("document.documentElement.scrollWidth") <= 360, place
        if place == "#/fleet":
            shown = page.run(
                "[...document.querySelectorAll('th')].filter((one) => one.offsetWidth > 0)"
                ".map((one) => one.dataset.column)"
            )
            assert shown == ["state", "name", "seen", "drift"]
            widths = page.run("[...document.querySelectorAll('th')].map((one) => one.offsetWidth)")
            assert widths[1] >= 80  # of what the others leave, the name has all
            assert sum(widths) >= 320


def test_pictures_for_the_pages(site: Site) -> None:
    """Light and dark differ as they should; the pictures go to docs/img when asked for."""
    import os
    import zlib

    hosts(site.client, [f"{kind}-{number}" for kind in ("db", "mail", "web") for number in range(1, 9)])
    series(site.client, "web-1", minutes=59)
    for number in range(1, 7):
        register(site.daemon, f"fw-0{number}", up=number != 2)
    drifting_run(site.client)
    page = site.page
    page.size(1000, 620)
    for scheme, place, ready, name in (
        (
            "light",
            "#/fleet",
            "document.querySelectorAll('#fleet tbody tr:not(.space)').length > 20",
            "ui-fleet",
        ),
        (
            "dark",
            "#/machine/host/web-1",
            "document.querySelector('[data-chart=load1] path')?.getAttribute('d').length > 99",
            "ui-host",
        ),
        ("light", f"#/run/{RUN}", "document.querySelectorAll('.change').length === 2", "ui-run"),
        ("dark", "#/events", "document.querySelectorAll('.event').length > 20", "ui-events"),
    ):
        page.scheme(scheme)
        site.open(place)
        page.until(ready)
        back = page.run("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(251, 251, 250)", "dark": "rgb(17, 21, 19)"}[scheme]
        picture = page.shot()
        assert picture.startswith(b"\x89PNG")
        assert len(zlib.compress(picture)) > 10_000  # not one colour
        if os.environ.get("FAZAI_UI_PICTURES"):
            SHOTS.mkdir(exist_ok=True)
            (SHOTS / f"{name}-{scheme}.png").write_bytes(picture)
