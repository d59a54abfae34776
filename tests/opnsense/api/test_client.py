"""Faults on the line, each over real HTTP: what is said, what is repeated, and what is not."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import time
from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest

from fazai.errors import AccessDenied, DeviceError, FazaiError, NotAvailable, Unreachable, Unsure
from fazai.lab import Fault, LabFirewall
from fazai.lab.server.wire import LabReply, LabRequest
from fazai.lab.settings import Tls
from fazai.model import Target
from fazai.providers.opnsense.api.calls import ApiCall
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.clock import SystemClock
from tests.opnsense.helpers import FakeClock, Start, apply, apply_in, plan, resource, run, session, target

ALIAS = resource("opnsense.alias", {"name": "a", "type": "host", "content": ["192.0.2.1"]})
CRON = resource("opnsense.cron_job", {"description": "check", "command": "firmware poll"})
RULE = resource("opnsense.rule", {"description": "r", "interface": ["lan"]})


def failure(to: Target, clock: FakeClock | None = None) -> FazaiError:
    """The error that looking at the firewall raises."""

    async def look() -> None:
        async with session(to, clock or FakeClock()) as work:
            await work.observe([ALIAS])

    with pytest.raises(FazaiError) as caught:
        run(look())
    return caught.value


At = Literal["before", "middle", "after"]


def fill(firewall: LabFirewall) -> None:
    """Enough aliases for an answer whose head is a small part of it."""
    firewall.seed("alias", [{"name": f"s{n}", "type": "host", "content": "192.0.2.9"} for n in range(60)])


def locked(firewall: LabFirewall) -> bool:
    """Whether the door is shut; asked anew each time."""
    return firewall.locked_out


CASES: list[tuple[Fault, type[FazaiError], str]] = [
    (Fault(kind="unauthorized"), AccessDenied, "does not know this API key or its secret"),
    (Fault(kind="login"), AccessDenied, "login page: not authenticated"),
    (Fault(kind="not_found"), NotAvailable, "firewall/alias/searchItem is not on this firewall"),
    (
        Fault(kind="status", status=404, body="<html>"),
        AccessDenied,
        "a web page with status 404 came instead",
    ),
    (
        Fault(kind="status", status=403, body="<html>"),
        AccessDenied,
        "a web page with status 403 came instead",
    ),
    (Fault(kind="html"), Unreachable, "a web page instead of data"),
    (Fault(kind="truncate"), Unreachable, "bytes that are not whole JSON"),
    (Fault(kind="status", status=500), Unreachable, "status 500: Unexpected error"),
    (Fault(kind="status", status=503, body="busy"), Unreachable, "status 503"),
    (Fault(kind="status", status=418, body="{}"), DeviceError, "status 418"),
    (Fault(kind="status", status=200, body='{"rows": [1, null]}'), Unreachable, "without rows"),
    (Fault(kind="cut", at="before"), Unreachable, "closed the connection before it answered"),
    (Fault(kind="cut", at="middle"), Unreachable, "closed the connection in the middle of the answer"),
]


@pytest.mark.parametrize(("fault", "kind", "text"), CASES, ids=lambda value: getattr(value, "kind", None))
def test_faults_become_sentences(start: Start, fault: Fault, kind: type[FazaiError], text: str) -> None:
    firewall = start(faults=(fault,))
    fill(firewall)
    error = failure(target(firewall))
    assert type(error) is kind
    assert text in error.message
    assert error.where == "fw-01"
    assert firewall.api_secret not in str(error)


def test_repeatable_calls_are_repeated_with_growing_pauses(start: Start) -> None:
    firewall = start(faults=(Fault(kind="status", status=503),))
    clock = FakeClock()
    failure(target(firewall, retries=3), clock)
    assert firewall.counters["requests"] == 4
    assert clock.slept == [0.375, 0.75, 1.5]


def test_retry_after_is_honoured_up_to_a_limit(start: Start) -> None:
    firewall = start(
        faults=(
            Fault(kind="status", status=429, retry_after_s=7, times=1),
            Fault(kind="status", status=503, retry_after_s=4000, after=1, times=1),
        )
    )
    clock = FakeClock()

    async def look() -> None:
        async with session(target(firewall), clock) as work:
            await work.observe([ALIAS])

    run(look())
    assert clock.slept == [7, 30]


@pytest.mark.parametrize("at", ["before", "after", "middle"])
def test_a_write_that_is_cut_is_repeated_without_a_duplicate(start: Start, at: At) -> None:
    firewall = start(faults=(Fault(kind="cut", path="firewall/*/set*", times=1, at=at),))

    async def work_on() -> tuple[int, int]:
        async with session(target(firewall), FakeClock()) as work:
            done = await apply_in(work, [ALIAS, RULE])
            return len(done.diff.changes), len(done.after.steps)

    assert run(work_on()) == (2, 0)


def test_connection_that_the_server_closes_is_replaced_silently(start: Start) -> None:
    firewall = start(keepalive_requests=3)
    aliases = [resource("opnsense.alias", {"name": f"a{n}", "type": "host"}) for n in range(10)]
    clock = FakeClock()

    async def work_on() -> int:
        async with session(target(firewall), clock) as work:
            return len((await apply_in(work, aliases)).after.steps)

    assert run(work_on()) == 0
    assert clock.slept == []
    assert firewall.counters["connections"] >= 4


def test_slow_drip_ends_with_the_total_timeout(start: Start) -> None:
    firewall = start(faults=(Fault(kind="drip", bytes_per_s=2_000),))
    fill(firewall)
    error = failure(target(firewall, timeout=1, connect_timeout=0.9, retries=0))
    assert isinstance(error, Unreachable)
    assert error.stage == "read"
    assert "was not complete after 1 s" in error.message


def test_a_long_time_to_connect_is_none_for_the_answer(start: Start) -> None:
    """The firewall drips for longer than this test waits; it is connected at once."""
    firewall = start(faults=(Fault(kind="drip", bytes_per_s=1_000),))
    fill(firewall)
    begun = time.monotonic()
    error = failure(target(firewall, timeout=1, connect_timeout=60, retries=0))
    assert "was not complete after 1 s" in error.message  # it has begun: a busy machine needs its time
    assert time.monotonic() - begun < 30  # it would be 60 s, and there is nothing else to wait for


def test_no_answer_in_time_says_the_stage(start: Start) -> None:
    firewall = start(faults=(Fault(kind="delay", delay_s=5),))
    error = failure(target(firewall, timeout=0.5, connect_timeout=10, retries=0))
    assert isinstance(error, Unreachable)
    assert error.stage == "answer"
    assert "did not answer firewall/alias/searchItem within 0.5 s" in error.message


def test_refused_and_unknown_names() -> None:
    secret = {"api_key": "k", "api_secret": "s"}

    async def closed_port() -> int:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return port

    refused = Target(
        "fw-01", "opnsense", "write", {"base_url": f"http://127.0.0.1:{run(closed_port())}", "secret": secret}
    )
    error = failure(refused)
    assert isinstance(error, Unreachable)
    assert error.stage == "connect"
    assert "refused the connection" in error.message
    unknown = Target(
        "fw-01", "opnsense", "write", {"base_url": "https://no-such-host.invalid", "secret": secret}
    )
    error = failure(unknown)
    assert isinstance(error, Unreachable)
    assert (error.stage, error.message) == ("resolve", "the name no-such-host.invalid cannot be resolved")


def test_add_whose_answer_was_lost_is_looked_for_first(start: Start) -> None:
    moments: tuple[At, ...] = ("before", "after")
    for at in moments:
        firewall = start(faults=(Fault(kind="cut", path="cron/settings/addJob", times=1, at=at),))
        done = run(apply(target(firewall), [CRON]))
        assert done.after.steps == ()
        assert len(firewall.call("POST", "/api/cron/settings/searchJobs", {})["rows"]) == 1


def test_add_whose_answer_is_lost_again_and_again_is_unsure(start: Start) -> None:
    firewall = start(faults=(Fault(kind="cut", path="cron/settings/addJob", at="before"),))
    with pytest.raises(Unsure) as caught:
        run(apply(target(firewall), [CRON]))
    assert caught.value.where == "fw-01/opnsense.cron_job/check"


def test_missing_privilege_is_named(start: Start) -> None:
    firewall = start()
    firewall.call(
        "POST",
        "/api/auth/user/add",
        {"user": {"name": "limited", "password": "Secret-123-x", "priv": "page-firewall-categories"}},
    )
    key = firewall.call("POST", "/api/auth/user/addApiKey/limited", {})
    error = failure(target(firewall, secret={"api_key": key["key"], "api_secret": key["secret"]}))
    assert isinstance(error, AccessDenied)
    assert "lacks the privilege page-firewall-alias-edit" in error.message


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        ("expired", "has expired"),
        ("wrong_host", "is for another name than 127.0.0.1"),
        ("self_signed", "is self-signed, or its authority is not known here"),
    ],
)
def test_certificates_that_are_refused(
    start: Start, variant: Literal["expired", "wrong_host", "self_signed"], text: str
) -> None:
    firewall = start(tls=Tls(variant))
    error = failure(target(firewall))
    assert isinstance(error, Unreachable)
    assert error.stage == "tls"
    assert text in error.message
    assert re.search(
        r"shown is (for [^;]*, valid until \d{4}-\d\d-\d\d, )?sha256:[0-9a-f]{64}", error.hint or ""
    )
    assert firewall.counters["requests"] == 0


def test_tls_with_our_own_authority_and_without_verification(start: Start) -> None:
    firewall = start(tls=Tls())
    assert run(plan(target(firewall), [ALIAS])).notes == ()
    unverified = run(plan(target(firewall, ca=None, verify_tls=False), [ALIAS]))
    assert unverified.notes == ("the certificate of fw-01 is not verified (verify_tls: false)",)
    unknown = failure(target(firewall, ca=None))
    assert isinstance(unknown, Unreachable)
    assert unknown.stage == "tls"


def test_pinned_certificate(start: Start) -> None:
    firewall = start(tls=Tls("self_signed"))
    port = int(firewall.base_url.rpartition(":")[2])
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    pin = "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert run(plan(target(firewall, ca=None, fingerprint=pin), [ALIAS])).steps
    asked = firewall.counters["requests"]
    error = failure(target(firewall, ca=None, fingerprint="sha256:" + "0" * 64))
    assert isinstance(error, Unreachable)
    assert "not the pinned one" in error.message
    assert pin in (error.hint or "")
    assert firewall.counters["requests"] == asked


def test_reserve_connections_undo_an_activation_that_locked_us_out(start: Start) -> None:
    firewall = start(keepalive_requests=16)
    firewall.inject(Fault(kind="lockout", rule="shut the door"))
    wanted = [resource("opnsense.rule", {"description": f"r{n}", "interface": ["lan"]}) for n in range(20)]
    bad = resource("opnsense.rule", {"description": "shut the door", "interface": ["wan"], "action": "block"})

    async def lock_out_and_undo() -> None:
        async with session(target(firewall, probe_timeout=1, retries=0), FakeClock()) as work:
            seen = await work.observe([*wanted, bad])
            diff = work.diff([*wanted, bad], seen)
            done = [(change, await work.write(change)) for change in diff.changes]
            await work.hold()
            await work.activate("filter")
            assert locked(firewall)
            with pytest.raises(Unreachable, match="does not answer new connections any more"):
                await work.probe()
            for change, ref in reversed(done):
                await work.write(work.inverse(change, ref))
            await work.activate("filter")
            assert not locked(firewall)
            await work.probe()

    run(lock_out_and_undo())
    assert all(
        row["description"] != "shut the door"
        for row in firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    )


def test_reserve_connections_undo_changes_of_rules(start: Start) -> None:
    """A change of a rule looks first whether the rule is there: undone, it takes two calls."""
    firewall = start(keepalive_requests=16)
    names = [{"description": f"r{n}", "interface": ["lan"]} for n in range(40)]
    made = [resource("opnsense.rule", fields) for fields in names]
    wanted = [resource("opnsense.rule", {**fields, "log": True}) for fields in names]

    async def change_and_undo() -> None:
        async with session(target(firewall, probe_timeout=1, retries=0), FakeClock()) as work:
            await apply_in(work, made)
        firewall.inject(Fault(kind="lockout"))
        async with session(target(firewall, probe_timeout=1, retries=0), FakeClock()) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            done = [(change, await work.write(change)) for change in diff.changes]
            assert len(done) == 40
            await work.hold()
            await work.activate("filter")
            assert locked(firewall)
            for change, ref in reversed(done):
                await work.write(work.inverse(change, ref))

    run(change_and_undo())
    rows = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
    assert {row["log"] for row in rows if row["description"].startswith("r")} == {"0"}


def test_what_took_the_address_gets_no_request_of_the_undoing(start: Start) -> None:
    """Whatever answers new connections in the firewall's place: what is undone goes over those kept open."""
    firewall = start(keepalive_requests=4)  # the main connection is closed before it comes to that
    strange = Fault(kind="status", path="diagnostics/interface/*", status=404, body="<html>")
    wanted = [resource("opnsense.alias", {"name": "one", "type": "host", "content": ["192.0.2.1"]})]

    async def undo_it() -> None:
        async with session(target(firewall, probe_timeout=1, retries=0), FakeClock()) as work:
            diff = work.diff(wanted, await work.observe(wanted))
            change = diff.changes[0]
            ref = await work.write(change)
            await work.hold()
            await work.activate("alias")
            firewall.inject(strange)
            with pytest.raises(Unreachable, match="something else does"):
                await work.probe()
            opened = firewall.counters["connections"]
            await work.write(work.inverse(change, ref))
            await work.activate("alias")
            assert firewall.counters["connections"] == opened

    run(undo_it())
    assert firewall.call("POST", "/api/firewall/alias/getAliasUUID/one") in ([], {})


def test_posts_carry_json_and_gets_nothing(firewall: LabFirewall) -> None:
    async def both() -> None:
        async with session(target(firewall)) as work:
            api = Api(work._settings, SystemClock())
            try:
                assert await api.get("core/system/status")
                assert await api.call(ApiCall("POST", "firewall/alias/reconfigure")) == {"status": "ok"}
            finally:
                await api.close()

    run(both())


@pytest.mark.parametrize("total", [10**9, "1000000000"])
def test_rows_that_were_not_sent_are_not_absent(
    start: Start, monkeypatch: pytest.MonkeyPatch, total: Any
) -> None:
    """What is missing in an answer must not look as if it had to be created."""
    firewall = start()
    handle = firewall._site.handle

    def page(request: LabRequest) -> LabReply:
        reply = handle(request)
        body = msgspec.json.decode(reply.body)
        return replace(reply, body=msgspec.json.encode({**body, "total": total}))

    monkeypatch.setattr(firewall._site, "handle", page)
    assert "of 1000000000 rows" in failure(target(firewall)).message
