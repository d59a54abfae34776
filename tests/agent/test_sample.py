"""The contents of a sample, under every awk, whatever the names are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.conftest import Agent, tool_folder
from tests.agent.test_delivery import lines_of
from tests.contract import decode_telemetry

#: The awks of this machine; CI has all of them.
AWKS = {name: shutil.which(name) for name in ("mawk", "gawk", "original-awk", "busybox")}
HERE = [name for name, path in AWKS.items() if path]
FIELDS = {
    "processes",
    "netstat",
    "iostat",
    "os",
    "cpu",
    "mem",
    "swap",
    "disk",
    "io",
    "net",
    "sockets",
    "top",
    "uptime",
    "users",
    "failed_units",
    "checks",
}


@pytest.fixture(params=HERE)
def awk(request: pytest.FixtureRequest, agent: Agent, tmp_path: Path) -> Agent:
    """The agent with the tools of one implementation; under busybox all of them are its own."""
    name = request.param
    run = f'exec {AWKS[name]} {"awk" if name == "busybox" else ""} "$@"'
    replaced = {"awk": run}
    if name == "busybox":
        applets = subprocess.run([str(AWKS[name]), "--list"], capture_output=True, text=True).stdout.split()
        for tool in ("mv", "rm", "mkdir", "cat", "stat", "ln", "readlink", "wc", "gzip", "sha256sum"):
            if tool in applets:
                replaced[tool] = f'exec {AWKS[name]} {tool} "$@"'
    agent.environment["PATH"] = tool_folder(tmp_path / "bin", replaced)
    agent.settings["SAMPLE"] = "all"
    return agent


def sample(agent: Agent, **settings: str) -> dict[str, Any]:
    agent.settings |= settings
    done = agent.run("--print")
    batch = decode_telemetry(done.stdout)
    assert batch.errors == ()
    assert done.stdout.count(b"\n") == 1
    (found,) = batch.samples
    return dict(found.fields)


def test_a_sample_of_this_machine(awk: Agent) -> None:
    found = sample(awk)
    assert set(found) == {"hostname", "timestamp", "agent", "tasks", "schema", *FIELDS}
    total = {line.split(":")[0]: line for line in Path("/proc/meminfo").read_text().splitlines()}["MemTotal"]
    assert found["mem"]["total"] == int(total.split()[1]) * 1024
    assert found["cpu"]["count"] == len(os.sched_getaffinity(0)) or found["cpu"]["count"] == os.cpu_count()
    assert 0 <= found["cpu"]["percent"] <= 100
    assert abs(found["uptime"] - float(Path("/proc/uptime").read_text().split()[0])) < 60
    assert "lo" in {net["name"] for net in found["net"]}
    assert found["top"]
    assert found["processes"].splitlines()[0].split() == ["PID", "USER", "%CPU", "%MEM", "COMMAND"]
    assert len(found["processes"].splitlines()) == len(found["top"]) + 1
    assert found["tasks"]["total"] >= len(found["top"])
    assert found["agent"]["rss_bytes"] > 1_000_000
    usage = os.statvfs("/")
    root = [disk for disk in found["disk"] if disk["mount"] == "/"]
    assert [disk["total"] for disk in root] == [usage.f_blocks * usage.f_frsize for _ in root]


def test_only_what_was_asked_for(agent: Agent) -> None:
    assert set(sample(agent, SAMPLE="cpu,uptime")) == {
        "hostname",
        "timestamp",
        "agent",
        "schema",
        "cpu",
        "uptime",
    }
    assert set(sample(agent, SAMPLE="mem disk")) == {
        "hostname",
        "timestamp",
        "agent",
        "schema",
        "mem",
        "disk",
    }


NAMES = {
    "quotes": b"a\"b\\c'd",
    "a newline and a bracket": b"x) R 1\n2 (y",
    "control characters": b"\x01\x1f\x7f\t",
    "not UTF-8": b"\xff\xfe\xc3(",
    "cut UTF-8": b"caf\xc3",
    "overlong and surrogate": b"\xc0\xaf\xed\xa0\x80\xf5",
    "UTF-8": "grün€😀".encode(),
    "backslash n": b"a\\nb",
    "a command": b"$(reboot)`id`%s",
    "JSON": b'","x":{"',
}


@pytest.fixture
def named_process() -> Iterator[Callable[[bytes], int]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(name: bytes) -> int:
        rename = "open('/proc/self/comm', 'wb').write(bytes.fromhex(sys.argv[1]))"
        code = f"import os, sys; {rename}; os.write(1, b'x'); os.read(0, 1)"
        process = subprocess.Popen(
            [sys.executable, "-c", code, name.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        return process.pid

    yield start
    for process in started:
        process.communicate()


def proc_of(folder: Path, *pids: int) -> str:
    """Return a /proc as it is, with these processes alone: a busy machine has hundreds that use more."""
    folder.mkdir()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in pids:
            (folder / entry.name).symlink_to(entry)
    return str(folder)


def test_hostile_process_names(awk: Agent, named_process: Callable[[bytes], int], tmp_path: Path) -> None:
    pids = {named_process(name): name for name in NAMES.values()}
    found = sample(awk, TOP_N="100", PROC=proc_of(tmp_path / "proc", *pids))
    commands = {process["pid"]: process["command"] for process in found["top"]}
    for pid, name in pids.items():
        assert commands[pid] == name[:15].decode("utf-8", "replace"), name
        assert name[:15].decode("utf-8", "replace") in found["processes"]


def fake_proc(folder: Path, processes: int = 0) -> Path:
    """Make as little of /proc as a machine without anything would have."""
    (folder / "self").mkdir(parents=True)
    (folder / "net").mkdir()
    (folder / "sys/kernel").mkdir(parents=True)
    (folder / "sys/kernel/hostname").write_text("fake\n")
    (folder / "sys/kernel/osrelease").write_text("1.0\n")
    (folder / "uptime").write_text("12345678.90 1.00\n")
    (folder / "loadavg").write_text("0.10 0.20 0.30 1/2 3\n")
    (folder / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 100 0 100 700 100 0 0 0 0 0\n")
    (folder / "meminfo").write_text("MemTotal:  18014398509481984 kB\nMemFree: 4 kB\nCached: 4 kB\n")
    (folder / "diskstats").write_text("")
    (folder / "self/mounts").write_text("")
    (folder / "net/dev").write_text("Inter-|   Receive\n face |bytes\n")
    for number in range(processes):
        (folder / str(number + 1)).symlink_to("/proc/self/task/../../" + str(os.getpid()))
    return folder


def test_hostile_mounts_and_interfaces(awk: Agent, tmp_path: Path) -> None:
    proc = fake_proc(tmp_path / "proc")
    mounts = (
        rb'/dev/sd\040x /mnt/a\040b\011"\012\134\377 ext4 rw 0 0'
        + b"\n/dev/b /mnt/\xc3\xa4\xff ext4 rw 0 0\n"
    )
    (proc / "self/mounts").write_bytes(mounts + b"nfs:/x /net nfs rw 0 0\n/dev/b /again ext4 rw 0 0\n")
    counters = b" 1 2 3 4 0 0 0 0 9007199254740993 6 7 8 0 0 0 0\n"
    with (proc / "net/dev").open("ab") as file:
        file.write(b'  e"t\\h\xff0:' + counters + b" a:b:" + counters)
    (proc / "diskstats").write_bytes(b'8 0 s"d\xff 1 0 2 0 3 0 4 0 0 5 6\n')
    found = sample(awk, PROC=str(proc))
    assert [(d["mount"], d["device"]) for d in found["disk"]] == [
        ('/mnt/a b\t"\n\\\ufffd', "/dev/sd x"),
        ("/mnt/ä\ufffd", "/dev/b"),
    ]
    assert [(n["name"], n["rx_bytes"]) for n in found["net"]] == [('e"t\\h\ufffd0', 1), ("a:b", 1)]
    assert [d["device"] for d in found["io"]] == ['s"d\ufffd']
    assert found["cpu"] == {
        "count": 1, "percent": 20.0, "user": 10.0, "system": 10.0, "idle": 70.0, "iowait": 10.0, "steal": 0.0,
        "window_s": 12345678.9,
    }  # fmt: skip
    assert found["uptime"] == 12345678.9
    assert found["mem"]["available"] == 8192
    assert found["mem"]["total"] == 2**64


def test_an_empty_proc_still_gives_a_record(awk: Agent, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert sample(awk, PROC=str(tmp_path / "none"))["os"]["load"] == [0, 0, 0]


def test_very_many_processes(awk: Agent, tmp_path: Path) -> None:
    found = sample(
        awk, PROC=str(fake_proc(tmp_path / "proc", processes=2000)), SAMPLE="top,processes", TOP_N="5"
    )
    assert found["tasks"]["total"] == 2000
    assert len(found["top"]) <= 10


def test_another_locale_changes_nothing(
    agent: Agent, named_process: Callable[[bytes], int], tmp_path: Path
) -> None:
    pid = named_process(NAMES["not UTF-8"])
    proc = proc_of(tmp_path / "proc", pid)
    for locale in ("C.utf8", "de_DE.UTF-8", "tr_TR.UTF-8"):
        agent.environment |= {
            "LC_ALL": locale,
            "LANG": locale,
            "TZ": "America/Sao_Paulo",
            "LC_NUMERIC": locale,
        }
        found = sample(agent, SAMPLE="all", TOP_N="100", PROC=proc)
        assert {p["pid"]: p["command"] for p in found["top"]}[pid] == NAMES["not UTF-8"].decode(
            "utf-8", "replace"
        )
        assert found["timestamp"].endswith("Z")


def test_cpu_time_is_of_the_interval(agent: Agent, tmp_path: Path) -> None:
    """The second sample of a process tells what happened since the first."""
    proc = fake_proc(tmp_path / "proc")
    agent.settings |= {"PROC": str(proc), "SAMPLE": "cpu,iostat"}
    agent.run("--once", code=1)
    (agent.state / "backoff").unlink()
    (proc / "uptime").write_text("12345688.90 1.00\n")
    (proc / "stat").write_text("cpu  600 0 200 1100 100 0 0 0 0 0\ncpu0 1 0 1 1 1 0 0 0 0 0\n")
    agent.run("--once", code=1)
    cpu = json.loads(lines_of(agent)[-1])["cpu"]
    assert (cpu["user"], cpu["system"], cpu["idle"], cpu["window_s"]) == (50.0, 10.0, 40.0, 10.0)


def test_checks(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "checks"
    folder.mkdir()
    checks = {
        "good": "echo fine",
        "warned": "echo careful >&2; exit 1",
        "broken": "echo two; echo lines; exit 2",
        "odd": "printf 'a\"b\\\\c\\377\\001'; exit 7",
        "slow": "sleep 60",
        "stays": "sleep 60 & echo left a child",
        "long": "head -c 100000 /dev/zero | tr '\\0' x",
        'n"a\nme': "echo hostile name",
    }
    for name, script in checks.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "not-executable").write_text("#!/bin/sh\n")
    found = sample(agent, SAMPLE="checks", CHECKS_DIR=str(folder), CHECK_TIMEOUT_S="0.8")["checks"]
    results = {check["name"]: (check["status"], check["exit"], check["output"]) for check in found}
    assert results.pop("long") == ("ok", 0, "x" * 512)
    assert results == {
        "good": ("ok", 0, "fine"),
        "warned": ("warning", 1, "careful"),
        "broken": ("critical", 2, "two\nlines"),
        "odd": ("unknown", 7, 'a"b\\c\ufffd\x01'),
        "slow": ("timeout", None, ""),
        "stays": ("timeout", None, ""),
        'n"a\nme': ("ok", 0, "hostile name"),
    }


def test_failed_units_come_from_the_service_manager(agent: Agent, tmp_path: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        tool, answer = "systemctl", "web.service loaded failed failed a web server"
    else:
        tool, answer = "rc-status", "web.service [ crashed ]"
    path = tool_folder(tmp_path / "bin")
    Path(path, tool).write_text(f"#!/bin/sh\necho '{answer}'\n")
    Path(path, tool).chmod(0o755)
    agent.environment["PATH"] = path
    assert sample(agent, SAMPLE="failed_units")["failed_units"] == ["web.service"]


def test_somebody_on_a_terminal_is_logged_in(agent: Agent) -> None:
    spawn = "import pty; pty.spawn(['/bin/sh', '-c', 'tty; echo $$; read x'])"
    with subprocess.Popen(
        [sys.executable, "-c", spawn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        terminal, pid = (process.stdout.readline().decode().strip() for _ in range(2))
        found = sample(agent, SAMPLE="users")["users"]
        process.communicate(b"\n")
    assert {user["pid"]: user["tty"] for user in found}[int(pid)] == terminal.removeprefix("/dev/")
