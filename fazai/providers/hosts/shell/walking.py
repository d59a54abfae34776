"""Shell functions that reach a path by steps of which each is known, and write there what nobody can swap.

Who may write to a folder can put a link there at any time, also between two lines of a script of root's. So a
path is walked, not named: `fz_enter` goes into its folder step by step, asks of each step whose it is, and
what was entered is proved to be what was asked about. The rule is that of systemd-tmpfiles: what is root's,
or of the one who runs the script, may lead anywhere; a folder or link of another user only to what is that
user's (docs/adr/0014-no-unsafe-steps.md). Where all folders are root's (or ours) and nobody else may write to
them, nothing can be swapped: one `stat` of all of them proves it, and the plain path is as good as a walk.

A folder is `closed` (nobody else may write to it), `sticky` (as /tmp: others may not move what is ours),
`open` (others may write to it) or `theirs`. In the last three, what is written is made in a folder of our
own, mode 0700, that stands in it, and takes its name from there.
"""

from __future__ import annotations

from typing import Final

#: The exit status of an `OutputOf` question that met an unsafe step.
UNSAFE: Final = 86
UNSAFE_HINT: Final = (
    "give that step to root, or to the user whose file it is, or work as that user: become_user:"
)
MOUNTED_HINT: Final = "unmount it before (host.command), or declare absent what is beside it"

#: What every look begins with: `fz_mine UID`: root's, or of who runs this. `fz_judge MODE UID` sets `fz_j`,
#: see above; `none`: no folder. `fz_line` does so with a line of `stat`.
JUDGING: Final = r"""
fz_me= fz_who= fz_pd= fz_keep= fz_root= fz_flat= fz_was=
fz_mine() { [ "$1" = 0 ] || { [ -n "$fz_me" ] || fz_me=$(id -u); [ "$1" = "$fz_me" ]; }; }
fz_judge() {
case $1 in
4?[02468aceACE][014589cdCD]) fz_j=closed;;
4[2367abefABEF]??) fz_j=sticky;;
4*) fz_j=open;;
*) fz_j=none; return;;
esac
fz_mine "$2" || fz_j=theirs
}
fz_line() { fz_mode=${1%% *} fz_uid=${1#* }; fz_uid=${fz_uid%% *}; fz_judge "$fz_mode" "$fz_uid"; }
"""

#: `fz_nodes FILE...`: type and mode, owner, which one, names, owner's name; no link is followed.
#: `fz_plain N FOLDER...`: all are closed, the first N may be sticky.
#: `fz_enter PATH [1]`: into the folder of it; with 1 a link that stands there is followed. Sets `fz_name`,
#: the name there; `fz_e`, what `fz_nodes` says of it (empty: nothing); `fz_here` and `fz_id`, the folder;
#: `fz_who`, the number of who else may write there (`*`: several may). Returns 1: it cannot be entered, 2: an
#: unsafe step, 3: a folder is missing (we are in the one above); `fz_why` says it. Within: `fz_jump` is its
#: start, as far as nobody else can move anything; in a sticky folder things may come and go between two names
#: that one `stat` is asked about. `fz_via` is the first link of another user that was followed, and
#: `fz_landed` whether what it leads to is that user's.
#: `fz_in` is the same for a script that ends there when it fails; `fz_cd FOLDER` goes into it.
#: `fz_flat` is set where it is proved that paths need not be walked.
_ENTER: Final = r"""
fz_nodes() {
stat -c '%f %u %d:%i %h %U' "$@" 2>/dev/null ||
{ ! fz_gnu && stat -f '%Xp %u %d:%i %l %Su' "$@" 2>/dev/null; }
}
fz_plain() {
fz_c=$1; shift
fz_y=$(fz_nodes "$@") || return
set -f; IFS=$fz_nl
for fz_y in $fz_y; do
fz_line "$fz_y"
[ $fz_j = closed ] || { [ $fz_j = sticky ] && [ $fz_c -gt 0 ]; } || break
fz_c=$((fz_c - 1)) fz_j=
done
set +f; unset IFS
[ -z "$fz_j" ]
}
fz_jump() {
fz_here= fz_y=${fz_go#/} fz_c= fz_id=
set -- /
while :; do
case $fz_y in
/*|./*|../*) break;;
*/*) fz_c=$fz_c/${fz_y%%/*} fz_y=${fz_y#*/}; set -- "$@" "$fz_c";;
*) break;;
esac
done
fz_y=$(fz_nodes "$@")
set -f; IFS=$fz_nl
for fz_y in $fz_y; do
fz_line "$fz_y"
[ $fz_j != none ] || break
fz_here=${1%/}; shift
[ $fz_j = closed ] || break
done
set +f; unset IFS
fz_rest=${fz_go#"$fz_here"/}
cd -P "$fz_here/" 2>/dev/null || { fz_why="${fz_here#"$fz_root"}: permission denied"; return 1; }
}
fz_no() { fz_why="unsafe step ${1#"$fz_root"}: $2"; return 2; }
fz_landed() {
[ -z "$fz_via" ] || { [ "$fz_owner" = "$fz_who" ] && [ "${1:-$fz_who}" = "$fz_who" ]; } ||
fz_no "$fz_via" "a link of $fz_whom that leads to what is somebody else's"
}
fz_enter() {
[ -z "$fz_prefix" ] || [ -n "$fz_root" ] || fz_root=$(cd -P "$fz_prefix/" && pwd -P) || fz_root=$fz_prefix
fz_go=$1 fz_follow=${2-} fz_hops=0 fz_who= fz_whom='several users' fz_via= fz_why=
case $fz_go in "$fz_prefix"/*) fz_go=$fz_root${fz_go#"$fz_prefix"};; esac
fz_jump || return
while :; do
case $fz_rest in */*) fz_c=${fz_rest%%/*} fz_more=1;; *) fz_c=$fz_rest fz_more=;; esac
case $fz_c in
..) [ "$fz_here" = "$fz_root" ] || { cd -P .. || return 1; fz_here=${fz_here%/*} fz_id=; }
if [ -n "$fz_more" ]; then fz_rest=${fz_rest#*/}; else fz_rest=.; fi; continue;;
''|.) [ -z "$fz_more" ] || { fz_rest=${fz_rest#*/}; continue; }; fz_c=.;;
esac
fz_y=$(fz_nodes . "./$fz_c") fz_e=
case $fz_y in *"$fz_nl"*) fz_e=${fz_y#*"$fz_nl"} fz_y=${fz_y%%"$fz_nl"*};; esac
[ -n "$fz_y" ] || { fz_why="${fz_here#"$fz_root"}: permission denied"; return 1; }
set -- $fz_y
[ "${fz_id:-$3}" = "$3" ] || { fz_no "$fz_here" 'it was replaced while it was entered'; return; }
fz_judge "$1" "$2"; fz_owner=$2 fz_id=$3
case $fz_j in
open) fz_who=${fz_who:-*};;
theirs) case $fz_who in
"$2") ;;
''|'*') fz_who=$2; shift 4; fz_whom="$* (uid $fz_who)";;
*) shift 4; fz_no "$fz_here" "a folder of $* on a way that $fz_whom can change"; return;;
esac;;
esac
[ -n "$fz_more" ] || case $fz_follow$fz_e in 1[aA]*) ;; *) break;; esac
[ -n "$fz_e" ] || {
[ $fz_j != sticky ] || fz_who=${fz_who:-*}
fz_why="${fz_here#"$fz_root"}/$fz_c: no such file or directory"
fz_landed && return 3; return; }
set -- $fz_e
case $1 in
4*) fz_id=$3
cd -P "./$fz_c" 2>/dev/null || { fz_why="${fz_here#"$fz_root"}/$fz_c: permission denied"; return 1; }
fz_here=$fz_here/$fz_c fz_rest=${fz_rest#*/};;
[aA]*) fz_hops=$((fz_hops + 1))
[ $fz_hops -le 40 ] || { fz_why="${fz_here#"$fz_root"}/$fz_c: a link that leads back to itself"; return 1; }
if fz_mine "$2"; then
case $fz_j in closed|sticky) ;; *) shift 4
fz_no "$fz_here/$fz_c" "a link of $* in a folder that $fz_whom can change"; return;; esac
else case $fz_who in
''|'*'|"$2") fz_who=$2 fz_via=${fz_via:-$fz_here/$fz_c}; shift 4; fz_whom="$* (uid $fz_who)";;
*) shift 4; fz_no "$fz_here/$fz_c" "a link of $* on a way that $fz_whom can change"; return;;
esac; fi
fz_y=$(readlink "./$fz_c" && echo .) || { fz_why="${fz_here#"$fz_root"}/$fz_c: cannot be read"; return 1; }
fz_y=${fz_y%"$fz_nl".}
[ -z "$fz_more" ] || fz_y=$fz_y/${fz_rest#*/}
case $fz_y in /*) fz_go=$fz_root$fz_y; fz_jump || return;; *) fz_rest=$fz_y;; esac;;
*) fz_why="${fz_here#"$fz_root"}/$fz_c: not a directory"; return 1;;
esac
done
fz_name=$fz_c
[ $fz_j != sticky ] || fz_who=${fz_who:-*}
set -- $fz_e
fz_landed "${2-}" || return
[ -z "$fz_who" ] || case ${1-} in 8*) [ "$2" = "$fz_who" ] || [ "$4" = 1 ] || {
shift 4; fz_no "$fz_here/$fz_c" "a file of $* that has other names, in a folder that $fz_whom can change"
return; };; esac
}
fz_fail() { printf '%s\n' "$1" >&2; exit 1; }
fz_stop() { fz_no "$@" || fz_fail "$fz_why"; }
fz_in() { fz_enter "$@" || fz_fail "$fz_why"; }
fz_cd() { fz_in "$1/."; }
"""

#: `fz_open PATH TOKEN [1]`: `fz_in`, and "$fz_tmp" names a place for what is to take the name "$fz_t"; with
#: `'' again` behind it the place that is there. `fz_keep` set: it is for the next block as well.
#: `fz_sweep FOLDER`: removes our temporary files of runs that were killed a day ago or earlier, from a closed
#: folder; elsewhere a name proves nothing.
#: `fz_apart TOKEN`: into a folder of our own; `fz_leave`; `fz_close` is what a block ends with. It is made
#: by one system call: `mkdir -m` of busybox sets the mode by name, behind which another file can be by then.
#: Only a default ACL makes it another mode than that.
#: `fz_old` sets `fz_was`, a name of the file at "$fz_t" that nobody can swap, empty where there is none.
#: `fz_take`: "$fz_tmp" gets the name. `fz_move FILE NAME`: the same, and never into a folder behind a link.
#: `fz_backup TOKEN`: what is there gets another name as well; one that is taken is left alone.
#: `fz_unback PATH NUMBER HASH`: removes such a name, if it is still that file with that content.
#: `fz_acl FILE...`: one of them has an access control list, which busybox's `ls` does not show.
#: `fz_listed FILE NEW MODE`: the list of the one for the other, of that mode. `fz_like MODE`: "$fz_tmp" gets
#: that of what is there, else the mode; with a list the mode is not the group's, but the most that anybody
#: named in it may.
#: `fz_set FILE MODE OWNER`, where it is given. `fz_change TOKEN MODE OWNER`: of the file or folder there; a
#: folder of ours in a sticky one is nobody else's to move, and has no second name: it stays ours.
#: `fz_for OWNER`: whom what is written is for. `fz_parents PATH TOKEN`: makes the folders above, and goes
#: there; `fz_make TOKEN MODE OWNER`: makes a folder there. `fz_link TARGET`: a link at "$fz_t", where nothing
#: is; `fz_relink TARGET [OWNER]`: also where a file or link is, which stays that of its owner. `fz_rm PATH`,
#: `fz_rmtree PATH`: remove; busybox's `rm` can be led through a link that comes meanwhile.
#: `fz_own_ways PATH...`: ends the script where others may write to a folder on the way.
_WRITE: Final = r"""
fz_apart() {
[ -n "${2-}" ] || (umask 077; mkdir "./.fazai-$1") || exit 1
fz_c=$fz_id
cd -P "./.fazai-$1" || exit 1
set -- "$1" "${2-}" $(fz_nodes . ..)
fz_mine "$4" && [ "${10}" = "$fz_c" ] && { [ -n "$2" ] || fz_empty; } && case $3 in
4?[cC]0) ;;
4*) [ -z "$2" ] && chmod 700 . && fz_empty;;
*) false;;
esac || fz_stop "$fz_here" 'somebody else moves what is made there'
fz_pd=.fazai-$1
}
fz_empty() { [ "$(echo * .[!.]* ..?*)" = '* .[!.]* ..?*' ]; }
fz_leave() { cd -P .. && rmdir "./$fz_pd"; fz_pd=; }
fz_close() {
fz_y=$?
[ $fz_y = 0 ] || fz_drop
if [ -n "$fz_pd" ]; then
[ $fz_y$fz_keep = 01 ] || { rm -f ./* || rmdir ./*; fz_leave; } 2>/dev/null || :
elif [ $fz_y != 0 ] && [ -n "$fz_tmp" ]; then rm -f "$fz_tmp" "$fz_tmp".*; fi
}
fz_sweep() {
for fz_y in "$1"/.fazai-????????????????; do
case ${fz_y##*/.fazai-} in *[!0-9a-f]*) continue;; esac
[ -f "$fz_y" ] && [ ! -h "$fz_y" ] || continue
find "$fz_y" -prune -type f -user "$(id -u)" -mtime +0 -exec rm -f {} \; 2>/dev/null || :
done
}
fz_open() {
trap fz_close EXIT; trap 'exit 129' HUP; trap 'exit 141' PIPE; trap 'exit 143' TERM
fz_tmp=
fz_in "$1" "${3-}"
if [ -z "$fz_who" ]; then fz_sweep "$fz_here"; fz_t=$fz_here/$fz_name fz_tmp=$fz_here/.fazai-$2
else fz_apart $2 ${4-}; fz_t=../$fz_name fz_tmp=./$2; fi
}
fz_old() {
[ -z "$fz_was" ] || return 0
case $fz_e in 8*) ;; *) return 0;; esac
if [ -z "$fz_who" ]; then fz_was=$fz_t; return; fi
ln "$fz_t" "$fz_tmp.old" || exit 1
set -- $(fz_nodes "$fz_tmp.old") $fz_e
[ "$1 $2 $3" = "$6 $7 $8" ] && { [ "$2" = "$fz_who" ] || [ "$4" = 2 ]; } ||
fz_stop "$fz_here/$fz_name" 'it was replaced while it was looked at'
fz_was=$fz_tmp.old
}
fz_move() {
[ -z "$fz_via" ] || case $(fz_own "$1") in "$fz_who":*) ;; *)
fz_stop "$fz_via" "a link of $fz_whom, and what is made behind it would be somebody else's";; esac
fz_y=$(mv -fT "$1" "$2" 2>&1) && return
case $fz_y in *'option --'*) fz_y=$(mv -fh "$1" "$2" 2>&1) && return
case $fz_y in *'option --'*) fz_stop "$fz_here" 'folders of others need mv with -T or -h';; esac;;
*) [ ! -h "$2" ] || { rm -f "$2"; fz_y=$(mv -fT "$1" "$2" 2>&1) && return; };;
esac
fz_fail "$fz_y"
}
fz_take() {
if [ -n "$fz_who" ]; then fz_move "$fz_tmp" "$fz_t"; return; fi
if [ -d "$fz_t" ]; then
[ -h "$fz_t" ] || fz_fail 'there is a directory'
rm -f "$fz_t"
elif [ -h "$fz_t" ] && [ ! -e "$fz_t" ]; then
mv -f "$fz_tmp" "$fz_t" 2>/dev/null && return
rm -f "$fz_t"
fi
mv -f "$fz_tmp" "$fz_t"
}
fz_backup() {
[ -n "$fz_was" ] && [ -f "$fz_was" ] && [ ! -h "$fz_was" ] || return 0
fz_c=0 fz_b=$fz_t.$(date -u +%Y%m%dT%H%M%SZ)
while [ $fz_c -lt 100 ]; do
fz_y=$fz_b; [ $fz_c = 0 ] || fz_y=$fz_b.$fz_c
fz_c=$((fz_c + 1))
[ ! -e "$fz_y~" ] && [ ! -h "$fz_y~" ] || continue
ln -n "$fz_was" "$fz_y~" 2>/dev/null || {
[ ! -e "$fz_y~" ] && [ ! -h "$fz_y~" ] && [ -z "$fz_who" ] || continue
(umask 077; set -C; : >"$fz_y~") && cp -p "$fz_was" "$fz_y~" || return
}
fz_bk=$fz_y~
set -- $1 $(fz_nodes "$fz_bk")
fz_m backup $1 $4 "${fz_bk#"$fz_t"}"
return
done
fz_fail "no backup can be made: the names like ${fz_b##*/}~ are taken, or no file can have a second name"
}
fz_unback() {
fz_enter "$1" || return 0
set -- "$2" "$3" $(fz_nodes "./$fz_name")
case ${3-} in 8*) ;; *) return 0;; esac
[ "$5" = "$1" ] || return 0
case $(fz_hash <"./$fz_name") in *"$2"*) rm -f "./$fz_name";; esac
}
fz_set() {
[ -z "$3" ] || [ "$(fz_own "$1")" = "$3" ] || chown "$3" "$1" || return
[ -z "$2" ] || chmod "$2" "$1"
}
fz_acl() {
case $(ls -ld "$@" 2>/dev/null) in ??????????+*|*"$fz_nl"??????????+*) return;; esac
command -v getfacl >/dev/null && [ -n "$(getfacl -cps -- "$@" 2>/dev/null)" ]
}
fz_listed() {
cp --attributes-only --preserve=mode "$1" "$2" 2>/dev/null && fz_acl "$2" && return
command -v setfacl >/dev/null && getfacl -cp -- "$1" 2>/dev/null | setfacl --set-file=- -- "$2" 2>/dev/null &&
chmod "$3" "$2" && fz_acl "$2"
}
fz_like() {
if fz_acl "$fz_t" && fz_old && [ -n "$fz_was" ]; then
fz_listed "$fz_was" "$fz_tmp" "$1" ||
fz_fail 'it has an access control list, which nothing here can copy: take the list away first (setfacl -b)'
else chmod "$1" "$fz_tmp"; fi
}
fz_change() {
fz_c=$1; shift
set -- "$1" "$2" $fz_e
case ${3-} in 4*|8*) ;; *) fz_fail 'there is something else by now';; esac
if [ -z "$fz_who" ]; then fz_set "./$fz_name" "$1" "$2"; return; fi
case $fz_who in
'*') { [ $fz_j = sticky ] || ! fz_mine "$4"; } && case $3 in 8*) [ "$6" = 1 ];; esac;;
*) [ "$4" = "$fz_who" ];;
esac || { shift 6
fz_stop "$fz_here/$fz_name" "it is of $*, in a folder that $fz_whom can change, and not given away"; }
case $3 in
4*) cd -P "./$fz_name" || return
[ "$(fz_nodes .)" = "$fz_e" ] ||
fz_stop "$fz_here/$fz_name" 'it was replaced while it was entered'
fz_set . "$1" "$2";;
*) trap fz_close EXIT
fz_tmp=./$fz_c; fz_apart $fz_c; fz_t=../$fz_name
fz_old; fz_set "$fz_was" "$1" "$2";;
esac
}
fz_for() {
case $fz_who in ''|'*') return 0;; esac
case $1 in '') return 0;; *[!0-9]*) fz_y=$(id -u "$1" 2>/dev/null) || return 0;; *) fz_y=$1;; esac
[ "$fz_y" = "$fz_who" ] || fz_mine "$fz_y" ||
fz_stop "$fz_here" "a folder of $fz_whom, and what is made there is for $1"
}
fz_make() {
[ -z "$fz_e" ] || fz_fail 'there is something else by now'
if [ -z "$fz_who" ]; then
mkdir -m "${2#"${2%???}"}" "./$fz_name" || return
case $2$3 in 0???) ;; *) fz_set "./$fz_name" "$2" "$3";; esac
return
fi
trap fz_close EXIT
fz_apart $1
mkdir "./$1" && fz_set "./$1" "$2" "$3" || exit 1
[ ! -e "../$fz_name" ] && [ ! -h "../$fz_name" ] || fz_fail 'there is something else by now'
fz_move "./$1" "../$fz_name"; fz_leave
}
fz_link() {
if [ -d "$fz_t" ] && [ ! -h "$fz_t" ]; then fz_fail 'there is a directory, not a link'; fi
if [ -e "$fz_t" ] || [ -h "$fz_t" ]; then fz_fail 'there is something else by now'; fi
if [ -z "$fz_who" ]; then ln -s -- "$1" "$fz_t"; else ln -s -- "$1" "$fz_tmp"; fz_move "$fz_tmp" "$fz_t"; fi
}
fz_relink() {
ln -s -- "$1" "$fz_tmp"
fz_y=${2-}
case $fz_e in [aA]*) fz_y=$(fz_own "$fz_t");; esac
[ -z "$fz_y" ] || [ "$(fz_own "$fz_tmp")" = "$fz_y" ] || chown -h "$fz_y" "$fz_tmp" 2>/dev/null || :
if [ -n "$fz_who" ]; then fz_move "$fz_tmp" "$fz_t"
else mv -fT "$fz_tmp" "$fz_t" 2>/dev/null || { rm -f "$fz_t" && mv -f "$fz_tmp" "$fz_t"; }; fi
}
fz_parents() {
while :; do
fz_enter "$1" && return
[ $? = 3 ] || fz_fail "$fz_why"
if [ -z "$fz_who" ]; then (umask 022; mkdir -p "./${fz_rest%/*}") || exit 1
else fz_name=$fz_c; fz_make "$2" 0755 '' || exit 1; fi
done
}
fz_own_ways() {
for fz_y do (
fz_enter "$fz_y"
case $? in
0|3) [ -z "$fz_who" ] || fz_no "$fz_here" "a folder that $fz_whom can change";;
*) false;;
esac || fz_fail "$fz_why"
) || exit 1; done
}
fz_rm() {
fz_enter "$@" || { [ $? = 3 ] && return; fz_fail "$fz_why"; }
rm -f "./$fz_name"
}
fz_rmtree() {
fz_in "$1"
fz_y=$(fz_mounted "./$fz_name")
[ -z "$fz_y" ] || fz_fail "${fz_y#"$fz_root"} is a mount point: nothing is removed"
case $(rm --help 2>&1) in *BusyBox*) ;; *) rm -rf "./$fz_name"; return;; esac
[ -n "$(find "./$fz_name" -type d \( ! -user 0 -o -perm -020 -o -perm -002 \) 2>&1 | head -n 1)" ] ||
{ rm -rf "./$fz_name"; return; }
fz_below "$fz_name"
}
fz_below() {
(
fz_e=$(fz_nodes "./$1"); cd -P "./$1" && [ "$(fz_nodes .)" = "$fz_e" ] || exit 1
for fz_y in * .[!.]* ..?*; do
if [ -h "./$fz_y" ] || [ ! -d "./$fz_y" ]; then rm -f "./$fz_y"; else fz_below "$fz_y"; fi
done
) && rmdir "./$1"
}
"""

#: `fz_fd`: the file "./$fz_name" is open as 3, and it is the one that was walked to. `fz_with PATH COMMAND`:
#: a command of ours with the file at PATH, or where it leads, as its standard input; nothing when there is
#: none.
_READ: Final = r"""
fz_fd() {
[ ! -h "./$fz_name" ] && [ -f "./$fz_name" ] && [ -r "./$fz_name" ] || return 1
exec 3<"./$fz_name"
[ -n "$fz_who" ] || return 0
set -- $fz_e
[ "$3" = "$({ stat -L -c %d:%i /proc/self/fd/0 || stat -c %d:%i - || stat -f %d:%i; } <&3 2>/dev/null)" ]
}
fz_with() {
fz_enter "$1" 1 || case $? in
3) exit 0;; 2) printf '%s\n' "$fz_why"; exit 86;; *) printf '%s\n' "$fz_why"; exit 1;; esac
case $fz_e in '') exit 0;; 8*) ;; *) echo "${1#"$fz_root"} is no file"; exit 1;; esac
fz_fd || { echo "${1#"$fz_root"} may not be read"; exit 1; }
shift; "$@" <&3
}
"""

#: `fz_walks`: what stands at those paths of a look that are to be walked to (`script`), each in a frame.
_LOOK: Final = r"""
fz_walks() {
for fz_k in $fz_ws; do
(eval "fz_walk $fz_k \"\$fz_p$fz_k\" \"\$fz_l$fz_k\" \"\$fz_h$fz_k\" \"\$fz_f$fz_k\"")
done
}
fz_walk() {
fz_enter "$2" || case $? in
2) fz_m unsafe $1; printf '%s' "$fz_why"; return;;
3) fz_e= fz_name=$fz_rest;;
*) fz_e= fz_name=;;
esac
fz_y=$2; [ -z "$fz_name" ] || fz_y=$fz_prefix${fz_here#"$fz_root"}/$fz_name
[ "$fz_y" = "$2" ] || { fz_m place $1; printf '%s\n' "$fz_y"; }
[ -z "$fz_who" ] || fz_m shared $1
if [ -z "$fz_e" ]; then case $fz_why in *denied) fz_m gone $1 1;; *) fz_m gone $1 0;; esac; return; fi
fz_m stat $1; fz_stat "./$fz_name"
case $fz_e in
[aA]*) fz_m link $1; readlink "./$fz_name"
[ -n "$3$5" ] || return
fz_enter "$2" 1 || case $? in
3) fz_m real $1; return;;
*) fz_m astray $1; printf '%s' "$fz_why"; return;;
esac
[ -z "$fz_who" ] || fz_m shared $1
fz_m real $1; printf '%s\0' "$fz_prefix${fz_here#"$fz_root"}/$fz_name"
[ -n "$fz_e" ] || return
fz_stat "./$fz_name";;
esac
case $fz_e in 8*) ;; *) return;; esac
if [ -n "$4" ] && fz_fd; then fz_m hash $1; fz_hash <&3; fi
if [ -n "$3" ]; then fz_fd && { fz_m text $1; head -c $(($3 + 1)) <&3; fz_m got $1 $?; }; fi
}
"""

#: `fz_mounted FOLDER`: the first file system, or part of one, that is mounted there or below, as the kernel
#: tells it. A folder that is bound to another place of the same file system has no device of its own.
MOUNTED: Final = r"""
fz_mounted() {
fz_d=$(cd -P "$1" 2>/dev/null && pwd -P) || return 0
{ cat /proc/self/mountinfo || mount -p | sed 's/^/- - - /'; } 2>/dev/null | fz_d=$fz_d awk '{
p = $5; gsub(/\\040/, " ", p); gsub(/\\011/, "\t", p); gsub(/\\012/, "\n", p); gsub(/\\134/, "\\", p)
if (p == ENVIRON["fz_d"] || index(p, ENVIRON["fz_d"] "/") == 1) { print p; exit } }'
}
"""

#: What a look needs where it walks, and what a change needs. They are sent to a host when they are used: some
#: shells read a byte at a time.
WALKING: Final = _ENTER + _READ + _LOOK
WRITING: Final = _ENTER + MOUNTED + _WRITE
