"""One script that answers all questions.

Frames are lines that begin with a number of 128 random bits, made for this session: whatever bytes a file's
name or content holds, it cannot hold that line. Needs a POSIX `sh`, `stat` and `sha256sum` (GNU, busybox or
BSD). Where nothing is unusual it starts two programs, however many paths are asked for: one `stat`, and one
`head` that reads all small files. `answers` reads what it prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from fazai.providers.hosts.shell.questions import ContentOf, FileAt, OutputOf, Question
from fazai.providers.hosts.shell.quoting import quote
from fazai.providers.hosts.shell.walking import WALKING

_BATCH: Final = 200  # paths for one process: their names must fit into its arguments

#: Definitions that every block may use. Each program that is started costs a host about a millisecond of CPU,
#: so what nearly every host has is tried first and what it is instead is asked afterwards.
#: `fz_drop`: the backup of a file that was not replaced after all is one too many.
#: `fz_sync FILE...`: they are on the disk; `sync` of old or foreign systems knows no files, `fsync` is
#: FreeBSD's.
#: `fz_get LIMIT FILE`: its content, one byte more than the limit at most; where `head` counts no bytes,
#: nothing when it is larger.
#: `fz_said FUNCTION N`: the first N bytes of what it prints, and its exit code in `fz_x`; if it goes on
#: writing, SIGPIPE ends it.
#: `fz_up N FOLDER`: one of those above the paths. `fz_at N PATH`: is there something? Otherwise N is missing
#: or denied. `fz_stats` tells of all of these, with where links lead in the notation of C (`readlink` is
#: asked where `stat` cannot say it), and keeps their sizes. A path on whose way somebody else can move
#: something (`fz_ways`), and one that is to be followed through a link, is not read. It is walked
#: (`fz_walks`, see `walking`), or left to a second look, which most hosts can do without.
#: `fz_follow N...`: a link there is to be followed.
#: `fz_hashes N...`: a small file is read, as whoever reads it knows its hash, as long as all of
#: them are not many bytes; others are hashed here. `fz_text N LIMIT`: a content. `fz_heads` reads all
#: contents at once, each behind a line with its name. With `fz_alone` set, each is read by a program of its
#: own.
PRELUDE: Final = r"""
fz_lc=${LC_ALL-}; LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH
unset CDPATH ENV BASH_ENV IFS
fz_nl='
' fz_tab='	'
fz_tmp= fz_all= fz_bk=
fz_q() {
fz_drop
if [ -n "$fz_tmp" ] && [ -d "$fz_tmp" ]; then rm -f "$fz_tmp/${fz_tmp##*-}"*; rmdir "$fz_tmp"
elif [ -n "$fz_tmp" ]; then rm -f "$fz_tmp"; fi 2>/dev/null
[ -z "$fz_all" ] || eval "rm -f $fz_all"
}
fz_drop() { [ -z "$fz_bk" ] || [ ! "$fz_t" -ef "$fz_bk" ] || rm -f "$fz_bk"; }
trap fz_q EXIT; trap 'fz_q; exit 129' HUP; trap 'fz_q; exit 141' PIPE; trap 'fz_q; exit 143' TERM
fz_gnu() { stat -c %f / >/dev/null 2>&1; }
fz_stat() {
stat -c '%f %u %g %s %U/%G' "$@" 2>/dev/null || fz_gnu || stat -f '%Xp %u %g %z %Su/%Sg' "$@"
}
fz_own() { stat -c %u:%g "$1" 2>/dev/null || { ! fz_gnu && stat -f %u:%g "$1"; }; }
fz_sync() {
if command -v fsync >/dev/null 2>&1; then fsync "$@"; else sync "$@"; fi >/dev/null 2>&1 && return
for fz_f do
fz_y=$(dd if=/dev/null of="$fz_f" conv=notrunc,fsync 2>&1) && continue
case $fz_y in *nvalid*|*nknown*|*sage:*|*ermission*|*upported*|*mplemented*) sync; return;; esac
printf '%s\n' "$fz_y" >&2
return 1
done
}
fz_get() {
head -c $(($1 + 1)) <"$2" 2>/dev/null && return
if printf x | head -c 1 >/dev/null 2>&1; then return 1; fi
[ $(wc -c <"$2") -le "$1" ] && cat "$2"
}
fz_cut() { head -c "$1" 2>/dev/null || cat; }
fz_said() {
{ fz_x=$({ { $1 2>&1 3>&- 4>&-; echo $? >&3; } | fz_cut $2 >&4; } 3>&1); } 4>&1
}
fz_hash() {
if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"
elif command -v sha256 >/dev/null 2>&1; then sha256 -r "$@"
else shasum -a 256 "$@"; fi
}
fz_up() {
eval "fz_u$1=\$2"
if [ -e "$2" ] || [ -h "$2" ]; then fz_ui="$fz_ui $1" fz_ua="$fz_ua \"\$fz_u$1\""; fi
}
fz_at() {
eval "fz_p$1=\$2 fz_z$1= fz_l$1= fz_h$1= fz_f$1="
fz_is="$fz_is $1"
if [ -e "$2" ] || [ -h "$2" ]; then fz_i="$fz_i $1" fz_a="$fz_a \"\$fz_p$1\""; return; fi
fz_d=${2%/*}
while [ -n "$fz_d" ] && [ ! -d "$fz_d" ]; do fz_d=${fz_d%/*}; done
[ -x "${fz_d:-/}" ] || fz_no="$fz_no $1"
}
fz_slow() { case "$fz_ws " in *" $1 "*) ;; *) fz_ws="$fz_ws $1";; esac; }
fz_ways() {
fz_ws=
for fz_k in $fz_ui; do
fz_line "$fz_s"
case $fz_s in *"$fz_nl"*) fz_s=${fz_s#*"$fz_nl"};; *) fz_s=;; esac
[ $fz_j != closed ] || continue
eval "fz_d=\${fz_u$fz_k%/}"
for fz_c in $fz_is; do
eval "fz_p=\$fz_p$fz_c"
case $fz_p in "$fz_d"/*) ;; *) continue;; esac
[ $fz_j = sticky ] && case ${fz_p#"$fz_d"/} in */*) true;; *) false;; esac || fz_slow $fz_c
done
done
fz_is= fz_ui= fz_ua=
}
fz_stats() {
fz_s=
if [ -n "$fz_ui$fz_i" ]; then
[ -z "$fz_alone" ] &&
eval "fz_s=\$(QUOTING_STYLE=c stat --printf '%f %u %g %s %U/%G\\t%N\\n' $fz_ua $fz_a 2>/dev/null)" ||
fz_s=$(eval "fz_stat $fz_ua $fz_a")
fi
fz_ways
printf '\n%s denied %s\n\n%s stat %s\n%s\n' "$fz_n" "$fz_no" "$fz_n" "$fz_i" "$fz_s"
set -- $fz_i
case $fz_s in *"$fz_tab"*) ;; *) for fz_k do
eval "fz_p=\$fz_p$fz_k"
[ ! -h "$fz_p" ] || { fz_m link $fz_k; readlink "$fz_p"; }
done;; esac
set -f; IFS=$fz_nl
for fz_y in $fz_s; do
[ $# -gt 0 ] || break
fz_y=${fz_y#* * * }; eval "fz_z$1=\${fz_y%% *}"; shift
done
set +f; unset IFS
fz_i= fz_a= fz_no= fz_ri= fz_ra= fz_hi= fz_ha= fz_t=0 fz_w=0
}
fz_file() { eval "fz_k=$1 fz_p=\$fz_p$1 fz_z=\$fz_z$1"; [ -f "$fz_p" ] && [ -r "$fz_p" ]; }
fz_read() {
fz_ri="$fz_ri $fz_k" fz_ra="$fz_ra \"\$fz_p$fz_k\"" fz_t=$((fz_t + fz_z))
[ "$fz_z" -le $fz_w ] || fz_w=$fz_z
}
fz_follow() { for fz_k do eval "fz_p=\$fz_p$fz_k fz_f$fz_k=1"; [ ! -h "$fz_p" ] || fz_slow $fz_k; done; }
fz_text() {
eval "fz_p=\$fz_p$1 fz_l$1=$2"
[ ! -h "$fz_p" ] || fz_slow $1
case "$fz_ws " in *" $1 "*) return;; esac
fz_file $1 || return
if [ -n "$fz_alone" ]; then fz_m text $1; fz_get $2 "$fz_p"; fz_m got $1 $?
elif [ "$fz_z" -le $2 ]; then fz_read; fi
}
fz_hashes() {
for fz_k do
case "$fz_ws " in *" $fz_k "*) eval "fz_h$fz_k=1"; continue;; esac
fz_file $fz_k && [ ! -h "$fz_p" ] || continue
case "$fz_ri " in *" $fz_k "*) continue;; esac
if [ -z "$fz_alone" ] && [ "$fz_z" -le 8192 ] && [ $((fz_t + fz_z)) -le 65536 ]; then fz_read
else case $fz_p in
*"$fz_nl"*) fz_m hash $fz_k; fz_hash <"$fz_p";;
*) fz_hi="$fz_hi $fz_k" fz_ha="$fz_ha \"\$fz_p$fz_k\"";;
esac; fi
done
[ -z "$fz_hi" ] || { fz_m hash "$fz_hi"; eval "fz_hash $fz_ha"; }
}
fz_heads() { [ -z "$fz_ri" ] || { fz_m heads "$fz_ri"; eval "head -v -c $((fz_w + 1)) $fz_ra"; }; }
fz_m() { printf '\n%s %s\n' "$fz_n" "$*"; }
fz_b() { fz_m begin; fz_m begin >&2; }
fz_e() { fz_m end "$1"; fz_m end "$1" >&2; }
"""


def number_paths(questions: Sequence[Question]) -> dict[str, int]:
    """Map each path that is asked for to the number under which the script tells of it."""
    paths = dict.fromkeys(q.path for q in questions if not isinstance(q, OutputOf))
    return {path: number for number, path in enumerate(paths)}


def folders_above(paths: Iterable[str]) -> list[str]:
    """Return all folders above these paths, each once, those above others first."""
    found: dict[str, None] = {}
    for path in paths:
        names = path.split("/")[1:-1]
        found.update(dict.fromkeys(("/", *("/" + "/".join(names[: n + 1]) for n in range(len(names))))))
    return list(found)


def observe_script(questions: Sequence[Question], *, alone: bool = False) -> str:
    """Return the script whose output `answers.read_answers` reads. `alone`: every content and hash comes from
    a program of its own, which takes longer, and never mistakes the end of one for the beginning of another;
    and what is to be walked to is."""
    return "\n".join(_script_parts(questions, alone))


def _script_parts(questions: Sequence[Question], alone: bool) -> Iterator[str]:
    paths = number_paths(questions)
    hashed = {paths[q.path] for q in questions if isinstance(q, FileAt) and q.hashed}
    texts: dict[int, int] = {}
    for q in questions:
        if isinstance(q, ContentOf):
            texts[paths[q.path]] = max(q.limit, texts.get(paths[q.path], 0))
    followed = {paths[q.path] for q in questions if isinstance(q, FileAt) and q.follow}
    scripts = [q.script for q in questions if isinstance(q, OutputOf)]
    walks = alone or any("fz_with" in script or "fz_cd" in script for script in scripts)
    walk = "fz_walks" if walks else 'fz_m later "$fz_ws"'
    if walks:
        yield WALKING
    yield f"fz_alone={1 if alone else ''} fz_i= fz_a= fz_no= fz_is= fz_ui= fz_ua="
    rest = iter(paths.items())
    while batch := dict(islice(rest, _BATCH)):
        yield from (f"fz_up {n} {quote(folder)}" for n, folder in enumerate(folders_above(batch)))
        yield from (f"fz_at {number} {quote(path)}" for path, number in batch.items())
        yield "fz_stats"
        if here := [str(n) for n in batch.values() if n in followed]:
            yield f"fz_follow {' '.join(here)}"
        yield from (f"fz_text {n} {texts[n]}" for n in batch.values() if n in texts)
        if here := [str(n) for n in batch.values() if n in hashed]:
            yield f"fz_hashes {' '.join(here)}"
        yield f"{walk}; fz_heads"
    for number, q in enumerate(questions):
        if isinstance(q, OutputOf):
            yield f"fz_m out {number}\nfz_q{number}() (\n{q.script}\n)\nfz_said fz_q{number} {q.limit + 1}"
            yield f"fz_m exit {number} $fz_x"
    yield "fz_m looked"
