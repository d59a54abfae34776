"""agent.yml: what is read, and each mistake with its line, all at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fazai.agent.config.programs import is_forbidden_variable
from fazai.agent.config.reading import load_config, parse_config
from fazai.agent.config.settings import (
    AgentConfig,
    AgentLimits,
    DaemonAddress,
    FilesRoot,
    ProgramLimits,
    ReconcileRule,
)
from fazai.agent.errors import ConfigError
from fazai.errors import FazaiError
from fazai.policy.arguments import ArgumentRule

LEAST = """\
agent_id: edge-7
daemon: wss://fazai.example:3121
ca: /etc/fazai/agent/ca.pem
certificate: /etc/fazai/agent/cert.pem
key: /etc/fazai/agent/key.pem
"""
WHOLE = (
    LEAST.replace("daemon: wss://fazai.example:3121", "daemon: [wss://a.example, 'https://[::1]:4000']")
    + """\
signing_key: /etc/fazai/agent/signing.key
name: Rack 7
state: /var/lib/fazai-remote/
root: /srv/lab
programs:
  - path: /bin/df
    name: disks
    args: ["-h", {text: "-i", optional: true}, {pattern: "/[a-z/]*", rest: true}]
    user: nobody
    timeout: 60
    output: 4096
    cwd: [/var]
    env: {LANG: "C|C\\\\.UTF-8", TZ: "[A-Za-z/]+"}
    stdin: true
    write: [/var/lib/app]
    limits: {memory: 268435456, processes: 64, cpu_seconds: 60, files: 256}
  - path: /bin/true
files:
  - root: /etc/app
    write: true
  - {root: /srv}
reconcile:
  mode: look
  kinds: [host.file, host.file.validate]
  paths: [/etc, /srv]
  hold: 60
telemetry: {interval: 0.5, top_n: 3, sample: [cpu, mem]}
limits: {journal: 1048576, output: 65536}
"""
)


def parse(text: str) -> AgentConfig:
    return parse_config(text.encode(), "agent.yml")


def mistakes(text: str) -> list[tuple[int, str]]:
    """The lines and sentences of what is wrong."""
    with pytest.raises(FazaiError) as found:
        parse(text)
    errors = found.value.errors
    assert all(isinstance(error, ConfigError) and error.exit_code == 3 for error in errors)
    return [(int(str(e.where).rpartition(":")[2]), f"{e.message} ({e.hint})") for e in errors]


def test_the_least_that_is_needed() -> None:
    config = parse(LEAST)
    assert config.agent_id == "edge-7"
    assert config.daemon == (DaemonAddress("wss", "fazai.example", 3121),)
    assert (config.state, config.root, config.programs, config.files) == (
        "/var/lib/fazai-remote",
        "/",
        (),
        (),
    )
    assert config.reconcile == ReconcileRule(mode="no", kinds=None, paths=None, hold_s=600)
    assert config.telemetry is None
    assert config.limits == AgentLimits(64 * 1024 * 1024, 1024 * 1024)


def test_everything_that_can_be_set() -> None:
    config = parse(WHOLE)
    assert list(map(str, config.daemon)) == ["wss://a.example:3121", "https://[::1]:4000"]
    assert (config.name, config.state, config.root) == ("Rack 7", "/var/lib/fazai-remote", "/srv/lab")
    df, true = config.programs
    assert df.args == (
        ArgumentRule(literal="-h", line=13),
        ArgumentRule(literal="-i", optional=True, line=13),
        ArgumentRule(pattern="/[a-z/]*", rest=True, line=13),
    )
    assert (df.path, df.name, df.user, df.timeout_s, df.output) == ("/bin/df", "disks", "nobody", 60.0, 4096)
    assert (df.cwd, df.stdin, df.write) == (("/var",), True, ("/var/lib/app",))
    assert df.env == (("LANG", "C|C\\.UTF-8"), ("TZ", "[A-Za-z/]+"))
    assert df.limits == ProgramLimits(268435456, 64, 60, 256)
    assert (true.line, true.args, true.write, true.output) == (22, (), None, 65536)
    assert config.files == (FilesRoot("/etc/app", True, 24), FilesRoot("/srv", False, 26))
    assert config.reconcile == ReconcileRule(
        "look", ("host.file", "host.file.validate"), ("/etc", "/srv"), 60
    )
    assert config.telemetry is not None
    assert (config.telemetry.interval_s, config.telemetry.sample) == (0.5, ("cpu", "mem"))
    assert config.limits == AgentLimits(1048576, 65536)


@pytest.mark.parametrize(
    ("text", "mode"), [("no", "no"), ("yes", "yes"), ("look", "look"), ("'no'", "no"), ("true", "yes")]
)
def test_the_mode_of_reconciling(text: str, mode: str) -> None:
    assert parse(f"{LEAST}reconcile: {{mode: {text}}}").reconcile.mode == mode


def test_an_empty_list_of_paths_or_kinds_is_not_everything() -> None:
    found = parse(f"{LEAST}reconcile: {{mode: yes, kinds: [], paths: []}}").reconcile
    assert (found.kinds, found.paths) == ((), ())
    assert parse(f"{LEAST}programs: [{{path: /bin/a, write: []}}]").programs[0].write == ()


ONE = [
    ("agent_ids: x", 6, 'the configuration has no setting "agent_ids" (did you mean "agent_id"?)'),
    ("programs:\n  - path: /bin/df\n    arg: []", 8, 'a program has no setting "arg" (did you mean "args"?)'),
    ("programs: {}", 6, "`programs` must be a list, not a mapping"),
    ("programs: [x]", 6, 'a program must be a mapping, not "x"'),
    ("programs: [{name: df}]", 6, "a program needs `path`"),
    ("programs: [{path: df}]", 6, '`path` must be an absolute path, not "df"'),
    ("programs: [{path: /bin/../x}]", 6, '`path` must be a path without ".", ".." and "//"'),
    ("programs: [{path: /bin//x}]", 6, '`path` must be a path without ".", ".." and "//"'),
    ("programs: [{path: /bin/a, name: a/b}]", 6, "`name` must be a name without slashes"),
    (
        "programs: [{path: /bin/a, args: [1]}]",
        6,
        "an argument must be a text or {pattern: …}, not 1 (put it in",
    ),
    ("programs: [{path: /bin/a, args: [{}]}]", 6, "an argument needs either `pattern` or `text`"),
    ("programs: [{path: /bin/a, args: [{pattern: a, text: a}]}]", 6, "needs either `pattern` or `text`"),
    (
        "programs: [{path: /bin/a, args: [{pattern: '('}]}]",
        6,
        "`pattern` is no regular expression: missing )",
    ),
    (
        "programs: [{path: /bin/a, args: [{text: a, rest: true}]}]",
        6,
        "`rest` and `dash` belong to a `pattern`",
    ),
    ("programs: [{path: /bin/a, args: [{pattern: a, rest: true}, b]}]", 6, "belongs to the last argument"),
    ("programs: [{path: /bin/a, args: [{pattern: a, dash: 1}]}]", 6, "`dash` must be true or false, not 1"),
    ("programs: [{path: /bin/a, user: 'a b'}]", 6, "`user` must be NAME, NAME:GROUP or UID:GID"),
    ("programs: [{path: /bin/a, timeout: 0}]", 6, "`timeout` must be a number from 0.001 to 3600, not 0"),
    ("programs: [{path: /bin/a, output: 9999999}]", 6, "`output` must be a whole number from 0 to 1048576"),
    ("programs: [{path: /bin/a, env: [A]}]", 6, "`env` must be a mapping of names to patterns, not a list"),
    ("programs: [{path: /bin/a, env: {A: }}]", 6, '"A" has no value'),
    ("programs: [{path: /bin/a, env: {'A B': x}}]", 6, '"A B" is no name of a variable'),
    ("programs: [{path: /bin/a, env: {LD_PRELOAD: x}}]", 6, "LD_PRELOAD may never be set by a request"),
    ("programs: [{path: /bin/a, limits: {memory: 1}}]", 6, "`memory` must be a whole number from 1048576"),
    (
        "programs: [{path: /bin/a, limits: {mem: 1}}]",
        6,
        '`limits` has no setting "mem" (did you mean "memory"?)',
    ),
    (
        "programs: [{path: /a, name: x}, {path: /b, name: x}]",
        6,
        'the name "x" already stands for /a (line 6)',
    ),
    ("files: [{write: true}]", 6, "an entry of `files` needs `root`"),
    ("files: [{root: /a}, {root: /a/}]", 6, "/a stands in `files` twice"),
    ("reconcile: {mode: sometimes}", 6, '`mode` must be no, look or yes, not "sometimes"'),
    ("reconcile: {mode: [look]}", 6, "`mode` must be no, look or yes, not a list"),
    ("reconcile: {mode: 1}", 6, "`mode` must be no, look or yes, not 1"),
    ("reconcile: {kinds: [file]}", 6, '`kinds` must be a kind such as host.file, not "file"'),
    ("reconcile: {hold: 0}", 6, "`hold` must be a whole number from 1 to 86400, not 0"),
    ("telemetry: {interval: x}", 6, '`interval` must be a number from 0.05 to 86400, not "x"'),
    ("telemetry: {sample: [cpus]}", 6, "`sample` must be one of processes, netstat"),
    ("limits: {journal: 1}", 6, "`journal` must be a whole number from 1048576"),
    ("programs: [{path: /bin/a, args: [{pattern: '(?u)a'}]}]", 6, "ASCII and UNICODE flags are incompatible"),
    ("root: lab", 6, '`root` must be an absolute path, not "lab"'),
    ("name: 7", 6, "`name` must be a line of at most 256 characters, not 7 (put it in quotes)"),
    ("name: &x 7", 6, "anchors are not read here"),
]


@pytest.mark.parametrize(("text", "line", "words"), ONE)
def test_each_mistake_has_its_line_and_a_sentence(text: str, line: int, words: str) -> None:
    (found,) = mistakes(f"{LEAST}{text}\n")
    assert found[0] == line
    assert words in found[1]


@pytest.mark.parametrize(
    "address",
    ["ws://a", "wss://a/path", "wss://u@a", "http://a", "a:3121", "wss://a:0", "wss://a:99999", "wss://"],
)
def test_addresses_that_are_none(address: str) -> None:
    ((line, text),) = mistakes(LEAST.replace("wss://fazai.example:3121", address))
    assert line == 2
    assert "`daemon` must be wss://HOST:PORT or https://HOST:PORT" in text


def test_signed_http_needs_its_key() -> None:
    ((line, text),) = mistakes(LEAST.replace("wss:", "https:"))
    assert (line, text.partition(",")[0]) == (2, "https:// needs `signing_key`")


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes("agent_id: -x\nprogram: []\nfiles:\n  - root: etc\n    wirte: yes\n")
    assert [line for line, _ in found] == [2, 1, 1, 1, 1, 1, 5, 4]
    assert sum("the configuration needs `" in text for _, text in found) == 4


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'there is no configuration of the agent ".*agent.yml"') as failed:
        load_config(tmp_path / "agent.yml")
    assert "fazai agent enrol --daemon" in str(failed.value.hint)
    with pytest.raises(ConfigError, match=r"it cannot be read: Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="this is no regular file"):
        load_config("/dev/null")
    (tmp_path / "agent.yml").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="it is empty"):
        load_config(tmp_path / "agent.yml")
    (tmp_path / "agent.yml").write_text(LEAST)
    assert load_config(tmp_path / "agent.yml").agent_id == "edge-7"


FORBIDDEN = """
LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT DYLD_INSERT_LIBRARIES LESSOPEN LESSCLOSE LESS GIT_SSH_COMMAND
GIT_EXTERNAL_DIFF GIT_PAGER PATH IFS BASH_ENV ENV PYTHONPATH PYTHONSTARTUP PYTHONINSPECT PERL5OPT PERL5LIB
RUBYOPT NODE_OPTIONS JAVA_TOOL_OPTIONS PAGER MANPAGER EDITOR VISUAL BROWSER SHELL SHELLOPTS PS4
PROMPT_COMMAND BASH_FUNC_ls CDPATH GCONV_PATH GLIBC_TUNABLES HOSTALIASES TERMINFO RSYNC_RSH TAR_OPTIONS
SSH_ASKPASS OPENSSL_CONF SSLKEYLOGFILE XDG_CONFIG_HOME HOME ld_preload SYSTEMD_EDITOR SYSTEMD_PAGER
ZDOTDIR
"""


@pytest.mark.parametrize("name", FORBIDDEN.split())
def test_variables_that_no_configuration_can_allow(name: str) -> None:
    assert is_forbidden_variable(name)
    ((_, text),) = mistakes(f"{LEAST}programs: [{{path: /bin/a, env: {{{name}: '.*'}}}}]\n")
    assert f"{name} may never be set by a request" in text


@pytest.mark.parametrize(
    "name", ["LANG", "LC_ALL", "TZ", "TERM", "COLUMNS", "ENVIRONMENT", "APP_MODE", "USERNAME"]
)
def test_variables_that_a_configuration_can_allow(name: str) -> None:
    assert parse(f"{LEAST}programs: [{{path: /bin/a, env: {{{name}: x}}}}]").programs[0].env == ((name, "x"),)


_MINIMAL = "agent_id: a\ndaemon: wss://h\nca: /c\ncertificate: /c\nkey: /k\n"


@pytest.mark.parametrize(
    ("mode", "owner", "message"),
    [
        (0o646, None, "others may write to it (mode 0646), and have the agent run anything"),
        (0o664, (0, 65534), "others may write to it (mode 0664), and have the agent run anything"),
        (0o600, (65534, 0), "it belongs to user 65534, who could have the agent run anything"),
    ],
)
def test_a_file_that_somebody_else_writes_is_no_policy(
    tmp_path: Path, mode: int, owner: tuple[int, int] | None, message: str
) -> None:
    path = tmp_path / "agent.yml"
    path.write_text(_MINIMAL)
    path.chmod(mode)
    if owner is not None:
        if os.geteuid() != 0:
            pytest.skip("only root gives files away")
        os.chown(path, *owner)
    with pytest.raises(ConfigError) as caught:
        load_config(path, guarded=True)
    assert (caught.value.message, caught.value.where) == (message, str(path))


def test_a_file_in_a_folder_that_somebody_else_writes_is_no_policy(tmp_path: Path) -> None:
    path = tmp_path / "open" / "agent.yml"
    path.parent.mkdir()
    path.write_text(_MINIMAL)
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        load_config(path, guarded=True)
    assert caught.value.message == (
        f"others may write to its folder {path.parent} (mode 0777), and have the agent run anything"
    )
    path.parent.chmod(0o1777)
    assert load_config(path, guarded=True).agent_id == "a"


def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "agent.yml")
    with pytest.raises(ConfigError, match="no regular file"):
        load_config(tmp_path / "agent.yml")
