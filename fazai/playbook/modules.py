"""What Ansible's modules are called here: the hint for somebody who writes `copy:` or `ssh.systemd:`."""

from __future__ import annotations

from typing import Final

__all__ = ["module_hint"]

_COLLECTIONS: Final = (
    *("ansible.builtin.", "ansible.legacy.", "ansible.posix.", "community.general.", "community.crypto."),
    *("ssh.", "local.", "host.", "linux."),
)
_SERVICE: Final = "ssh.service: {name: …, state: started, enabled: true}"
_PACKAGE: Final = "ssh.package: {name: …}"
_COMMAND: Final = "ssh.command: {argv: [program, argument], creates: …}"
_FIREWALL: Final = (
    "a host's packet filter has no kind: ssh.file for its rules, notify a handler that loads them"
)
_NO_FACTS: Final = "no kind: fazai facts shows what hosts are"
_NO_STEP: Final = "no kind: a playbook says what is wanted, and has no steps"
_VARIABLES: Final = "no kind: variables stand in group_vars, host_vars and below vars:"
_ORDER: Final = "no kind: resources stand below resources:, in the order in which they are done"

#: By the module's own name, without its collection.
_MODULES: Final = {
    "copy": "ssh.file with content: or src:",
    "template": "ssh.file with template:",
    "file": "ssh.file, ssh.directory or ssh.link",
    "lineinfile": "ssh.line: {path: …, line: …}",
    "blockinfile": "ssh.block: {path: …, block: …}",
    "replace": "ssh.line for one line, ssh.block for some",
    "ini_file": "ssh.line with regexp:, or ssh.file with template:",
    "assemble": "ssh.file with template:",
    "get_url": "ssh.download: {url: …, dest: …, checksum: …}",
    "uri": "ssh.download for a file, ssh.command for anything else",
    "unarchive": "ssh.download for the archive, and ssh.command with creates: to unpack it",
    "git": "ssh.command: {argv: [git, clone, …], creates: …}",
    "synchronize": "ssh.file with src: for each file",
    "fetch": "no kind: fazai brings files to hosts, and none back",
    "stat": "no kind: creates:, removes: and unless: of ssh.command ask before they act",
    "find": "no kind: name what is to be there or absent",
    "tempfile": "no kind: a resource is the same in every run",
    **dict.fromkeys(("systemd", "systemd_service", "service", "sysvinit", "openrc"), _SERVICE),
    **dict.fromkeys(("apt", "yum", "dnf", "dnf5", "package", "apk", "zypper", "pacman", "pkgng"), _PACKAGE),
    "pip": "ssh.command: {argv: [pip, install, …], unless: …}",
    **dict.fromkeys(
        ("apt_repository", "yum_repository"), "ssh.file for the list of sources, then ssh.package"
    ),
    **dict.fromkeys(("apt_key", "rpm_key"), "ssh.download for the key, with its checksum"),
    **dict.fromkeys(("command", "raw", "script", "expect"), _COMMAND),
    "shell": 'ssh.command: {shell: "…", unless: …}',
    "cron": "ssh.cron: {name: …, job: …}",
    "user": "ssh.user: {name: …}",
    "group": "ssh.group: {name: …}",
    "authorized_key": "ssh.authorized_key: {user: …, key: …}",
    "known_hosts": "ssh.line: {path: /etc/ssh/ssh_known_hosts, line: …, create: true}",
    "sysctl": "ssh.sysctl: {name: …, value: …}",
    "hostname": "ssh.file: {path: /etc/hostname, content: …}, and ssh.command as a handler",
    "timezone": "ssh.link: {path: /etc/localtime, target: /usr/share/zoneinfo/…}",
    "mount": "ssh.line for /etc/fstab, and ssh.command as a handler",
    "modprobe": "ssh.line: {path: /etc/modules, line: …, create: true}",
    "reboot": "ssh.command as a handler",
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
    """What there is here for a module of Ansible's, also with a collection or a provider before its name."""
    for known in _COLLECTIONS:
        name = name.removeprefix(known)
    return _MODULES.get(name)
