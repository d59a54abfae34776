"""The section `notify:` of daemon.yml: read strictly, with the line of what is wrong; `fazai notify test`."""

from __future__ import annotations

import json
from datetime import time
from pathlib import Path

import pytest

from fazai.cli.main import main
from fazai.daemon.runs.config_file import read_daemon_config
from fazai.errors import Errors
from fazai.inventory import Inventory
from fazai.notify.smtp import SmtpChannel
from fazai.notify.telegram import TelegramChannel
from fazai.notify.webhook import WebhookChannel
from tests.notify.receivers import Hook, Mailbox, serve_hook, serve_mail, status
from tests.probes.servers import in_a_thread

GOOD = """\
notify:
  channels:
    mail: {type: smtp, host: mail.example.net, from: f@example.net, to: o@example.net, timeout: 10s}
    secure: {type: smtp, host: m, tls: tls, from: f@example.net, to: [o@x.example], user: u, password_file: s}
    ops: {type: webhook, url: "https://x.example/h", secret_file: s, kinds: [drift], ca: ca.pem}
    phone: {type: telegram, chat: -100123, token_file: /abs/t}
  again: 1h
  gather: 5s
  give_up: 2d
  quiet: {timezone: Europe/Berlin, windows: [{days: mon-fri, from: "22:00", to: "07:00"}]}
  urgent: [approval_waits, loop_stuck]
"""
WRONG = """\
notify:
  channels:
    a: {type: smtp, host: h, from: nobody, to: [o@example.net, "x y"]}
    b: {type: smtp, host: h, from: f@example.net, to: o@example.net, user: u}
    c: {type: smtp, host: h, tls: none, from: f@example.net, to: o@example.net, user: u, password_file: p}
    d: {type: webhook, url: "http://x.example/h", secret_file: s}
    e: {type: webhook, url: "https://u:geheim@x.example/h", secret_file: s}
    f: {type: telegram, chat: someone, token_file: t}
    g: {type: pager}
    h: {type: webhook, url: "https://x.example/geheim key", secret_file: s, kinds: [drifts]}
    i: {url: "https://x.example/"}
    j: {type: telegram, chat: 1, token_file: t, token: "geheim"}
  quiet: {windows: []}
  gather: 0s
  urgent: [everything]
  chanels: {}
"""


def _no_inventory(sources: tuple[str, ...]) -> Inventory:
    raise AssertionError(sources)


def test_channels_are_read_with_paths_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "daemon.yml").write_text(GOOD)
    found = read_daemon_config(tmp_path / "daemon.yml").notify
    mail, secure, ops, phone = (one.channel for one in found.subscriptions.values())
    assert isinstance(mail, SmtpChannel)
    assert (mail.port, mail.tls, mail.recipients) == (587, "starttls", ("o@example.net",))
    assert mail.timeout_s == 10.0
    assert isinstance(secure, SmtpChannel)
    assert (secure.port, secure.user, secure.password_file) == (465, "u", tmp_path / "s")
    assert isinstance(ops, WebhookChannel)
    assert (ops.ca, ops.secret_file) == (tmp_path / "ca.pem", tmp_path / "s")
    assert found.subscriptions["ops"].kinds == {"drift"}
    assert len(found.subscriptions["mail"].kinds) == 5
    assert isinstance(phone, TelegramChannel)
    assert (phone.chat, phone.token_file) == ("-100123", Path("/abs/t"))
    assert phone.base_url == "https://api.telegram.org"
    assert (found.again_s, found.gather_s, found.give_up_s) == (3600.0, 5.0, 172800.0)
    assert found.quiet is not None
    assert found.quiet.windows[0].begin == time(22)
    assert found.urgent == {"approval_waits", "loop_stuck"}


def test_every_wrong_value_is_said_with_its_line_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "daemon.yml").write_text(WRONG)
    with pytest.raises(Errors) as raised:
        read_daemon_config(tmp_path / "daemon.yml")
    texts = [str(error).partition("daemon.yml:")[2] for error in raised.value.errors]
    assert "geheim" not in str(raised.value)
    said = {text.partition(":")[0] + " " + text.split(": ", 1)[1] for text in texts}
    for line, words in (
        (3, "from is a mail address, not 'nobody'"),
        (3, "to is a mail address, not 'x y'"),
        (4, "user and password_file belong together"),
        (5, "the password would go there in the clear"),
        (6, "url would send what happened in the clear"),
        (7, "url has a user or a password"),
        (8, "chat is the number of a chat"),
        (9, "type is one of smtp, webhook, telegram"),
        (10, "url is no URL of the form https://HOST/PATH"),
        (10, "kinds is one of drift, failed_run"),
        (11, "notify.channels.i needs type"),
        (12, "notify.channels.j knows no 'token'"),
        (13, "windows is a list of times of day"),
        (14, "gather is a time such as"),
        (15, "urgent is one of drift"),
        (16, "notify knows no 'chanels'"),
    ):
        assert any(text.startswith(f"{line} {words}") for text in said), (line, words, sorted(said))
    assert len(texts) == 16


def test_files_that_are_not_there_are_said_before_the_daemon_starts(tmp_path: Path) -> None:
    (tmp_path / "daemon.yml").write_text(GOOD)
    with pytest.raises(Errors) as raised:
        read_daemon_config(tmp_path / "daemon.yml", _no_inventory)
    texts = [error.message for error in raised.value.errors]
    assert texts == [
        f"password_file names {tmp_path}/s, and there is no such file",
        f"secret_file names {tmp_path}/s, and there is no such file",
        f"ca names {tmp_path}/ca.pem, and there is no such file",
        "token_file names /abs/t, and there is no such file",
    ]


# -- fazai notify test


def write(folder: Path, channels: dict[str, object]) -> str:
    (folder / "key").write_text("0123456789abcdef")
    (folder / "key").chmod(0o600)
    (folder / "daemon.yml").write_text(json.dumps({"notify": {"channels": channels}}))
    return str(folder / "daemon.yml")


def test_each_channel_is_tried_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hook, mailbox = Hook(), Mailbox()
    with in_a_thread(serve_hook(hook)) as web, in_a_thread(serve_mail(mailbox)) as mail:
        file = write(
            tmp_path,
            {
                "ops": {"type": "webhook", "url": f"http://127.0.0.1:{web}/", "secret_file": "key"},
                "mail": {
                    "type": "smtp",
                    "host": "127.0.0.1",
                    "port": mail,
                    "tls": "none",
                    "from": "fazai@example.net",
                    "to": "ops@example.net",
                },
            },
        )
        assert main(["notify", "test", "--config", file]) == 0
        assert capsys.readouterr().out == "ok    ops: it was taken\nok    mail: it was taken\n"
        assert json.loads(hook.posts[0].body)["kind"] == "test"
        assert mailbox.mails[0]["X-Fazai-Kind"] == "test"
        hook.script.append(status(500, body="0123456789abcdef"))
        assert main(["notify", "test", "ops", "--config", file, "--output", "json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert said["channels"] == [{"channel": "ops", "ok": False, "why": "it answers 500: ***"}]
        assert len(mailbox.mails) == 1


def test_a_channel_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, {"ops": {"type": "webhook", "url": "http://127.0.0.1:1/", "secret_file": "key"}})
    assert main(["notify", "test", "opps", "--config", file]) == 3
    assert 'there is no channel "opps"\n  hint: did you mean "ops"?' in capsys.readouterr().err
    (tmp_path / "daemon.yml").write_text("runs: {}\n")
    assert main(["notify", "test", "--config", file]) == 3
    assert "has no channel" in capsys.readouterr().err
