"""`fazai generate` as a process, on a terminal and in pipes, against a worker's socket in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fazai.cli import main
from tests.worker.live import Live, live
from tests.worker.openai import completions

ASK = (sys.executable, "-m", "fazai", "generate")
ENDLESS = ("--max-tokens", "1000000", "--timeout", "3600")


def _environ(worker: Live | Path, **more: str) -> dict[str, str]:
    path = worker.path if isinstance(worker, Live) else worker
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAZAI_")}
    return {**kept, "FAZAI_GEMMA_SOCK": str(path), **more}


async def _run(
    worker: Live | Path, *words: str, stdin: bytes | None = None, environ: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit code, output, errors; without `stdin` there is a terminal's absence: /dev/null."""
    child = await _start(worker, *words, stdin=stdin, environ=environ)
    async with asyncio.timeout(60):
        out, err = await child.communicate(stdin)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def _start(
    worker: Live | Path, *words: str, stdin: bytes | None = None, environ: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *ASK,
        *words,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environ(worker, **(environ or {})),
    )


class _Screen:
    """A terminal with `fazai generate` on it."""

    def __init__(self, child: asyncio.subprocess.Process, master: int) -> None:
        self.child = child
        self._master = master
        self.text = ""

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    async def until(self, wanted: str) -> None:
        async with asyncio.timeout(60):
            while wanted not in self.text:
                self.text += await self._more()

    async def interrupt_until(self, wanted: str) -> None:
        """Press Ctrl-C until `wanted` is there: one just before the line editor's select() is seen only
        at the next key (CPython, Modules/readline.c)."""
        while wanted not in self.text:
            self.press(b"\x03")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self.until(wanted)

    async def _more(self) -> str:
        loop, found = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._master, found.set)
        try:
            await found.wait()
        finally:
            loop.remove_reader(self._master)
        return os.read(self._master, 65_536).decode(errors="replace")


@contextlib.asynccontextmanager
async def _screen(worker: Live, *words: str) -> AsyncIterator[_Screen]:
    master, slave = os.openpty()
    try:
        child = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", "--wait", *ASK, *words),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=_environ(worker, TERM="xterm"),
        )
        os.close(slave)
        try:
            yield _Screen(child, master)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    finally:
        os.close(master)


def test_ctrl_c_on_a_terminal_ends_the_generation_and_its_session() -> None:
    async def run() -> None:
        async with live() as worker, _screen(worker, *ENDLESS, "a long story") as screen:
            await screen.until("A LONG STORY")
            assert worker.sessions.busy == 1
            screen.press(b"\x03")
            async with asyncio.timeout(60):
                assert await screen.child.wait() == 130
            await worker.until(lambda: len(worker.sessions) == 0 and worker.sessions.busy == 0)
            assert worker.engine.aborts == 1

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_session_behind(number: signal.Signals) -> None:
    async def run() -> None:
        async with live() as worker:
            child = await asyncio.create_subprocess_exec(
                *(*ASK, *ENDLESS, "go on"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environ(worker),
            )
            assert child.stdout is not None
            assert (await child.stdout.readexactly(5)) == b"GO ON"
            child.send_signal(number)
            async with asyncio.timeout(60):
                _, err = await child.communicate()
            assert child.returncode == 130
            assert b"interrupted" in err
            assert b"Traceback" not in err
            await worker.until(lambda: len(worker.sessions) == 0)
            assert worker.engine.aborts == 1

    asyncio.run(run())


def test_a_second_ctrl_c_does_not_wait_for_a_worker_that_hangs(tmp_path: Path) -> None:
    async def run() -> None:
        closing, over = asyncio.Event(), asyncio.Event()
        answers = {
            "status": b'{"ok":true,"status":"running","model":"m","sessions":0,"slots":1}\n',
            "create_session": b'{"ok":true,"session_id":"s-1"}\n',
            "generate": b'{"type":"token","text":"begun"}\n',
        }

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            kind = json.loads(await reader.readline())["type"]
            writer.write(answers.get(kind, b""))
            if kind == "close_session":
                closing.set()
            if kind in ("generate", "close_session"):
                await over.wait()
            writer.close()

        server = await asyncio.start_unix_server(hang, str(tmp_path / "s"))
        child = await _start(tmp_path / "s", "go on")
        assert child.stdout is not None
        async with asyncio.timeout(60):
            await child.stdout.readexactly(5)
            child.send_signal(signal.SIGINT)
            await closing.wait()
            child.send_signal(signal.SIGINT)
            _, err = await child.communicate()
        assert child.returncode == 130
        assert err == b"error: interrupted: the generation was aborted\n"
        over.set()
        server.close()

    asyncio.run(run())


def test_a_terminal_is_not_written_to_by_the_model() -> None:
    """A terminal gets escape sequences as text; a pipe gets what the model wrote."""

    async def run() -> None:
        async with live() as worker:
            words = ("--max-tokens", "1", "\x1b]0;owned\x07")
            async with _screen(worker, *words) as screen:
                await screen.until("\\x1b]0;OWNED\\x07")
                assert "\x1b" not in screen.text
            code, out, _ = await _run(worker, *words)
            assert (code, out) == (1, "\x1b]0;OWNED\x07 \n")

    asyncio.run(run())


def test_a_reader_that_goes_away() -> None:
    async def run() -> None:
        async with live() as worker:
            child = await asyncio.create_subprocess_exec(
                *("sh", "-c", '"$@" | head -c 5; echo', "sh", *ASK, *ENDLESS, "much text"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environ(worker),
            )
            async with asyncio.timeout(60):
                out, err = await child.communicate()
            assert (out, err) == (b"MUCH \n", b"")
            await worker.until(lambda: len(worker.sessions) == 0)

    asyncio.run(run())


def test_prompts_from_a_pipe_and_answers_into_one() -> None:
    async def run() -> None:
        async with live() as worker:
            for words in (("-",), ()):
                code, out, err = await _run(worker, "--max-tokens", "3", *words, stdin="äh, ja\n".encode())
                assert out.startswith("ÄH, JA 2"), (code, out, err)
                assert code == 1  # cut at three tokens, and says so
                assert "not complete: length" in err
            assert (await _run(worker, "-", stdin=b"\xff"))[0] == 3
            code, out, err = await _run(worker, stdin=b" \n")
            assert (code, out) == (3, "")
            assert "holds no prompt" in err

    asyncio.run(run())


def test_what_is_wrong_with_a_schema(tmp_path: Path) -> None:
    async def run() -> None:
        async with live() as worker:
            for text, wanted, exit_code in (
                ("[1]", "expected `object`", 3),
                ("{", "JSON is malformed", 3),
                ('{"nonsense": 1}', "cannot be enforced", 1),
            ):
                path = tmp_path / "schema.json"
                path.write_text(text)
                code, out, err = await _run(worker, "--json-schema", str(path), "x")
                assert (code, out) == (exit_code, ""), err
                assert wanted in err
            assert len(worker.sessions) == 0

    asyncio.run(run())


def test_a_worker_that_is_away_or_loads() -> None:
    async def run() -> None:
        async with live(loaded=False) as worker:
            code, _, err = await _run(worker, "--wait", "0", "x")
            assert code == 4
            assert "still loads its model" in err
            child = await _start(worker, "--max-tokens", "2", "late")
            assert child.stderr is not None
            async with asyncio.timeout(60):
                said = await child.stderr.readuntil(b"waiting for up to 30 s")  # it asked, and was told to
                worker.load()
                out, _ = await child.communicate()
            assert said
            assert out.startswith(b"LATE")
        code, _, err = await _run(worker.path, "x")
        assert code == 4
        assert "fazai worker --model" in err

    asyncio.run(run())


def test_the_fallback_is_asked_when_it_is_set(tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text("secret-key\n")
    away = tmp_path / "none.sock"

    async def run() -> None:
        async with completions(["from ", "elsewhere"]) as server:
            environ = {
                "FAZAI_GEMMA_FALLBACK_URL": server.url,
                "FAZAI_GEMMA_FALLBACK_MODEL": "other",
                "FAZAI_GEMMA_FALLBACK_KEY_FILE": str(tmp_path / "key"),
            }
            assert await _run(away, "--system", "Short.", "x", environ=environ) == (0, "from elsewhere\n", "")
            assert server.asked[0]["model"] == "other"
            assert server.keys == ["Bearer secret-key"]

    asyncio.run(run())


def test_a_wrong_fallback_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("key", "open"):
        (tmp_path / name).touch(0o600 if name == "key" else 0o644)
        (tmp_path / name).write_text("secret-key\n")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("FAZAI_GEMMA_SOCK", str(tmp_path / "none.sock"))
    monkeypatch.setenv("FAZAI_GEMMA_FALLBACK_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("FAZAI_GEMMA_FALLBACK_MODEL", "other")
    monkeypatch.setenv("FAZAI_GEMMA_FALLBACK_KEY_FILE", str(tmp_path / "key"))
    for name, value, wanted in (
        ("URL", "ftp://x", "http://HOST"),
        ("MODEL", "", "is not named"),
        ("KEY_FILE", str(tmp_path / "no"), "there is no file with the fallback's key"),
        ("KEY_FILE", str(tmp_path / "open"), "others may read it"),
        ("KEY_FILE", str(tmp_path / "pipe"), "it is no file"),
        ("URL", "http://gpu.example.net/v1", "the key would go there in the clear"),
        ("URL", "http://127.evil.example.net/v1", "the key would go there in the clear"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(f"FAZAI_GEMMA_FALLBACK_{name}", value)
            code = main(["generate", "x"])
        err = capsys.readouterr().err
        assert (code, wanted in err) == (3, True), err
        assert "secret-key" not in err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--temperature", "nan", "x"), "nan is no number"),
        (("--temperature", "1e400", "x"), "1e400 is no number"),
        (("--timeout", "nan", "x"), "nan is no number"),
        (("--wait", "inf", "x"), "inf is not in the range"),
        ((" ",), "the prompt is empty"),
    ],
)
def test_what_is_no_number_and_what_is_no_prompt(
    words: tuple[str, ...],
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket(socket.AF_UNIX) as worker:
        worker.bind(str(tmp_path / "worker.sock"))
        worker.listen()
        worker.setblocking(False)
        monkeypatch.setenv("FAZAI_GEMMA_SOCK", str(tmp_path / "worker.sock"))
        code = main(["generate", *words])
        out, err = capsys.readouterr()
        assert (code, out) == (3, ""), err
        assert wanted in err
        with pytest.raises(BlockingIOError):
            worker.accept()  # it was not asked


def test_help_names_every_option() -> None:
    async def run() -> None:
        code, out, _ = await _run(Path("/none"), "--help")
        assert code == 0
        for word in ("--wait", "--timeout", "--json-schema", "FAZAI_GEMMA_FALLBACK_URL", "reads stdin"):
            assert word in out

    asyncio.run(run())
