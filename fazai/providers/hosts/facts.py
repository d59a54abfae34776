"""Facts of a host: questions that any POSIX system answers, and the reading of the answers. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from fazai.providers.hosts.shell.answers import whole_number
from fazai.providers.hosts.shell.questions import Answer, OutputOf, Question, find_output

_MANAGERS: Final = ("apt-get", "dnf", "yum", "zypper", "apk", "pacman", "pkg")
_RELEASE_LENGTH: Final = 1000
_TRIED: Final = " ".join(_MANAGERS)

QUESTIONS: Final[Mapping[str, OutputOf]] = {
    "names": OutputOf("uname -s; uname -r; uname -m; uname -n; id -un"),
    "os": OutputOf("cat /etc/os-release 2>/dev/null || freebsd-version 2>/dev/null"),
    "cpus": OutputOf("getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null || sysctl -n hw.ncpu"),
    "memory": OutputOf(
        "cat /proc/meminfo 2>/dev/null || echo MemTotal: $(($(sysctl -n hw.physmem) / 1024)) kB\n"
        "cat /proc/uptime"
    ),
    "disks": OutputOf("df -kP 2>/dev/null"),
    "addresses": OutputOf(
        "ip -o addr 2>/dev/null || ifconfig 2>/dev/null || cat /proc/net/fib_trie 2>/dev/null"
    ),
    "init": OutputOf(
        "if [ -d /run/systemd/system ]; then echo systemd\n"
        "elif command -v openrc >/dev/null; then echo openrc\n"
        "elif [ -f /etc/rc.subr ]; then echo rc; else cat /proc/1/comm 2>/dev/null; fi"
    ),
    "packages": OutputOf(f"for m in {_TRIED}; do command -v $m >/dev/null && echo $m && break; done"),
}


def facts_of(answers: Mapping[Question, Answer]) -> dict[str, Any]:
    """Return the facts as JSON types; what a host does not say is left out."""
    said = {name: find_output(answers, question).text for name, question in QUESTIONS.items()}
    system, release, machine, node, user = (said["names"].splitlines() + [""] * 5)[:5]
    memory = dict(re.findall(r"^(MemTotal|MemAvailable|SwapTotal):\s+(\d+)", said["memory"], re.M))
    uptime = re.search(r"^(\d+)\.\d+ \d+\.\d+$", said["memory"], re.M)
    found = {
        "hostname": node,
        "os": _read_release(said["os"]) or {"name": system},
        "kernel": f"{system} {release}".strip(),
        "arch": machine,
        "cpus": whole_number(said["cpus"].strip()),
        "memory_mib": _to_mib(memory.get("MemTotal")),
        "available_mib": _to_mib(memory.get("MemAvailable")),
        "swap_mib": _to_mib(memory.get("SwapTotal")),
        "uptime_s": whole_number(uptime[1]) if uptime else None,
        "disks": _read_disks(said["disks"]),
        "addresses": _read_addresses(said["addresses"]),
        "init": said["init"].strip() or None,
        "packages": {"apt-get": "apt"}.get(said["packages"].strip(), said["packages"].strip()),
        "user": user,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}


def _to_mib(kib: str | None) -> int | None:
    number = whole_number(kib) if kib else None
    return None if number is None else number // 1024


def _read_release(text: str) -> dict[str, str]:
    """Read os-release(5), or the output of FreeBSD's own program, which says only a version."""
    pairs: dict[str, str] = {}
    wanted = {"id": "ID", "name": "PRETTY_NAME", "version": "VERSION_ID"}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name in wanted.values() and len(value) <= _RELEASE_LENGTH:
            try:
                pairs[name] = " ".join(shlex.split(value))
            except ValueError:
                continue
    if not pairs and "=" not in text and text.strip():
        return {"name": "FreeBSD", "version": text.split()[0]}
    return {name: pairs[key] for name, key in wanted.items() if pairs.get(key)}


def _read_disks(text: str) -> list[dict[str, Any]]:
    """Read the lines of `df -kP` that are disks: device, blocks, used, available, percent, mount point."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split(None, 5)
        if len(words) == 6 and "/" in words[0]:
            device, blocks, _, available, _, mount = words
            size, free = _to_mib(blocks), _to_mib(available)
            if size is not None and free is not None:
                found.append({"mount": mount, "device": device, "size_mib": size, "free_mib": free})
    return found


def _read_addresses(text: str) -> list[str]:
    """Read the addresses by which others reach the host."""
    found = re.findall(r"\binet6? (?:addr:)?([0-9a-fA-F.:]+)", text)
    if "/32 host LOCAL" in text:  # fib_trie: the address stands on the line before
        found += re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text)
    own = (a for a in found if not a.startswith(("127.", "fe80:")) and a != "::1")
    return list(dict.fromkeys(own))
