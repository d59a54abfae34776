"""The way through an HTTP proxy: one that keeps to the rules, and ones that do not."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fazai.agent.checking import run_check
from fazai.agent.children import LifePipe
from fazai.agent.config.reading import parse_config
from fazai.agent.config.yamltext import plain_value, read_yaml
from fazai.agent.errors import ConfigError
from fazai.agent.link.dialling import Address, Opening
from fazai.agent.link.errors import LinkError
from fazai.agent.link.proxy import Proxy, Tunnel, open_tunnel, read_credentials
from fazai.agent.link.tls import make_context
from tests.agent.link import proxy
from tests.agent.link.authority import Authority
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon
from tests.agent.link.test_dialling import _patient_loop, life
from tests.agent.link.test_enrolling import SECRET, Registrar, _run
from tests.agent.link.test_longpoll import KEY, PolledPeer

__all__ = ["life"]

USER, PASSWORD = "edge", "s3cret:word"


class ConnectProxy(proxy.Proxy):
    """A proxy that opens the way to one port, by whatever name it is asked for. `says`: its answer in place
    of that; `wants`: the credentials that it takes."""

    def __init__(self, port: int = 0, *, says: bytes | None = None, wants: str | None = None) -> None:
        self._says = says
        self._wants = None if wants is None else base64.b64encode(wants.encode()).decode()
        self.asked: list[str] = []
        self.heads: list[str] = []
        super().__init__(port)

    def serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        self.heads.append(head.decode())
        self.asked.append(self.heads[-1].split()[1])
        given = re.search(r"^Proxy-Authorization: Basic (\S+)\r$", self.heads[-1], re.M)
        says = self._says
        if says is None and self._wants is not None and (given is None or given[1] != self._wants):
            says = b"HTTP/1.1 407 Nope\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"
        if says is not None:
            client.sendall(says)
            client.shutdown(socket.SHUT_WR)
            return
        there = self.dial()
        client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n")
        self.join(client, there)


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., ConnectProxy]]:
    started: list[ConnectProxy] = []

    def start(*words: int, **more: object) -> ConnectProxy:
        started.append(ConnectProxy(*words, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def far(authority: Authority, start_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon by a name that only the proxy knows."""
    return start_daemon(pair=authority.listener(host="far.invalid"))


def _credentials(folder: Path, text: str = f"{USER}:{PASSWORD}\n", mode: int = 0o600) -> Path:
    file = folder / "proxy-credentials"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_websocket_goes_through_the_proxy(
    agent: Agent, far: Daemon, start_proxy: Callable[..., ConnectProxy]
) -> None:
    proxy = start_proxy(far.port)
    agent.configure(f"wss://far.invalid:{far.port}", more=f"proxy: http://127.0.0.1:{proxy.port}\n")
    agent.start()
    peer = far.accept()
    assert peer.hello()["agent_id"] == "edge-7"
    agent.wait_said(f"connected to wss://far.invalid:{far.port}")
    assert proxy.asked == [f"far.invalid:{far.port}"]
    assert "Authorization" not in proxy.heads[0]
    assert agent.stop() == 0


def test_no_variable_of_the_environment_is_read(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    agent.start(**dict.fromkeys(names, "http://127.0.0.1:1"))
    daemon.accept().hello()


def test_credentials_are_taken_or_refused_and_never_told(
    agent: Agent, far: Daemon, start_proxy: Callable[..., ConnectProxy]
) -> None:
    proxy = start_proxy(far.port, wants=f"{USER}:{PASSWORD}")
    way = f"proxy: http://127.0.0.1:{proxy.port}\n"
    daemon = f"wss://far.invalid:{far.port}"
    agent.configure(daemon, more=way)
    agent.start()
    prefix = f"the proxy 127.0.0.1:{proxy.port} does not lead to far.invalid:{far.port}: it wants a user"
    agent.wait_said(f"{prefix} and a password, and `proxy_credentials` names none")
    file = _credentials(agent.folder, f"{USER}:wrong\n")
    agent.configure(daemon, more=f"{way}proxy_credentials: {file}\n")
    agent.process.send_signal(1)
    agent.wait_said(f"{prefix} and a password, and it does not take those in {file}")
    _credentials(agent.folder)
    far.accept().hello()
    log = agent.wait_said("connected to")
    words = (
        PASSWORD,
        "s3cret",
        "wrong",
        *(h.partition("Basic ")[2].strip() for h in proxy.heads if "Basic" in h),
    )
    assert not [word for word in words if word in log or word in (agent.state / "status").read_text()]


def test_signed_http_goes_through_the_proxy(
    agent: Agent,
    authority: Authority,
    start_daemon: Callable[..., Daemon],
    start_proxy: Callable[..., ConnectProxy],
) -> None:
    peer = PolledPeer()
    far = start_daemon(pair=authority.listener(host="far.invalid"), posts=peer.routes())
    proxy = start_proxy(far.port)
    key = agent.folder / "http.key"
    key.write_text(KEY)
    key.chmod(0o600)
    more = f"signing_key: {key}\nproxy: http://127.0.0.1:{proxy.port}\n"
    agent.configure(f"https://far.invalid:{far.port}", more=more)
    agent.start()
    assert peer.posted.get(timeout=60)["method"] == "hello"
    agent.wait_said("connected to https://far.invalid")
    assert set(proxy.asked) == {f"far.invalid:{far.port}"}


def test_enrolment_goes_through_the_proxy(
    tmp_path: Path,
    agent: Agent,
    authority: Authority,
    start_daemon: Callable[..., Daemon],
    start_proxy: Callable[..., ConnectProxy],
) -> None:
    far = start_daemon(
        pair=authority.listener(host="far.invalid"), posts={"/southbound/enrol": Registrar(authority)}
    )
    proxy = start_proxy(far.port, wants=f"{USER}:{PASSWORD}")
    config, file = tmp_path / "etc/agent.yml", _credentials(tmp_path)
    config.parent.mkdir()
    words = ["--config", str(config), "--daemon", f"wss://far.invalid:{far.port}", "--name", "edge-7"]
    through = ["--proxy", f"http://127.0.0.1:{proxy.port}"]
    token = f"{SECRET}.{authority.mark}"
    refused = _run(*words, *through, token=token, cwd=tmp_path)
    assert refused.returncode == 4
    assert "it wants a user and a password, and `proxy_credentials` names none" in refused.stderr
    done = _run(*words, *through, "--proxy-credentials", str(file), token=token, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert SECRET not in "".join(proxy.heads)
    found = parse_config(config.read_bytes(), "agent.yml")  # from now on it is in the file
    assert found.proxy is not None
    assert (str(found.proxy), found.proxy.credentials) == (f"http://127.0.0.1:{proxy.port}", str(file))
    assert str(file) in found.own_files
    agent.config.write_text(config.read_text() + f"state: {agent.state}\n")
    agent.start()
    far.accept().hello()


@pytest.mark.parametrize("sort", ["none", "other", "braces", "link", "same"])
def test_enrolment_beside_a_configuration_keeps_the_proxy_or_says_it(
    tmp_path: Path,
    agent: Agent,
    authority: Authority,
    start_daemon: Callable[..., Daemon],
    start_proxy: Callable[..., ConnectProxy],
    capsys: pytest.CaptureFixture[str],
    sort: str,
) -> None:
    far = start_daemon(
        pair=authority.listener(host="far.invalid"), posts={"/southbound/enrol": Registrar(authority)}
    )
    proxy = start_proxy(far.port)
    url = f"http://127.0.0.1:{proxy.port}"
    before = {"other": "proxy: http://elsewhere:3128 # old\n", "same": f"proxy: '{url}'\n"}.get(sort, "")
    agent.configure(
        f"wss://far.invalid:{far.port}", more=f"# who may do what\n{before}name: 'Rack 7'  # kept"
    )
    agent.config.chmod(0o640)
    if sort == "braces":
        values = plain_value(read_yaml(agent.config.read_bytes(), "agent.yml"))
        agent.config.write_text(json.dumps(values))
    elif sort == "link":
        agent.config.rename(tmp_path / "real.yml")
        agent.config.symlink_to(tmp_path / "real.yml")
    text = agent.config.read_text()
    words, token = ["--config", str(agent.config), "--proxy", url], f"{SECRET}.{authority.mark}"
    done = _run(*words, token=token, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_check(str(agent.config))
    warning = capsys.readouterr().out
    if sort in ("none", "same"):
        added = f"{agent.config}: the proxy was added at its end"
        assert (added in done.stdout) == (sort == "none")
        assert agent.config.read_text() == text + (f"\nproxy: {url}\n" if sort == "none" else "")
        assert agent.config.stat().st_mode & 0o777 == 0o640
        assert "it was enrolled through a proxy" not in warning
        agent.start()
        far.accept().hello()
    else:
        left = f"{agent.config} was left as it is, and does not name this proxy; write into it:\n"
        assert f"{left}  proxy: {url}\n" in done.stdout
        assert agent.config.read_text() == text
        named = "names http://elsewhere:3128" if sort == "other" else "names none"
        assert (
            f"it was enrolled through a proxy, and this file {named}; there it was: proxy: {url}" in warning
        )
        agent.configure(f"wss://far.invalid:{far.port}", more=f"proxy: {url}\n")
        run_check(str(agent.config))
        assert "it was enrolled through a proxy" not in capsys.readouterr().out


#: What a proxy may answer, and what is told of it.
ANSWERS = [
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it does not allow that (status 403)"),
    (b"HTTP/1.0 502 Bad Gateway\r\nX: y\r\n\r\nbody", "it does not reach the daemon (status 502)"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "it refuses (status 302)"),
    (b"HTTP/1.1 101 Switching\r\n\r\n", "it refuses (status 101)"),
    (b"\x16\x03\x01\x02\x00\x01garbage\xff\r\n\r\n", "the answer is not HTTP"),
    (b"HTTP/1.1 20\xb2 OK\r\n\r\n", "the answer is not HTTP"),
    (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "a header of the answer is malformed"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "the head of its answer is over 16384 bytes"),
    (b"HTTP/1.1 200 OK\r\n\r\n\x15\x03\x03", "it says more than its answer"),
    (b"HTTP/1.1 200 OK\r\nX: y\r\n", "it closed the connection"),
    (b"", "it closed the connection"),
]


@pytest.mark.parametrize(("says", "told"), ANSWERS)
def test_a_proxy_that_opens_no_way_is_told(
    start_proxy: Callable[..., ConnectProxy], life: LifePipe, says: bytes, told: str
) -> None:
    """As the agent dials, and as its enrolment does."""
    server = start_proxy(says=says)
    proxy = Proxy("127.0.0.1", server.port)
    failed = _dial(life, proxy)
    assert failed.code == "connect"
    assert str(failed).startswith(f"the proxy 127.0.0.1:{server.port} does not lead to far.invalid:1: ")
    with socket.create_connection(("127.0.0.1", server.port)) as sock, pytest.raises(LinkError) as caught:
        open_tunnel(sock, Tunnel(proxy, "far.invalid:1"))
    for error in (failed, caught.value):
        assert told in str(error) or "reset" in str(error)  # what it says may be lost where it just closes
    assert told in str(failed) or told in str(caught.value)


def test_a_proxy_that_is_away_or_says_nothing_is_left(life: LifePipe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert str(_dial(life, Proxy("127.0.0.1", port))).endswith("no answer within 15 s")
    failed = _dial(life, Proxy("127.0.0.1", port))
    assert str(failed) == f"the proxy 127.0.0.1:{port} is not reached: Connection refused"
    assert "the name no-such-proxy.invalid" in str(_dial(life, Proxy("no-such-proxy.invalid", 3128)))


def _dial(life: LifePipe, proxy: Proxy) -> LinkError:
    now, failed = [0.0], list[LinkError]()
    loop = _patient_loop(now)
    Opening(
        loop,
        life,
        Address("wss", "far.invalid", 1, proxy),
        lambda: make_context("nobody comes so far"),
        on_open=lambda stream: pytest.fail("nobody is connected"),
        on_failed=failed.append,
    )
    while not failed:
        loop.turn()
    loop.close()
    return failed[0]


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (f"{USER}:{PASSWORD}\n", 0o640, "others may read the credentials of the proxy"),
        ("no colon\n", 0o600, "this is no line USER:PASSWORD"),
        (":password\n", 0o600, "this is no line USER:PASSWORD"),
        ("user:pass\nHost: evil\n", 0o600, "this is no line USER:PASSWORD"),
        ("user:" + "x" * 5000, 0o600, "this is no line USER:PASSWORD"),
        ("", 0o600, "this is no line USER:PASSWORD"),
    ],
)
def test_credentials_that_are_none(tmp_path: Path, text: str, mode: int, told: str) -> None:
    file = _credentials(tmp_path, text, mode)
    with pytest.raises(LinkError, match=re.escape(told)) as caught:
        read_credentials(str(file))
    assert not text or text.strip() not in str(caught.value)
    with pytest.raises(LinkError, match="cannot be read: No such file"):
        read_credentials(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("proxy: http://edge:hunter2@proxy:3128", "`proxy` has no user and no password"),
        ("proxy: https://proxy:3128", "`proxy` must be http://HOST:PORT"),
        ("proxy: http://proxy", "`proxy` must be http://HOST:PORT"),
        ("proxy: http://proxy:0", "`proxy` must be http://HOST:PORT"),
        ("proxy: http://proxy:3128/path", "`proxy` must be http://HOST:PORT"),
        ("proxy_credentials: /etc/x", "`proxy_credentials` is of no use without `proxy`"),
    ],
)
def test_a_proxy_that_is_none_is_refused(lines: str, told: str) -> None:
    text = f"agent_id: a\ndaemon: wss://b\nca: /c\ncertificate: /d\nkey: /e\n{lines}\n"
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        parse_config(text.encode(), "agent.yml")
    assert "hunter2" not in str(caught.value)
