"""fazai kb add, search, show, verify, rm, import, export"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from fazai.cli.kb_client import (
    EXPORTED,
    KbClient,
    files_to_import,
    import_exported,
    import_sections,
    note_path,
    open_kb,
    read_import_file,
)
from fazai.cli.options import FILE, OUTPUT
from fazai.errors import FazaiError, UsageError

_ADD = "fazai kb add TITLE TEXT, or: fazai kb add TITLE < FILE"
_INPUT_BYTES = 1 << 20

_TARGET = click.option("--target", metavar="NAME", help="The target that it is about.")
_TAGS = click.option("--tag", "tags", multiple=True, metavar="TAG", help="To find it by; may be repeated.")


@click.group(
    "kb",
    epilog="\b\nExamples:\n  fazai kb search unbound does not start on fw-01"
    '\n  fazai kb add "fw-01: blocklist" "It is edited by hand on Fridays." --target fw-01'
    "\n  fazai kb import runbooks/\n  fazai kb verify kb-31\n  fazai kb export kb.ndjson",
)
def kb_command() -> None:
    """The knowledge base: notes of people, runs and models, searched in English and Portuguese."""


@kb_command.command("add", short_help="Note something.")
@click.argument("title")
@click.argument("text", required=False)
@_TAGS
@_TARGET
@click.option("--source", metavar="TEXT", help="Where it is from.")
@click.option("--from", "parents", multiple=True, metavar="ID", help="A note that it is derived from.")
@click.option("--contradicts", multiple=True, metavar="ID", help="A note that is wrong, as this one says.")
@OUTPUT
def add_command(
    title: str,
    text: str | None,
    tags: tuple[str, ...],
    target: str | None,
    source: str | None,
    parents: tuple[str, ...],
    contradicts: tuple[str, ...],
    output: str,
) -> None:
    """Note something under a TITLE. Without TEXT it is read from standard input. Secrets are taken out."""
    given = _read_input() if text is None else text
    for what, word in (("TITLE", title), ("TEXT", given)):
        if not word.strip():
            raise UsageError(f"{what} is empty", hint=_ADD)
    body = {
        "title": title,
        "snippet": given,
        "tags": list(tags),
        "parents": list(parents),
        "contradicts": list(contradicts),
        **({"target": target} if target else {}),
        **({"source": source} if source else {}),
    }
    with open_kb() as kb:
        added = kb.post("/kb", body)
    if output == "json":
        click.echo(json.dumps(added, indent=1))
        return
    click.echo(added["id"])
    if added.get("merged"):
        click.echo(f"it was there already: {added['id']}, {added.get('status', 'unverified')}", err=True)
    if added.get("redacted"):
        click.echo("what looks like a secret was replaced by ***", err=True)


def _read_input() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("TEXT is missing", hint=_ADD)
    data = getattr(sys.stdin, "buffer", sys.stdin).read(_INPUT_BYTES)
    return data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")


@kb_command.command("search")
@click.argument("question", nargs=-1, required=True)
@_TARGET
@click.option("--limit", "-n", type=click.IntRange(1, 50), default=10, show_default=True)
@OUTPUT
def search_command(question: tuple[str, ...], target: str | None, limit: int, output: str) -> None:
    """Find the notes that are nearest to a QUESTION in words, the best first."""
    with open_kb() as kb:
        docs = kb.get("/kb/search", q=" ".join(question)[:1024], limit=limit, target=target)["docs"]
    if output == "json":
        click.echo(json.dumps(docs, indent=1))
        return
    if not docs:
        click.echo("no note has any of these words", err=True)
    for doc in docs:
        click.echo(_doc_line(doc))
        first = next((line for line in doc["snippet"].splitlines() if line.strip()), "")
        click.echo(f"          {_shown(first)[:100]}")


def _doc_line(doc: dict[str, Any]) -> str:
    about = f"  ({_shown(doc['target'])})" if doc.get("target") else ""
    against = ", contradicted" if doc.get("contradicted") else ""
    standing = (
        doc.get("status", "?") if doc.get("status") == "verified" else f"unverified, {doc.get('origin')}"
    )
    return f"{doc['id']:<8}  {_shown(doc['title'])}{about}  [{standing}{against}]"


def _shown(text: object) -> str:
    from fazai.report.lines import printable

    return printable(str(text))


@kb_command.command("show", short_help="Show one note and where it is from.")
@click.argument("note", metavar="ID")
@OUTPUT
def show_command(note: str, output: str) -> None:
    """Show the note ID: its text, who it is from, what it was derived from and what was derived from it."""
    with open_kb() as kb:
        found = kb.get(note_path(note))
    if output == "json":
        click.echo(json.dumps({name: found.get(name, []) for name in ("note", "links", "linked")}, indent=1))
        return
    one = found["note"]
    click.echo(f"{one['id']}  {_shown(one['title'])}")
    for name, value in _facts(one):
        click.echo(f"  {name:<9} {_shown(value)}")
    for line in _graph_lines(one["id"], found):
        click.echo(f"  {line}")
    click.echo("")
    for line in one["text"].splitlines():
        click.echo(_shown(line))


def _facts(one: dict[str, Any]) -> list[tuple[str, str]]:
    verified = f"verified by {one.get('verified_by', '?')} {one.get('verified_at', '')}"
    again = (
        f", written {one['written']} times, last {one['last_written_at']}"
        if one.get("written", 1) > 1
        else ""
    )
    found = [
        ("status", verified if one["status"] == "verified" else "unverified"),
        ("from", f"{one['origin']} {one.get('author', '')}".strip()),
        ("written", f"{one['created_at']}{again}"),
        ("target", one.get("target")),
        ("tags", ", ".join(one.get("tags", []))),
        ("source", one.get("source")),
        ("run", one.get("run_id")),
        ("session", one.get("session_id")),
    ]
    return [(name, value) for name, value in found if value]


def _graph_lines(note: str, found: dict[str, Any]) -> list[str]:
    """Return the notes that it is linked to, each with how."""
    docs = {doc["id"]: doc for doc in found.get("linked", [])}
    words = {
        ("parent", True): "derived from",
        ("parent", False): "led to",
        ("contradicts", True): "contradicts",
        ("contradicts", False): "contradicted by",
    }
    lines, seen, fresh = [], {note}, [(note, 0)]
    while fresh:
        here, depth = fresh.pop(0)
        for link in found.get("links", []):
            outward = link["note"] == here
            other = link["other"] if outward else link["note"]
            if here not in (link["note"], link["other"]) or other in seen:
                continue
            seen.add(other)
            fresh.append((other, depth + 1))
            text = _doc_line(docs[other]) if other in docs else f"{other} (removed)"
            lines.append(f"{'  ' * depth}{words[link['relation'], outward]} {text}")
    return lines


@kb_command.command("verify")
@click.argument("notes", nargs=-1, required=True, metavar="ID...")
def verify_command(notes: tuple[str, ...]) -> None:
    """Say that these notes are right: they then stand before others, and a machine's never before them."""
    with open_kb() as kb:
        for note in notes:
            found = kb.post(f"{note_path(note)}/verify")
            click.echo(f"verified: {note}  {_shown(found['note']['title'])}", err=True)


@kb_command.command("rm")
@click.argument("notes", nargs=-1, required=True, metavar="ID...")
def rm_command(notes: tuple[str, ...]) -> None:
    """Drop these notes."""
    with open_kb() as kb:
        for note in notes:
            kb.post(f"{note_path(note)}/remove")
            click.echo(f"removed: {note}", err=True)


@kb_command.command("import", short_help="Import Markdown, text, PDF, or what export wrote.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|FOLDER...")
@_TAGS
@_TARGET
def import_command(paths: tuple[Path, ...], tags: tuple[str, ...], target: str | None) -> None:
    """Import files, or all files of a folder: Markdown by its sections, text, PDF by its pages (needs pypdf:
    pip install 'fazai[kb]'), and .ndjson that `fazai kb export` wrote. Importing again adds nothing."""
    failed = []
    with open_kb() as kb:
        for file in [file for path in paths for file in files_to_import(path)]:
            try:
                click.echo(_import_file(kb, file, tags, target), err=True)
            except UsageError:
                raise
            except FazaiError as error:
                if error.exit_code == 4 or len(paths) == 1 == len(files_to_import(paths[0])):
                    raise
                failed.append(file)
                click.echo(f"error: {error}", err=True)
    if failed:
        raise FazaiError(f"{len(failed)} of the files could not be imported", where=str(failed[0]))


def _import_file(kb: KbClient, file: Path, tags: tuple[str, ...], target: str | None) -> str:
    """Import one file and return what became of it. Raises FazaiError."""
    if file.suffix.lower() in EXPORTED:
        added, merged = import_exported(kb, file)
    else:
        from fazai.kb.reading import read_sections

        sections = read_sections(str(file), read_import_file(file))
        added = import_sections(kb, sections, tags, target)
        merged = len(sections) - added
    return f"{_shown(file)}: {added} new, {merged} there already"


@kb_command.command("export", short_help="Write all notes to FILE, one a line.")
@click.argument("file", type=FILE, required=False)
def export_command(file: Path | None) -> None:
    """Write all notes with their status and where they are from to FILE (else to standard output), one JSON
    object a line. `fazai kb import` brings them back, in this or another knowledge base."""
    if file is not None:
        if file.exists():
            raise UsageError(f"{file} is there already", hint="name a file that is not")
        _export_to(file)
        return
    with open_kb() as kb:
        for note in kb.export():
            click.echo(json.dumps(note, ensure_ascii=False))


def _export_to(file: Path) -> None:
    from fazai.files import replace_file

    with open_kb() as kb:
        lines = [json.dumps(note, ensure_ascii=False) + "\n" for note in kb.export()]
    try:
        replace_file(file, "".join(lines).encode())
    except OSError as error:
        raise FazaiError(f"{file} cannot be written: {error.strerror}") from None
    click.echo(f"{file}: {len(lines)} notes", err=True)
