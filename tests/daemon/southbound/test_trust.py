"""Agents that are connected are told which CAs to trust, while the CA is replaced."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from fazai.daemon.southbound.trust import PkiTrust
from fazai.errors import Refused
from fazai.pki import Authority, Enrolments
from fazai.pki.building import build_request, make_key, pem_of
from fazai.pki.files import write_key
from fazai.pki.rotation import Rotation, agent_states
from fazai.store.certificates import Revocation
from fazai.store.factory import open_certificates
from tests.daemon.live import until
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import Pair
from tests.daemon.southbound.test_http import Poller, poller  # noqa: F401 - a fixture
from tests.daemon.southbound.world import World

KNOWS = [*client.CAPABILITIES, "outcomes", "trust"]
YEAR_S = 365 * 86400.0


def begin(world: World) -> Authority:
    return Rotation(world.authority.folder).begin(None, YEAR_S)[0]


def lacks(world: World, name: str) -> str:
    authority = Authority.load(world.authority.folder)
    return {one.name: one.lacks for one in agent_states(authority, world.certificates)}[name]


def told(world: World, name: str) -> bool:
    return name in world.certificates.trust_holders()


def test_an_agent_is_told_over_the_connection_that_stands(world: World) -> None:
    with world.agent(capabilities=KNOWS) as agent, world.agent("edge-8") as older:
        assert agent.ask({"method": "time"})["ok"] is True  # with one CA there is nothing to tell
        both = begin(world)
        request = agent.recv()
        assert (request["method"], request["ca"]) == ("trust", both.ca_pem)
        assert request["ca"].count("BEGIN CERTIFICATE") == 2
        assert request["endorsements"] == [both.endorsements[0].pem]
        assert not request.get("renew")
        agent.send({"ok": True, "action_id": request["action_id"]})
        until(lambda: told(world, "edge-7"))
        assert lacks(world, "edge-7") == ""
        assert older.ask({"method": "time"})["ok"] is True
        assert not told(world, "edge-8")
    with world.agent(capabilities=KNOWS) as agent:  # it knows, also when it comes again
        assert agent.ask({"method": "time"})["ok"] is True


def test_a_machine_that_enrols_anew_in_the_overlap_is_told_again(world: World) -> None:
    """The one before it had taken both CAs; this one has that of its token."""
    both = begin(world)
    until(lambda: world.trust.refresh() or True)
    with world.agent(capabilities=KNOWS) as agent:
        agent.send({"ok": True, "action_id": agent.recv()["action_id"]})
        until(lambda: told(world, "edge-7"))
    token = Enrolments(both, world.certificates).create("edge-7").token
    key = make_key("p256")
    issued = world.trust.redeem(token, build_request(key, "edge-7"), lambda _notice: None)
    pair = Pair(both.folder / "anew.pem", both.folder / "anew.key")
    write_key(pair.key, key)
    pair.cert.write_text(issued.pem)
    assert lacks(world, "edge-7").startswith("not told yet: ")
    with pytest.raises(Refused, match="edge-7 does not trust the next CA yet"):
        Rotation(both.folder).switch(world.certificates, force=False)
    with client.agent(world.port, world.authority.file, pair, "edge-7", capabilities=KNOWS) as agent:
        request = agent.recv()
        assert (request["method"], request["ca"]) == ("trust", both.ca_pem)
        agent.send({"ok": True, "action_id": request["action_id"]})
        until(lambda: told(world, "edge-7"))
    Rotation(both.folder).switch(world.certificates, force=False)


def test_an_agent_that_does_not_take_them_is_announced_and_told_again(world: World) -> None:
    begin(world)
    until(lambda: world.trust.refresh() or True)
    for _ in range(2):
        with world.agent(capabilities=KNOWS) as agent:
            request = agent.recv()
            refusal = {"ok": False, "error": "its disk is full", "code": "conflict"}
            agent.send({**refusal, "action_id": request["action_id"]})
            until(lambda: told(world, "edge-7"))
    assert lacks(world, "edge-7") == "it did not take the CAs: its disk is full"
    text = "edge-7 does not trust the CAs that it was told of: its disk is full"
    until(lambda: [one for one in world.events("edge-7", "agent") if one["reason"] == text])


def test_an_agent_with_a_certificate_of_the_ca_before_is_asked_to_renew(world: World) -> None:
    begin(world)
    Rotation(world.authority.folder).switch(world.certificates, force=True)
    until(lambda: world.trust.refresh() or True)
    with world.agent(capabilities=KNOWS) as agent:
        request = agent.recv()
        assert (request["method"], request["renew"]) == ("trust", True)
        agent.send({"ok": True, "action_id": request["action_id"]})
        until(lambda: told(world, "edge-7"))
    with world.agent(capabilities=KNOWS) as agent:  # until it has done so
        assert agent.recv()["renew"] is True


def test_who_has_a_certificate_of_the_next_ca_is_not_told_of_the_one_before(world: World) -> None:
    """Which nobody endorses: who enrolled after the switch has never trusted it."""
    begin(world)
    after = Rotation(world.authority.folder).switch(world.certificates, force=True)
    until(lambda: world.trust.refresh() or True)
    key = make_key("p256")
    pair = Pair(after.folder / "edge-9.pem", after.folder / "edge-9.key")
    write_key(pair.key, key)
    pair.cert.write_text(after.issue(build_request(key, "edge-9"), "edge-9").pem)
    with client.agent(world.port, world.authority.file, pair, "edge-9", capabilities=KNOWS) as agent:
        request = agent.recv()
        assert request["ca"] == pem_of(after.trusted[0])
        assert request.get("renew", False) is False
        agent.send({"ok": True, "action_id": request["action_id"]})
        until(lambda: told(world, "edge-9"))
    assert lacks(world, "edge-9") == ""


def test_an_endorsement_that_comes_later_is_told_at_once(world: World) -> None:
    """As that of an existing CA, whose admin was asked for it."""
    both = begin(world)
    path = world.authority.folder / "endorsements.pem"
    word = path.read_text()
    path.unlink()
    until(lambda: world.trust.refresh() or True)
    with world.agent(capabilities=KNOWS) as agent:
        request = agent.recv()
        assert (request["ca"], request.get("endorsements", [])) == (both.ca_pem, [])
        text = "the authority 0b7ac19ed2f84415 is new, and none that this agent trusts has endorsed it"
        agent.send({"ok": False, "error": text, "code": "conflict", "action_id": request["action_id"]})
        until(lambda: told(world, "edge-7"))
        assert lacks(world, "edge-7") == f"it did not take the CAs: {text}"
        path.write_text(word)
        path.chmod(0o600)
        assert agent.recv()["endorsements"] == [word]


class Killed(Exception):
    """Stands for kill -9."""


def switch_without_listener(world: World) -> None:
    """The moment at which the next CA issues, and the listener's certificate is of the one before."""

    def fault(name: str) -> None:
        if name == "switched":
            raise Killed

    with pytest.raises(Killed):
        Rotation(world.authority.folder, fault=fault).switch(world.certificates, force=True)


def take_offer(peer: Poller) -> dict[str, Any]:
    found: dict[str, Any] = peer.poll().json()
    assert found["method"] == "trust"
    return found


@pytest.mark.parametrize("order", ["before", "after"])
def test_an_agent_that_polls_is_told_again_once_the_listener_is_of_the_next_ca(
    world: World,
    poller: Poller,  # noqa: F811
    order: str,
) -> None:
    """It has no certificate, proves the listener's with the next CA alone, and says no to what it cannot
    prove yet: the listener's is renewed before it says so, or after that."""
    after = begin(world).trusted[1]
    assert poller.greet(capabilities=KNOWS).json()["ok"] is True
    assert poller.post({"ok": True, "action_id": take_offer(poller)["action_id"]}).status_code == 204
    until(lambda: told(world, "edge-7") and lacks(world, "edge-7") == "")
    switch_without_listener(world)
    first = take_offer(poller)
    assert first["ca"] == pem_of(after)
    context = world.trust.listener_context()
    if order == "before":
        Authority.load(world.authority.folder).renew_listener()
        until(lambda: world.trust.listener_context() is not context)
    refusal = {"ok": False, "error": "localhost is not trusted", "code": "conflict"}
    assert poller.post({**refusal, "action_id": first["action_id"]}).status_code == 204
    if order == "after":
        until(lambda: "did not take the CAs: localhost is not trusted" in lacks(world, "edge-7"))
        Authority.load(world.authority.folder).renew_listener()
    second = take_offer(poller)
    assert second["ca"] == pem_of(after)
    assert poller.post({"ok": True, "action_id": second["action_id"]}).status_code == 204
    until(lambda: lacks(world, "edge-7") == "")


def test_damaged_endorsements_are_a_problem_that_ends_nothing(world: World) -> None:
    """A daemon that starts with them revokes, enrols and serves; it says what is wrong until it is mended."""
    both = begin(world)
    path = world.authority.folder / "endorsements.pem"
    word = path.read_text()
    path.write_text(word[:200])
    with closing(open_certificates(world.socket.parent / "other")) as store:
        started = PkiTrust(both.folder, store)
        assert "endorsements.pem is used: a block of it has no end" in str(started.problem)
        token = Enrolments(both, store).create("edge-8").token
        csr = build_request(make_key("p256"), "edge-8")
        assert started.redeem(token, csr, lambda _notice: None).name == "edge-8"
    until(lambda: world.trust.problem == started.problem)
    world.certificates.revoke(Revocation("edge-7", time.time()))
    until(lambda: world.trust.find_removal("edge-7") is not None)
    path.write_text(word)
    until(lambda: world.trust.problem is None)


@pytest.mark.parametrize("said", [{"ok": True, "unknown": "x"}, {"ok": True}])
def test_an_answer_that_is_none_ends_the_connection(world: World, said: dict[str, Any]) -> None:
    with world.relay() as relay:
        with world.agent() as agent:
            relay.begin("edge-7", client.execute("a-1"))
            agent.recv()
        relay.recv()
    with world.agent(capabilities=KNOWS) as agent:
        agent.send({**said, "action_id": agent.recv()["action_id"]})
        assert agent.closed()[1].startswith("bad_request: ")


def test_an_agent_that_polls_is_told_and_asked(world: World, poller: Poller) -> None:  # noqa: F811
    poller.greet(instance="one")
    with world.relay() as relay:
        number = relay.begin("edge-7", client.execute("a-1"))
        assert poller.poll().json()["action_id"] == "a-1"
        begin(world)
        assert poller.greet(instance="one", capabilities=KNOWS).json()["ok"] is True  # it lost its session
        assert (found := relay.recv())["id"] == number
        assert found["code"] == "agent_lost"
    asked: dict[str, Any] = {}
    while len(asked) < 2:
        request = poller.poll().json()
        asked[request["method"]] = request
        more = {"unknown": ["a-1"]} if request["method"] == "outcomes" else {}
        assert poller.post({"ok": True, "action_id": request["action_id"], **more}).status_code == 204
    assert asked["trust"]["ca"].count("BEGIN CERTIFICATE") == 2
    assert asked["outcomes"]["action_ids"] == ["a-1"]
    until(lambda: told(world, "edge-7"))
    store: Any = world.live.services.store
    until(lambda: world.live.call(lambda: store.agent_action("edge-7", "a-1")).done is not None)
