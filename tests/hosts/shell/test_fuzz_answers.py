"""Answers of hosts, cut, forged and mixed up: an answer or one of our errors, and never anything else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from fazai.errors import FazaiError
from fazai.providers.hosts.facts import QUESTIONS, facts_of
from fazai.providers.hosts.kind import Want
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.kinds.shared.packaging import MANAGERS
from fazai.providers.hosts.local.transport import start_local_shell
from fazai.providers.hosts.shell.answers import read_answers
from fazai.providers.hosts.shell.channel import BlockRunner as Running
from fazai.providers.hosts.shell.questions import Answer, FileAt, Output, OutputOf, PathState, Question
from fazai.providers.hosts.shell.script import observe_script
from tests.campaign import campaign_size
from tests.hosts.helpers import resource

NONCE: Final = "0123456789abcdef" * 2
ROOT: Final = Path(__file__).parents[3]
FEW: Final = 500
MANY: Final = campaign_size(100_000)
_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a@b"
_SUM: Final = "9f" * 32
WANTED: Final[Sequence[tuple[str, Mapping[str, Any], str]]] = (
    ("host.file", {"path": "/small", "content": "new\n", "mode": "0640", "owner": "root"}, "present"),
    ("host.file", {"path": "/large", "content": "new\n"}, "present"),
    ("host.file", {"path": "/link", "content": "new\n"}, "present"),
    ("host.file", {"path": "/gone"}, "absent"),
    ("host.directory", {"path": "/folder", "group": "0"}, "present"),
    ("host.link", {"path": "/link", "target": "elsewhere"}, "present"),
    ("host.line", {"path": "/lines", "line": "b 2", "regexp": "^b"}, "present"),
    ("host.block", {"path": "/lines", "block": "x\n"}, "present"),
    ("host.command", {"argv": ["true"], "unless": ["false"], "creates": "/gone"}, "present"),
    ("host.user", {"name": "alice", "groups": ["sudo"], "password": "$6$abc"}, "present"),
    ("host.group", {"name": "sudo", "gid": 27}, "present"),
    ("host.package", {"name": ["curl", "jq"], "state": "latest"}, "present"),
    ("host.package", {"name": "nano", "version": "7.2-1"}, "present"),
    ("host.service", {"name": "nginx", "state": "started", "enabled": True}, "present"),
    ("host.sysctl", {"name": "vm.swappiness", "value": "10"}, "present"),
    ("host.cron", {"name": "backup", "job": "/bin/b", "user": "root"}, "present"),
    ("host.cron", {"name": "backup", "job": "/bin/b", "user": "root", "cron_file": "b"}, "present"),
    ("host.authorized_key", {"user": "alice", "key": _KEY, "exclusive": True}, "present"),
    ("host.download", {"url": "https://x/y", "dest": "/small", "checksum": f"sha256:{_SUM}"}, "present"),
    ("host.download", {"url": "https://x/y", "dest": "/small", "checksum": f"sha512:{_SUM * 2}"}, "present"),
    ("host.telemetry_agent", {"server": "https://f:3120", "hostname": "a", "key": "k" * 32}, "present"),
)
#: What real programs say, by a word of the question.
SAID: Final[Mapping[str, bytes]] = {
    "apt-cache": b"curl:\n  Installed: 7.88.1-10\n  Candidate: 7.88.1-10+deb12u8\n  Version table:\n",
    "dpkg-query": b"apt\ninstalled curl 7.88.1-10\ninstalled libc6:amd64 2.36-9\ninstalled nano 7.2-1\n",
    "systemctl": b"init=systemd\nLoadState=loaded\nActiveState=active\nSubState=running\n"
    b"UnitFileState=enabled\n",
    "sysctl": b"60\n",
    "crontab": b"#fazai: backup\n*/5 3 * * mon /bin/b\n#Ansible: other\n@daily x\n",
    "/etc/shadow": b"$6$old\n",
    "authorized_keys": f"# mine\n{_KEY}\nno-pty {_KEY}\n".encode(),
    "sha512sum": f"{_SUM * 2}  -\n".encode(),
    "now=": b"now=1796000000\nversion=0.1.0\ninstalled_at=1795000000\nuser=yes\ninit=systemd\n"
    b"active=active\nenabled=enabled\n",
}
FACTS: Final[Mapping[str, bytes]] = {
    "names": b"Linux\n6.1.0\nx86_64\nbox\nroot\n",
    "os": b'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\n',
    "cpus": b"4\n",
    "memory": b"MemTotal:  8388608 kB\nMemAvailable: 4 kB\nSwapTotal: 0 kB\n1234.56 7890.12\n",
    "disks": b"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 1048576 1 2 1% /\n",
    "addresses": b"2: eth0 inet 192.0.2.7/24 scope global eth0\n2: eth0 inet6 2001:db8::7/64 scope global\n"
    b"|-- 192.0.2.9\n  /32 host LOCAL\n",
    "init": b"systemd\n",
    "packages": b"apt-get\n",
}
PACKAGES: Final = (
    b"installed libc6:amd64 2.36-9\nconfig-files nano 7.2-1\ninstalled curl 7.88.1-10\n",
    b"curl 7.76.1-26.el9\nvim-minimal 2:8.2.2637-20.el9\ngpg-pubkey 8483c65d-5ccc5b19\n",
    b"musl-1.2.4-r2\nbusybox-1.36.1-r15\n.build-deps-20230101.120000\n",
    b"curl 8.1.2_1\npy39-six 1.16.0\n",
    b"curl:\n  Installed: (none)\n  Candidate: 7.88.1-10+deb12u8\n",
    b"\ncurl.x86_64    7.76.1-29.el9    baseos\n",
    b"Installed:    Available:\nmusl-1.2.4-r2   < 1.2.4-r3\n",
    b"Information for package curl:\nVersion        : 8.0.1-150400\nStatus         : out-of-date\n",
)
_FILES: Final[Mapping[str, str]] = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:A:/home/alice:/bin/sh\n",
    "etc/group": "root:x:0:\nalice:x:1000:\nsudo:x:27:alice,bob\n",
    "etc/sysctl.d/99-fazai.conf": "# ours\nvm.swappiness = 10\n- a.b = c d\n",
    "etc/cron.d/b": "#fazai: backup\n*/5 3 * * mon root /bin/b\n",
    "var/lib/fazai-agent/status": "state=running\nwritten_at=1795999999\ninterval_s=60\nfailures=3\n"
    "last_error=status 401\nspool_depth=12\nlast_delivery_at=1795999000\nstarted_at=1795000000\n",
    "etc/fazai-agent.env": "FAZAI_KEY=abc\n",
    "small": "old\n",
    "large": "x" * 9000,
    "lines": "a 1\nb 3\n# BEGIN fazai\ny\n# END fazai\n",
}
#: What stands where a number, a name or a mode should be.
_TOKENS: Final = (
    *(b"abc", b"zz", b"-1", b"99", b"\\777", b"\\", b'"', b'" -> "', b"\xc2\xb2", b"\xd9\xa3", b"1_0", b"+1"),
    *(
        b"9" * 400,
        b"9" * 5000,
        b"",
        b"\0",
        b"\n",
        b"\t",
        b"\r",
        b" ",
        b":",
        b"=",
        b"\xff\xfe",
        b"1e9",
        b"inf",
    ),
    *(
        f"\n{NONCE} {word}".encode()
        for word in ("stat 0", "heads 0 1", "link", "got 0", "exit 0 x", "looked")
    ),
)


def wants(root: Path) -> list[Want]:
    def at(path: str) -> str:
        return path if path == "/" else f"{root}{path}"  # a whole machine, whose files are here

    return [Want(resource(kind, fields, state), at) for kind, fields, state in WANTED]


def questions(found: Sequence[Want]) -> list[Question]:
    kinds = load_host_kinds()
    return list(dict.fromkeys(q for want in found for q in kinds[want.resource.kind].ask(want)))


def said_by_a_host(asked: Sequence[Question], root: Path) -> bytes:
    """Return what our script prints there; of snippets that look at the machine, what one would say."""
    quiet = [
        OutputOf(f"cat {root}/said/{number}") if isinstance(q, OutputOf) else q
        for number, q in enumerate(asked)
    ]
    (root / "said").mkdir()
    for number, question in enumerate(asked):
        if isinstance(question, OutputOf):
            text = next((text for word, text in SAID.items() if word in question.script), b"")
            (root / "said" / str(number)).write_bytes(text)

    async def run() -> bytes:
        from fazai.providers.hosts.shell.become import Become

        channel = await start_local_shell("box", Become(), "")
        shell = Running(channel, "box")
        shell.nonce = NONCE
        result = await shell.run(observe_script(quiet), timeout_s=60, form="look")
        await channel.close()
        return b"\n" + result.out

    return asyncio.run(run())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Want], list[Question], bytes]:
    root = tmp_path_factory.mktemp("fuzz")
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "folder").mkdir()
    os.symlink("el\tse\n\udcff", root / "link")
    found = wants(root)
    asked = questions(found)
    out = said_by_a_host(asked, root)
    assert len(read_answers(asked, out, NONCE, "box")) >= len(asked)
    return found, asked, out


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The same with some of it changed, at the places where it counts as well as anywhere."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 12))):
        at = rng.randrange(len(found) + 1)
        what = rng.randrange(8)
        if what == 0:  # cut
            del found[at:]
        elif what == 1:  # taken out
            del found[at : at + rng.choice((1, 2, 10, 200))]
        elif what == 2:  # said twice, or moved
            begin = rng.randrange(len(found) + 1)
            found[at:at] = found[begin : begin + rng.choice((1, 8, 60, 500))]
        elif what == 3 and found:
            found[min(at, len(found) - 1)] = rng.randrange(256)
        elif what == 4:
            found[at:at] = rng.choice(_TOKENS)
        else:  # a word is another one
            begin = max(found.rfind(mark, 0, at) for mark in (b" ", b"\n", b"=", b":"))
            ends = [end for mark in (b" ", b"\n", b"=", b":") if (end := found.find(mark, at)) >= 0]
            found[begin + 1 : min(ends, default=len(found))] = rng.choice(_TOKENS)
        if not found:
            break
    return bytes(found)


def _missing(question: Question) -> Answer:
    """Return what the session would learn when it asks once more."""
    return PathState("missing") if isinstance(question, FileAt) else Output(1, b"")


class _Answers(dict[Question, Answer]):
    def __missing__(self, question: Question) -> Answer:
        return _missing(question)


def use(found: Sequence[Want], asked: Sequence[Question], out: bytes) -> None:
    """All that is made of an answer before something is written."""
    kinds = load_host_kinds()
    answers = _Answers(read_answers(asked, out, NONCE, "box"))
    for want in found:
        kind = kinds[want.resource.kind]
        try:
            for question in kind.ask_more(want, answers):
                answers.setdefault(question, _missing(question))
            have = kind.read(want, answers)
            change = kind.compare(want, have)
            assert change is None or len(repr(change)) < 10_000_000
            kind.proof(want, have)
        except FazaiError:
            continue


def inputs(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        yield mutated(data, rng)


def _fuzz_answers(corpus: tuple[list[Want], list[Question], bytes], count: int, seed: int) -> int:
    """Read the answers; return how many of them were refused as a whole."""
    found, asked, out = corpus
    refused = 0
    for data in inputs(out, count, seed):
        try:
            use(found, asked, data)
        except FazaiError:
            refused += 1
    return refused


def _fuzz_packages(count: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        manager = MANAGERS[rng.choice(sorted(MANAGERS))]
        text = mutated(rng.choice(PACKAGES), rng).decode("utf-8", "replace")
        for found in filter(None, map(manager.entry, text.splitlines())):
            assert manager.forms(found[1])[0] == found[1]
        manager.candidate(text)


def _fuzz_facts(count: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        said = dict(FACTS)
        for name in rng.sample(sorted(said), 3):
            said[name] = mutated(said[name], rng)
        facts_of({QUESTIONS[name]: Output(0, text) for name, text in said.items()})


def test_what_a_host_says_is_read_or_refused(corpus: tuple[list[Want], list[Question], bytes]) -> None:
    refused = _fuzz_answers(corpus, FEW, seed=1)
    assert 0 < refused < FEW
    _fuzz_facts(FEW, seed=2)
    _fuzz_packages(FEW, seed=6)


_NASTY: Final = (
    " ",
    "a",
    "-",
    "-1",
    "=",
    "a=",
    "\n",
    "a\n",
    "ssh-a ",
    "ssh-a AAAA",
    "|-- ",
    "a.b ",
    "MemTotal:\n",
)


def read_at_length() -> None:
    """Every reader on texts that make a pattern try again at each character, if it can."""
    kinds, found = load_host_kinds(), wants(Path("/"))
    for bit in _NASTY:
        text = (bit * 100_000)[:100_000]
        said = Output(0, text.encode())
        facts_of(dict.fromkeys(QUESTIONS.values(), said))
        for manager in MANAGERS.values():
            list(map(manager.entry, text.splitlines()))
            manager.candidate(text)
        for want in found:
            kind = kinds[want.resource.kind]
            answers: dict[Question, Answer] = {
                q: PathState("file", 0o100644, size=9) if isinstance(q, FileAt) else said
                for q in kind.ask(want)
            }
            with contextlib.suppress(FazaiError, KeyError):  # what they would ask for besides
                kind.compare(want, kind.read(want, answers))


def test_no_number_of_a_frame_is_an_amount() -> None:
    """A host can say any number of nine digits, and cannot have us keep as many of anything."""
    asked = [FileAt("/gone")]
    out = f"\n{NONCE} gone 0 999999999\n\n{NONCE} looked\n".encode()
    tracemalloc.start()
    try:
        found = read_answers(asked, out, NONCE, "box")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == {asked[0]: PathState("denied")}
    assert peak < 1 << 20


@pytest.mark.slow
def test_no_reader_takes_forever() -> None:
    """100,000 characters; what takes the square of it is ended by the limit."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "from tests.hosts.shell.test_fuzz_answers import read_at_length; read_at_length()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


@pytest.mark.slow
def test_much_of_what_a_host_could_say(corpus: tuple[list[Want], list[Question], bytes]) -> None:
    """Nothing of it stays in the memory."""
    _fuzz_answers(corpus, 2_000, seed=3)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for seed in range(10, 20):
            _fuzz_answers(corpus, 200, seed)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 2**20
    finally:
        tracemalloc.stop()
    _fuzz_answers(corpus, MANY, seed=4)
    _fuzz_facts(MANY, seed=5)
    _fuzz_packages(MANY, seed=7)
