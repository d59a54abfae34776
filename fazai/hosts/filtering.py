"""A file that others write to as well, changed by lines: the host filters its own copy, and renames it.

What came into the file after it was looked at stays; what travels is only the lines that change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fazai.hosts.kind import Block
from fazai.hosts.quoting import quoted
from fazai.hosts.writing import temporary

__all__ = ["PUT", "edited", "filtered", "parent"]

#: The beginning of a filter: `put()` prints what takes the place of the lines that go, once; without such
#: lines it comes at the end. awk's ENVIRON takes any text as it is. `out()` counts what it prints, as
#: busybox's awk says nothing of a disk that is full.
PUT: Final = """function out(s) { print s; bytes += length(s) + 1 }
function put() { if (!done && ENVIRON["fz_new"] != "") out(ENVIRON["fz_new"]); done = 1 }
END { put(); if (ENVIRON["fz_count"]) print bytes + 0 >"/dev/stderr" }
"""


def filtered(program: str, environ: Mapping[str, str]) -> str:
    """The command that filters standard input with an awk program."""
    words = " ".join(f"{name}={quoted(value)}" for name, value in environ.items())
    return f"{words} awk {quoted(program)}"


def edited(
    path: str, command: str, token: str, *, mode: str = "0644", owner: str = "", drop_empty: bool = False
) -> Block:
    """A block that puts the file through a command. It keeps mode and owner; a new one gets these (`owner` is
    a word of the script). `drop_empty`: a file of which nothing is left goes."""
    target = quoted(path)
    lines = [
        "set -e; trap '[ $? = 0 ] || rm -f \"$fz_tmp\"' EXIT; trap 'exit 143' HUP PIPE TERM",
        'umask 077; set -C; : >"$fz_tmp"; set +C',
        f'fz_in={target}; if [ -f "$fz_in" ]; then cp -p "$fz_in" "$fz_tmp"; else fz_in=/dev/null',
        f'chmod {mode} "$fz_tmp"; fz_o="{owner}"',
        '[ -z "$fz_o" ] || [ "$(fz_own "$fz_tmp")" = "$fz_o" ] || chown "$fz_o" "$fz_tmp"',
        "fi",
        # an awk that fails at its last flush has printed its count before, and some say nothing else
        f'fz_n=$(fz_count=1 {command} 2>&1 <"$fz_in" >"$fz_tmp") || case $fz_n in',
        '*[!0-9]*) echo "$fz_n" >&2; exit 1;; *) fz_n=short;; esac',
        '[ "$fz_n" = $(($(wc -c <"$fz_tmp"))) ] || { echo "no space left: it was not written" >&2; exit 1; }',
    ]
    if drop_empty:
        lines.append(f'[ -s "$fz_tmp" ] || {{ rm -f "$fz_tmp" {target}; exit 0; }}')
    lines += [
        'fz_sync "$fz_tmp"',
        f'mv -f "$fz_tmp" {target}',
    ]
    return Block("\n".join(lines), temporary(path, token))


def parent(path: str) -> str:
    """A line that makes the folder of a path, as root would by hand."""
    folder = quoted(path.rsplit("/", 1)[0] or "/")
    return f"[ -d {folder} ] || (umask 022; mkdir -p {folder})"
