"""The files for service managers, and the agent's policy as it is written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fazai.agent.config.reading import load_config
from fazai.providers.hosts.agent.remote.places import KEY_FOLDER, REMOTE, service_file
from fazai.providers.hosts.agent.remote.policy import policy_text, written_folders
from fazai.providers.hosts.kinds.remote import RemoteAgentKind
from tests.hosts.helpers import shell_environ
from tests.supervisor.remote.hub import build_agent

POLICY: dict[str, Any] = {
    "daemon": ["wss://fazai.example:3121", "https://fazai.example:3121"],
    "signing_key": "/etc/fazai/agent/http.key",
    "proxy": "http://proxy.example:3128",
    "proxy_credentials": "/etc/fazai/agent/proxy",
    "label": "Rack 7: \"the\" one # of 'ours'",
    "programs": [
        {
            "path": "/bin/df",
            "name": "df",
            "args": ["-h", {"pattern": "/[a-z/]*\\.d", "optional": True}],
            "timeout": 60,
            "env": {"LANG": "C|C\\.UTF-8", "yes": "no"},
            "stdin": False,
            "write": ["/var/lib/app"],
            "limits": {"memory": 268435456},
        },
        {"path": "/bin/true", "args": ["two\nlines\t"]},
    ],
    "files": [{"root": "/etc/app", "write": True}, {"root": "/srv"}],
    "reconcile": {"mode": "no", "kinds": ["host.file"]},
    "telemetry": {"interval": 60},
    "limits": {"output": 1048576},
}


def test_the_policy_means_to_the_agent_what_it_says_in_the_playbook(tmp_path: Path) -> None:
    data = policy_text(POLICY, "edge-7", lambda path: path)
    found = yaml.safe_load(data)
    for name in ("programs", "files", "reconcile", "telemetry", "limits", "daemon"):
        assert found[name] == POLICY[name]
    assert (found["agent_id"], found["name"]) == ("edge-7", POLICY["label"])
    path = tmp_path / "agent.yml"
    path.write_bytes(data)
    config = load_config(str(path))
    assert (config.agent_id, config.name, config.state) == ("edge-7", POLICY["label"], REMOTE.state)
    assert [str(each) for each in config.daemon] == POLICY["daemon"]
    assert config.programs[0].env == (("LANG", "C|C\\.UTF-8"), ("yes", "no"))
    assert config.programs[0].args[1].pattern == "/[a-z/]*\\.d"
    assert config.reconcile.mode == "no"
    assert config.key == f"{KEY_FOLDER}/key.pem"
    assert config.proxy is not None
    assert (str(config.proxy), config.proxy.credentials) == (POLICY["proxy"], POLICY["proxy_credentials"])


def test_a_policy_is_refused_before_any_contact() -> None:
    def problems(**fields: Any) -> list[str]:
        kind = RemoteAgentKind()
        given = {"daemon": "wss://h:3121", "file": build_agent("1.0.0"), **fields}
        return [f"{each.field} {each.message}" for each in kind.normalise(given, "present")[1]]

    assert problems() == []
    assert problems(reconcile=True, programs=[{"path": "/bin/true"}], version="1.0.0") == []
    assert problems(reconcile="maybe") == ["reconcile is one of no, look, yes, or a mapping with `mode`"]
    assert problems(daemon="http://h") == ['daemon is no address of a daemon: "http://h"']
    assert problems(daemon="https://h") == [
        "signing_key is missing: with it each request over https:// is signed"
    ]
    assert problems(proxy="http://proxy:3128", proxy_credentials="/etc/x") == []
    assert problems(proxy_credentials="/etc/x") == ["proxy_credentials is of no use without proxy"]
    for proxy in ("https://proxy:3128", "http://proxy", "http://edge:hunter2@proxy:3128"):
        assert problems(proxy=proxy) == ["proxy must be http://HOST:PORT, without a user"]
    assert problems(agent_id="a b")[0].startswith("agent_id is 1 to 64 letters")
    assert problems(programs="/bin/true") == ["programs must be a list"]
    assert problems(telemetry=[1]) == ["telemetry must be a mapping"]
    assert problems(programs=[{"path": "/bin/tr\x7fue"}]) == ["programs must not hold control characters"]
    assert problems(version="2.0.0") == ["version is 2.0.0, and the single-file agent is of version 1.0.0"]
    assert problems(file=b"no zip") == ["file is no single-file agent of fazai"]


def test_a_units_user_and_folders(tmp_path: Path) -> None:
    own = service_file("systemd", "fazai-remote", written_folders(POLICY)).decode()
    assert "\nUser=fazai-remote\n" in own
    assert "\nReadWritePaths=-/etc/app\nReadWritePaths=-/var/lib/app\n" in own
    assert "/srv" not in own
    analyze = shutil.which("systemd-analyze")
    if analyze:
        unit = tmp_path / "fazai-agent.service"
        unit.write_text(own)
        done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
        lines = (line for line in done.stderr.splitlines() if "fazai-agent" in line)
        assert [line for line in lines if not re.search("not executable|, ignoring", line)] == []
    root = service_file("systemd", "root", ["/etc/app"]).decode()
    assert "\nUser=root\nGroup=root\n" in root
    assert "\nStateDirectory=fazai-remote\n" in root
    for held in ("ProtectSystem", "NoNewPrivileges", "CapabilityBoundingSet", "ReadWritePaths"):
        assert held in own
        assert held not in root
    assert root.endswith("[Install]\nWantedBy=multi-user.target\n")
    openrc = service_file("openrc", "root", ()).decode()
    assert "command_user=root:root\n" in openrc
    assert "--owner root:root /var/lib/fazai-remote\n" in openrc
    assert "_account:=root" in service_file("rc", "root", ()).decode()


@pytest.mark.parametrize("name", ["start", "openrc", "rc"])
@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_scripts_are_read_by_any_shell(name: str, shell: str, tmp_path: Path) -> None:
    from fazai.providers.hosts.agent.remote.starting import start_file

    text = start_file(lambda path: path) if name == "start" else service_file(name, "fazai-remote", ())
    path = tmp_path / name
    path.write_bytes(text)
    environ = shell_environ(shell, tmp_path)
    done = subprocess.run(["sh", "-n", path], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
