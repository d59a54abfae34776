"""fazai notify test"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fazai.cli.options import FILE, OUTPUT
from fazai.errors import ExitCode, FazaiError, UsageError, missing_file, spelling_hint

if TYPE_CHECKING:
    from fazai.daemon.notify.config import Channel

_CONFIG = Path("/etc/fazai/daemon.yml")


@click.group(
    "notify", epilog="\b\nExamples:\n  fazai notify test\n  fazai notify test mail --config daemon.yml"
)
def notify_command() -> None:
    """Notifications of the daemon: by mail, webhook, Telegram (docs/notifications.md)."""


@notify_command.command("test")
@click.argument("names", nargs=-1, metavar="[CHANNEL]...")
@click.option("--config", "config_file", type=FILE, default=_CONFIG, show_default=True)
@OUTPUT
def test_command(names: Sequence[str], config_file: Path, output: str) -> int:
    """Send one message by each channel of the daemon's configuration, now; exit 1 when one is not taken."""
    from fazai.daemon.runs.config_file import read_daemon_config

    if not config_file.exists():
        raise missing_file(UsageError, "configuration", config_file, "--config names the daemon's")
    found = read_daemon_config(config_file).notify.subscriptions
    if not found:
        raise UsageError(
            f"{config_file} has no channel", hint="notify: channels: …, see docs/notifications.md"
        )
    for name in names:
        if name not in found:
            hint = spelling_hint(name, found) or f"there are: {', '.join(found)}"
            raise UsageError(f'there is no channel "{name[:64]}"', hint=hint)
    rows = asyncio.run(_send_all([found[name].channel for name in names or found]))
    if output == "json":
        click.echo(
            json.dumps({"format": "fazai-notify-test/1", "channels": rows}, indent=1, ensure_ascii=False)
        )
    else:
        for row in rows:
            click.echo(f"{'ok' if row['ok'] else 'fail':<5} {row['channel']}: {row['why']}")
    return ExitCode.OK if all(row["ok"] for row in rows) else ExitCode.FAILED


async def _send_all(channels: Sequence[Channel]) -> list[dict[str, object]]:
    return await asyncio.gather(*map(_send, channels))


async def _send(channel: Channel) -> dict[str, object]:
    from fazai.ids import ulid
    from fazai.notify.message import Notice

    now = time.time()
    notice = Notice(
        id=ulid(int(now * 1000), os.urandom(10)),
        kind="test",
        subject=f"a test of channel {channel.name} from {socket.gethostname()}",
        lines=("Nothing happened: somebody ran fazai notify test.",),
        time=now,
    )
    try:
        remark = await channel.send(notice)  # deadline: the channel's own, `timeout_s`
    except FazaiError as error:
        return {"channel": channel.name, "ok": False, "why": str(error)}
    return {"channel": channel.name, "ok": remark is None, "why": remark or "it was taken"}
