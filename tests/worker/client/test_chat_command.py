"""`fazai chat` as a process, on a terminal and in pipes; and what `fazai generate` may be asked."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fazai.cli import main
from tests.worker.client import test_generate
from tests.worker.live import live
from tests.worker.openai import completions

CHAT = (*test_generate.ASK[:-1], "chat")


async def _run(worker: Any, *words: str, stdin: bytes, **environ: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        *(*CHAT, *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=test_generate._environ(worker, **environ),
    )
    async with asyncio.timeout(60):
        out, err = await child.communicate(stdin)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


def test_lines_of_a_pipe_are_turns_of_one_conversation() -> None:
    async def run() -> None:
        async with live() as worker:
            code, out, err = await _run(worker, "--max-tokens", "2", stdin=b"one two\n\nthree four\n")
            assert (code, out) == (0, "ONE TWO \nTHREE FOUR \n")
            assert err.count("(cut: length; --max-tokens)") == 2
            await worker.until(lambda: len(worker.sessions) == 0)
            assert worker.engine.most_sessions == 1
            assert worker.engine.longest > len("one two") + len("three four")  # the second knew of the first

    asyncio.run(run())


def test_ctrl_c_aborts_the_answer_and_ctrl_d_ends_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_generate, "ASK", CHAT)

    async def run() -> None:
        async with live() as worker, test_generate._screen(worker, *test_generate.ENDLESS) as screen:
            await screen.until("> ")
            screen.press(b"a long story\n")
            await screen.until("A LONG STORY")
            screen.press(b"\x03")
            await screen.until("(aborted)\r\n> ")
            await worker.until(lambda: worker.sessions.busy == 0)
            assert len(worker.sessions) == 1
            screen.press(b"not this")  # a line that is being typed is forgotten
            await screen.until("not this")
            await screen.interrupt_until("(Ctrl-D ends the chat)\r\n> ")
            screen.press(b"then stop\n")
            await screen.until("THEN STOP")
            assert "NOT THIS" not in screen.text
            screen.text = ""
            screen.press(b"\x03")
            await screen.until("(aborted)\r\n> ")
            screen.press(b"\x04")
            async with asyncio.timeout(60):
                assert await screen.child.wait() == 0
            await worker.until(lambda: len(worker.sessions) == 0)

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_kill_ends_the_chat_and_its_session(number: signal.Signals) -> None:
    async def run() -> None:
        async with live() as worker:
            child = await asyncio.create_subprocess_exec(
                *(*CHAT, *test_generate.ENDLESS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=test_generate._environ(worker),
            )
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"go on\n")
            assert await child.stdout.readexactly(5) == b"GO ON"
            child.send_signal(number)
            async with asyncio.timeout(60):
                _, err = await child.communicate()
            assert (child.returncode, b"Traceback" in err) == (130, False)
            assert b"interrupted: the chat was ended" in err
            await worker.until(lambda: len(worker.sessions) == 0)

    asyncio.run(run())


def test_a_conversation_that_the_worker_lost_begins_anew() -> None:
    async def run() -> None:
        async with live(sessions=1) as worker:
            child = await asyncio.create_subprocess_exec(
                *(*CHAT, "--max-tokens", "2"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=test_generate._environ(worker),
            )
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"one two\n")
            assert await child.stdout.readline() == b"ONE TWO \n"
            await (await worker.peer()).session()  # the only place is taken by another
            child.stdin.write(b"three four\n")
            child.stdin.close()
            async with asyncio.timeout(60):
                assert await child.stdout.readline() == b"THREE FOUR \n"
                _, err = await child.communicate()
            assert child.returncode == 0
            assert b"(the worker no longer has the conversation; it begins anew)" in err

    asyncio.run(run())


def test_turns_at_the_fallback(tmp_path: Path) -> None:
    async def run() -> None:
        async with completions(["Els", "ewhere."]) as endpoint:
            environ = {"FAZAI_GEMMA_FALLBACK_URL": endpoint.url, "FAZAI_GEMMA_FALLBACK_MODEL": "m"}
            code, out, err = await _run(tmp_path / "none", stdin=b"one\ntwo\n", **environ)
            assert (code, out, err) == (0, "Elsewhere.\nElsewhere.\n", "")
            said = [(turn["role"], turn["content"]) for turn in endpoint.asked[1]["messages"]]
            assert said == [("user", "one"), ("assistant", "Elsewhere."), ("user", "two")]

    asyncio.run(run())


def test_every_field_of_the_contract_is_an_option(tmp_path: Path) -> None:
    """All that generate and chat may be asked reaches the worker; a grammar with one sort of line end."""
    grammar = tmp_path / "answer.gbnf"
    grammar.write_bytes(b'root ::= "yes" |\r\n  "no"\r# end\n')
    words = (
        *("--stop", "END", "--stop", ";", "--top-k", "3", "--top-p", "0.5", "--min-p", "0.1"),
        *("--repeat-penalty", "1.5", "--temperature", "0.25", "--seed", "7", "--max-tokens", "3"),
        *("--grammar", str(grammar), "--timeout", "9", "--system", "s"),
    )

    async def run() -> None:
        asked: list[dict[str, Any]] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = json.loads(await reader.readline())
            if request["type"] == "create_session":
                asked.append(request["params"])
            answers = {
                "status": '{"ok":true,"status":"running","model":"m","sessions":0,"slots":1}',
                "create_session": '{"ok":true,"session_id":"s-1"}',
                "generate": '{"type":"stop","reason":"eos"}',
                "close_session": '{"ok":true}',
            }
            writer.write(answers[request["type"]].encode() + b"\n")
            writer.close()

        server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
        assert (await test_generate._run(tmp_path / "s", *words, "x"))[0] == 0
        assert (await _run(tmp_path / "s", *words, stdin=b"x\n"))[0] == 0
        server.close()
        assert asked[0] == asked[1]
        assert asked[0] == {
            "stop": ["END", ";"],
            "top_k": 3,
            "top_p": 0.5,
            "min_p": 0.1,
            "repeat_penalty": 1.5,
            "temperature": 0.25,
            "seed": 7,
            "max_tokens": 3,
            "grammar": 'root ::= "yes" |\n  "no"\n# end\n',
            "timeout_ms": 9000,
            "system": "s",
        }

    asyncio.run(run())


def test_what_is_wrong_with_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema, empty = tmp_path / "a.json", tmp_path / "empty"
    schema.write_text("{}")
    empty.write_text("")
    cases = [
        (("--json-schema", str(schema), "--grammar", str(schema)), "exclude each other"),
        (("--grammar", str(empty)), "1 to 65536 characters"),
        (("--stop", ""), "1 to 256 characters"),
        (("--stop", "x") * 17, "up to 16 times"),
        (("--top-p", "0"), "0<x<=1"),
    ]

    monkeypatch.setenv("FAZAI_GEMMA_SOCK", str(tmp_path / "none"))
    for words, wanted in cases:
        code = main(["generate", *words, "x"])
        err = capsys.readouterr().err
        assert (code, wanted in err) == (3, True), err

    async def run() -> None:
        code, _, err = await test_generate._run(
            tmp_path / "none", b"\xff\xfe".decode(errors="surrogateescape")
        )
        assert (code, "the prompt is not UTF-8" in err, "Traceback" in err) == (3, True, False)

    asyncio.run(run())
