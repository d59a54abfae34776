"""The same six resources on the same hosts for every contender of bench/hosts.py, each in its language."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measure import Sample, run
from bench.peers import ansible, fazai, pyinfra
from bench.ssh_hosts import Host, SshHosts
from fazai.model import Resource, Value
from fazai.providers.hosts.kind import Want
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.shell.questions import Question
from fazai.providers.hosts.shell.script import PRELUDE, observe_script
from fazai.providers.hosts.shell.walking import JUDGING

__all__ = ["BARE", "contenders"]

#: The floor: what anybody has to pay who logs in with asyncssh and runs one command. The key is read once,
#: host keys are checked, nothing is looked for that is not needed.
BARE = """\
import asyncio, sys, asyncssh
port, user, key_file, known, *hosts = sys.argv[1:]
key = asyncssh.read_private_key(key_file)

async def one(host):
    options = dict(port=int(port), username=user, client_keys=[key], known_hosts=known)
    options.update(agent_path=None, config=None)
    async with asyncssh.connect(host, **options) as connection:
        return (await connection.run("true", check=True)).exit_status

async def main():
    return await asyncio.gather(*map(one, hosts))

print(sum(asyncio.run(main())))
"""

#: The same, with the script that fazai sends: what the hosts have to do to answer is in here, too.
BARE_LOOK = BARE.replace(
    'connection.run("true", check=True)',
    'connection.run("sh -s", input=open(hosts_folder + host, "rb").read(), encoding=None, check=True)',
).replace("*hosts = sys.argv[1:]", "hosts_folder, *hosts = sys.argv[1:]")

LIMITS = "files=4096\nprocs=512\n"
MOTD = "# managed\nlevel info\nretries 3\n"
BLOCK = "server a\nserver b"

FAZAI: list[dict[str, dict[str, Value]]] = [
    {"host.directory": {"path": "/etc/app", "mode": "0755"}},
    {"host.file": {"path": "/etc/app/limits.conf", "mode": "0644", "content": LIMITS}},
    {"host.file": {"path": "/etc/app/app.conf", "mode": "0600", "content": MOTD}},
    {"host.link": {"path": "/etc/app/current", "target": "limits.conf"}},
    {"host.line": {"path": "/etc/profile", "line": "export APP=1", "create": True}},
    {"host.block": {"path": "/etc/hosts", "block": BLOCK, "create": True}},
]

PYINFRA = f"""\
from io import StringIO
from pyinfra import host
from pyinfra.operations import files
root = host.data.root
files.directory(path=root + "/etc/app", mode="755")
files.put(src=StringIO({LIMITS!r}), dest=root + "/etc/app/limits.conf", mode="644")
files.put(src=StringIO({MOTD!r}), dest=root + "/etc/app/app.conf", mode="600")
files.link(path=root + "/etc/app/current", target="limits.conf")
files.line(path=root + "/etc/profile", line="export APP=1")
files.block(path=root + "/etc/hosts", content={BLOCK!r})
"""

ANSIBLE = f"""\
- hosts: all
  gather_facts: false
  strategy: free
  tasks:
    - file: {{path: "{{{{ root }}}}/etc/app", state: directory, mode: "0755"}}
    - copy: {{dest: "{{{{ root }}}}/etc/app/limits.conf", mode: "0644", content: {json.dumps(LIMITS)}}}
    - copy: {{dest: "{{{{ root }}}}/etc/app/app.conf", mode: "0600", content: {json.dumps(MOTD)}}}
    - file: {{path: "{{{{ root }}}}/etc/app/current", state: link, src: limits.conf}}
    - lineinfile: {{path: "{{{{ root }}}}/etc/profile", line: "export APP=1", create: true}}
    - blockinfile: {{path: "{{{{ root }}}}/etc/hosts", block: {json.dumps(BLOCK)}, create: true}}
"""

ANSIBLE_CFG = """\
[defaults]
forks = 50
gathering = explicit
stdout_callback = minimal
deprecation_warnings = false
interpreter_python = {python}
[ssh_connection]
pipelining = true
control_path_dir = {folder}/cp
ssh_args = -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={known} -o IdentitiesOnly=yes
"""


def contenders(servers: SshHosts, folder: Path, hosts: Sequence[Host]) -> dict[str, Callable[[], Sample]]:
    """Those that are installed, by name; each call is one whole process over these hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "bare asyncssh": _bare(servers, hosts),
        "bare asyncssh, same look": _bare_look(servers, folder, hosts),
        "fazai apply": _fazai(servers, folder, hosts),
    }
    if pyinfra() is not None:
        found["pyinfra"] = _pyinfra(servers, folder, hosts)
    if ansible("ansible-playbook") is not None:
        found["ansible-playbook"] = _ansible(servers, folder, hosts)
    return found


def _bare(servers: SshHosts, hosts: Sequence[Host]) -> Callable[[], Sample]:
    script = [sys.executable, "-c", BARE, str(servers.port), servers.user]
    addresses = [host.address for host in hosts]
    command = [*script, str(servers.user_key), str(servers.known_hosts), *addresses]
    return lambda: run(command)


def _bare_look(servers: SshHosts, folder: Path, hosts: Sequence[Host]) -> Callable[[], Sample]:
    scripts = folder / "looks"
    scripts.mkdir()
    for host in hosts:
        look = f"fz_m begin; {{\n{_look(host.root)}\n}} 2>/dev/null; fz_m end $?"
        block = f"{PRELUDE}{JUDGING}fz_prefix=\nfz_n=0\n{{ {look}; }} </dev/null\n"
        (scripts / host.address).write_text(block)
    script = [sys.executable, "-c", BARE_LOOK, str(servers.port), servers.user, str(servers.user_key)]
    command = [*script, str(servers.known_hosts), f"{scripts}/", *(host.address for host in hosts)]
    return lambda: run(command)


def _look(root: Path) -> str:
    """The script that answers for all resources of a host."""
    kinds = load_host_kinds()
    questions: dict[Question, None] = {}
    for item in FAZAI:
        ((name, fields),) = item.items()
        identity = kinds[name].identify(fields)
        wanted, problems = kinds[name].normalise(fields, "present")
        assert isinstance(identity, str)
        assert not problems
        want = Want(Resource(name, identity, wanted), lambda path: f"{root}{path}")
        questions.update(dict.fromkeys(kinds[name].ask(want)))
    return observe_script(list(questions))


def inventory(servers: SshHosts, hosts: Sequence[Host]) -> str:
    """fazai's inventory (JSON is YAML)."""
    shared = {
        "provider": "ssh",
        "port": servers.port,
        "user": servers.user,
        "key": str(servers.user_key),
        "known_hosts": str(servers.known_hosts),
        "agent": False,
    }
    named = {host.name: {"host": host.address, "root": str(host.root)} for host in hosts}
    return json.dumps({"all": {"vars": shared, "hosts": named, "resources": FAZAI}}, indent=1)


def _fazai(servers: SshHosts, folder: Path, hosts: Sequence[Host]) -> Callable[[], Sample]:
    path = folder / "inventory.yml"
    path.write_text(inventory(servers, hosts))
    env = {**os.environ, "FAZAI_STATE_DIR": f"{folder}/state", "HOME": str(folder)}
    return lambda: run([fazai(), "apply", str(path)], env)


def _pyinfra(servers: SshHosts, folder: Path, hosts: Sequence[Host]) -> Callable[[], Sample]:
    data = {
        "ssh_user": servers.user,
        "ssh_port": servers.port,
        "ssh_key": str(servers.user_key),
        "ssh_known_hosts_file": str(servers.known_hosts),
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
    }
    listed = [(host.address, {**data, "root": str(host.root)}) for host in hosts]
    (folder / "hosts.py").write_text(f"all_hosts = {listed!r}\n")
    (folder / "deploy.py").write_text(PYINFRA)
    env = {**os.environ, "HOME": str(folder)}
    command = [str(pyinfra()), "-y", f"{folder}/hosts.py", f"{folder}/deploy.py"]
    return lambda: run(command, env)


def _ansible(servers: SshHosts, folder: Path, hosts: Sequence[Host]) -> Callable[[], Sample]:
    shared = {
        "ansible_port": servers.port,
        "ansible_user": servers.user,
        "ansible_ssh_private_key_file": str(servers.user_key),
    }
    named = {host.name: {"ansible_host": host.address, "root": str(host.root)} for host in hosts}
    (folder / "ansible.json").write_text(json.dumps({"all": {"vars": shared, "hosts": named}}))
    (folder / "site.yml").write_text(ANSIBLE)
    config = folder / "ansible.cfg"
    config.write_text(
        ANSIBLE_CFG.format(python=os.path.realpath(sys.executable), folder=folder, known=servers.known_hosts)
    )
    env = {**os.environ, "ANSIBLE_CONFIG": str(config), "HOME": str(folder)}
    command = [str(ansible("ansible-playbook")), "-i", f"{folder}/ansible.json", f"{folder}/site.yml"]
    return lambda: run(command, env)
