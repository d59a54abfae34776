"""host.download from a real server, with curl, GNU wget and busybox's wget."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError, Moved
from fazai.model import Secret, Verb
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.helpers import HOSTILE, SHELLS, Host, resource, shell_environ
from tests.hosts.machines import Machine, missing, shim

ONE, TWO = b"one\0" * 300, b"two \xff\n" * 100_000
DEST = "/srv/a b/it's"
TOKEN = 'it\'s a "secret" $(touch gone) \\ 100%'


@dataclass
class Server:
    url: str
    content: bytes = ONE
    status: int = 200
    cut: bool = False
    requests: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "/there")
                self.end_headers()
                return
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(found.content)))
            self.end_headers()
            self.wfile.write(found.content[:100] if found.cut else found.content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        found = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            http.shutdown()
            thread.join()


def machine_with(folder: Path, program: str, shell: str = "dash") -> Machine:
    """A machine in which nothing but this program fetches; it notes its arguments first."""
    machine = Machine.made(folder, shell, apart=False)
    if program in ("curl", "wget") and not Path(f"/usr/bin/{program}").exists():
        missing(f"{program} is not installed")
    machine.run(
        "mkdir /opt/real; for p in curl wget; do [ ! -e /usr/bin/$p ] || mv /usr/bin/$p /opt/real; done"
    )
    real = {"curl": "/opt/real/curl", "wget": "/opt/real/wget", "busybox": "/usr/bin/busybox wget"}.get(
        program
    )
    if real is not None:
        name = "wget" if program == "busybox" else program
        shim(machine, name, f'printf "%s\\n" "$@" >>/tmp/argv; exec {real} "$@"')
    machine.put("/srv/a b/.keep", "")
    return machine


def wanted(server: Server, content: bytes, method: str = "sha256", **more: Any) -> Any:
    digest = hashlib.new(method, content).hexdigest().upper()
    fields = {"url": f"{server.url}/a%20b?x=1&y='2'", "dest": DEST, "checksum": f"{method}:{digest}"}
    return resource("host.download", {**fields, **more})


@pytest.mark.parametrize(
    ("program", "shell"),
    [("curl", "dash"), ("wget", "bash"), ("busybox", "busybox")],
    ids=lambda value: value,
)
def test_each_program(program: str, shell: str, server: Server, tmp_path: Path) -> None:
    machine = machine_with(tmp_path, program, shell)
    path = machine.folder / "upper" / DEST.lstrip("/")
    secret: dict[str, Any] = {}
    if program != "busybox":
        secret = {"headers": {"X-Token": Secret(TOKEN), "X-Plain": "a"}, "url_username": "me"}
        secret["url_password"] = Secret('p"w #\\:')
    one = wanted(server, ONE, mode="0750", owner="daemon", **secret)

    async def run() -> None:
        host = machine.host()
        async with host.session:
            assert [change.verb for change in await host.converge(one)] == [Verb.CREATE]
            assert path.read_bytes() == ONE
            assert path.stat().st_mode & 0o7777 == 0o750
            asked = len(server.requests)
            assert (await host.look(one)).changes == ()
            assert len(server.requests) == asked
            server.content = TWO
            changes = await host.converge(wanted(server, TWO, "sha512", backup=True))
            assert path.read_bytes() == TWO
            assert path.stat().st_mode & 0o7777 == 0o750  # not declared: as it was
            assert [p.read_bytes() for p in path.parent.glob("it's.*~")] == [ONE]
            await host.undo(changes)
            assert (await host.look(one)).changes == ()

    asyncio.run(run())
    request = server.requests[0]
    assert request["path"] == "/a%20b?x=1&y='2'"
    if secret:  # busybox's shell does not start its own wget as a program
        said = (machine.folder / "upper/tmp/argv").read_text()
        assert (request["x-token"], request["x-plain"]) == (TOKEN, "a")
        assert base64.b64decode(request["authorization"].split()[1]) == b'me:p"w #\\:'
        assert server.url not in said
        assert "secret" not in said
        assert 'p"w' not in said
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".fazai")] == []


@pytest.mark.parametrize("program", ["busybox", "none"])
def test_a_host_that_cannot_says_why(program: str, server: Server, tmp_path: Path) -> None:
    machine = machine_with(tmp_path, program)
    text = "headers and passwords need curl or GNU wget" if program == "busybox" else "neither curl nor wget"
    more: dict[str, Any] = {"headers": {"X-Token": Secret(TOKEN)}} if program == "busybox" else {}

    async def run() -> None:
        host = machine.host()
        async with host.session:
            diff = await host.look(wanted(server, ONE, **more))
            with pytest.raises(DeviceError, match=text):
                await host.session.write(diff.changes[0])

    asyncio.run(run())
    assert server.requests == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_wrong_leaves_the_old_file(shell: str, server: Server, tmp_path: Path) -> None:
    """A folder as a host: a wrong checksum, an error, an answer that is cut, a file that is not valid."""
    root = tmp_path / "root"
    (root / "srv/a b").mkdir(parents=True)
    target = root / DEST.lstrip("/")
    target.write_bytes(b"old")

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:

            async def fails(text: str, **more: Any) -> None:
                diff = await host.look(wanted(server, ONE, **more))
                with pytest.raises(DeviceError, match=text) as caught:
                    await host.session.write(diff.changes[0])
                assert TOKEN not in str(caught.value)
                assert target.read_bytes() == b"old"
                assert [p.name for p in target.parent.iterdir()] == [target.name]

            server.content = TWO
            await fails(
                f"what came has the checksum sha256:{hashlib.sha256(TWO).hexdigest()}, and 600000 bytes"
            )
            server.content, server.cut = ONE, True
            await fails("exit status")
            server.cut, server.status = False, 404
            await fails("404", headers={"X-Token": Secret(TOKEN)})
            server.status = 200
            await fails("exit status", validate="grep -q never %s")
            moved = wanted(server, ONE, url=f"{server.url}/moved")
            (change,) = changes = await host.converge(moved)
            assert target.read_bytes() == ONE
            assert change.before["content"].data == b"old"
            await host.undo(changes)
            assert target.read_bytes() == b"old"
            await host.converge(moved)
            changes = await host.converge(resource("host.download", {"dest": DEST}, "absent"))
            assert not target.exists()
            await host.undo(changes)
            assert target.read_bytes() == ONE
            changes = await host.converge(wanted(server, ONE, mode="0600"))
            assert changes[0].after == {"mode": "0600"}
            server.content = TWO * 2
            changes = await host.converge(wanted(server, TWO * 2))
            server.content = ONE
            changes = await host.converge(wanted(server, ONE))
            assert host.session.inverse(changes[0], changes[0].ref) is None  # too large to be kept

    asyncio.run(run())


@pytest.mark.parametrize("method", ["sha256", "sha512"])
def test_what_somebody_changed_since_is_not_taken_back(method: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"old\n")
    checksum = f"{method}:{hashlib.new(method, ONE).hexdigest()}"

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            made = await host.converge(
                resource("host.download", {"dest": "/d", "url": server.url, "checksum": checksum})
            )
            (tmp_path / "d").write_bytes(b"theirs\n")
            with pytest.raises(Moved, match="it is not as this run left it"):
                await host.undo(made)

    asyncio.run(run())
    assert (tmp_path / "d").read_bytes() == b"theirs\n"


@pytest.mark.in_turn("names")
@pytest.mark.parametrize("names", [HOSTILE[0::3], HOSTILE[1::3], HOSTILE[2::3]], ids=["1", "2", "3"])
def test_hostile_names(server: Server, names: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()

    async def run() -> None:
        host = Host.local(root, shell_environ("dash", tmp_path))
        async with host.session:
            methods = ("sha256", "sha512") * len(names)
            each = [wanted(server, ONE, m, dest=f"/{n}") for m, n in zip(methods, names, strict=False)]
            assert len(await host.converge(*each)) == len(names)
            before = host.session.shell.blocks
            assert (await host.look(*each)).changes == ()
            assert host.session.shell.blocks == before + 1
            gone = [resource("host.download", {"dest": r.fields["dest"]}, "absent") for r in each]
            await host.converge(*gone)

    asyncio.run(run())
    assert list(root.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dash-bin", "root"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "file:///etc/shadow"}, "url"),
        ({"url": "https://me:pw@example.com/x"}, "url"),
        ({"url": "https://example.com/a b"}, "url"),
        ({"url": "https://example.com/\noutput=/etc/passwd"}, "url"),
        ({"url": "-o /etc/passwd"}, "url"),
        ({"checksum": "sha256:abc"}, "checksum"),
        ({"checksum": "md5:" + "0" * 32}, "checksum"),
        ({"checksum": None}, "checksum"),
        ({"headers": {"A": "a\noutput = x"}}, "headers"),
        ({"headers": {"A b": "c"}}, "headers"),
        ({"url_username": "a", "url_password": Secret("a\nb")}, "url_password"),
        ({"url_password": Secret("x")}, "url_username"),
        ({"validate": "true"}, "validate"),
    ],
)
def test_what_is_wrong_before_any_contact(fields: dict[str, Any], field: str) -> None:
    good = {"url": "https://example.com/x", "dest": "/x", "checksum": "sha256:" + "0" * 64}
    whole = {k: v for k, v in {**good, **fields}.items() if v is not None}
    _, problems = load_host_kinds()["host.download"].normalise(whole, "present")
    assert [problem.field for problem in problems] == [field]
