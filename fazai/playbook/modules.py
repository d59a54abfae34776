"""Kinds for Ansible's modules: the hint for somebody who writes `copy:` or `ssh.systemd:`."""

from __future__ import annotations

from typing import Final

_COLLECTIONS: Final = ("ansible.builtin", "ansible.legacy", "ansible.posix")
_PREFIXES: Final = ("ssh", "local", "host", "linux", *_COLLECTIONS, "community.general", "community.crypto")
_SERVICE: Final = "host.service: {name: …, state: started, enabled: true}"
_PACKAGE: Final = "host.package: {name: …}"
_COMMAND: Final = "host.command: {argv: [program, argument], creates: …}"
_FIREWALL: Final = (
    "a host's packet filter has no kind: host.file for its rules, notify a handler that loads them"
)
_NO_FACTS: Final = "no kind: fazai facts shows what hosts are"
_NO_STEP: Final = "no kind: a playbook says what is wanted, and has no steps"
_VARIABLES: Final = "no kind: variables stand in group_vars, host_vars and below vars:"
_ORDER: Final = "no kind: resources stand below resources:, in the order in which they are done"

#: By the module's own name, without its collection.
_MODULES: Final = {
    "copy": "host.file with content: or src:",
    "template": "host.file with template:",
    "file": "host.file, host.directory or host.link",
    "lineinfile": "host.line: {path: …, line: …}",
    "blockinfile": "host.block: {path: …, block: …}",
    "replace": "host.line for one line, host.block for some",
    "ini_file": "host.line with regexp:, or host.file with template:",
    "assemble": "host.file with template:",
    "get_url": "host.download: {url: …, dest: …, checksum: …}",
    "uri": "host.download for a file, host.command for anything else",
    "unarchive": "host.download for the archive, and host.command with creates: to unpack it",
    "git": "host.command: {argv: [git, clone, …], creates: …}",
    "synchronize": "host.file with src: for each file",
    "fetch": "no kind: fazai brings files to hosts, and none back",
    "stat": "no kind: creates:, removes: and unless: of host.command ask before they act",
    "find": "no kind: name what is to be there or absent",
    "tempfile": "no kind: a resource is the same in every run",
    **dict.fromkeys(("systemd", "systemd_service", "service", "sysvinit", "openrc"), _SERVICE),
    **dict.fromkeys(("apt", "yum", "dnf", "dnf5", "package", "apk", "zypper", "pacman", "pkgng"), _PACKAGE),
    "pip": "host.command: {argv: [pip, install, …], unless: …}",
    **dict.fromkeys(
        ("apt_repository", "yum_repository"), "host.file for the list of sources, then host.package"
    ),
    **dict.fromkeys(("apt_key", "rpm_key"), "host.download for the key, with its checksum"),
    **dict.fromkeys(("command", "raw", "script", "expect"), _COMMAND),
    "shell": 'host.command: {shell: "…", unless: …}',
    "cron": "host.cron: {name: …, job: …}",
    "user": "host.user: {name: …}",
    "group": "host.group: {name: …}",
    "authorized_key": "host.authorized_key: {user: …, key: …}",
    "known_hosts": "host.line: {path: /etc/ssh/ssh_known_hosts, line: …, create: true}",
    "sysctl": "host.sysctl: {name: …, value: …}",
    "hostname": "host.file: {path: /etc/hostname, content: …}, and host.command as a handler",
    "timezone": "host.link: {path: /etc/localtime, target: /usr/share/zoneinfo/…}",
    "mount": "host.line for /etc/fstab, and host.command as a handler",
    "modprobe": "host.line: {path: /etc/modules, line: …, create: true}",
    "reboot": "host.command as a handler",
    **dict.fromkeys(("iptables", "ufw", "firewalld", "nftables"), _FIREWALL),
    **dict.fromkeys(("setup", "gather_facts", "service_facts", "package_facts"), _NO_FACTS),
    **dict.fromkeys(
        ("debug", "assert", "fail", "pause", "wait_for", "wait_for_connection", "meta"), _NO_STEP
    ),
    **dict.fromkeys(("set_fact", "include_vars", "add_host", "group_by"), _VARIABLES),
    **dict.fromkeys(
        ("block", "import_tasks", "include_tasks", "import_role", "include_role", "import_playbook"), _ORDER
    ),
}


def module_hint(name: str) -> str | None:
    """Return the hint for a module of Ansible's, also with a collection or a provider before its name."""
    for known in _PREFIXES:
        name = name.removeprefix(f"{known}.")
    return _MODULES.get(name)
