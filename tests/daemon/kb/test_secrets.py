"""No secret that the daemon knows gets into the knowledge base, whatever place it was read from."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from fazai.masking import encoded_forms
from tests.daemon.live import Live, live, until

#: Words that no pattern would take for secrets: only who knows them can.
WORDS = {
    name: f"plain{number}word{number}"
    for number, name in enumerate(("file", "env", "cmd", "folder", "ini", "host", "plain"))
}


def private(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.write_text(text)
    path.chmod(0o600)
    return path


def inventory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A firewall for each place of a secret."""
    private(folder / "inv/f.json", f'{{"api_key": "someone", "api_secret": "{WORDS["file"]}"}}')
    private(folder / "inv/c.json", f'{{"api_key": "someone", "api_secret": "{WORDS["cmd"]}"}}')
    private(
        folder / "secrets/opnsense/fw-folder.json", f'{{"api_key": "x", "api_secret": "{WORDS["folder"]}"}}'
    )
    private(folder / "inv/i.txt", f"key=someone\nsecret={WORDS['ini']}\n")
    private(folder / "secrets/hosts/web-1.key", f"{WORDS['host']}\n")
    monkeypatch.setenv("FW_ENV_VALUE", WORDS["env"])
    url = "base_url: https://127.0.0.1:1"
    return private(
        folder / "inv/inventory.yml",
        f"""\
all:
  vars: {{provider: opnsense, {url}, verify_tls: false}}
  hosts:
    fw-file: {{secret: !file f.json}}
    fw-env: {{secret: {{api_key: someone, api_secret: !env FW_ENV_VALUE}}}}
    fw-cmd: {{secret: !cmd [cat, c.json]}}
    fw-plain: {{secret: {{api_key: someone, api_secret: {WORDS["plain"]}}}}}
    fw-folder: {{}}
    fw-ini: {{secret: !file i.txt}}
""",
    )


def add(client: httpx.Client, text: str) -> dict[str, object]:
    answer = client.post(
        "/kb", json={"title": f"seen {text}", "snippet": f"it is {text} there", "tags": [text]}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_the_secrets_of_every_place_are_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = inventory(tmp_path, monkeypatch)
    planted = [WORDS[name] for name in ("file", "env", "cmd", "folder", "ini", "host", "plain")]
    daemon: Live
    with live(tmp_path, inventory=(str(path),)) as daemon, daemon.client() as client:
        until(lambda: len(client.get("/opn/list").json()["items"]) == 6)
        for word in planted:
            for form in dict.fromkeys(encoded_forms(word)):
                assert add(client, form).get("redacted", 0), form
        add(client, "an innocent word")
        kept = client.get("/kb/export", params={"limit": 1000}).text
    stored = b"".join(file.read_bytes() for file in (tmp_path / "state").glob("fazai.sqlite3*"))
    assert "an innocent word" in kept
    for word in planted:
        for form in encoded_forms(word):
            assert form not in kept
            assert form.encode() not in stored
        assert word.lower().encode() not in stored
        assert word not in daemon.log()


def test_a_secret_that_came_after_the_start_is_kept_out(tmp_path: Path) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        assert "redacted" not in add(client, "beforehandword")
        private(tmp_path / "secrets/late.key", "laterhandword\n")
        assert add(client, "laterhandword")["redacted"]
