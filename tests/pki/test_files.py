"""The folder of the CA: who can read it, what is damaged, and what a crash or a second process leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fazai.errors import FazaiError, InputError, LockHeld, Refused, SecretError
from fazai.pki import Authority
from fazai.pki.administration import Maker, issue_pair
from fazai.pki.files import hold_folder
from fazai.store.factory import open_certificates
from tests.pki.world import BEGIN, DAY_S, KEYS, World, openssl


def test_keys_are_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        world = World(tmp_path)
        with contextlib.closing(world.store):
            world.authority.issue_listener(["a.example"])
            issue_pair(world.authority, world.store, "edge-7", world.folder / "issued")
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "secrets", *(tmp_path / "secrets").rglob("*"))
    }
    files = ("ca.key", "ca.pem", "listener.key", "listener.pem", "issued/edge-7.key", "issued/edge-7.pem")
    folders = ("secrets", "secrets/pki", "secrets/pki/issued")
    assert modes == dict.fromkeys(folders, 0o700) | {f"secrets/pki/{name}": 0o600 for name in files}


def test_no_key_is_in_the_state_or_in_a_text(world: World) -> None:
    issue_pair(world.authority, world.store, "edge-7", world.folder / "issued")
    world.authority.issue_listener(["a.example"])
    bodies = [
        "".join(path.read_text().splitlines()[1:-1])[20:60].encode() for path in world.folder.rglob("*.key")
    ]
    assert len(bodies) == 3
    for path in (world.root / "state").iterdir():
        assert not [body for body in bodies if body in path.read_bytes().replace(b"\n", b"")]
    assert "PRIVATE" not in repr(vars(world.authority)) + repr(world.authority)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o704, 0o750, 0o755, 0o777])
def test_a_folder_that_is_open_is_refused(world: World, mode: int) -> None:
    world.folder.chmod(mode)
    match = rf"the folder .*/pki is open to others \(mode {mode:04o}\) \(chmod 700 .*/pki\)"
    for use in (lambda: Authority.load(world.folder), lambda: world.maker().make_ca()):
        with pytest.raises(SecretError, match=match):
            use()


@pytest.mark.parametrize("name", ["ca.key", "listener.key"])
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o644])
def test_a_key_that_is_open_is_refused(world: World, name: str, mode: int) -> None:
    world.authority.issue_listener(["a.example"])
    (world.folder / name).chmod(mode)
    match = rf"{name} is open to others \(mode {mode:04o}\) \(chmod 600 "
    with pytest.raises(SecretError, match=match):
        Authority.load(world.folder).issue_listener(["b.example"])


def test_a_key_that_is_a_link_is_looked_at_where_it_leads(world: World, tmp_path: Path) -> None:
    key = world.folder / "ca.key"
    (tmp_path / "open").mkdir(mode=0o755)
    key.rename(tmp_path / "open/ca.key")
    key.symlink_to(tmp_path / "open/ca.key")
    with pytest.raises(SecretError, match=r"the folder .*/open is open to others"):
        Authority.load(world.folder)


def _write(name: str, data: bytes | str) -> Callable[[World], object]:
    text = data.encode() if isinstance(data, str) else data
    return lambda world: (world.folder / name).write_bytes(text)


def _cut(name: str, size: int) -> Callable[[World], object]:
    return lambda world: (world.folder / name).write_bytes((world.folder / name).read_bytes()[:size])


def _remove(*names: str) -> Callable[[World], object]:
    def remove(world: World) -> None:
        for name in names:
            (world.folder / name).unlink()

    return remove


def _make_folder(name: str) -> Callable[[World], object]:
    def make(world: World) -> None:
        (world.folder / name).unlink()
        (world.folder / name).mkdir(mode=0o700)

    return make


def _other_key(sort: str) -> Callable[[World], object]:
    return lambda world: openssl("genpkey", *KEYS[sort], "-out", str(world.folder / "ca.key"))


def _lock_key(world: World) -> None:
    key = world.folder / "ca.key"
    openssl("pkey", "-aes256", "-passout", "pass:secret", "-in", str(key), "-out", f"{key}.new")
    Path(f"{key}.new").replace(key)


def _put_agent(world: World) -> None:
    (world.folder / "ca.pem").write_text(world.authority.issue(world.machine().request(), "edge-7").pem)


DAMAGES: dict[str, tuple[Callable[[World], object], str]] = {
    "key cut": (_cut("ca.key", 100), r"ca\.key is damaged: it is no private key in PEM \(bring it back"),
    "key empty": (_write("ca.key", b""), r"ca\.key is damaged"),
    "key binary": (_write("ca.key", bytes(range(256))), r"ca\.key is damaged"),
    "key large": (_write("ca.key", b"x" * 70_000), r"ca\.key is larger than 65536 bytes"),
    "key of somebody": (_other_key("p256"), r"ca\.key is not the key of .*ca\.pem \(bring both back"),
    "key of a sort": (_other_key("ed25519"), r"ca\.key is not the key of .*ca\.pem"),
    "key locked": (_lock_key, r"the key .*ca\.key has a password \(write it without one"),
    "key gone": (_remove("ca.key"), r"ca\.pem stands there without its key .*ca\.key \(bring it back"),
    "key a folder": (_make_folder("ca.key"), r"ca\.key is not a file"),
    "certificate cut": (_cut("ca.pem", 200), r"ca\.pem is damaged: it holds no certificate \(PEM; bring it"),
    "certificate empty": (_write("ca.pem", b""), r"ca\.pem is damaged: it holds no certificate"),
    "certificate of an agent": (_put_agent, r"ca\.pem holds the certificate of 'edge-7', which is no CA"),
    "certificate gone": (_remove("ca.pem"), r"ca\.pem is missing beside its key: an init was cut off"),
    "certificate a folder": (_make_folder("ca.pem"), r"ca\.pem cannot be read: Is a directory"),
    "both gone": (_remove("ca.key", "ca.pem"), r"there is no CA in .*/pki \(make one with: fazai pki init\)"),
    "settings no YAML": (_write("pki.yml", "a: [\n"), r"pki\.yml:\d+:\d+: "),
    "settings a list": (_write("pki.yml", "- a\n"), "settings are a mapping"),
    "settings unknown": (
        _write("pki.yml", "agent_lifetme: 30d\n"),
        r'there is no setting "agent_lifetme" \(did you mean "agent_lifetime"\?\)',
    ),
    "settings no time": (
        _write("pki.yml", "agent_lifetime: soon\n"),
        r"agent_lifetime is no duration \(such as 30m, 12h or 90d\)",
    ),
    "settings too long": (
        _write("pki.yml", "return_window: 400d\n"),
        r"return_window is out of its limits \(0 s to 365 days\)",
    ),
    "settings list alone": (
        _write("pki.yml", "existing_crl: x.crl\n"),
        "existing_crl has no meaning without existing_ca",
    ),
    "existing gone": (
        _write("pki.yml", "existing_ca: ca.prm\n"),
        r'there is no CA certificate ".*/ca\.prm" \(did you mean "ca\.pem"\?\)',
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_told_with_the_next_step(world: World, case: str) -> None:
    damage, match = DAMAGES[case]
    damage(world)
    with pytest.raises(FazaiError, match=match) as failed:
        Authority.load(world.folder)
    assert failed.value.exit_code == 3


def test_without_a_folder_it_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"there is no folder .*/pki \(make the CA with: fazai pki init\)"):
        Authority.load(tmp_path / "secrets/pki")
    (tmp_path / "file").touch()
    with pytest.raises(FazaiError, match=r"cannot be made: (Not a directory|File exists)"):
        Maker(tmp_path / "file/pki").make_ca()


def test_a_second_init_changes_nothing(world: World) -> None:
    before = {path: path.read_bytes() for path in world.folder.iterdir()}
    authority, made = world.maker().make_ca()
    assert not made
    assert authority.mark == world.authority.mark
    with pytest.raises(Refused, match=r"has a key p256, not ed25519 \(it was left as it is"):
        world.maker().make_ca("ed25519")
    damaged = world.folder / "ca.pem"
    damaged.write_bytes(b"x")
    with pytest.raises(InputError, match="is damaged"):  # and is not made anew over it
        world.maker().make_ca()
    damaged.write_bytes(before[damaged])
    assert {path: path.read_bytes() for path in world.folder.iterdir()} == before


DIES = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from fazai import files
    from fazai.pki.administration import Maker, issue_pair
    from fazai.store.factory import open_certificates
    root, what, instant = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    def fault(name):
        if name == instant:
            os.kill(os.getpid(), signal.SIGKILL)
    if instant == "half":  # the file beside is written, and not yet renamed
        files.os.replace = lambda *_: fault("half")
    maker = Maker(root / "secrets/pki", fault=fault)
    authority, made = maker.make_ca()
    if what == "issue":
        store, folder = open_certificates(root / "state"), root / "secrets/pki/issued"
        issue_pair(authority, store, "edge-7", folder, None, fault)
    raise SystemExit("it lives")
    """
)


def dies(root: Path, what: str, instant: str) -> None:
    words = [sys.executable, "-c", DIES, str(root), what, instant]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-9, "")


@pytest.mark.parametrize("instant", ["half", "key.absent", "key.written", "certificate.written"])
def test_an_init_that_was_killed_goes_on(tmp_path: Path, instant: str) -> None:
    dies(tmp_path, "init", instant)
    folder = tmp_path / "secrets/pki"
    key = (folder / "ca.key").read_bytes() if (folder / "ca.key").exists() else None
    if instant == "half":
        assert [path.name.startswith(".ca.key.") for path in folder.iterdir()] == [True]
    if key is not None and instant != "certificate.written":
        with pytest.raises(
            SecretError, match=r"an init was cut off \(it goes on where it was: fazai pki init\)"
        ):
            Authority.load(folder)
    authority, made = Maker(folder).make_ca()
    assert made == (instant != "certificate.written")
    assert key in (None, (folder / "ca.key").read_bytes())
    assert sorted(path.name for path in folder.iterdir()) == ["ca.key", "ca.pem"]
    assert authority.can_issue


@pytest.mark.parametrize("instant", ["key.written", "certificate.stored"])
def test_an_issue_that_was_killed_goes_on(tmp_path: Path, instant: str) -> None:
    Maker(tmp_path / "secrets/pki").make_ca()
    dies(tmp_path, "issue", instant)  # the CA stands there: its own instants are passed by
    issued_folder = tmp_path / "secrets/pki/issued"
    assert [path.name for path in issued_folder.iterdir()] == ["edge-7.key"]
    key = (issued_folder / "edge-7.key").read_bytes()
    authority = Authority.load(tmp_path / "secrets/pki")
    with contextlib.closing(open_certificates(tmp_path / "state")) as store:
        known = len(store.certificates())
        issued, key_path, path = issue_pair(authority, store, "edge-7", issued_folder)
        assert known == (instant == "certificate.stored")
        assert issued.fingerprint in {one.fingerprint for one in store.certificates()}
    assert key_path.read_bytes() == key
    public = openssl("pkey", "-in", str(key_path), "-pubout")
    assert openssl("x509", "-in", str(path), "-noout", "-pubkey") == public


def test_two_inits_at_once_make_one_ca(tmp_path: Path) -> None:
    marks: list[str] = []

    def make() -> None:
        marks.append(Maker(tmp_path / "secrets/pki").make_ca()[0].mark)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(marks) == 8
    assert len(set(marks)) == 1


def test_a_folder_that_another_holds_is_waited_for_and_no_longer(world: World) -> None:
    handle = os.open(world.folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with (
            pytest.raises(LockHeld, match="another process changes the folder"),
            hold_folder(world.folder, wait_s=0.2),
        ):
            pass
        fcntl.flock(handle, fcntl.LOCK_UN)
        world.authority.issue_listener(["a.example"])
    finally:
        os.close(handle)


def test_settings_are_read(world: World) -> None:
    world.settings(
        "# of this site\nagent_lifetime: 7d\nlistener_lifetime: 30d\nreturn_window: 0\ntoken_lifetime: 10m\n"
    )
    found = world.authority.settings
    assert (found.agent_lifetime, found.listener_lifetime) == (7 * DAY_S, 30 * DAY_S)
    assert (found.return_window, found.token_lifetime) == (0.0, 600.0)
    world.settings("")
    assert world.authority.settings.agent_lifetime == 30 * DAY_S
    assert world.authority.issue(world.machine().request(), "edge-7").not_after == int(BEGIN + 30 * DAY_S)
