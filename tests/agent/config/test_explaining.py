"""`fazai agent check`: plain sentences, warnings of what may be more than was meant, and one request."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fazai.agent.config.launchers import describe_launcher
from fazai.agent.config.probing import find_remarks, find_slow_text
from fazai.agent.link.tls import read_certificate, show_time
from fazai.cli.main import main
from tests.agent.config.test_reading import LEAST
from tests.agent.execution.conftest import needs_root
from tests.agent.link.authority import DAY, Authority, Pair

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder() -> Path:
    """A folder below others that nobody else can write."""
    path = Path("/var/lib") if os.geteuid() == 0 else Path.home()
    found = path / f"fazai-check-{os.getpid()}-{os.urandom(3).hex()}"
    found.mkdir()
    return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.agent("edge-7")


@pytest.fixture
def check(folder: Path, authority: Authority, pair: Pair, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Check a configuration of these lines, with the files of an enrolled agent; returns the exit code, and
    both outputs as one text."""
    config = folder / "agent.yml"
    places = (("ca", authority.file), ("cert", pair.certificate), ("key", pair.key))

    def run(text: str, *words: str, mode: int = 0o644) -> tuple[int, str]:
        least = LEAST
        for name, path in places:
            least = least.replace(f"/etc/fazai/agent/{name}.pem", str(path))
        config.write_text(least + text)
        config.chmod(mode)
        code = main(["agent", "check", "--config", str(config), *words])
        out, err = capsys.readouterr()
        return code, (out + err).replace(str(config), "agent.yml")

    yield run
    config.unlink(missing_ok=True)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


WHOLE = """\
root: /srv/lab
programs:
  - path: /bin/df
    name: disks
    args: ["-h", {pattern: "/[a-z/]*", optional: true}]
    user: nobody
    timeout: 60
    output: 4096
    stdin: true
    cwd: [/var, /srv]
    env: {LANG: "C|C[.]UTF-8"}
    write: []
    limits: {memory: 268435456, processes: 64, cpu_seconds: 9, files: 32}
  - path: /bin/echo
    args: ["a b", {pattern: "[a-z]+", rest: true}]
files: [{root: /etc/app, write: true}, {root: /srv}]
reconcile: {mode: look, kinds: [host.file], paths: [/etc]}
telemetry: {interval: 30}
"""
EXPLAINED = """\
edge-7 connects to wss://fazai.example:3121.
/srv/lab stands for / where files and reconciling are meant.
The daemon can run 2 programs (command.exec):
  /bin/df -h [</[a-z/]*>] (disks)
    as nobody, for 60 s at most, 4096 bytes of output, with standard input, in / or below /var, /srv
    LANG may be set to what fits C|C[.]UTF-8
    writes nothing
    with at most 268435456 bytes of memory, 64 processes, 9 s of CPU, 32 open files
  /bin/echo "a b" <[a-z]+>…
    as the agent's user, for 60 s at most, 262144 bytes of output
The daemon can compare and replace files below /etc/app.
The daemon can compare files below /srv.
The machine can be looked at, not changed: host.file, below /etc.
Telemetry is sent every 30 s.
"""


def test_the_policy_in_plain_sentences(check) -> None:  # type: ignore[no-untyped-def]
    code, text = check(WHOLE)
    assert code == 0
    assert text.startswith(EXPLAINED)
    assert text.splitlines()[-1].startswith("agent.yml is well-formed; ")


def test_what_is_not_allowed_is_said_as_well(check, authority: Authority, pair: Pair) -> None:  # type: ignore[no-untyped-def]
    ends = show_time(read_certificate(str(authority.file), str(pair.certificate), str(pair.key)).ends)
    code, text = check("")
    assert (code, text.splitlines()) == (
        0,
        [
            "edge-7 connects to wss://fazai.example:3121.",
            "The daemon can run no program (command.exec).",
            "The daemon can compare, replace and fetch no file (file.diff, file.apply, file.read).",
            "The machine cannot be reconciled, nor looked at for that.",
            "No telemetry is sent.",
            f"Its certificate is made out to edge-7, and holds until {ends}.",
            "agent.yml is well-formed; 0 warnings.",
        ],
    )


WARNINGS = [
    ("{path: /usr/bin/find, args: [{pattern: '[a-z]+'}]}", "it starts programs by -exec"),
    ("{path: /usr/bin/env, args: [{pattern: '[a-z]+'}]}", "it starts the program that its arguments name"),
    ("{path: /bin/sh, args: ['-s'], stdin: true}", "it runs code that stands in its arguments, its input"),
    ("{path: /bin/cp, args: [{pattern: '[a-z]+'}]}", "it writes, replaces or re-owns any file"),
    ("{path: /bin/echo, args: [{pattern: '.*'}]}", "argument 1: the pattern .* admits anything"),
    ("{path: /bin/echo, args: [a, {pattern: '/.*'}]}", "argument 2: the pattern /.* admits every path"),
    ("{path: /bin/echo, args: [{pattern: 'https?://.*'}]}", "admits every address"),
    ("{path: /bin/echo, args: [{pattern: '[a-z]*'}]}", "admits an empty text"),
    ("{path: /bin/echo, args: [{pattern: '(a+)+b'}]}", 'may take for ever, such as on "aaa…", 24 characters'),
    ("{path: /bin/echo, args: [{pattern: '-?a', dash: true}]}", "a value may be taken for an option"),
    ("{path: /bin/echo, env: {APP: '.+'}}", "APP: the pattern .+ admits anything"),
    ("{path: /bin/no-such}", "/bin/no-such: it is not there"),
    ("{path: /etc/passwd}", "/etc/passwd: it is no program that can be run"),
    ("{path: /bin/echo, user: no-such-user}", 'there is no user "no-such-user" here'),
]


@pytest.mark.parametrize(("program", "words"), WARNINGS)
def test_a_program_is_warned_of(check, program: str, words: str) -> None:  # type: ignore[no-untyped-def]
    code, text = check(f"programs:\n  - {program}\n")
    warnings = [line for line in text.splitlines() if line.startswith("warning: ")]
    assert code == 0
    assert [line for line in warnings if words in line and line.startswith("warning: agent.yml:7: /")], text
    assert (
        text.splitlines()[-1]
        == f"agent.yml is well-formed; {len(warnings)} warning{'s'[: len(warnings) > 1]}."
    )


@pytest.mark.parametrize(
    "program",
    [
        "{path: /bin/echo, args: [{pattern: '[a-z]{1,9}'}], user: nobody}",
        "{path: /usr/bin/find, args: [/srv, '-name', x]}",  # nothing is free
        "{path: /bin/echo, args: [{pattern: '/srv(/[a-z0-9]+)*'}], limits: {memory: 268435456, files: 32}}",
    ],
)
@needs_root
def test_a_narrow_program_is_not_warned_of(check, program: str) -> None:  # type: ignore[no-untyped-def]
    code, text = check(f"programs:\n  - {program}\n")
    assert (code, "warning:" in text) == (0, False), text


def test_files_that_others_can_write_are_warned_of(check, folder: Path) -> None:  # type: ignore[no-untyped-def]
    program = folder / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    _, text = check(f"programs: [{{path: {program}}}]\n", mode=0o666)
    assert "warning: agent.yml: anybody can write this file (mode 0666); an agent does not start" in text
    assert "with it: chmod go-w" in text
    assert f"warning: agent.yml:6: {program}: anybody can write it (mode 0777)" in text
    program.chmod(0o755)
    folder.chmod(0o777)
    _, text = check(f"programs: [{{path: {program}}}]\n")
    assert f"{program}: anybody can write the folder {folder} (mode 0777)" in text
    folder.chmod(0o1777)  # only owners rename in it
    _, text = check(f"programs: [{{path: {program}}}]\n")
    assert "anybody" not in text
    folder.chmod(0o755)
    link = folder / "link"
    link.symlink_to(program)
    program.chmod(0o775)
    os.chown(program, -1, 12345) if os.geteuid() == 0 else None
    _, text = check(f"programs: [{{path: {link}}}]\n")
    if os.geteuid() == 0:
        assert f"{link}: the group 12345 can write it (mode 0775)" in text
        os.chown(program, 12345, 0)
        _, text = check(f"programs: [{{path: {link}}}]\n")
        assert f"{link}: it is a link: {program} belongs to the user 12345, who can replace it" in text


def test_wide_folders_are_warned_of(check) -> None:  # type: ignore[no-untyped-def]
    _, text = check("files: [{root: /etc, write: true}]\nreconcile: {mode: yes}\n")
    assert "warning: agent.yml:6: every file below /etc can be replaced, also this one" in text
    assert "warning: agent.yml: the whole machine can be reconciled" in text


def test_one_request_is_explained(check) -> None:  # type: ignore[no-untyped-def]
    code, text = check(WHOLE, "--", "disks", "-h", "/var log")
    assert code == 7
    assert 'error: it would not run: /bin/df: argument 2, "/var log", is not allowed: it does not' in text
    assert "hint: line 8 of the agent's configuration" in text
    code, text = check(WHOLE, "--stdin", "--env", "LANG=C", "--cwd", "/var/log", "--", "disks", "-h", "/var")
    assert code == 0
    assert text.splitlines()[:2] == [
        "it would run, by agent.yml:8: /bin/df -h /var",
        EXPLAINED.splitlines()[4],
    ]
    code, text = check(WHOLE, "--env", "TZ=UTC", "--", "df", "-h")
    assert (code, "the variable TZ may not be set" in text) == (7, True)
    code, text = check(WHOLE, "--", "mkfs")
    assert (code, '"mkfs" is not on the allow-list' in text) == (7, True)


def test_wrong_words_and_wrong_files_exit_with_3(check) -> None:  # type: ignore[no-untyped-def]
    code, text = check("", "--env", "TZ", "--", "df")
    assert (code, 'a variable is given as NAME=VALUE, not "TZ"' in text) == (3, True)
    code, text = check("", "--stdin")
    assert (code, "belong to an argument list\n  hint: put it after --" in text) == (3, True)
    code, text = check("programms: []\nfiles: 7\n")
    assert code == 3
    assert 'error: agent.yml:6: the configuration has no setting "programms"' in text
    assert 'did you mean "programs"?' in text
    assert "error: agent.yml:7: `files` must be a list, not 7" in text


LAUNCHERS = """
find git tar rsync awk vi less ssh env xargs python3.11 perl5.36 ruby bash busybox sudo systemctl docker make
pip3 mysql tcpdump sed zip gdb nmap man
"""


@pytest.mark.parametrize("path", LAUNCHERS.split())
def test_programs_that_start_others_are_known(path: str) -> None:
    assert describe_launcher(f"/usr/bin/{path}")


@pytest.mark.parametrize("path", ["df", "uptime", "ls", "true", "id", "hostname", "free"])
def test_programs_that_start_nothing_are_not_warned_of(path: str) -> None:
    assert describe_launcher(f"/bin/{path}") is None


@pytest.mark.parametrize(
    ("pattern", "slow"),
    [
        ("(a+)+b", True),
        ("(a|aa)+$", True),
        ("(.*)*x", True),
        (r"[a-z]+:(\d+)*z", True),
        ("(x+x+)+y", True),
        ("[a-z]*[a-z]*[a-z]*[a-z]*z", True),
        ("/srv(/[a-z0-9.]+)*", False),
        ("([^,]+,)*x", False),
        (r"\w+\.log", False),
        ("(?s).*", False),
        ("(?P<n>a)(?P=n)+", False),
    ],
)
def test_patterns_that_may_take_for_ever_are_found_by_trying(pattern: str, slow: bool) -> None:
    assert (find_slow_text(pattern, 0.3) is not None) == slow


def test_remarks_are_about_what_a_pattern_admits() -> None:
    assert find_remarks("(?s).*") == ["admits anything"]
    assert find_remarks("[a-z]+") == []
    assert find_remarks("(?:/[^/]+)*") == ["admits every path", "admits an empty text"]


# -- who it is


def test_the_certificate_is_looked_at(check, tmp_path: Path, authority: Authority, pair: Pair) -> None:  # type: ignore[no-untyped-def]
    """Everything for which `run` would not connect is said before."""

    def warned(more: str = "") -> list[str]:
        code, text = check(more)
        assert code == 0
        return [line.removeprefix("warning: ") for line in text.splitlines() if line.startswith("warning: ")]

    def put(other: Pair) -> None:
        pair.certificate.write_bytes(other.certificate.read_bytes())
        pair.key.write_bytes(other.key.read_bytes())

    assert warned() == []
    put(authority.agent("edge-8"))
    assert warned() == ['the certificate is made out to "edge-8", and agent.yml names "edge-7"']
    put(authority.agent("edge-7-old", ends_s=-DAY, begins_s=-2 * DAY))
    assert any("this agent's certificate has expired: it held until 20" in line for line in warned())
    put(authority.agent("edge-7-new", begins_s=DAY))
    assert any("does not hold yet, but from 20" in line for line in warned())
    put(Authority(tmp_path / "other").agent("edge-7"))
    (said,) = warned()
    assert "was not made by the authority" in said
    put(authority.agent("edge-9"))
    pair.key.write_bytes(authority.agent("edge-7-x").key.read_bytes())
    (said,) = warned()
    assert "does not belong to the certificate" in said
    pair.key.write_text("no key")
    (said,) = warned()
    assert "is no PEM file, or is damaged" in said
    put(Pair(*(tmp_path / "pki" / f"agent-edge-8.{end}" for end in ("pem", "key"))))
    pair.key.chmod(0o644)
    (said, _) = warned()
    assert "others may read the key (mode 0644)" in said
    assert "chmod 600" in said
    pair.key.unlink()
    assert any("the key cannot be read: No such file" in line for line in warned())
    pair.certificate.unlink()
    (said,) = warned()
    assert "this agent is not enrolled yet (fazai agent enrol)" in said


def test_the_other_files_of_its_own_are_looked_at(check, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "signing").write_text("short")
    (tmp_path / "signing").chmod(0o600)
    (tmp_path / "proxy").write_text("user:hunter2")
    (tmp_path / "proxy").chmod(0o644)
    code, text = check(
        f"state: {tmp_path}/state\nsigning_key: {tmp_path}/signing\n"
        f"proxy: http://proxy:3128\nproxy_credentials: {tmp_path}/proxy\n"
    )
    assert code == 0
    assert "edge-7 connects to wss://fazai.example:3121, through the proxy http://proxy:3128." in text
    assert "others may look into `state` (mode 0755; chmod 700)" in text
    assert "expected a key of 16 to 4096 bytes" in text
    assert "others may read the credentials of the proxy (mode 0644)" in text
    assert "hunter2" not in text


OLD_PYTHON = ROOT / ".venv/python39/python3"


@pytest.mark.parametrize("python", [sys.executable, pytest.param(str(OLD_PYTHON), marks=pytest.mark.slow)])
def test_the_check_of_the_single_file_agent_needs_nothing_but_python(folder: Path, python: str) -> None:
    """The same command without click, without our packages, and under the oldest Python."""
    if not Path(python).exists():
        pytest.skip("tools/python39 brings the oldest Python that the agent works with")
    config = folder / "agent.yml"
    config.write_text(LEAST + "programs: [{path: /usr/bin/find, args: [{pattern: '(a+)+'}]}]\n")
    code = f"from fazai.agent.checking import run_check\nrun_check({str(config)!r})"
    found = subprocess.run(
        [python, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    config.unlink()
    folder.rmdir()
    assert (found.returncode, found.stderr) == (0, "")
    assert "the pattern (a+)+ may take for ever" in found.stdout
    assert "it starts programs by -exec" in found.stdout
