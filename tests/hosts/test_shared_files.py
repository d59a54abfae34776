"""Kinds whose item is a few lines of a file that others write to as well: sysctl, cron, authorized_key."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.hosts import test_kinds
from tests.hosts.cases import Case
from tests.hosts.helpers import SHELLS


def _public_key(number: int) -> str:
    data = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(data).decode()}"


KEY_1, KEY_2, KEY_3 = map(_public_key, (1, 2, 3))

CASES = (
    Case(
        "sysctl in a file that others write to, with the last line that counts",
        "ssh.sysctl",
        {"name": "net.ipv4.ip_forward", "value": 1},
        {"/etc/sysctl.d/99-fazai.conf": "# mine\nnet.ipv4.ip_forward = 1\nvm.swappiness=10\n"},
        {"value": "0"},
        {"/etc/sysctl.d/99-fazai.conf": "# mine\nnet.ipv4.ip_forward = 0\nvm.swappiness=10\n"},
        removed={"/etc/sysctl.d/99-fazai.conf": "# mine\nvm.swappiness=10\n"},
        before={
            "/etc/sysctl.d": "<dir>",
            "/etc/sysctl.d/99-fazai.conf": (
                "# mine\n- net.ipv4.ip_forward=1\nvm.swappiness=10\n net.ipv4.ip_forward = 0 "
            ),
        },
    ),
    Case(
        "sysctl in a file of its own",
        "ssh.sysctl",
        {"name": "net.ipv4.tcp_rmem", "value": "4096\t87380  6291456", "sysctl_file": "/etc/sysctl.d/x"},
        {"/etc/sysctl.d/x": ("0644", "net.ipv4.tcp_rmem = 4096 87380 6291456\n")},
        {"value": "1 2 3"},
        {"/etc/sysctl.d/x": "net.ipv4.tcp_rmem = 1 2 3\n"},
        {"sysctl_file": "/etc/sysctl.d/x"},
        removed={"/etc/sysctl.d/x": None},
    ),
    Case(
        "cron in a file",
        "ssh.cron",
        {
            "name": "a $(job) it's",
            "minute": 5,
            "user": "root",
            "cron_file": "x",
            "job": 'echo "$(id)" \\% \\n',
        },
        {"/etc/cron.d/x": ("0644", '#fazai: a $(job) it\'s\n5 * * * * root echo "$(id)" \\% \\n\n')},
        {"minute": "*", "hour": "1-5", "disabled": True, "job": "-x"},
        {"/etc/cron.d/x": "#fazai: a $(job) it's\n#* 1-5 * * * root -x\n"},
        {"cron_file": "x"},
        removed={"/etc/cron.d/x": None},
    ),
    Case(
        "cron taken over from Ansible, between other jobs",
        "ssh.cron",
        {"name": "job", "special_time": "daily", "user": "app", "cron_file": "x", "job": "a  b"},
        {"/etc/cron.d/x": "A=1\n#fazai: job\n@daily app a  b\n#Ansible: job 2\n1 1 1 1 1 root b\n"},
        {"special_time": None, "weekday": "mon", "user": "root"},
        {"/etc/cron.d/x": "A=1\n#fazai: job\n* * * * mon root a  b\n#Ansible: job 2\n1 1 1 1 1 root b\n"},
        {"cron_file": "x"},
        removed={"/etc/cron.d/x": "A=1\n#Ansible: job 2\n1 1 1 1 1 root b\n"},
        before={
            "/etc/cron.d": "<dir>",
            "/etc/cron.d/x": "A=1\n#Ansible: job\n1 2 3 4 5 root x\n#Ansible: job 2\n1 1 1 1 1 root b\n",
        },
    ),
    Case(
        "authorized key",
        "ssh.authorized_key",
        {
            "user": "nobody-here",
            "path": "/keys/a",
            "key": KEY_1 + " me",
            "key_options": 'command="a b",no-pty',
        },
        {"/keys/a": ("0600", f'command="a b",no-pty {KEY_1} me\n'), "/keys": ("0700", "<dir>")},
        {"key_options": None, "key": KEY_1 + " $(id) it's"},
        {"/keys/a": f"{KEY_1} $(id) it's\n"},
        {"path": "/keys/a"},
        removed={"/keys/a": ""},
    ),
    Case(
        "authorized key among others",
        "ssh.authorized_key",
        {"user": "me", "key": f"{KEY_2} two\n"},
        {"/home/it's me/.ssh/authorized_keys": f"# {KEY_2}\n{KEY_1} one\nrubbish\n{KEY_2} two\n"},
        removed={"/home/it's me/.ssh/authorized_keys": f"# {KEY_2}\n{KEY_1} one\nrubbish\n"},
        before={
            "/etc": "<dir>",
            "/etc/passwd": f"root:x:0:0::/:/bin/sh\nme:x:{os.getuid()}:{os.getgid()}::/home/it's me:\n",
            "/home/it's me/.ssh": "<dir>",
            "/home/it's me/.ssh/authorized_keys": f"# {KEY_2}\n{KEY_1} one\nrubbish",
        },
    ),
    Case(
        "authorized keys and no others",
        "ssh.authorized_key",
        {"user": "x", "path": "/keys/a", "key": KEY_2, "exclusive": True},
        {"/keys/a": f"# all\n{KEY_2}\n"},
        {"key": f"{KEY_1}\n{KEY_2}"},
        {"/keys/a": f"# all\n{KEY_1}\n{KEY_2}\n"},
        None,
        before={"/keys": "<dir>", "/keys/a": f"# all\n{KEY_1} one\nno-pty {KEY_3} three\n"},
    ),
)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_kind(case: Case, shell: str, tmp_path: Path) -> None:
    test_kinds.test_a_kind(case, shell, tmp_path)
