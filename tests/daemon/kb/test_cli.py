"""`fazai kb` against a daemon: what it prints, what it refuses, files that it imports and exports."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.cli.main import main
from fazai.store.notes import hash_content
from tests.daemon.live import Live, live, token


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    (tmp_path / "d").mkdir()
    with live(tmp_path / "d") as found:
        monkeypatch.setenv("FAZAI_URL", found.url)
        monkeypatch.delenv("FAZAI_TOKEN_FILE", raising=False)
        yield found


Said = tuple[int, str, str]


class Terminal:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *words: str) -> Said:
        self._capsys.readouterr()
        code = main(["kb", *words])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *words: str) -> Any:
        code, out, err = self.run(*words, "--output", "json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_an_empty_note_is_refused_in_the_words_of_the_command(daemon: Live, terminal: Terminal) -> None:
    for words, said in ((("", "text"), "TITLE is empty"), (("title", " "), "TEXT is empty")):
        code, _, err = terminal.run("add", *words)
        assert (code, said in err, "fazai kb add TITLE TEXT" in err) == (3, True, True), err


def test_a_note_from_its_writing_to_its_end(daemon: Live, terminal: Terminal) -> None:
    code, out, err = terminal.run(
        "add", "fw-01: blocklist", "Edited by hand.", "--target", "fw-01", "--tag", "alias"
    )
    assert (code, out, err) == (0, "kb-1\n", "")
    assert terminal.run("add", "derived", "from it", "--from", "kb-1")[1] == "kb-2\n"
    code, out, _ = terminal.run("search", "who", "edits", "the", "blocklist?")
    assert (code, out.splitlines()[0]) == (0, "kb-1      fw-01: blocklist  (fw-01)  [unverified, person]")
    assert out.splitlines()[1].strip() == "Edited by hand."
    assert terminal.run("verify", "kb-1") == (0, "", "verified: kb-1  fw-01: blocklist\n")
    code, out, _ = terminal.run("show", "kb-1")
    assert code == 0
    for line in (
        "kb-1  fw-01: blocklist",
        "  target    fw-01",
        "  led to kb-2      derived  [unverified, person]",
    ):
        assert line in out.splitlines()
    assert "status    verified by anonymous" in out
    assert terminal.json("show", "kb-2")["links"] == [{"note": "kb-2", "other": "kb-1", "relation": "parent"}]
    assert terminal.json("search", "blocklist")[0]["status"] == "verified"
    assert terminal.run("rm", "kb-1", "kb-2") == (0, "", "removed: kb-1\nremoved: kb-2\n")
    assert terminal.run("search", "blocklist") == (0, "", "no note has any of these words\n")


def test_a_text_from_standard_input(
    daemon: Live, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("line one\npassword: hunter2hunter\n"))
    code, out, err = terminal.run("add", "piped")
    assert (code, out) == (0, "kb-1\n")
    assert err == "what looks like a secret was replaced by ***\n"
    assert terminal.json("show", "kb-1")["note"]["text"] == "line one\npassword: ***"
    code, _, err = terminal.run("add", "piped", "line one\npassword: other")
    assert "it was there already: kb-1, unverified" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "kb-99"], 3, "there is no note 'kb-99'"),
        (["show", "../etc/passwd"], 3, "there is no note"),
        (["verify", "kb-99"], 3, "there is no note 'kb-99'"),
        (["rm", "nonsense"], 3, "an id is such as kb-31"),
        (["add", "x", " "], 3, "TEXT is empty"),
        (["add", "x", "y", "--from", "kb-99"], 3, "there is no note 'kb-99'"),
        (["import", "/no/such/place"], 3, "there is no file or folder /no/such/place"),
        (["search"], 3, "QUESTION"),
    ],
)
def test_mistakes_are_told(daemon: Live, terminal: Terminal, words: list[str], code: int, said: str) -> None:
    found, out, err = terminal.run(*words)
    assert (found, out) == (code, "")
    assert said in err


def test_without_a_daemon(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, said in (
        (f"unix:{tmp_path}/none.sock", "does not answer: there is no such socket"),
        ("http://127.0.0.1:1", "does not answer: Connection refused"),
    ):
        monkeypatch.setenv("FAZAI_URL", url)
        for words in (["search", "x"], ["export"], ["add", "a", "b"], ["import", str(tmp_path)]):
            (tmp_path / "x.md").write_text("# x\ny\n")
            code, out, err = terminal.run(*words)
            assert (code, out) == (4, ""), (words, err)
            assert said in err
            assert "fazai daemon" in err


def test_a_role_that_is_missing(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(token(tmp_path, "look", "viewer"))
    file.chmod(0o600)
    with live(tmp_path) as daemon:
        monkeypatch.setenv("FAZAI_URL", daemon.url)
        monkeypatch.setenv("FAZAI_TOKEN_FILE", str(file))
        assert terminal.run("search", "x")[0] == 0
        code, _, err = terminal.run("add", "x", "y")
        assert (code, "token:look is viewer, this needs operator" in err) == (7, True)


def test_files_are_imported_once(daemon: Live, terminal: Terminal, tmp_path: Path) -> None:
    folder = tmp_path / "runbooks"
    (folder / "sub").mkdir(parents=True)
    (folder / "dns.md").write_text(
        "intro\n# DNS\n\n## Unbound\nRestart it.\n```\n# no heading\n```\n## Empty\n"
    )
    (folder / "sub/notes.txt").write_text("Plain text about carp.\n")
    (folder / ".hidden.md").write_text("# hidden\nx\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    code, _, err = terminal.run("import", str(folder), "--tag", "runbook")
    assert (code, err) == (
        0,
        f"{folder}/dns.md: 2 new, 0 there already\n{folder}/sub/notes.txt: 1 new, 0 there already\n",
    )
    (doc,) = terminal.json("search", "restart unbound")
    assert (doc["title"], doc["origin"], doc["tags"]) == ("DNS > Unbound", "import", ["runbook"])
    assert doc["source"].endswith("dns.md#unbound")
    assert "# no heading" in doc["snippet"]
    assert "2 there already" in terminal.run("import", str(folder), "--tag", "runbook")[2]


def test_a_file_that_cannot_be_read_holds_up_no_other(
    daemon: Live, terminal: Terminal, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(b"no pdf")
    (folder / "b.txt").write_bytes(b"binary\0data")
    (folder / "c.md").write_text("# good\nreading\n")
    code, _, err = terminal.run("import", str(folder))
    assert code == 1
    assert "a.pdf is no PDF that can be read" in err
    assert "b.txt is no text" in err
    assert "c.md: 1 new" in err
    assert "2 of the files could not be imported" in err


def test_an_export_comes_back(daemon: Live, terminal: Terminal, tmp_path: Path) -> None:
    for number in range(5):
        terminal.run(
            "add", f"note {number}", f"text {number} é\n\ttab", *(["--from", "kb-1"] if number else [])
        )
    terminal.run("verify", "kb-3")
    file = tmp_path / "kb.ndjson"
    assert terminal.run("export", str(file)) == (0, "", f"{file}: 5 notes\n")
    assert file.stat().st_mode & 0o777 == 0o600
    wanted = terminal.run("export")[1]
    assert wanted == file.read_text()
    assert terminal.run("export", str(file))[0] == 3  # it is there already
    terminal.run("rm", *(f"kb-{number}" for number in range(1, 6)))
    assert terminal.run("import", str(file)) == (0, "", f"{file}: 5 new, 0 there already\n")

    def content(lines: str) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in json.loads(line).items() if name != "id"}
            for line in lines.splitlines()
        ]

    assert content(terminal.run("export")[1]) == content(wanted)
    (tmp_path / "bad.ndjson").write_text(file.read_text().replace("text 2", "text 9"))
    code, _, err = terminal.run("import", str(tmp_path / "bad.ndjson"))
    assert (code, "it is not that of the note's content" in err) == (3, True)
    empty = {**json.loads(wanted.splitlines()[0]), "text": "\u0007", "tags": []}
    empty["hash"] = hash_content(empty["title"], empty["text"], (), "")
    (tmp_path / "empty.ndjson").write_text(json.dumps(empty))
    code, _, err = terminal.run("import", str(tmp_path / "empty.ndjson"))
    assert (code, "`notes[0]`: a note has a title and a text" in err) == (3, True)
    (tmp_path / "worse.ndjson").write_text("{\n")
    assert "worse.ndjson:1" in terminal.run("import", str(tmp_path / "worse.ndjson"))[2]


def process(daemon: Live, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "FAZAI_URL": daemon.url}
    command = [sys.executable, "-m", "fazai", "kb", *words]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_bytes_that_are_no_text(daemon: Live, terminal: Terminal, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    assert terminal.run("add", odd, f"text {odd}", "--tag", odd)[:2] == (0, "kb-1\n")
    assert terminal.json("show", "kb-1")["note"]["title"] == r"caf\udce9"
    assert terminal.run("search", odd)[0] == 0
    (tmp_path / f"{odd}.md").write_bytes(b"# T\xe9tulo\ntexto\n")
    assert terminal.run("import", str(tmp_path / f"{odd}.md"))[0] == 0
    found = process(daemon, "add", "from a pipe", stdin=subprocess.PIPE)
    out, err = found.communicate(b"\xff\xfe text", timeout=60)
    assert (found.returncode, out, err) == (0, b"kb-3\n", b"")


def test_a_reader_that_goes_away(daemon: Live, terminal: Terminal) -> None:
    for number in range(30):
        terminal.run("add", f"note {number}", "x" * 5000)
    found = process(daemon, "export")
    assert found.stdout is not None
    assert found.stdout.readline().startswith(b"{")
    found.stdout.close()
    assert found.stderr is not None
    assert (found.wait(60), found.stderr.read()) == (0, b"")
    found.stderr.close()


def test_ctrl_c_while_a_daemon_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {**os.environ, "FAZAI_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        found = subprocess.Popen(
            [sys.executable, "-m", "fazai", "kb", "search", "x"], env=environ, stderr=subprocess.PIPE
        )
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4096).startswith(b"GET /kb/search?q=x")
            found.send_signal(signal.SIGINT)
            _, err = found.communicate(timeout=60)
    assert (found.returncode, err.strip()) == (130, b"error: interrupted")
