"""`gemma.endpoints` of the daemon's configuration, and a daemon that asks them in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.daemon.runs.config_file import read_daemon_config
from fazai.errors import FazaiError
from fazai.providers.gemma.endpoint import FallbackEndpoint
from tests.daemon.live import settings
from tests.daemon.loop.scripted import LoopWorld, plain, scripted
from tests.daemon.runs_world import world


def _key(folder: Path, mode: int = 0o600) -> None:
    (folder / "key").write_text("sesame\n")
    (folder / "key").chmod(mode)


def test_a_list_with_keys(tmp_path: Path) -> None:
    _key(tmp_path)
    path = tmp_path / "daemon.yml"
    path.write_text(
        "gemma:\n  sessions: 8\n  endpoints:\n    - {url: 'http://127.0.0.1:8080/v1', model: gemma-3-4b}\n"
        "    - {url: 'https://models.example/v1', model: large, key_file: key}\n"
    )
    config = read_daemon_config(path)
    listed = (
        FallbackEndpoint("http://127.0.0.1:8080/v1", "gemma-3-4b"),
        FallbackEndpoint("https://models.example/v1", "large", "sesame"),
    )
    assert (config.gemma.sessions, config.gemma.endpoints) == (8, listed)
    assert "sesame" not in repr(config)
    first = FallbackEndpoint("http://127.0.0.1:9/v1", "option")
    assert settings(tmp_path, config=config, fallback=first).endpoints == (first, *listed)
    assert settings(tmp_path, config=config).endpoints == listed


#: Text, where in it the problem is, and what is said.
WRONG = {
    "endpoints: 7": ("7", "endpoints is a list of at most 16"),
    "endpoints: [" + "{url: 'http://h/v1', model: m}, " * 17 + "]": ("[", "endpoints is a list of at most"),
    "endpoints: [7]": ("7", "an endpoint is a mapping"),
    "endpoints: [{url: 'http://h/v1'}]": ("{", "an endpoint needs model"),
    "endpoints: [{model: m}]": ("{", "an endpoint needs url"),
    "endpoints: [{url: 'http://h/v1', model: m, keyfile: k}]": ("k}", "an endpoint knows no 'keyfile'"),
    "endpoints: [{url: 7, model: m}]": ("7", "url is a text"),
    "endpoints: [{url: 'ftp://h', model: m}]": ("'ftp", "url: it is no URL of the form"),
    "endpoints: [{url: 'http://u:p@h/v1', model: m}]": ("'http", "url: no user and no password"),
    "endpoints: [{url: 'http://h/v1', model: m, key_file: key}]": ("'http", "the key would go there in the"),
    "endpoints: [{url: 'https://h/v1', model: m, key_file: none}]": ("none", "there is no file with the end"),
    "endpoints: [{url: 'https://h/v1', model: m, key_file: open}]": ("open", "open: others may read it"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_has_its_place(tmp_path: Path, text: str) -> None:
    _key(tmp_path)
    (tmp_path / "open").write_text("sesame")
    (tmp_path / "open").chmod(0o644)
    path = tmp_path / "daemon.yml"
    path.write_text(f"gemma:\n  {text}\n")
    with pytest.raises(FazaiError) as caught:
        read_daemon_config(path)
    at, said = WRONG[text]
    place = f"2:{f'  {text}'.index(at) + 1}"
    found = [str(error) for error in caught.value.errors]
    assert any(said in one and f"daemon.yml:{place}" in one for one in found), found
    assert "sesame" not in str(found)
    assert "u:p@" not in str(found)


def test_a_session_of_the_loop_goes_on_with_the_next(tmp_path: Path) -> None:
    """What an endpoint writes passes the same check as the worker's answers, and the journal names it."""
    with scripted("not an action", {"action": "done", "result": "from the second"}) as second:
        listed = [{"url": "http://127.0.0.1:1/v1", "model": "m"}, {"url": second.url, "model": "large"}]
        with world(tmp_path, gemma={"endpoints": listed}) as found:
            loop = LoopWorld(found, second)
            session = loop.open()
            (done,) = [one for one in plain(loop.ask(session)) if one["type"] == "done"]
            assert done["result"]["result"] == "from the second"
            entries = loop.journal(session)
            answers = [one["source"] for one in entries if one["entry"] == "generated"]
            assert answers == [second.url, second.url]
            problems = [one.get("problem") for one in entries if one["entry"] == "proposed"]
            assert problems == ["the answer is not one JSON object: write the action and nothing else", None]
            assert "anyOf" in second.schemas[0]
