"""Another user moves things as fast as he can while root writes in his folder: nothing outside of it ever
changes, whichever step of a script he meets."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fazai.errors import FazaiError
from fazai.model import Resource
from tests.hosts.changes.test_unsafe_ways import ALICE, outside, plant
from tests.hosts.helpers import Host, resource, shell_environ
from tests.hosts.kinds.test_shared_files import KEY_1
from tests.hosts.machines import missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="only root may start the one who moves things"),
]
ROUNDS = 25

#: In her folder: our temporary files and folders, the folder `d` and the name `f` are swapped for links (and
#: hard links, where the kernel lets her) to what is root's, and back.
MOVER = r"""
use strict; $SIG{PIPE} = 'DEFAULT';
my ($kind, $etc) = @ARGV;
sub temporary {
    for my $at ('d', '.') {
        opendir(my $h, $at) or next;
        for my $n (grep { /^\.fazai-/ } readdir $h) {
            rename("$at/$n", "$at/moved-$n"); symlink("$etc/shadow", "$at/$n");
            select(undef, undef, undef, rand() * 0.01);
            rename("$at/$n", "gone"); rename("$at/moved-$n", "$at/$n") if rand() < 0.5;
        }
    }
}
sub folder { rename('d', 'away'); symlink("$etc", 'd'); select(undef, undef, undef, rand() * 0.002);
    unlink 'd'; rename('away', 'd'); select(undef, undef, undef, rand() * 0.002); }
sub name { rename('d/f', 'd/g'); rand() < 0.5 ? symlink("$etc/shadow", 'd/f') : link("$etc/shadow", 'd/f');
    select(undef, undef, undef, rand() * 0.002); unlink 'd/f'; rename('d/g', 'd/f');
    select(undef, undef, undef, rand() * 0.002); }
my %do = (temporary => \&temporary, folder => \&folder, name => \&name);
print "ready\n"; close STDOUT;
$do{$kind}->() while getppid() != 1 && !-e 'stop';
"""


@contextmanager
def moving(home: Path, kind: str) -> Iterator[None]:
    """That program, as alice, until the block ends."""
    perl = shutil.which("perl") or missing("perl is not installed")
    words = [perl, "-e", MOVER, kind, str(home.parents[1] / "etc")]
    mover = subprocess.Popen(
        words, cwd=home, stdout=subprocess.PIPE, user=ALICE, group=ALICE, extra_groups=[], text=True
    )
    try:
        assert mover.stdout is not None
        assert mover.stdout.readline() == "ready\n"
        yield
    finally:
        mover.kill()
        mover.wait()
        assert mover.stdout is not None
        mover.stdout.close()


def wanted(number: int) -> list[Resource]:
    """Return what is written in a round: something new each time."""
    at, text = "/home/alice/d", f"{number}\n" * 50
    mode = "0666" if number % 2 else "0600"
    return [
        resource("host.file", {"path": f"{at}/f", "content": text, "owner": str(ALICE), "backup": True}),
        resource("host.file", {"path": f"{at}/h", "content": text, "mode": "0666"}),
        resource("host.file", {"path": f"{at}/f", "mode": mode, "owner": str(ALICE)}),
        resource("host.line", {"path": f"{at}/f", "line": f"line {number}", "create": True}),
        resource("host.directory", {"path": f"{at}/n{number}", "mode": "0777", "owner": str(ALICE)}),
        resource(
            "host.directory", {"path": at, "mode": "0755" if number % 2 else "0700", "owner": str(ALICE)}
        ),
        resource("host.link", {"path": f"{at}/l", "target": str(number)}),
        resource("host.authorized_key", {"user": "alice", "path": f"{at}/f", "key": f"{KEY_1} {number}"}),
        resource("host.sysctl", {"name": "a.b", "value": str(number), "sysctl_file": f"{at}/f"}),
        resource("host.directory", {"path": f"{at}/n{number}", "recurse": True}, "absent"),
    ]


@pytest.mark.parametrize("shell", ["dash", "busybox"])
@pytest.mark.parametrize("kind", ["temporary", "folder", "name"])
def test_nothing_outside_changes(kind: str, shell: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "fs"
        root.mkdir()
        Path(folder).chmod(0o755)
        environ = shell_environ(shell, Path(folder))
        plant(root, "/home/alice", "nothing")
        (root / "etc/f").write_text("root's\n")
        home = root / "home/alice"
        (home / "d").mkdir()
        os.chown(home / "d", ALICE, ALICE)
        before = outside(root, "/home/alice")
        done = asyncio.run(_rounds(root, home, kind, environ, before))
    assert done > 0, "nothing was written: the race proves nothing"


async def _rounds(
    root: Path, home: Path, kind: str, environ: dict[str, str], before: dict[str, object]
) -> int:
    host = Host.local(root, environ)
    done = 0
    async with host.session:
        with moving(home, kind):
            for number in range(ROUNDS):
                for each in wanted(number):
                    with suppress(FazaiError):  # what she is in the way of is refused
                        for change in (await host.look(each)).changes:
                            await host.session.write(change)
                            done += 1
                assert outside(root, "/home/alice") == before, number
    return done
