"""A machine to throw away in which a real systemd is process 1, in namespaces and cgroups of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts.machines import Machine, missing

__all__ = ["booted"]

_GROUPS = Path("/sys/fs/cgroup")
_SYSTEMD = "/lib/systemd/systemd"
#: Units that would touch this machine's devices and clock, or keep a log nobody reads.
_MASKED = (
    *(f"systemd-{name}.service" for name in ("udevd", "udev-trigger", "logind", "sysctl", "remount-fs")),
    *(f"systemd-{name}.service" for name in ("tmpfiles-setup", "tmpfiles-setup-dev", "modules-load")),
    *(f"systemd-{name}" for name in ("journald.service", "journald.socket", "journald-dev-log.socket")),
    "systemd-journald-audit.socket",
    "local-fs.target",
    "proc-sys-fs-binfmt_misc.automount",
    *(f"sys-{name}.mount" for name in ("kernel-config", "kernel-debug", "kernel-tracing")),
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
)
_JOIN = """set -e
boot=$1 folder=$2 net=$3; shift 3
for group; do
mkdir "$group"
for file in cpuset.cpus cpuset.mems; do # one without processors takes nobody
[ ! -f "${group%/*}/$file" ] || cat "${group%/*}/$file" >"$group/$file" || true; done
echo $$ >"$group/cgroup.procs"; done
exec unshare $net -mupC --fork --kill-child --propagation private -- /bin/sh -c "$boot" boot "$folder"
"""
_BOOT = """set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"; cd "$1/root"
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys
for d in run dev; do mount -t tmpfs -o mode=755 tmpfs $d; done
for n in null zero full random urandom tty; do : >dev/$n; mount --bind /dev/$n dev/$n; done
mkdir dev/shm dev/pts; ln -s pts/ptmx dev/ptmx
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then mount -t cgroup2 cgroup2 sys/fs/cgroup
else mount -t tmpfs tmpfs sys/fs/cgroup; mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd; fi
mkdir -p .before; pivot_root . .before; umount -l /.before; rmdir /.before # what systemd does for units, too
exec env -i container=test PATH=/usr/sbin:/usr/bin SYSTEMD --unit=basic.target --log-target=null
"""


@dataclass
class _Inside(Machine):
    """`enter`: what brings a command into the machine that runs."""

    enter: list[str] = field(default_factory=list)

    def argv(self, *words: str) -> list[str]:
        return [*self.enter, *words] if self.enter else Machine.argv(self, *words)


@contextlib.contextmanager
def booted(folder: Path, *, apart: bool = True) -> Iterator[Machine]:
    """The machine, once its systemd says that it has started. `apart`: with a network of its own."""
    if not Path(_SYSTEMD).exists():
        missing("systemd is not installed")
    machine = _Inside.made(folder, apart=apart)
    assert isinstance(machine, _Inside)
    units = machine.folder / "upper/etc/systemd/system"
    shutil.rmtree(units, ignore_errors=True)
    units.mkdir(parents=True)
    os.setxattr(units, "trusted.overlay.opaque", b"y")  # the units of this machine are not ours
    for unit in _MASKED:
        (units / unit).symlink_to("/dev/null")
    machine.put("/etc/fstab", "", 0o644)
    machine.put("/etc/machine-id", "", 0o644)
    groups = _own_groups(f"fazai-test-{secrets.token_hex(8)}")
    boot = _BOOT.replace("SYSTEMD", _SYSTEMD)
    process = subprocess.Popen(
        ["/bin/sh", "-c", _JOIN, "join", boot, str(machine.folder), "-n" if apart else "", *map(str, groups)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        machine.enter = _entrance(process)
        yield machine
    finally:
        process.kill()  # systemd goes with it, and everything below systemd
        process.communicate()
        for group in groups:
            _remove(group)


def _own_groups(name: str) -> list[Path]:
    """New cgroups below ours, in each hierarchy: no limit that holds for us is left."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        folder = controllers.removeprefix("name=") or ("unified" if (_GROUPS / "unified").is_dir() else ".")
        group = _GROUPS / folder / path.lstrip("/")
        if (group / "cgroup.procs").exists():
            found.append(group / name)
    if not found or not os.access(found[0].parent, os.W_OK):
        missing("a systemd of its own takes cgroups that may be written")
    return found


def _entrance(process: subprocess.Popen[str]) -> list[str]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            assert process.stdout is not None
            missing(f"systemd does not start: {process.stdout.read()}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            enter = ["nsenter", "-t", children[0], "-m", "-n", "-p", "-u", "-C", "-r", "-w"]
            state = [*enter, "/usr/bin/systemctl", "is-system-running"]
            if subprocess.run(state, capture_output=True, text=True).stdout in ("running\n", "degraded\n"):
                return enter
        time.sleep(0.05)
    raise AssertionError("systemd did not say within 30 s that it runs")


def _remove(group: Path) -> None:
    """Remove what its systemd made, too. A group can be removed once its last process is reaped."""
    until = time.monotonic() + 10
    while group.exists():
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        assert time.monotonic() < until, f"{group} is still in use"
