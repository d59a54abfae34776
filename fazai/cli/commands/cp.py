"""fazai cp"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fazai.cli.fanout import FANOUT_OPTIONS, FanoutRun
from fazai.cli.options import add_options
from fazai.errors import InputError, UsageError

if TYPE_CHECKING:
    from fazai.fanout.copying import CopyItem, CopyWords
    from fazai.model import Resource, Session, Target


@click.command(
    "cp",
    epilog="\b\nExamples:\n  fazai cp web: app.conf /etc/app/app.conf"
    "\n  fazai cp app.conf web:/etc/app/app.conf"
    "\n  fazai cp -r web: ./site/ /srv/www/site --wave 1,100%\n  fazai cp 'all:!db':/etc/hosts ./hosts/",
)
@click.argument("words", nargs=-1, metavar="[INVENTORY]... PATTERN: SRC... DEST")
@add_options(FANOUT_OPTIONS)
@click.option("-r", "--recursive", is_flag=True, help="Folders, with all that is in them.")
@click.option("--mode", metavar="MODE", help="Of the files there. [default: as they have here]")
@click.option("--owner", metavar="USER", help="Of the files there.")
@click.option("--group", "group_name", metavar="GROUP", help="Of the files there.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 86_400),
    metavar="SECONDS",
    help="Time for each step on a host. [default: the host's timeout]",
)
@click.option("--backup", is_flag=True, help="Keep what a file replaces beside it.")
def cp_command(
    words: tuple[str, ...],
    recursive: bool,
    mode: str | None,
    owner: str | None,
    group_name: str | None,
    backup: bool,
    timeout_s: float | None,
    **options: Any,
) -> int:
    """Copy files to the hosts that PATTERN chooses; SRC PATTERN:/DEST is understood as well.

    DEST is the file's new name there; where it ends with a slash, it is the folder. With PATTERN:/SRC DEST a
    file is fetched from each host, to DEST/HOST/, with -r a folder from agents. What is there already is left
    alone.
    """
    from fazai.fanout.copying import parse_copy, read_items

    copy = parse_copy(words)
    if missing := [name for name in copy.inventories if not Path(name).exists()]:
        raise UsageError(f"{missing[0]!r} is no inventory", hint="inventories come first: fazai cp --help")
    given = {"mode": mode, "owner": owner, "group": group_name, "backup": backup or None}
    attributes = {name: value for name, value in given.items() if value is not None}
    if copy.direction == "from hosts":
        if attributes:
            raise UsageError("--mode, --owner, --group and --backup are for files that go to hosts")
        return (_fetch_folder if recursive else _fetch)(copy, options, timeout_s)
    items = read_items(copy.sources, copy.dest, recursive=recursive, attributes=attributes)
    return _bring(copy, items, options, timeout_s)


def _bring(copy: CopyWords, items: list[CopyItem], options: dict[str, Any], timeout_s: float | None) -> int:
    """Bring files to hosts: each is a resource, and the host's own kinds write it."""
    from fazai.fanout.agents import AgentAccess, AgentFileSession, is_plain_file
    from fazai.providers.hosts.once.counting import CountedProvider
    from fazai.providers.hosts.provider import ShellProvider

    run = FanoutRun.prepare("cp", copy.inventories, (copy.pattern,), options).with_timeout(timeout_s)
    resources = tuple(_resource(run, item) for item in items)
    size = sum(len(item.fields.get("content", b"")) for item in items)

    def open_session(target: Target) -> Session:
        access = run.access_to(target)
        provider = run.prepared.registry.provider(target.provider)
        if isinstance(access, AgentAccess):
            # what file.apply does not do is a reconcile, where its policy allows one
            plain = all(map(is_plain_file, resources))
            return AgentFileSession(access) if plain else provider.connect(target)
        assert isinstance(provider, ShellProvider)
        return CountedProvider(provider, lambda name, sent: run.meter.tell(name, sent, size)).connect(target)

    return run.execute(lambda _: resources, open_session, title=f"cp {' '.join(copy.sources)} {copy.dest}")


def _resource(run: FanoutRun, item: CopyItem) -> Resource:
    """Make a resource of something to copy, as a playbook's is made. Raises InputError."""
    from fazai.model import Problem, Resource

    kind = run.prepared.registry.kind(item.kind)
    identity = kind.identify(item.fields)
    fields, problems = kind.normalise(item.fields, "present")
    if isinstance(identity, Problem) or problems:
        first = identity if isinstance(identity, Problem) else problems[0]
        raise InputError(f"{item.fields['path']}: {first.field or ''} {first.message}", hint=first.hint)
    return Resource(item.kind, identity, fields)


def _fetch(copy: CopyWords, options: dict[str, Any], timeout_s: float | None) -> int:
    """Fetch one file from each host."""
    from fazai.fanout.copying import local_names
    from fazai.fanout.fetching import FetchSession, ReadingStore
    from fazai.model import Resource

    run = FanoutRun.prepare("cp", copy.inventories, (copy.pattern,), options).with_timeout(timeout_s)
    path = copy.sources[0]
    names = local_names(copy.dest, path, [item.target.name for item in run.targets])

    def open_session(target: Target) -> Session:
        return FetchSession(target, run.access_to(target), Path(names[target.name]), run.meter.tell)

    def resources(target: Target) -> tuple[Resource, ...]:
        return (Resource("host.file", path, {"path": path, "to": names[target.name]}),)

    return run.execute(
        resources,
        open_session,
        title=f"cp {copy.pattern}:{path} {copy.dest}",
        ledger=ReadingStore,
        reads=True,
    )


def _fetch_folder(copy: CopyWords, options: dict[str, Any], timeout_s: float | None) -> int:
    """Fetch a folder from each agent."""
    from fazai.errors import Refused
    from fazai.fanout.agents import AgentAccess
    from fazai.fanout.copying import local_names
    from fazai.fanout.fetching import ReadingStore
    from fazai.fanout.folders import FolderReport, FolderSession
    from fazai.fanout.sessions import RefusedSession
    from fazai.model import Resource

    run = FanoutRun.prepare("cp", copy.inventories, (copy.pattern,), options).with_timeout(timeout_s)
    path = copy.sources[0].rstrip("/")
    names = local_names(copy.dest, path, [item.target.name for item in run.targets])
    report = FolderReport(run.meter.tell)

    def open_session(target: Target) -> Session:
        access = run.access_to(target)
        if not isinstance(access, AgentAccess):
            text = f"{target.name} is reached without an agent, and folders are fetched from agents alone"
            return RefusedSession(target, Refused(text, where=target.name, hint="fetch an archive of it"))
        return FolderSession(target, access, Path(names[target.name]), report)

    def resources(target: Target) -> tuple[Resource, ...]:
        return (Resource("host.directory", path, {"path": path, "to": names[target.name]}),)

    code = run.execute(
        resources,
        open_session,
        title=f"cp -r {copy.pattern}:{path} {copy.dest}",
        ledger=ReadingStore,
        reads=True,
    )
    for name, count in sorted(report.left_out.items()):
        if count:
            reason = "as links, what may not be read and files of more than 47 MiB are"
            click.echo(f"{name}: {count} of {path} left out, {reason}", err=True)
    return code
