"""Configuration, store, secrets and inventory of a command, built from the process's environment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.config import ProcessConfig
from fazai.errors import (
    FazaiError,
    InputError,
    InventoryError,
    SecretError,
    UsageError,
    missing_file,
    raise_found,
)
from fazai.ids import is_ulid

if TYPE_CHECKING:
    from fazai.inventory import Inventory
    from fazai.secrets import SecretReader
    from fazai.store.base import Run, Store
    from fazai.yamltext import OnFileRead


def read_config() -> ProcessConfig:
    return ProcessConfig.from_environ(os.environ, root=os.geteuid() == 0)


def _read_run_id() -> str | None:
    """Return the id that the daemon gave the run it starts. It is a part of paths. Raises UsageError."""
    text = os.environ.get("FAZAI_RUN_ID", "")
    if text and not is_ulid(text):
        hint = "26 letters and digits, as: fazai history; leave it unset, and the run has one of its own"
        raise UsageError(f"FAZAI_RUN_ID is {text[:64]!r}, and that is no id of a run", hint=hint)
    return text or None


def refuse_used_run_id(store: Store, run_id: str) -> None:
    """Refuse the id of a run that was made before; what a daemon merely heard of is none. Raises UsageError,
    StateError."""
    if not os.environ.get("FAZAI_RUN_ID"):
        return
    import asyncio

    found = asyncio.run(store.find_run(run_id))
    if found is not None and found.run_id == run_id and (found.pid or found.exit_code is not None):
        hint = "each run has an id of its own; leave it unset"
        raise UsageError(f"FAZAI_RUN_ID is {run_id}, and that run was made before", hint=hint)


def new_run(command: str, sources: Sequence[str]) -> Run:
    """Return a run that begins now; a daemon that starts one has said its id before. Raises UsageError."""
    import getpass
    import socket

    from fazai.ids import ulid
    from fazai.store.base import Run

    now = time.time()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an empty environment and a uid without a name
        user = str(os.getuid())
    return Run(
        run_id=_read_run_id() or ulid(int(now * 1000), os.urandom(10)),
        command=command,
        sources=tuple(sources),
        user=user,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now,
    )


def find_local_socket(root: bool) -> Path | None:
    """Return the daemon's local socket, where there is one that we may use: our own, or the machine's, which
    is no concern of runs with a state folder of their own."""
    return next((path for path in _local_sockets(root) if os.access(path, os.W_OK)), None)


def find_closed_socket(root: bool) -> Path | None:
    """Return a daemon's local socket that is there and that this user may not use; None without one."""
    return next((path for path in _local_sockets(root) if not os.access(path, os.W_OK)), None)


def _local_sockets(root: bool) -> Iterator[Path]:
    """Yield the sockets that there are in the places of `find_local_socket`."""
    import stat

    from fazai.config import SYSTEM_SOCKET, daemon_socket_path, named_state_folder

    paths = [daemon_socket_path(os.environ, root=root)]
    if named_state_folder(os.environ) is None:
        paths.append(SYSTEM_SOCKET)
    for path in paths:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(path.stat().st_mode):
                yield path


@contextlib.contextmanager
def read_store() -> Iterator[Store]:
    """Open the store for commands that only look."""
    from fazai.store.factory import open_store

    store = open_store(read_config().state)
    try:
        yield store
    finally:
        store.close()


def inventory_sources(given: Sequence[str]) -> tuple[str, ...]:
    """Return the inventory's sources: those given, else FAZAI_INVENTORY (several with `:`). Raises
    UsageError."""
    named = os.environ.get("FAZAI_INVENTORY")
    if not given and not named:
        hint = "fazai COMMAND inventory.yml, or set FAZAI_INVENTORY"
        raise UsageError("an inventory is missing", hint=hint)
    return tuple(given or (named or "").split(":"))


def split_inventories(words: Sequence[str], option: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the words of a command into inventories and host patterns. Raises InventoryError for a word that
    was surely meant as an inventory."""
    found = tuple(word for word in words if os.path.exists(word))
    patterns = tuple(word for word in words if not os.path.exists(word))
    named = found or option or os.environ.get("FAZAI_INVENTORY")
    for word in patterns:
        if word.endswith((".yml", ".yaml", ".json", ".ini")) or (not named and "," not in word):
            hint = "the inventory comes first, then patterns of hosts"
            raise missing_file(InventoryError, "inventory", word, hint)
    return found, patterns


def make_secret_reader(vault_password_files: Sequence[str]) -> SecretReader:
    """Make the reader of secrets. Raises SecretError, Errors for password files that are not there, whether
    a text needs them or not; their `rest` is the reader."""
    from fazai.secrets import PROMPTS, SecretReader

    files, folder = tuple(vault_password_files), read_config().secrets
    reader = SecretReader(environ=os.environ, folder=folder, vault_password_files=files)
    paths = [word.rpartition("@")[2] for word in files]
    missing = [
        missing_file(SecretError, "vault password file", path)
        for path in paths
        if path not in PROMPTS and not os.path.exists(os.path.expanduser(path))
    ]
    raise_found(missing, reader)
    return reader


def allows_scripts(option: bool) -> bool:
    """Tell whether inventory scripts may be run: by option or FAZAI_ALLOW_SCRIPTS. Raises UsageError."""
    text = os.environ.get("FAZAI_ALLOW_SCRIPTS", "")
    if text not in ("", "0", "1"):
        raise UsageError(f"FAZAI_ALLOW_SCRIPTS is {text!r}, 1 or 0 was expected")
    return option or text == "1"


def read_inventory(
    sources: Sequence[str], secrets: SecretReader, *, allow_scripts: bool, quiet: bool = False
) -> Inventory:
    """Read the inventory. Warnings go to standard error, and notes on skipped files unless `quiet`. Raises
    InputError, Errors."""
    from fazai.inventory import load_inventory

    run = None
    if allows_scripts(allow_scripts):
        from fazai.secrets.scripts import script_runner

        run = script_runner(os.environ)
    found = load_inventory(sources, decrypt=secrets.open_file, run_script=run)
    for note in found.notes:
        click.echo(f"warning: {note}", err=True)
    for text in () if quiet else found.skipped:
        click.echo(f"note: {text}", err=True)
    return found


def parse_extra_vars(words: Sequence[str], on_read: OnFileRead | None = None) -> dict[str, Any]:
    """Parse `-e name=value`, `-e '{"a": 1}'`, `-e @file`; values are YAML. Raises InputError, or Errors for
    several; their `rest` is the other variables."""
    result: dict[str, Any] = {}
    wrong: list[FazaiError] = []
    for word in words:
        try:
            result.update(_parse_extra_vars_word(word, on_read))
        except FazaiError as error:
            wrong += error.errors
    raise_found(wrong, result)
    return result


def read_entries(paths: Sequence[str], on_read: OnFileRead, now: float | None = None) -> dict[str, Any]:
    """Return the variable `fazai_entries`: the addresses of each alias that stand now (`now`: seconds since
    the epoch), of all these files; nothing without a file. Raises InputError."""
    from fazai.rules.entries import VARIABLE, parse_entries
    from fazai.yamltext import read_limited

    if not paths:
        return {}
    found: dict[str, list[str]] = {}
    for path in paths:
        data = read_limited(path, what="file of entries")
        on_read(path, data)
        for alias, addresses in parse_entries(data, path, time.time() if now is None else now).items():
            found[alias] = [*dict.fromkeys((*found.get(alias, ()), *addresses))]
    return {VARIABLE: found}


def _parse_extra_vars_word(word: str, on_read: OnFileRead | None) -> dict[str, Any]:
    """Parse one `-e`. Raises InputError, Errors."""
    from fazai.yamltext import load_yaml, loads_yaml, parse_yaml_value

    value: object
    if word.startswith("@"):
        value = load_yaml(Path(word[1:]), on_read=on_read, what="file of variables")
    elif word.lstrip().startswith("{"):
        value = loads_yaml(word, "--extra-vars")
    else:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--extra-vars {word!r} is not name=value", hint="or @file, or a YAML mapping")
        value = {name: parse_yaml_value(text, "--extra-vars") if text else ""}
    if not isinstance(value, dict):
        raise InputError("extra variables are a mapping", where=f"--extra-vars {word}")
    return value
