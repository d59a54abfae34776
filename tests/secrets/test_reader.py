"""References to secrets: what they give, what is refused, and that nothing of a secret is in an error."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import sys
from pathlib import Path

import pytest

from fazai.errors import Mark, SecretError
from fazai.model import Secret, SecretRef
from fazai.secrets import SecretReader

VAULT = Path(__file__).parent / "vault"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a private folder for secrets."""
    (tmp_path / "secrets").mkdir(mode=0o700)
    return tmp_path


def put(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def reader(home: Path, **options: object) -> SecretReader:
    given = {"environ": {"PATH": os.environ["PATH"]}, "base": home, "folder": home / "secrets", **options}
    return SecretReader(**given)  # type: ignore[arg-type]


def ref(home: Path, scheme: str, value: str | tuple[str, ...]) -> SecretRef:
    return SecretRef(scheme, value, Mark(str(home / "inventory.yml"), 3, 15))


def refused(secrets: SecretReader, reference: SecretRef, *leaks: str) -> str:
    """The error's text, which has the place and none of `leaks`."""
    with pytest.raises(SecretError) as caught:
        secrets.read(reference)
    text = str(caught.value)
    assert "inventory.yml:3:15: " in text
    for leak in leaks:
        assert leak not in text
    assert caught.value.__cause__ is None
    return text


# -- files -------------------------------------------------------------------------------------------------


def test_file_is_text_or_json_or_the_key_file_of_opnsense(home: Path) -> None:
    secrets = reader(home)
    put(home / "secrets/token", "  s3cret \n")
    put(home / "secrets/fw.json", '{"api_key": "k", "api_secret": "s"}', 0o400)
    put(home / "secrets/apikey.txt", "key=k+/=\nsecret=s=\n")
    assert secrets.read(ref(home, "file", "secrets/token")) == Secret("s3cret")
    assert secrets.read(ref(home, "file", "secrets/fw.json")) == {
        "api_key": Secret("k"),
        "api_secret": Secret("s"),
    }
    assert secrets.read(ref(home, "file", "secrets/apikey.txt")) == {
        "api_key": Secret("k+/="),
        "api_secret": Secret("s="),
    }


def test_file_is_relative_to_the_yaml_file(home: Path) -> None:
    (home / "sites").mkdir()
    put(home / "secrets/token", "s3cret")
    reference = SecretRef("file", "../secrets/token", Mark("sites/a.yml", 1, 1))
    assert reader(home).read(reference) == Secret("s3cret")


def test_home_is_the_environment_s(home: Path) -> None:
    put(home / "secrets/token", "s3cret")
    secrets = reader(home, environ={"HOME": str(home)})
    assert secrets.read(ref(home, "file", "~/secrets/token")) == Secret("s3cret")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644, 0o610])
def test_file_open_to_others(home: Path, mode: int) -> None:
    path = put(home / "secrets/token", "s3cret", mode)
    text = refused(reader(home), ref(home, "file", "secrets/token"), "s3cret")
    assert f"is open to others (mode {mode:04o})" in text
    assert f"chmod 600 {path}" in text


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
def test_folder_open_to_others(home: Path, mode: int) -> None:
    put(home / "secrets/token", "s3cret")
    (home / "secrets").chmod(mode)
    text = refused(reader(home), ref(home, "file", "secrets/token"), "s3cret")
    assert f"the folder {home}/secrets is open to others (mode {mode:04o})" in text
    assert f"chmod 700 {home}/secrets" in text


def test_file_of_another_user(home: Path) -> None:
    put(home / "secrets/token", "s3cret")
    mine = os.geteuid()
    secrets = reader(home, uid=mine + 1)
    if mine == 0:  # root's files are taken by everybody
        assert secrets.read(ref(home, "file", "secrets/token")) == Secret("s3cret")
        os.chown(home / "secrets/token", 12345, 12345)
        secrets = reader(home)
    assert "belongs to another user" in refused(secrets, ref(home, "file", "secrets/token"), "s3cret")


def test_link_out_of_the_folder_is_checked_where_it_leads(home: Path) -> None:
    (home / "open").mkdir(mode=0o755)
    put(home / "open/token", "s3cret")
    (home / "secrets/token").symlink_to(home / "open/token")
    text = refused(reader(home), ref(home, "file", "secrets/token"), "s3cret")
    assert f"the folder {home}/open is open to others" in text


def test_link_in_an_open_folder(home: Path) -> None:
    """Whoever can change the link chooses which of our secrets is sent where."""
    put(home / "secrets/token", "s3cret")
    (home / "open").mkdir(mode=0o777)
    (home / "open").chmod(0o777)
    (home / "open/token").symlink_to(home / "secrets/token")
    text = refused(reader(home), ref(home, "file", "open/token"), "s3cret")
    assert f"the folder {home}/open is open to others" in text


def test_file_that_is_none(home: Path) -> None:
    secrets = reader(home)
    put(home / "secrets/token", "x")
    assert 'did you mean "token"?' in refused(secrets, ref(home, "file", "secrets/tokne"))
    assert "there is no folder" in refused(secrets, ref(home, "file", "secret/token"))
    os.mkfifo(home / "secrets/fifo", 0o600)
    assert "is not a file" in refused(secrets, ref(home, "file", "secrets/fifo"))
    (home / "secrets/folder").mkdir()
    assert "is not a file" in refused(secrets, ref(home, "file", "secrets/folder"))
    (home / "secrets/circle").symlink_to("circle")
    assert "circle" in refused(secrets, ref(home, "file", "secrets/circle"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfes3cret", "not UTF-8"),
        (b"s3cret" * 11000, "larger than 65536 bytes"),
    ],
)
def test_content_that_is_no_secret(home: Path, content: bytes, words: str) -> None:
    put(home / "secrets/token", content)
    assert words in refused(reader(home), ref(home, "file", "secrets/token"), "s3cret")


@pytest.mark.parametrize(
    "content",
    [
        '{"api_key": "s3cret"',
        '["s3cret"]',
        '{"api_key": "s3cret", "api_key": "s3cret"}',
        "s3cret",
        '{"s3cret"}',
    ],
)
def test_json_file_that_is_no_object(home: Path, content: str) -> None:
    put(home / "secrets/fw.json", content)
    assert "is not a JSON object" in refused(reader(home), ref(home, "file", "secrets/fw.json"), "s3cret")


def test_json_with_a_value_that_is_no_text(home: Path) -> None:
    put(home / "secrets/fw.json", '{"api_key": ["s3cret"]}')
    assert '"api_key" in the file' in refused(reader(home), ref(home, "file", "secrets/fw.json"), "s3cret")


def test_lookup_in_the_secrets_folder(home: Path) -> None:
    (home / "secrets/opnsense").mkdir(mode=0o700)
    put(home / "secrets/opnsense/fw-01.json", '{"api_key": "k", "api_secret": "s"}')
    put(home / "secrets/opnsense/fw-02.json", "{}", 0o644)
    secrets = reader(home)
    assert secrets.lookup("opnsense", "fw-01") == {"api_key": Secret("k"), "api_secret": Secret("s")}
    assert secrets.lookup("opnsense", "fw-03") is None
    assert secrets.lookup("opnsense", "../opnsense/fw-01") is None
    assert reader(home, folder=None).lookup("opnsense", "fw-01") is None
    mark = Mark("inventory.yml", 9, 5)
    with pytest.raises(SecretError, match=r"inventory.yml:9:5: the file .*fw-02.json is open to others"):
        secrets.lookup("opnsense", "fw-02", mark)


# -- environment, inline -----------------------------------------------------------------------------------


def test_env(home: Path) -> None:
    secrets = reader(
        home, environ={"TOKEN": "s3cret", "FW": '{"api_key": "k", "api_secret": "s"}', "NONE": ""}
    )
    assert secrets.read(ref(home, "env", "TOKEN")) == Secret("s3cret")
    assert secrets.read(ref(home, "env", "FW")) == {"api_key": Secret("k"), "api_secret": Secret("s")}
    assert 'the environment variable "NONE" is empty' in refused(secrets, ref(home, "env", "NONE"))
    text = refused(secrets, ref(home, "env", "TOKNE"), "s3cret")
    assert 'the environment variable "TOKNE" is not set (did you mean "TOKEN"?)' in text


def test_nothing_is_ambient(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAZAI_TEST_TOKEN", "s3cret")
    assert "is not set" in refused(reader(home, environ={}), ref(home, "env", "FAZAI_TEST_TOKEN"))


def test_inline(home: Path) -> None:
    secrets = reader(home, environ={"S": "s"})
    wrapped = secrets.wrap({"api_key": "k", "api_secret": ref(home, "env", "S"), "port": 443})
    assert wrapped == {"api_key": Secret("k"), "api_secret": Secret("s"), "port": Secret("443")}
    assert secrets.wrap(wrapped) == wrapped
    assert secrets.wrap("t") == Secret("t")
    mark = Mark("i.yml", 1, 2)
    values: list[object] = [5, None, [], {}, {"api_key": None}, {"api_key": ["k"]}, True]
    for value in values:
        with pytest.raises(SecretError, match=r"i\.yml:1:2"):
            secrets.wrap(value, mark)


# -- commands ----------------------------------------------------------------------------------------------


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_cmd(home: Path) -> None:
    secrets = reader(home, environ={"PATH": os.environ["PATH"], "WHO": "me"})
    assert secrets.read(ref(home, "cmd", ("printf", "%s\n", "$HOME;`id`"))) == Secret("$HOME;`id`")
    assert secrets.read(ref(home, "cmd", python("import os; print(os.environ['WHO'])"))) == Secret("me")
    found = secrets.read(ref(home, "cmd", python('print(\'{"api_key": "k", "api_secret": "s"}\')')))
    assert found == {"api_key": Secret("k"), "api_secret": Secret("s")}


def test_cmd_runs_in_the_folder_of_the_yaml_file(home: Path) -> None:
    (home / "sites").mkdir()
    reference = SecretRef("cmd", python("import os; print(os.getcwd())"), Mark("sites/a.yml", 1, 1))
    assert reader(home).read(reference) == Secret(os.path.realpath(home / "sites"))


def test_cmd_runs_once(home: Path) -> None:
    code = "open('count', 'a').write('x'); print('s3cret')"
    secrets = reader(home)
    for line in (1, 2, 3):
        secrets.read(SecretRef("cmd", python(code), Mark(str(home / "i.yml"), line, 1)))
    assert (home / "count").read_text() == "x"
    failing = python("open('count', 'a').write('y'); raise SystemExit(1)")
    for line in (1, 2):
        with pytest.raises(SecretError, match=f"i.yml:{line}:1: "):
            secrets.read(SecretRef("cmd", failing, Mark(str(home / "i.yml"), line, 1)))
    assert (home / "count").read_text() == "xy"


def test_cmd_that_fails(home: Path) -> None:
    code = (
        "import sys; print('s3cret-a s3cret-b'); "
        "print('first line', file=sys.stderr); print('no key for s3cret-a\\x1b[31m', file=sys.stderr); "
        "sys.exit(7)"
    )
    text = refused(
        reader(home), ref(home, "cmd", (*python(code), "s3cret-arg")), "s3cret", "first line", "\x1b"
    )
    assert text.endswith("failed: exit code 7: no key for *** [31m")


def test_cmd_that_does_not_start(home: Path) -> None:
    secrets = reader(home)
    assert 'there is no program "no-such-program"' in refused(secrets, ref(home, "cmd", ("no-such-program",)))
    put(home / "script", "#!/bin/sh\necho x\n")
    assert "Permission denied" in refused(secrets, ref(home, "cmd", ("./script",)))
    assert "cannot be passed on" in refused(secrets, ref(home, "cmd", ("echo", "a\0b")))
    gone = SecretRef("cmd", ("true",), Mark(str(home / "gone/inventory.yml"), 3, 15))
    assert "there is no folder" in refused(secrets, gone)
    assert "takes a list" in refused(secrets, ref(home, "cmd", "echo x"))


def test_cmd_that_never_ends(home: Path) -> None:
    secrets = reader(home, timeout_s=0.3)
    text = refused(secrets, ref(home, "cmd", python("import threading; threading.Event().wait()")))
    assert "has not ended after 0.3 s" in text
    text = refused(
        secrets,
        ref(home, "cmd", python("import os, threading; os.close(1); os.close(2); threading.Event().wait()")),
    )
    assert "has not ended after 0.3 s" in text


@pytest.mark.parametrize("ending", ["print('s3cret')", "sys.exit('no')", "time.sleep(600)"])
def test_what_a_cmd_left_in_the_background_ends_with_it(home: Path, ending: str) -> None:
    """However it ends. Who holds the pipe open is still there."""
    os.mkfifo(home / "alive")
    there = os.open(home / "alive", os.O_RDONLY | os.O_NONBLOCK)
    left = "import os, sys, time; f = os.open(sys.argv[1], os.O_WRONLY); os.write(f, b'x'); time.sleep(600)"
    code = (
        f"import os, subprocess, sys, time; pipe = {str(home / 'alive')!r};"
        f"subprocess.Popen([sys.executable, '-c', {left!r}, pipe], stdout=-3, stderr=-3);"
        f"f = os.open(pipe, os.O_RDONLY); os.read(f, 1); {ending}"
    )
    with contextlib.suppress(SecretError):
        reader(home, timeout_s=3).read(ref(home, "cmd", python(code)))
    gone = select.poll()
    gone.register(there, select.POLLHUP)
    assert gone.poll(20_000) == [(there, select.POLLHUP)]
    os.close(there)


def test_a_cmd_asks_at_the_terminal(home: Path) -> None:
    """It has the terminal while it runs, and we have it after that; Ctrl-C there is one for us."""
    asks = (
        # as one that reads in the instant before it has the terminal
        "import os, signal; os.kill(os.getpid(), signal.SIGTTIN);"
        "t = open('/dev/tty', 'r+b', buffering=0); t.write(b'PIN? '); print('s3cret' + t.readline().decode())"
    )
    code = f"""
import os, sys
from pathlib import Path
from fazai.secrets.commands import run_program
def ask():
    program = [sys.executable, "-c", {asks!r}]
    return run_program(program, cwd=Path("/"), environ=os.environ, timeout_s=60).decode()
print("got", ask(), os.tcgetpgrp(0) == os.getpgrp(), flush=True)
try:
    ask()
except KeyboardInterrupt:
    print("stopped", os.tcgetpgrp(0) == os.getpgrp(), flush=True)
"""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", code])
    heard = b""
    for wanted, typed in ((b"PIN? ", b"1234\n"), (b"PIN? ", b"\x03"), (b"stopped True", b"")):
        after = len(heard)
        while wanted not in heard[after:]:
            heard += os.read(terminal, 4096)
        os.write(terminal, typed)
    assert b"got s3cret1234\r\n" in heard
    assert b"\n True\r\n" in heard
    os.waitpid(pid, 0)
    os.close(terminal)


def test_cmd_that_gets_no_input(home: Path) -> None:
    assert reader(home).read(ref(home, "cmd", python("import sys; print(len(sys.stdin.read()))"))) == Secret(
        "0"
    )


def test_cmd_that_prints_too_much(home: Path) -> None:
    text = refused(reader(home), ref(home, "cmd", python("while True: print('s3cret' * 1000)")), "s3cret")
    assert "prints more than 65536 bytes" in text


def test_cmd_whose_child_keeps_the_pipe(home: Path) -> None:
    """An agent that was started on the way does not hold up the run."""
    code = (
        "import subprocess, sys\n"
        "code = 'import sys; sys.stdin.read()'\n"
        "p = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE)\n"
        "print('s3cret', flush=True)\n"
        "import os; os._exit(0)"
    )
    assert reader(home, timeout_s=20).read(ref(home, "cmd", python(code))) == Secret("s3cret")


# -- vault -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["argument", "FAZAI_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_PASSWORD_FILE", "identity"]
)
def test_vault_password_sources(home: Path, how: str) -> None:
    put(home / "vault-pw", PASSWORD + "\n")
    environ: dict[str, str] = {"PATH": os.environ["PATH"], "HOME": str(home)}
    files: tuple[str, ...] = ()
    if how == "argument":
        files = ("vault-pw",)
    elif how == "identity":
        environ["ANSIBLE_VAULT_IDENTITY_LIST"] = "dev@missing-is-not-tried, prod@~/vault-pw"
        put(home / "missing-is-not-tried", "x")
    else:
        environ[how] = str(home / "vault-pw")
    secrets = reader(home, environ=environ, vault_password_files=files)
    text = (VAULT / "text-1.2-prod.vault").read_text()
    assert secrets.read(ref(home, "vault", text)) == Secret("hunter2")
    assert secrets.open_file((VAULT / "whole-file.vault").read_bytes(), "x.yml") == b"db_password: hunter2\n"


def test_vault_password_program(home: Path) -> None:
    put(home / "pw.sh", f'#!/bin/sh\necho "{PASSWORD}"\n', 0o755)
    text = (VAULT / "text-1.1.vault").read_text()
    assert reader(home, vault_password_files=("pw.sh",)).read(ref(home, "vault", text)) == Secret("hunter2")
    put(home / "pw-client", f'#!/bin/sh\n[ "$1 $2" = "--vault-id prod" ] && echo "{PASSWORD}"\n', 0o755)
    secrets = reader(home, vault_password_files=("prod@pw-client",))
    assert secrets.read(ref(home, "vault", text)) == Secret("hunter2")


def test_vault_json_is_a_mapping(home: Path) -> None:
    put(home / "pw", "other password")
    secrets = reader(home, vault_password_files=("pw",))
    found = secrets.read(ref(home, "vault", (VAULT / "json-other-password.vault").read_text()))
    assert found == {"api_key": Secret("k+/="), "api_secret": Secret("é中 s")}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "no vault password was given"),
        (("wrong",), "the vault password does not open this text"),
        (("missing",), "there is no file"),
        (("open",), "is open to others"),
        (("empty",), "is empty"),
        (("prod@prompt",), "is not asked for"),
        (("failing",), "failed: exit code 3"),
    ],
)
def test_vault_passwords_that_do_not_help(home: Path, files: tuple[str, ...], words: str) -> None:
    put(home / "wrong", "wrong")
    put(home / "open", PASSWORD, 0o644)
    put(home / "empty", "\n")
    put(home / "failing", "#!/bin/sh\nexit 3\n", 0o755)
    secrets = reader(home, vault_password_files=files)
    text = refused(secrets, ref(home, "vault", (VAULT / "text-1.1.vault").read_text()), "hunter2", PASSWORD)
    assert words in text


def test_a_secret_is_not_serialised(home: Path) -> None:
    secret = reader(home, environ={"S": "s3cret"}).read(ref(home, "env", "S"))
    assert f"{secret} {secret!r} {secret:>5}" == "*** ***   ***"
    with pytest.raises(TypeError):
        json.dumps(secret)
