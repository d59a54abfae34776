"""Batching: several changes of one host in one script, with fewer programs and one round trip.

Files that follow one another are made beside their places first, all of them; one `chmod` for each mode and
one `sync` for all stand in place of one of each a file. Then they take their names in the order of the
changes, and each says that it is done. Until the first has its name nothing was changed, and what fails is
written once more alone, which says best why.

Paths are named here, not walked: one `stat` proves first that in none of their folders somebody else can move
anything. Where that is not so the script does nothing, and each change walks alone (`walking`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final

from fazai.providers.hosts.kind import Block, FileReplacement
from fazai.providers.hosts.shell.quoting import encode_script, quote
from fazai.providers.hosts.shell.script import folders_above

#: So many changes at most: an interrupt waits for them, and the journal may have to name them all.
MAX_CHANGES = 32
_MAX_BYTES = 512 * 1024
_IS_THERE: Final = '{ [ -e "$fz_d" ] || [ -h "$fz_d" ]; }'
#: Where a folder is made, nobody else may put a link in its place before.
_ABOVE_IS: Final = f"{{ fz_d=${{fz_d%/*}}; fz_d=${{fz_d:-/}}; {_IS_THERE}; }}"


def can_join(blocks: Sequence[Block], block: Block) -> bool:
    """Tell whether this block may go into one script with those before it."""
    path = block.at if block.put is None else block.put.path
    if path is None or any(b.below == "loose" and path.startswith(f"{b.at}/") for b in blocks):
        return False  # what leads there, or who may write there, is another by then
    if block.put is None:
        return True
    if any(block.put.path == other.put.path for other in blocks if other.put is not None):
        return False  # its content was worked out from what is there
    puts = (each.put for each in (*blocks, block) if each.put is not None)
    return sum(len(piece) for put in puts for piece in put.fill) <= _MAX_BYTES


def setup_line(blocks: Sequence[Block]) -> str:
    """Return a line for the shell itself that says what to remove when the connection is cut."""
    return f"fz_tmp= fz_all={quote(_quote_all(block.tmp for block in blocks if block.tmp))}"


def batch_script(blocks: Sequence[Block]) -> Iterator[bytes]:
    """Iterate over the pieces of the script for all. It says of each change that it is done
    (`count_done`)."""
    yield b"set -e; trap '[ $? = 0 ] || fz_q' EXIT\n"
    yield from _prove_folders(blocks)
    first = 0
    for group in _split_groups(blocks):
        yield from _stage_files([(block.put, block.tmp) for block in group if block.put and block.tmp])
        for number, block in enumerate(group, first):
            yield encode_script(f"{_naming_lines(block)}\nfz_m did {number}\n")
        first += len(group)


def count_done(out: bytes, nonce: str) -> int:
    """Return how many changes, from the first on, the script's output says were made."""
    number = 0
    while f"\n{nonce} did {number}\n".encode() in out:
        number += 1
    return number


def _prove_folders(blocks: Sequence[Block]) -> Iterator[bytes]:
    """Iterate over lines that prove that all folders are real ones, and that nobody else can move what is in
    them; the one that a name stands in is not even sticky. Those that the script itself makes need not be
    there yet, unless a link comes before, which may turn out to be one of them."""
    paths = [path for block in blocks if (path := block.put.path if block.put else block.at)]
    made = [block.at for block in takewhile(lambda b: b.below != "loose", blocks) if block.at and block.below]
    later = {folder for path in made for folder in (path, *folders_above([path]))}
    inner = dict.fromkeys(posixpath.dirname(path) or "/" for path in paths)
    outer = [name for name in folders_above(paths) if name not in inner]
    yield encode_script(f"set -- {_quote_all(name for name in outer if name not in later)}\n")
    there = _quote_all(name for name in outer if name in later)
    yield encode_script(f'for fz_d in {there}; do {_IS_THERE} && set -- "$@" "$fz_d" || :; done; fz_k=$#\n')
    yield encode_script(f'set -- "$@" {_quote_all(name for name in inner if name not in later)}\n')
    yield encode_script(f"for fz_d in {_quote_all(name for name in inner if name in later)}; do\n")
    yield encode_script(f'{_IS_THERE} || {_ABOVE_IS} || continue; set -- "$@" "$fz_d"; done\n')
    yield encode_script(f"for fz_d in {there}; do\n")
    yield encode_script(f'! {_IS_THERE} && {_ABOVE_IS} || continue; set -- "$@" "$fz_d"; done\n')
    yield b'fz_plain $fz_k "$@"; fz_flat=1\n'
    if kept := [block.put.path for block in blocks if block.put and block.put.kept]:
        yield encode_script(f"! fz_acl {_quote_all(kept)} || exit 1\n")  # a list is copied, one by one


def _split_groups(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """Cut the list where a file is to stand in a folder (or behind a link) that is made just before."""
    first = 0
    for number, block in enumerate(blocks):
        put = block.put
        if put and any(b.at and put.path.startswith(f"{b.at}/") for b in blocks[first:number]):
            yield blocks[first:number]
            first = number
    yield blocks[first:]


def _stage_files(puts: Sequence[tuple[FileReplacement, str]]) -> Iterator[bytes]:
    """Iterate over lines that make all of these files, complete beside their places."""
    if not puts:
        return
    folders_of = dict.fromkeys(posixpath.dirname(put.path) or "/" for put, _ in puts)
    yield encode_script(f'for fz_d in {_quote_all(folders_of)}; do fz_sweep "$fz_d"; done\n')
    yield b"umask 077; set -C\n"
    yield from (encode_script(f": >{quote(tmp)}\n") for _, tmp in puts)
    yield b"set +C\n"
    # where a folder has a default ACL, umask counts for nothing: what is for the owner alone says so first
    yield from _set_modes([(put, tmp) for put, tmp in puts if _for_owner(put.mode)])
    for put, tmp in puts:
        yield encode_script(f"fz_tmp={quote(tmp)}\n")
        yield from put.fill
    for account in dict.fromkeys(put.account for put, _ in puts if put.account):
        yield encode_script(
            f"chown {account} {_quote_all(tmp for put, tmp in puts if put.account == account)}\n"
        )
    yield from _set_modes([(put, tmp) for put, tmp in puts if not _for_owner(put.mode)])
    yield encode_script(f"fz_sync {_quote_all(tmp for _, tmp in puts)}\n")


def _set_modes(puts: Sequence[tuple[FileReplacement, str]]) -> Iterator[bytes]:
    for mode in dict.fromkeys(put.mode for put, _ in puts):
        yield encode_script(f"chmod {mode} {_quote_all(tmp for put, tmp in puts if put.mode == mode)}\n")


def _for_owner(mode: str) -> bool:
    """Tell whether a mode lets the owner alone read and write, and has no bits that a change of the owner
    would drop."""
    return int(mode, 8) in (0o600, 0o700)


def _naming_lines(block: Block) -> str:
    if block.put is None:
        return block.plain
    target = quote(block.put.path)
    return f"fz_tmp={quote(block.tmp or '')} fz_t={target} fz_was={target}\n{block.put.ending}"


def _quote_all(paths: Iterable[str]) -> str:
    return " ".join(map(quote, paths))
