#!/usr/bin/env bash
# The fazai telemetry agent: reads /proc, keeps a bounded spool, delivers to POST /ingest.
# Needs bash 4.2+, awk (any: docs/telemetry-agent.md), curl, openssl or sha256sum, and coreutils or busybox; gzip is used
# where it is there. All settings: docs/telemetry-agent.md, or `telemetry.sh --help`.
#
# One event loop, no helper process while idle. Waiting is a `read` with a time limit on a pipe of our own (NAP);
# signals and finished deliveries write a line into it, and no wait is longer than two seconds (see nap). Times of the
# loop are milliseconds of /proc/uptime, so a clock that is set anew changes nothing but the timestamps.
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)) || set -u   # before, an empty array counted as unset
export LC_ALL=C TZ=UTC0   # bytes, not characters; times in UTC
umask 077
shopt -s nullglob
PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}

readonly VERSION=0.1.0
readonly LAST_FIELD='"schema":1}'   # every record ends with it, so a torn line can be told from a whole one
readonly FIELDS='processes netstat iostat os cpu mem swap disk io net sockets top uptime users failed_units checks'
readonly EXIT_FAILED=1 EXIT_INPUT=3 EXIT_HELD=5   # as docs/exit-codes.md
readonly MEMORY_RECORDS=20          # kept in memory while the disk takes no more
readonly MAX_CHECKS=32 MAX_MOUNTS=64
readonly SKEW_SIGNED_S=30           # from here on the signature is dated with the server's clock

# ---------------------------------------------------------------------------------------------- settings

declare -A FILE=() WHERE=()
PROBLEMS=0

problem() { printf 'telemetry.sh: %s\n' "$1" >&2; PROBLEMS=$((PROBLEMS + 1)); }

usage() {
    cat <<'HELP'
usage: telemetry.sh [--config FILE] [--once [--splay SECONDS] | --print [--readings FILE] | --selftest | --version | --help]

  (nothing)    sample and deliver until SIGTERM; SIGUSR1 takes a sample now
  --once       one sample, deliver what is spooled, exit (0 delivered, 1 spooled for later); for cron
  --splay N    with --once: first wait a random time of up to N seconds
  --print      one sample on standard output; nothing is stored or sent
  --readings F with --print: rates are those since the readings in F, which are replaced by the new ones
  --selftest   check tools, settings, folders and the signature without contacting anybody
  --config F   read settings from F (mode 0600); the environment wins over the file

settings (in the file or the environment), FAZAI_AGENT_…
  SERVER              https://HOST[:PORT][/PREFIX]; records go to SERVER/ingest
  KEY, KEY_PREVIOUS   sign requests (16 to 256 printable characters); the second one is tried when the first is refused
  TOKEN               bearer token, where the server asks for one
  HOSTNAME, ID        name in the records (default: the host's), id in the signature (default: HOSTNAME)
  INTERVAL_S          seconds between samples (60), JITTER_PERCENT of it at random (10)
  SAMPLE              all, or a list of: processes netstat iostat os cpu mem swap disk io net sockets top uptime
                      users failed_units checks
  TOP_N               processes by CPU and by memory (10)
  CHECKS_DIR          folder of checks (/etc/fazai/checks.d), CHECKS_EVERY_S (60), CHECK_TIMEOUT_S (5)
  UNITS_EVERY_S       how often failed units are asked for (300)
  STATE_DIR           spool and status (/var/lib/fazai-agent)
  SPOOL_MAX_BYTES     20000000; SPOOL_MAX_AGE_S 86400; the oldest records go first
  BATCH_RECORDS       records a request (60), BATCH_BYTES before compression (262144)
  CONNECT_TIMEOUT_S   5; REQUEST_TIMEOUT_S 20; STOP_TIMEOUT_S 5
  BACKOFF_MIN_S       5; BACKOFF_MAX_S 300
  CA_FILE             authorities to trust instead of the system's; TLS_VERIFY yes|no (yes)
  ALLOW_HTTP          yes|no (no): plain http to a host other than this one
  LOG_FORMAT          json|text (json); PROC /proc
HELP
}

# load_file PATH: lines NAME=VALUE, NAME="VALUE" or NAME='VALUE', # comments. Nothing is expanded or run.
load_file() {
    local path=$1 number=0 line name value mode secret=0
    local form='^(FAZAI_AGENT_[A-Z_]+)=(.*)$'
    [[ -f $path && -r $path ]] || { problem "$path: cannot be read as a file; check --config"; return; }
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%$'\r'}
        [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
        if ! [[ $line =~ $form ]]; then
            problem "$path:$number: expected FAZAI_AGENT_NAME=value without spaces around ="
            continue
        fi
        name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
        case $value in
        \"*\" | \'*\') value=${value:1:${#value}-2} ;;
        \"* | \'*) problem "$path:$number: $name: the quote is not closed"; continue ;;
        esac
        [[ -z ${FILE[$name]+x} ]] || problem "$path:$number: $name: set twice; remove one"
        FILE[$name]=$value WHERE[$name]=$path:$number
        case $name in *_KEY | *_KEY_PREVIOUS | *_TOKEN) secret=1 ;; esac
    done <"$path"
    if ((secret)); then
        mode=$(stat -c %a -- "$path" 2>/dev/null)
        [[ $mode == *00 ]] || problem "$path: holds a secret and has mode $mode; run: chmod 600 $path"
    fi
}

# setting NAME TYPE DEFAULT [MIN MAX]: takes the environment, else the file, else the default; sets CFG_NAME.
# Times are kept in milliseconds.
setting() {
    local name=FAZAI_AGENT_$1 type=$2 value=$3 min=${4-} max=${5-} where=environment expected='' shown
    if [[ -n ${!name+x} ]]; then
        value=${!name}
    elif [[ -n ${FILE[$name]+x} ]]; then
        value=${FILE[$name]} where=${WHERE[$name]}
    fi
    unset "FILE[$name]" "$name"   # what is left over at the end is unknown; children inherit no secret
    shown=", got \"${value//[^ -~]/?}\""
    case $type in
    seconds)
        if [[ $value =~ ^([0-9]{1,8})(\.([0-9]{1,3}))?$ ]]; then
            local fraction=${BASH_REMATCH[3]}000
            value=$((10#${BASH_REMATCH[1]} * 1000 + 10#${fraction:0:3}))
            ((value >= min && value <= max)) || expected=x
        else
            expected=x
        fi
        [[ -z $expected ]] || expected="seconds from $((min / 1000)).$(printf %03d $((min % 1000))) to $((max / 1000))"
        ;;
    count)
        if [[ $value =~ ^[0-9]{1,15}$ ]]; then
            value=$((10#$value))
            ((value >= min && value <= max)) || expected="a number from $min to $max"
        else
            expected="a number from $min to $max"
        fi
        ;;
    choice) [[ " $min " == *" $value "* && -n $value && $value != *' '* ]] || expected="one of: $min" ;;
    path) [[ -z $value || ($value == /* && $value != *$'\n'*) ]] || expected='an absolute path' ;;
    name)
        [[ -z $value || ($value =~ ^[!-~]+$ && ${#value} -le $max) ]] ||
            expected="at most $max printable ASCII characters without spaces"
        ;;
    secret)
        [[ -z $value || ($value =~ ^[\ -~]+$ && ${#value} -ge $min && ${#value} -le $max) ]] ||
            expected="$min to $max printable ASCII characters"
        shown=''
        ;;
    text) ;;
    esac
    [[ -z $expected ]] || problem "$where: $name: expected $expected$shown"
    printf -v "CFG_$1" %s "$value"
}

read_settings() {
    local name
    [[ -z $1 ]] || load_file "$1"
    setting SERVER text ''
    setting KEY secret '' 16 256
    setting KEY_PREVIOUS secret '' 16 256
    setting TOKEN secret '' 8 4096
    setting HOSTNAME name '' 1 253
    setting ID name '' 1 128
    setting INTERVAL_S seconds 60 50 86400000
    setting JITTER_PERCENT count 10 0 50
    setting SAMPLE text all
    setting TOP_N count 10 0 100
    setting CHECKS_DIR path /etc/fazai/checks.d
    setting CHECKS_EVERY_S seconds 60 0 86400000
    setting CHECK_TIMEOUT_S seconds 5 50 60000
    setting UNITS_EVERY_S seconds 300 0 86400000
    setting STATE_DIR path /var/lib/fazai-agent
    setting SPOOL_MAX_BYTES count 20000000 4096 100000000000
    setting SPOOL_MAX_AGE_S seconds 86400 1000 99999999000
    setting BATCH_RECORDS count 60 1 10000
    setting BATCH_BYTES count 262144 1024 8388608
    setting CONNECT_TIMEOUT_S seconds 5 50 300000
    setting REQUEST_TIMEOUT_S seconds 20 50 600000
    setting STOP_TIMEOUT_S seconds 5 50 60000
    setting BACKOFF_MIN_S seconds 5 10 3600000
    setting BACKOFF_MAX_S seconds 300 10 86400000
    setting CA_FILE path ''
    setting TLS_VERIFY choice yes 'yes no'
    setting ALLOW_HTTP choice no 'yes no'
    setting LOG_FORMAT choice json 'json text'
    setting PROC path /proc
    for name in "${!FILE[@]}"; do
        problem "${WHERE[$name]}: $name: no such setting; telemetry.sh --help lists them"
    done
    for name in $(compgen -v FAZAI_AGENT_); do
        problem "environment: $name: no such setting; telemetry.sh --help lists them"
    done
    check_settings
}

# What concerns more than one setting, and what is derived.
check_settings() {
    local name list
    [[ -n $CFG_STATE_DIR && -n $CFG_PROC ]] || problem 'FAZAI_AGENT_STATE_DIR and FAZAI_AGENT_PROC: expected a path'
    [[ -z $CFG_CA_FILE || -r $CFG_CA_FILE ]] || problem "FAZAI_AGENT_CA_FILE: $CFG_CA_FILE cannot be read"
    ((CFG_BACKOFF_MIN_S <= CFG_BACKOFF_MAX_S)) || problem 'FAZAI_AGENT_BACKOFF_MIN_S: is more than BACKOFF_MAX_S'
    [[ -n $CFG_KEY || -z $CFG_KEY_PREVIOUS ]] || problem 'FAZAI_AGENT_KEY_PREVIOUS: is set without FAZAI_AGENT_KEY'
    list=${CFG_SAMPLE//,/ }
    [[ $list == all ]] && list=$FIELDS
    SAMPLE=' '
    for name in $list; do
        [[ " $FIELDS " == *" ${name//[^a-z_]/} "* && $name == "${name//[^a-z_]/}" ]] ||
            problem "FAZAI_AGENT_SAMPLE: expected all or some of: $FIELDS; got \"${name//[^ -~]/?}\""
        SAMPLE+="$name "
    done
    if [[ -z $CFG_HOSTNAME ]]; then
        read -r CFG_HOSTNAME </proc/sys/kernel/hostname || CFG_HOSTNAME=${HOSTNAME:-unknown}
        CFG_HOSTNAME=${CFG_HOSTNAME//[^!-~]/_}
        CFG_HOSTNAME=${CFG_HOSTNAME:0:253}
    fi
    CFG_ID=${CFG_ID:-${CFG_HOSTNAME:0:128}}
    check_server
}

check_server() {
    local form='^(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:([0-9]{1,5}))?(/[!#-[\^-~]*)?$'
    local loopback='^(localhost|127(\.[0-9]{1,3}){3}|\[::1\])$'
    ROUTE='' URL='' OWN_MACHINE=0
    if [[ -z $CFG_SERVER ]]; then
        [[ $MODE == print || $MODE == selftest ]] ||
            problem 'FAZAI_AGENT_SERVER: is not set; for example FAZAI_AGENT_SERVER=https://fazai.example.net:3120'
        return
    fi
    if ! [[ $CFG_SERVER =~ $form && $CFG_SERVER != *[?#]* ]]; then
        problem 'FAZAI_AGENT_SERVER: expected https://HOST[:PORT][/PREFIX] without user, query or fragment'
        return
    fi
    local scheme=${BASH_REMATCH[1]} host=${BASH_REMATCH[2]} prefix=${BASH_REMATCH[5]%/}
    ROUTE=$prefix/ingest
    URL=$scheme://$host${BASH_REMATCH[3]}$ROUTE
    if [[ $host =~ $loopback ]]; then
        OWN_MACHINE=1
    elif [[ $scheme == http && $CFG_ALLOW_HTTP != yes ]]; then
        problem 'FAZAI_AGENT_SERVER: plain http to another host; use https, or say FAZAI_AGENT_ALLOW_HTTP=yes'
    fi
}

# ---------------------------------------------------------------------------------------------- time, log, waiting

# now: NOW = milliseconds since boot, epoch: EPOCH = Unix seconds. Neither forks.
now() { read -r NOW _ </proc/uptime; NOW=$((10#${NOW/./} * 10)); }
epoch() { printf -v EPOCH '%(%s)T' -1; }

LAST_STAMP=0
# stamp: STAMP = now as ISO 8601 with milliseconds, never the same twice: it is half of a record's identity.
stamp() {
    local s ms=000 n
    printf -v s '%(%s)T' -1
    if [[ -n ${EPOCHREALTIME-} ]]; then   # bash 5
        s=$EPOCHREALTIME
        ms=${s#*[.,]} s=${s%[.,]*}
        ms=${ms:0:3}
    fi
    n=$((s * 1000 + 10#$ms))
    ((n <= LAST_STAMP && LAST_STAMP - n < 1000)) && n=$((LAST_STAMP + 1))
    LAST_STAMP=$n
    printf -v STAMP '%(%Y-%m-%dT%H:%M:%S)T' $((n / 1000))
    printf -v STAMP '%s.%03dZ' "$STAMP" $((n % 1000))
}

random_below() { RANDOM_BELOW=$(($1 > 0 ? (RANDOM * 32768 + RANDOM) % $1 : 0)); }

# log LEVEL MESSAGE: a line on standard error; texts of others are cut to printable ASCII.
log() {
    local text=${2//[^ -~]/?} when
    printf -v when '%(%Y-%m-%dT%H:%M:%SZ)T' -1
    if [[ $CFG_LOG_FORMAT == text ]]; then
        text="$when $1 $text"
    else
        text=${text//\\/\\\\}
        text="{\"timestamp\":\"$when\",\"level\":\"$1\",\"logger\":\"telemetry-agent\",\"message\":\"${text//\"/\\\"}\"}"
    fi
    printf '%s\n' "$text" >&2 2>/dev/null
}

failed() { LAST_ERROR=${1:0:300}; epoch; LAST_ERROR_AT=$EPOCH; log "${2:-warning}" "$1"; }

PARTIAL=''
# nap MILLISECONDS: waits so long or until a line comes; LINE is the line or empty. The time may be over in the middle
# of a line: what was read of it is kept. It may return earlier, and every caller looks at the clock again: a signal that
# comes just before bash begins to wait is handled only when that ends, so no wait is long.
LONGEST_NAP_MS=2000
nap() {
    local ms=$1 limit
    ((ms > 0)) || ms=1
    ((ms <= LONGEST_NAP_MS)) || ms=$LONGEST_NAP_MS
    printf -v limit '%d.%03d' $((ms / 1000)) $((ms % 1000))
    if IFS= read -r -t "$limit" -u "$NAP" LINE; then
        LINE=$PARTIAL$LINE PARTIAL=''
    else
        PARTIAL+=$LINE LINE=''
    fi
}

# bounded MILLISECONDS COMMAND…: runs it in a process group of its own and kills that when the time is over.
# OUT = the first 3000 bytes of its output, CODE = its exit status or "timeout".
bounded() {
    local ms=$1 limit reply
    shift
    bounded_start 0 "$@"
    printf -v limit '%d.%03d' $((ms / 1000)) $((ms % 1000))
    CODE=timeout OUT=''
    if IFS= read -r -t "$limit" -u "$SIDE" reply; then
        reply=${reply#* }
        CODE=${reply%% *} OUT=${reply#* }
        OUT=${OUT//$'\035'/$'\n'}
    else
        kill -KILL -- "-$BOUNDED_PID" 2>/dev/null
    fi
    wait "$BOUNDED_PID" 2>/dev/null
    side_pipe
}

# bounded_start TAG COMMAND…: writes "TAG CODE OUTPUT" into SIDE when the command is done; newlines become \035.
bounded_start() {
    local tag=$1
    shift
    set -m
    {
        trap - TERM INT USR1
        out=$(exec "$@" </dev/null 2>&1 {NAP}>&- {SIDE}>&-)
        code=$?
        out=${out:0:3000}
        out=${out//[$'\035\036\037']/ }
        printf '%s %s %s\n' "$tag" "$code" "${out//$'\n'/$'\035'}" >&"$SIDE"
    } 2>/dev/null &
    BOUNDED_PID=$!
    set +m
}

# A pipe that is open at both ends: reading waits, writing never blocks on a missing reader. A new one each time, so
# that a killed command's late answer is never taken for another's.
side_pipe() {
    [[ -z ${SIDE-} ]] || exec {SIDE}>&-
    exec {SIDE}<> <(:)
}

# ---------------------------------------------------------------------------------------------- sampling

# The whole sample is made by one awk. Standard input: the previous readings (as printed last time), then one line
# for each process folder. Output: the record on the first line, then the readings for the next time.
# shellcheck disable=SC2016
readonly PROGRAM='
function wants(name) { return index(SAMPLE, " " name " ") > 0 }
function int_(x) { return sprintf("%.0f", x < 0 ? 0 : x) }
function one(x) { return sprintf("%.1f", x < 0 ? 0 : x) }
function share(part, whole) { return whole > 0 ? one(100 * part / whole) : "0.0" }

# A JSON string of any bytes: what is not UTF-8 becomes U+FFFD, one for each maximal wrong piece.
function quote(s,    i, n, c, b, need, low, high, k, out) {
    if (s ~ /^[][ !#-Z^-~]*$/) return "\"" s "\""
    n = length(s)
    for (i = 1; i <= n; i++) {
        c = substr(s, i, 1)
        b = byte[c]
        if (c == "\"" || c == "\\") out = out "\\" c
        else if (b < 32 || b == 127) out = out sprintf("\\u%04x", b)
        else if (b < 128) out = out c
        else {
            need = b >= 194 && b <= 223 ? 1 : b >= 224 && b <= 239 ? 2 : b >= 240 && b <= 244 ? 3 : 0
            low = b == 224 ? 160 : b == 240 ? 144 : 128
            high = b == 237 ? 159 : b == 244 ? 143 : 191
            for (k = 1; k <= need; k++) {
                b = byte[substr(s, i + k, 1)] + 0
                if (b < low || b > high) break
                low = 128; high = 191
            }
            if (need && k > need) { out = out substr(s, i, need + 1); i += need }
            else { out = out "\\ufffd"; i += need ? k - 1 : 0 }
        }
    }
    return "\"" out "\""
}
# \040 and the like, as the kernel writes odd names in mounts.
function unescape(s,    out, v) {
    while (match(s, /\\[0-3][0-7][0-7]/)) {
        v = substr(s, RSTART + 1, 1) * 64 + substr(s, RSTART + 2, 1) * 8 + substr(s, RSTART + 3, 1)
        out = out substr(s, 1, RSTART - 1) sprintf("%c", v)
        s = substr(s, RSTART + 4)
    }
    return out s
}
function add(name, json) { record = record ",\"" name "\":" json }
function keep(line) { kept = kept "\n" line }
function first(path,    line) { line = ""; getline line < path; close(path); return line }
function pad(s, width) { while (length(s) < width) s = " " s; return s }
function left(s, width) { while (length(s) < width) s = s " "; return s }

# The name stands in brackets and may hold anything, brackets and newlines, too: the fields begin after the last one.
function fields_after(line,    n, k, rest) {
    n = index(line, ")")
    if (!n) return 0
    rest = substr(line, n + 1)
    while (k = index(rest, ")")) { n += k; rest = substr(rest, k + 1) }
    return split(rest, a, " ") >= 22 ? n : 0
}
function read_process(path,    f, line, more, n, n0, pid, key, ticks, spent, age) {
    f = path "/stat"
    if ((getline line < f) <= 0) { close(f); return }
    while (!(n = fields_after(line)) && (getline more < f) > 0) line = line "\n" more
    close(f)
    if (!n) return
    pid = line + 0
    tasks++; state[a[1]]++; threads += a[18]
    key = pid ":" a[20]
    ticks = a[12] + a[13]
    age = uptime - a[20] / 100
    if (key in old_process) { spent = ticks - old_process[key]; age = window }
    else { spent = ticks; if (window > 0 && window < age) age = window }
    if (ticks > 0) keep("P " key " " int_(ticks))
    process_cpu[pid] = age > 0.005 ? 100 * (spent / 100) / age : 0
    process_rss[pid] = a[22]
    n0 = index(line, "(")
    process_name[pid] = substr(line, n0 + 1, n - n0 - 1)
    process_path[pid] = path
    if (by_cpu) rank(1, process_cpu[pid], pid)
    if (by_mem) rank(2, a[22], pid)
    if (a[5] != 0 && a[4] == pid && wants("users")) leader(pid, a[5])
}
# Keeps the TOP_N largest of each list, sorted.
function rank(list, value, pid,    i) {
    if (value <= 0) return
    i = ranked[list]
    if (i >= TOP_N) { if (value <= top_value[list, i]) return }
    else ranked[list] = ++i
    for (; i > 1 && top_value[list, i - 1] < value; i--) {
        top_value[list, i] = top_value[list, i - 1]
        top_pid[list, i] = top_pid[list, i - 1]
    }
    top_value[list, i] = value; top_pid[list, i] = pid
}
function user_of(path,    f, line, a, uid) {
    f = path "/status"; uid = ""
    while ((getline line < f) > 0) if (substr(line, 1, 4) == "Uid:") { split(line, a, "[ \t]+"); uid = a[2]; break }
    close(f)
    if (uid == "") return ""
    if (!have_users) {
        have_users = 1
        while ((getline line < "/etc/passwd") > 0) { split(line, a, ":"); if (!(a[3] in user_name)) user_name[a[3]] = a[1] }
        close("/etc/passwd")
    }
    return (uid in user_name) ? user_name[uid] : uid
}
# A session leader on a terminal is somebody who is logged in, unless it is what waits there for a login.
function leader(pid, tty,    major, minor, name, user) {
    if (process_name[pid] ~ /^(a|min|mg)?getty$|^login$/) return
    major = int(tty / 256) % 4096
    minor = tty % 256 + int(tty / 1048576) * 256
    if (major >= 136 && major <= 143) name = "pts/" (minor + (major - 136) * 256)
    else if (major == 4) name = minor < 64 ? "tty" minor : "ttyS" (minor - 64)
    else name = major ":" minor
    if (name in on_tty) return
    on_tty[name] = 1
    user = user_of(process_path[pid])
    users = users (users == "" ? "" : ",") "{\"name\":" quote(user) ",\"tty\":\"" name "\",\"pid\":" pid "}"
}
function read_cpu(    f, line, a, i, d, total, idle) {
    f = PROC "/stat"
    while ((getline line < f) > 0) {
        if (line ~ /^cpu[0-9]/) cpus++
        else if (line ~ /^cpu /) {
            split(line, a, " ")
            for (i = 2; i <= 9; i++) {
                d[i] = a[i] - (window > 0 ? old_cpu[i] : 0)
                if (d[i] < 0) d[i] = 0   # iowait may go back
                total += d[i]
                kept_cpu = kept_cpu " " (a[i] == "" ? 0 : a[i])
            }
            keep("C" kept_cpu)
        }
    }
    close(f)
    if (!wants("cpu")) return
    add("cpu", "{\"count\":" (cpus + 0) ",\"percent\":" share(total - d[5] - d[6], total) ",\"user\":" share(d[2] + d[3], total) \
        ",\"system\":" share(d[4] + d[7] + d[8], total) ",\"idle\":" share(d[5], total) ",\"iowait\":" share(d[6], total) \
        ",\"steal\":" share(d[9], total) ",\"window_s\":" one(window > 0 ? window : uptime) "}")
}
function read_memory(    f, line, a) {
    f = PROC "/meminfo"
    while ((getline line < f) > 0) { split(line, a, "[: ]+"); memory[a[1]] = a[2] * 1024 }
    close(f)
    if (wants("mem")) add("mem", "{\"total\":" int_(memory["MemTotal"]) ",\"free\":" int_(memory["MemFree"]) \
        ",\"available\":" int_(("MemAvailable" in memory) ? memory["MemAvailable"] : memory["MemFree"] + memory["Cached"]) \
        ",\"swap_total\":" int_(memory["SwapTotal"]) ",\"swap_free\":" int_(memory["SwapFree"]) \
        ",\"buffers\":" int_(memory["Buffers"]) ",\"cached\":" int_(memory["Cached"]) ",\"dirty\":" int_(memory["Dirty"]) "}")
    if (wants("swap")) add("swap", "{\"total\":" int_(memory["SwapTotal"]) ",\"free\":" int_(memory["SwapFree"]) \
        ",\"used\":" int_(memory["SwapTotal"] - memory["SwapFree"]) "}")
}
function os(    load, a, kernel) {
    load = first(PROC "/loadavg"); split(load, a, " ")
    kernel = first(PROC "/sys/kernel/osrelease")
    add("os", "{\"hostname\":" quote(first(PROC "/sys/kernel/hostname")) ",\"load\":[" (a[1] + 0) "," (a[2] + 0) "," (a[3] + 0) \
        "],\"mem\":{\"total\":" int_(memory["MemTotal"]) ",\"free\":" int_(memory["MemFree"]) "},\"kernel\":" quote(kernel) "}")
}
# ENVIRON["FZ_MOUNTS"]: device, mount (both as in mounts), block size, blocks, free, available: one a line.
function disks(    n, lines, i, a, json) {
    n = split(ENVIRON["FZ_MOUNTS"], lines, "\n")
    for (i = 1; i <= n; i++) {
        if (lines[i] == "") continue
        split(lines[i], a, " ")
        json = json (json == "" ? "" : ",") "{\"mount\":" quote(unescape(a[2])) ",\"device\":" quote(unescape(a[1])) \
            ",\"type\":" quote(a[3])
        if (a[5] != "") json = json ",\"total\":" int_(a[4] * a[5]) ",\"free\":" int_(a[4] * a[6]) \
            ",\"used\":" int_(a[4] * (a[5] - a[6])) ",\"available\":" int_(a[4] * a[7])
        json = json "}"
    }
    add("disk", "[" json "]")
}
function io(    f, line, a, d, json, text, name) {
    f = PROC "/diskstats"
    text = "Device            r/s      w/s    rkB/s    wkB/s  %util\n"
    while ((getline line < f) > 0) {
        split(line, a, " ")
        name = a[3]
        if (a[4] + a[8] == 0 || name ~ /^(loop|ram|zram|fd|sr)[0-9]/) continue
        if (name ~ /^((sd|vd|xvd|hd)[a-z]+[0-9]+|(nvme[0-9]+n|mmcblk)[0-9]+p[0-9]+)$/ || ++devices > 64) continue
        keep("D " name " " a[4] " " a[6] " " a[8] " " a[10] " " a[13])
        json = json (json == "" ? "" : ",") "{\"device\":" quote(name) ",\"reads\":" int_(a[4]) ",\"writes\":" int_(a[8]) \
            ",\"read_bytes\":" int_(a[6] * 512) ",\"written_bytes\":" int_(a[10] * 512) ",\"busy_ms\":" int_(a[13]) "}"
        d = window > 0 && (name in old_disk) ? window : uptime
        if (d == window && window > 0) split(old_disk[name], o, " "); else split("0 0 0 0 0 0", o, " ")
        text = text left(name, 12) pad(one((a[4] - o[1]) / d), 9) pad(one((a[8] - o[3]) / d), 9) \
            pad(one((a[6] - o[2]) / 2 / d), 9) pad(one((a[10] - o[4]) / 2 / d), 9) pad(one((a[13] - o[5]) / 10 / d), 7) "\n"
    }
    close(f)
    if (wants("io")) add("io", "[" json "]")
    if (wants("iostat")) add("iostat", quote(text))
}
function network(    f, line, a, name, n, json, text) {
    f = PROC "/net/dev"
    text = "Iface              RX-bytes      RX-err       TX-bytes      TX-err\n"
    while ((getline line < f) > 0) {
        n = match(line, /:[ 0-9]+$/)   # a name may hold a colon, too
        if (!n || ++interfaces > 64) continue
        name = substr(line, 1, n - 1); sub(/^ +/, "", name)
        split(substr(line, n + 1), a, " ")
        json = json (json == "" ? "" : ",") "{\"name\":" quote(name) ",\"rx_bytes\":" int_(a[1]) ",\"tx_bytes\":" int_(a[9]) \
            ",\"rx_errors\":" int_(a[3]) ",\"tx_errors\":" int_(a[11]) ",\"rx_packets\":" int_(a[2]) ",\"tx_packets\":" int_(a[10]) \
            ",\"rx_dropped\":" int_(a[4]) ",\"tx_dropped\":" int_(a[12]) "}"
        text = text left(name, 12) pad(a[1], 15) pad(a[3], 12) pad(a[9], 15) pad(a[11], 12) "\n"
    }
    close(f)
    if (wants("net")) add("net", "[" json "]")
    if (wants("sockets") || wants("netstat")) sockets()
    if (wants("netstat")) add("netstat", quote(socket_text "\n" text))
}
function sockets(    f, line, a, i, v, n, names) {
    for (n = 0; n < 2; n++) {
        f = PROC (n ? "/net/sockstat6" : "/net/sockstat")
        while ((getline line < f) > 0) {
            split(line, a, " ")
            sub(/6?:$/, "", a[1])
            for (i = 2; a[i] != ""; i += 2) v[a[1] "." a[i]] += a[i + 1]
        }
        close(f)
    }
    f = PROC "/net/snmp"
    while ((getline line < f) > 0) {
        n = split(line, a, " ")
        if (a[1] != "Tcp:") continue
        if (a[2] + 0 == 0) split(line, names, " ")
        else for (i = 2; i <= n; i++) v["Tcp." names[i]] = a[i]
    }
    close(f)
    if (wants("sockets")) add("sockets", "{\"used\":" int_(v["sockets.used"]) ",\"tcp\":" int_(v["TCP.inuse"]) \
        ",\"tcp_established\":" int_(v["Tcp.CurrEstab"]) ",\"tcp_orphan\":" int_(v["TCP.orphan"]) ",\"tcp_time_wait\":" int_(v["TCP.tw"]) \
        ",\"tcp_retransmitted\":" int_(v["Tcp.RetransSegs"]) ",\"udp\":" int_(v["UDP.inuse"]) "}")
    socket_text = "Total: " int_(v["sockets.used"]) "\nTCP:   " int_(v["TCP.inuse"]) " (estab " int_(v["Tcp.CurrEstab"]) \
        ", orphaned " int_(v["TCP.orphan"]) ", timewait " int_(v["TCP.tw"]) ")\nUDP:   " int_(v["UDP.inuse"]) "\n"
}
function processes(    list, i, pid, user, json, text, mem, name) {
    text = "    PID USER         %CPU  %MEM COMMAND\n"
    for (list = 1; list <= 2; list++) for (i = 1; i <= ranked[list]; i++) {
        pid = top_pid[list, i]
        if (pid in shown) continue
        shown[pid] = 1
        user = user_of(process_path[pid])
        mem = memory["MemTotal"] > 0 ? one(100 * process_rss[pid] * PAGE / memory["MemTotal"]) : "0.0"
        name = process_name[pid]
        json = json (json == "" ? "" : ",") "{\"pid\":" pid ",\"command\":" quote(name) (user == "" ? "" : ",\"user\":" quote(user)) \
            ",\"cpu_percent\":" one(process_cpu[pid]) ",\"mem_percent\":" mem ",\"rss_bytes\":" int_(process_rss[pid] * PAGE) "}"
        text = text pad(pid, 7) " " left(user, 9) pad(one(process_cpu[pid]), 8) pad(mem, 6) " " name "\n"
    }
    if (wants("top")) {
        add("top", "[" json "]")
        add("tasks", "{\"total\":" (tasks + 0) ",\"running\":" (state["R"] + 0) ",\"blocked\":" (state["D"] + 0) \
            ",\"zombie\":" (state["Z"] + 0) ",\"threads\":" int_(threads) "}")
    }
    if (wants("processes")) add("processes", quote(text))
}
function units(    n, a, i, json) {
    n = split(ENVIRON["FZ_UNITS"], a, "\n")
    for (i = 1; i <= n; i++) if (a[i] != "") json = json (json == "" ? "" : ",") quote(a[i])
    add("failed_units", "[" json "]")
}
# ENVIRON["FZ_CHECKS"]: records end with \036, fields (name, status, exit, text) with \037.
function checks(    n, lines, i, a, json) {
    n = split(ENVIRON["FZ_CHECKS"], lines, "\036")
    for (i = 1; i <= n; i++) {
        if (split(lines[i], a, "\037") < 4) continue
        gsub(/\035/, "\n", a[4])
        json = json (json == "" ? "" : ",") "{\"name\":" quote(a[1]) ",\"status\":" quote(a[2]) ",\"exit\":" \
            (a[3] ~ /^[0-9]+$/ ? a[3] : "null") ",\"output\":" quote(a[4]) "}"
    }
    add("checks", "[" json "]")
}
BEGIN {
    for (i = 1; i < 256; i++) byte[sprintf("%c", i)] = i
    SAMPLE = ENVIRON["FZ_SAMPLE"]; PROC = ENVIRON["FZ_PROC"]; TOP_N = ENVIRON["FZ_TOP"] + 0; PAGE = ENVIRON["FZ_PAGE"] + 0
    split(first(PROC "/uptime"), part, " "); uptime = part[1] + 0
    keep("U " part[1])
    by_cpu = by_mem = TOP_N > 0 && (wants("top") || wants("processes"))
    record = "{\"hostname\":" quote(ENVIRON["FZ_HOST"]) ",\"timestamp\":" quote(ENVIRON["FZ_STAMP"])
}
/^U / { window = uptime - $2; if (window <= 0) window = 0; next }
/^C / { for (i = 2; i <= 9; i++) old_cpu[i] = $i; next }
/^D / { old_disk[$2] = $3 " " $4 " " $5 " " $6 " " $7; next }
/^P / { old_process[$2] = $3; next }
/^\// { read_process($0) }
END {
    if (wants("uptime")) add("uptime", sprintf("%.2f", uptime))
    read_cpu()
    read_memory()
    if (wants("os")) os()
    if (wants("disk")) disks()
    if (wants("io") || wants("iostat")) io()
    if (wants("net") || wants("netstat") || wants("sockets")) network()
    if (wants("top") || wants("processes")) processes()
    if (wants("users")) add("users", "[" users "]")
    if (wants("failed_units")) units()
    if (wants("checks")) checks()
    add("agent", "{\"version\":" quote(ENVIRON["FZ_VERSION"]) "," ENVIRON["FZ_AGENT"] ",\"last_error\":" \
        (ENVIRON["FZ_ERROR"] == "" ? "null" : quote(ENVIRON["FZ_ERROR"])) "}")
    print record ",\"schema\":1}" kept
}'

# Here-strings are not used: before 5.1 bash writes them to a file, and that disk may be full.
# words TEXT: WORDS. rows TEXT: ROWS, its lines without the empty ones.
# shellcheck disable=SC2206
words() { set -f; WORDS=($1); set +f; }
# shellcheck disable=SC2206
rows() { local IFS=$'\n'; set -f; ROWS=($1); set +f; }

wants() { [[ $SAMPLE == *" $1 "* ]]; }

page_size() {
    local name value unit
    PAGE=4096
    while read -r name value unit; do
        [[ $name == KernelPageSize: && $unit == kB ]] && { PAGE=$((value * 1024)); break; }
    done 2>/dev/null </proc/self/smaps
}

MOUNT_TEXT='' MOUNT_LINES=() MOUNT_POINTS=()
# Local file systems, each device once (bind mounts repeat them); network ones are left out, for statfs may hang there.
read_mounts() {
    local text='' device mount type row seen=' ' point
    IFS= read -r -d '' text 2>/dev/null <"$CFG_PROC/self/mounts"
    [[ $text != "$MOUNT_TEXT" ]] || return
    MOUNT_TEXT=$text MOUNT_LINES=() MOUNT_POINTS=()
    rows "$text"
    for row in "${ROWS[@]}"; do
        words "$row"
        device=${WORDS[0]-} mount=${WORDS[1]-} type=${WORDS[2]-}
        case $type in
        ext[234] | xfs | btrfs | zfs | f2fs | jfs | reiserfs | vfat | exfat | ntfs | ntfs3 | fuseblk | bcachefs) ;;
        overlay) [[ $mount == / ]] || continue ;;
        *) continue ;;
        esac
        [[ $seen != *" $device "* ]] || continue
        seen+="$device "
        printf -v point %b "$mount"
        MOUNT_LINES+=("$device $mount $type") MOUNT_POINTS+=("$point")
        ((${#MOUNT_LINES[@]} < MAX_MOUNTS)) || break
    done
}

# mounts: MOUNTS = one line a file system with its numbers. One fork for all, or one each when one of them fails.
mounts() {
    local out i numbers
    MOUNTS=''
    read_mounts
    ((${#MOUNT_POINTS[@]})) || return
    out=$(stat -f -c '%S %b %f %a' -- "${MOUNT_POINTS[@]}" 2>/dev/null)
    rows "$out"
    numbers=("${ROWS[@]}")
    if ((${#numbers[@]} != ${#MOUNT_POINTS[@]})) || [[ -z $out ]]; then
        numbers=()
        for ((i = 0; i < ${#MOUNT_POINTS[@]}; i++)); do
            numbers[i]=$(stat -f -c '%S %b %f %a' -- "${MOUNT_POINTS[i]}" 2>/dev/null)
        done
    fi
    for ((i = 0; i < ${#MOUNT_LINES[@]}; i++)); do MOUNTS+="${MOUNT_LINES[i]} ${numbers[i]}"$'\n'; done
}

UNITS='' UNITS_DUE=0
# failed_units: UNITS = names, asked for every CFG_UNITS_EVERY_S only: systemctl costs more CPU than the sample.
failed_units() {
    local row
    ((NOW >= UNITS_DUE)) || return
    UNITS='' UNITS_DUE=$((NOW + CFG_UNITS_EVERY_S))
    if [[ -d /run/systemd/system ]]; then
        bounded 5000 systemctl list-units --state=failed --plain --no-legend --no-pager
    elif command -v rc-status >/dev/null; then
        bounded 5000 rc-status --nocolor --crashed
    else
        return
    fi
    [[ $CODE == 0 ]] || return
    rows "$OUT"
    for row in "${ROWS[@]}"; do words "$row"; UNITS+=${WORDS[0]-}$'\n'; done
}

CHECKS='' CHECKS_DUE=0
# checks: CHECKS = results of the executables of CHECKS_DIR, all at once under one time limit.
# Exit status 0 ok, 1 warning, 2 critical, else unknown, as monitoring plug-ins do.
checks() {
    local files=() file pids=() codes=() texts=() i left reply until limit status
    ((NOW >= CHECKS_DUE)) || return
    CHECKS='' CHECKS_DUE=$((NOW + CFG_CHECKS_EVERY_S))
    for file in "$CFG_CHECKS_DIR"/*; do
        [[ -f $file && -x $file ]] && ((${#files[@]} < MAX_CHECKS)) && files+=("$file")
    done
    left=${#files[@]}
    ((left)) || return
    for ((i = 0; i < left; i++)); do
        bounded_start "$i" "${files[i]}"
        pids[i]=$BOUNDED_PID codes[i]=timeout texts[i]=''
    done
    until=$((NOW + CFG_CHECK_TIMEOUT_S))
    while ((left > 0)); do
        now
        ((NOW < until)) || break
        printf -v limit '%d.%03d' $(((until - NOW) / 1000)) $(((until - NOW) % 1000))
        IFS= read -r -t "$limit" -u "$SIDE" reply || continue
        i=${reply%% *} reply=${reply#* }
        codes[i]=${reply%% *} texts[i]=${reply#* } left=$((left - 1))
    done
    for i in "${!files[@]}"; do
        [[ ${codes[i]} != timeout ]] || kill -KILL -- "-${pids[i]}" 2>/dev/null
        wait "${pids[i]}" 2>/dev/null
        case ${codes[i]} in 0) status=ok ;; 1) status=warning ;; 2) status=critical ;; timeout) status=timeout ;; *) status=unknown ;; esac
        file=${files[i]##*/}
        CHECKS+=${file//[$'\035\036\037']/ }$'\037'$status$'\037'${codes[i]}$'\037'${texts[i]:0:512}$'\037\036'
    done
    side_pipe
}

PREVIOUS='' LAST_SAMPLE_MS=0 CPU_SAMPLE_MS=0 SEQUENCE=0
# own_health: AGENT = inside of the object `agent`. CPU is that of this process and all children waited for.
own_health() {
    local stat spent skew=null delivered=null failed_at=null
    read -r stat </proc/$$/stat
    words "${stat##*) }"
    spent=$(((WORDS[11] + WORDS[12] + WORDS[13] + WORDS[14]) * 10))
    CPU_SAMPLE_MS=$((spent - ${CPU_TOTAL_MS:-spent})) CPU_TOTAL_MS=$spent
    [[ -z $SKEW ]] || skew=$SKEW
    [[ -z $LAST_DELIVERY_AT ]] || delivered=$LAST_DELIVERY_AT
    [[ -z $LAST_ERROR_AT ]] || failed_at=$LAST_ERROR_AT
    printf -v AGENT '"id":"%s","interval":%d.%03d,"pid":%d,"seq":%d,"uptime_s":%d,"spool_depth":%d,"dropped":%d,"refused":%d,"cpu_ms":%d,"cpu_ms_total":%d,"rss_bytes":%d,"sample_ms":%d,"clock_skew_s":%s,"last_delivery_at":%s,"last_error_at":%s' \
        "${CFG_ID//[\"\\]/_}" $((CFG_INTERVAL_S / 1000)) $((CFG_INTERVAL_S % 1000)) $$ $SEQUENCE $(((NOW - STARTED) / 1000)) "$DEPTH" "$DROPPED" "$REFUSED" "$CPU_SAMPLE_MS" "$spent" \
        $((WORDS[21] * PAGE)) "$LAST_SAMPLE_MS" "$skew" "$delivered" "$failed_at"
}

# take_sample: RECORD = one line of JSON. Fails when awk failed.
take_sample() {
    local begun out
    now
    begun=$NOW
    MOUNTS=''
    wants disk && mounts
    wants failed_units && failed_units
    wants checks && checks
    SEQUENCE=$((SEQUENCE + 1))   # lets the receiver see a gap
    stamp
    own_health
    # shellcheck disable=SC2153  # CFG_… are set by setting()
    out=$(FZ_SAMPLE=$SAMPLE FZ_PROC=$CFG_PROC FZ_TOP=$CFG_TOP_N FZ_PAGE=$PAGE FZ_HOST=$CFG_HOSTNAME FZ_STAMP=$STAMP \
        FZ_MOUNTS=$MOUNTS FZ_UNITS=$UNITS FZ_CHECKS=$CHECKS FZ_VERSION=$VERSION FZ_AGENT=$AGENT FZ_ERROR=$LAST_ERROR \
        awk "$PROGRAM" < <(printf '%s\n' "$PREVIOUS" "$CFG_PROC"/[0-9]*) 2>/dev/null)
    RECORD=${out%%$'\n'*}
    now
    LAST_SAMPLE_MS=$((NOW - begun))
    if [[ $RECORD != '{"hostname":'*",$LAST_FIELD" ]]; then
        failed 'the sample could not be made: awk failed' error
        return 1
    fi
    PREVIOUS=${out:${#RECORD}+1}   # not ${out#*...}: that takes the square of the record's length
    epoch
    LAST_SAMPLE_AT=$EPOCH
}

# ---------------------------------------------------------------------------------------------- spool
#
# STATE_DIR/spool/current.ndjson   records as they are made, one line each
# STATE_DIR/spool/s-NUMBER-EPOCH-COUNT@BOOT-UPTIME.ndjson[.gz]   closed segments, oldest first by name; each is one
# request's body. NUMBER is twelve digits and may end in letters (halves of a segment that was too large). BOOT and UPTIME
# (seconds) say when it was closed where the clock cannot be trusted; earlier versions have no such part.

SEGMENTS=() DEPTH=0 CURRENT_COUNT=0 CURRENT_BYTES=0 CURRENT_TORN=0 MEMORY=() DROPPED=0 REFUSED=0 LAST_NUMBER=0

# list_segments: SEGMENTS in order, DEPTH = all records that wait.
list_segments() {
    local path
    SEGMENTS=() DEPTH=$((CURRENT_COUNT + ${#MEMORY[@]}))
    for path in "$SPOOL"/s-[0-9]*-*-*.ndjson "$SPOOL"/s-[0-9]*-*-*.ndjson.gz; do SEGMENTS+=("$path"); done
    # Two globs, one order: raw segments are rare, so sorting is, too.
    if ((${#SEGMENTS[@]} > 1)) && [[ ${SEGMENTS[0]} != *.gz ]]; then
        SEGMENTS=("$SPOOL"/s-[0-9]*-*-*.ndjson*)
    fi
    for path in "${SEGMENTS[@]}"; do segment_count "$path"; DEPTH=$((DEPTH + COUNT)); done
}

segment_count() { COUNT=${1##*/} COUNT=${COUNT%%[.@]*} COUNT=${COUNT##*-}; COUNT=$((10#0${COUNT//[!0-9]/})); }

# segment_age PATH: AGE_S. By the time since this boot where the segment is of it: a clock that is set may jump by years.
segment_age() {
    local name=${1##*/} at closed
    name=${name%%.*} at=${name#*@} name=${name%%@*}
    if [[ $at == "$BOOT"-* ]]; then
        closed=${at##*-}
        AGE_S=$((NOW / 1000 - 10#0${closed//[!0-9]/}))
        return
    fi
    name=${name%-*} closed=${name##*-}
    epoch
    AGE_S=$((EPOCH - 10#0${closed//[!0-9]/}))
}

# open_spool: folders, what a crash left, and the state of the last run. Fails where the folder cannot be used.
open_spool() {
    local path number
    SPOOL=$CFG_STATE_DIR/spool CURRENT=$CFG_STATE_DIR/spool/current.ndjson
    [[ -d $SPOOL ]] || mkdir -p -- "$SPOOL" 2>/dev/null || {
        problem "$SPOOL: the folder cannot be made; make $CFG_STATE_DIR and give it to this user"
        return 1
    }
    [[ -w $SPOOL && -x $SPOOL ]] || { problem "$SPOOL: this user may not write there; chown it"; return 1; }
    take_lock || return 1
    for path in "$SPOOL"/*.tmp "$CFG_STATE_DIR"/*.tmp "$CFG_STATE_DIR"/next-*; do rm -f -- "$path"; done
    for path in "$SPOOL"/s-*; do
        number=${path##*/s-} number=${number%%-*} number=${number//[!0-9]/}
        [[ -s $path ]] || rm -f -- "$path"
        ((10#${number:-0} <= LAST_NUMBER)) || LAST_NUMBER=$((10#$number))
    done
    read_counters
    if [[ -s $CURRENT ]]; then
        repair_current
    fi
    list_segments
    return 0
}

# Numbers that go on where the run before ended, for a run may be one sample long (--once); and the last time that
# was given to a record, as bash 4 has whole seconds only. It is on a line of its own, which versions before do not read.
read_counters() {
    local sequence='' dropped='' refused='' delivered='' stamp=''
    { read -r sequence dropped refused delivered && read -r stamp; } 2>/dev/null <"$CFG_STATE_DIR/counters"
    [[ $sequence.$dropped.$refused.$delivered =~ ^[0-9]{1,15}\.[0-9]{1,15}\.[0-9]{1,15}\.[0-9]{1,15}$ ]] || return 0
    SEQUENCE=$((10#$sequence)) DROPPED=$((10#$dropped)) REFUSED=$((10#$refused)) DELIVERED=$((10#$delivered))
    [[ ! $stamp =~ ^[0-9]{1,15}$ ]] || LAST_STAMP=$((10#$stamp))
}

# Written over the last ones, of the same length: never torn by a kill, and a full disk takes it.
keep_counters() {
    { printf '%015d %015d %015d %015d\n%015d\n' "$SEQUENCE" "$DROPPED" "$REFUSED" "$DELIVERED" "$LAST_STAMP" \
        1<>"$CFG_STATE_DIR/counters"; } 2>/dev/null
}

# repair_current: keeps the whole lines of the current file, closes it as a segment. A torn one is dropped and counted.
repair_current() {
    local counts whole torn
    counts=$(awk -v end=",$LAST_FIELD" -v to="$CURRENT.tmp" '
        /^\{"hostname":/ && substr($0, length($0) - length(end) + 1) == end { n++; print > to; next }
        length($0) { bad++ }
        END { print n + 0, bad + 0 }' "$CURRENT" 2>/dev/null) || counts=
    whole=${counts% *} torn=${counts#* }
    if [[ -z $counts ]]; then   # no room for a clean copy: the receiver will name the torn line
        rm -f -- "$CURRENT.tmp"
        ((CURRENT_COUNT)) || CURRENT_COUNT=1
    else
        ((torn == 0)) || drop "$torn" 'torn by an interrupted write'
        if ((whole == 0)); then
            rm -f -- "$CURRENT.tmp"
            : >"$CURRENT"
        else
            mv -f -- "$CURRENT.tmp" "$CURRENT"
        fi
        CURRENT_COUNT=$whole
    fi
    CURRENT_TORN=0
    ((CURRENT_COUNT == 0)) || close_current
}

# One process per state folder. The lock is a symbolic link (which a full disk still takes) to "pid start boot", so a
# stale one is known for sure. Of several that find one stale only the one takes over that makes the link "next-…", whose
# name is the dead holder's: it alone may put its own in the lock's place. Where that one died in between, its link has a
# next one in turn.
take_lock() {
    local me boot try link said next chain
    LOCK=$CFG_STATE_DIR/lock
    read -r boot </proc/sys/kernel/random/boot_id
    process_start $$
    me="$$ $PROCESS_START $boot"
    for try in {1..20}; do
        if ln -sn -- "$me" "$LOCK" 2>/dev/null; then
            LOCKED=1
            return 0
        fi
        link=$LOCK chain=()
        while said=$(readlink -- "$link" 2>/dev/null) && ((${#chain[@]} < 20)); do
            refuse_if_alive "$said" "$boot"
            chain+=("$link" "$said")
            next=$CFG_STATE_DIR/next-${said//[!0-9a-z]/-}
            if ln -sn -- "$me" "$next" 2>/dev/null; then
                take_over "$next" "$me" "${chain[@]}" && return 0
                break   # somebody was faster: look again
            fi
            link=$next
        done
    done
    problem "$LOCK: cannot be made after $try tries; may this user write to the folder?"
    return 1
}

# refuse_if_alive "PID START BOOT" BOOT: ends this process when that one lives.
refuse_if_alive() {
    local pid start there
    words "$1"
    pid=${WORDS[0]-} start=${WORDS[1]-} there=${WORDS[*]:2}
    [[ $there == "$2" && $pid =~ ^[0-9]+$ && $pid != "$$" ]] && process_start "$pid" && [[ $PROCESS_START == "$start" ]] || return 0
    printf 'telemetry.sh: %s: another agent (pid %s) holds this folder\n' "$CFG_STATE_DIR" "$pid" >&2
    exit $EXIT_HELD
}

# take_over NEXT ME LINK SAID [LINK SAID…]: the lock is ours if all links still say what they said. NEXT goes away.
take_over() {
    local next=$1 me=$2 links=() i
    shift 2
    local chain=("$@")
    for ((i = 0; i < ${#chain[@]}; i += 2)); do
        if [[ $(readlink -- "${chain[i]}" 2>/dev/null) != "${chain[i + 1]}" ]]; then
            rm -f -- "$next"
            return 1
        fi
        links+=("${chain[i]}")
    done
    if ! { ln -sn -- "$me" "$LOCK.$$.tmp" && mv -f -- "$LOCK.$$.tmp" "$LOCK"; } 2>/dev/null; then
        rm -f -- "$LOCK.$$.tmp" "$next"
        return 1
    fi
    LOCKED=1
    rm -f -- "$next" "${links[@]:1}"
    return 0
}

process_start() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    words "${stat##*) }"
    PROCESS_START=${WORDS[19]}
}

# store_record: RECORD onto the current file; into memory where the disk refuses.
store_record() {
    local record size=$((${#RECORD} + 1))
    if ((CURRENT_COUNT > 0 && (CURRENT_COUNT >= CFG_BATCH_RECORDS || CURRENT_BYTES + size > CFG_BATCH_BYTES))); then
        close_current
    fi
    MEMORY+=("$RECORD")
    if [[ $FLIGHT_SEGMENT != memory ]]; then   # what is on its way keeps its place
        while ((${#MEMORY[@]})); do
            record=${MEMORY[0]}
            append "$record" || append_with_room "$record" || break
            CURRENT_COUNT=$((CURRENT_COUNT + 1)) CURRENT_BYTES=$((CURRENT_BYTES + ${#record} + 1))
            MEMORY=("${MEMORY[@]:1}")
        done
        if ((${#MEMORY[@]} > MEMORY_RECORDS)); then
            MEMORY=("${MEMORY[@]:1}")
            drop 1 'the disk takes no more and the memory is for newer records'
        fi
    fi
    list_segments
    enforce_cap
}

# append_with_room RECORD: once more in a new file; on a full disk the oldest records make room for the newest.
append_with_room() {
    ((CURRENT_COUNT == 0)) || { close_current && append "$1" && return 0; }
    while disk_is_full && oldest_segment; do
        drop_segment "$OLDEST" 'no room on the disk' || return 1
        if append "$1"; then return 0; fi
    done
    return 1
}

disk_is_full() {
    local size free inodes
    read -r size free inodes < <(stat -f -c '%S %a %d' -- "$SPOOL" 2>/dev/null)
    [[ ${inodes-} =~ ^[0-9]+$ ]] && ((size * free < 262144 || inodes == 0))
}

append() {
    if ((CURRENT_TORN)); then   # ends what a failed write left, so that only that line is lost
        { printf '\n' >>"$CURRENT"; } 2>/dev/null || return 1
    fi
    if { printf '%s\n' "$1" >>"$CURRENT"; } 2>/dev/null; then
        CURRENT_TORN=0
        return 0
    fi
    CURRENT_TORN=1 CURRENT_DIRTY=1
    failed "$CURRENT: cannot be written; the disk is full, or the folder is read-only"
    return 1
}

# close_current: makes the current file a segment: compressed, or as it is where there is no room or no gzip.
close_current() {
    local target
    if ((CURRENT_DIRTY)); then
        CURRENT_DIRTY=0
        repair_current   # closes it in turn
        return
    fi
    ((CURRENT_COUNT)) || return
    LAST_NUMBER=$((LAST_NUMBER + 1))
    epoch
    now
    printf -v target '%s/s-%012d-%010d-%05d@%s-%d.ndjson' "$SPOOL" "$LAST_NUMBER" "$EPOCH" "$CURRENT_COUNT" "$BOOT" $((NOW / 1000))
    if ((HAVE_GZIP)) && { gzip -c <"$CURRENT" >"$target.tmp"; } 2>/dev/null && mv -f -- "$target.tmp" "$target.gz"; then
        : >"$CURRENT"   # killed before this: the records are sent twice, and stored once
    else
        rm -f -- "$target.tmp"
        mv -f -- "$CURRENT" "$target" || return 1
    fi
    CURRENT_COUNT=0 CURRENT_BYTES=0
    list_segments
}

drop() { DROPPED=$((DROPPED + $1)); keep_counters; failed "$1 record(s) dropped: $2"; }

drop_segment() {
    segment_count "$1"
    rm -f -- "$1"
    [[ ! -e $1 ]] || { failed "$1: cannot be removed; is the folder read-only?"; return 1; }
    drop "$COUNT" "$2"
    list_segments
}

# The oldest segment that is not on its way.
oldest_segment() {
    local path
    for path in "${SEGMENTS[@]}"; do
        [[ $path == "$FLIGHT_SEGMENT" ]] || { OLDEST=$path; return 0; }
    done
    return 1
}

# enforce_cap: by age and by bytes, the oldest first.
enforce_cap() {
    local sizes total path i
    ((${#SEGMENTS[@]})) || return
    now
    while oldest_segment; do
        segment_age "$OLDEST"
        ((AGE_S * 1000 > CFG_SPOOL_MAX_AGE_S)) || break
        drop_segment "$OLDEST" 'older than FAZAI_AGENT_SPOOL_MAX_AGE_S' || return
    done
    ((${#SEGMENTS[@]} * CFG_BATCH_BYTES + CURRENT_BYTES > CFG_SPOOL_MAX_BYTES)) || return   # cannot be over: no fork
    mapfile -t sizes < <(wc -c -- "${SEGMENTS[@]}" 2>/dev/null)
    total=$CURRENT_BYTES
    for i in "${!SEGMENTS[@]}"; do words "${sizes[i]-0}"; sizes[i]=${WORDS[0]}; total=$((total + sizes[i])); done
    local segments=("${SEGMENTS[@]}")
    for i in "${!segments[@]}"; do
        ((total > CFG_SPOOL_MAX_BYTES)) || break
        path=${segments[i]}
        [[ $path != "$FLIGHT_SEGMENT" ]] || continue
        total=$((total - sizes[i]))
        drop_segment "$path" 'the spool is larger than FAZAI_AGENT_SPOOL_MAX_BYTES'
    done
}

# split_segment PATH: two halves in its place. Fails where it cannot be done.
split_segment() {
    local path=$1 base number rest half at
    segment_count "$path"
    half=$((COUNT / 2))
    ((half > 0)) || return 1
    base=${path##*/s-} number=${base%%-*} rest=${base#*-}
    rest=${rest%%-*} at=''
    [[ $base != *@* ]] || { at=${base%%.*}; at=@${at#*@}; }
    printf -v base '%s/s-%s%%s-%s-%%05d%s.ndjson' "$SPOOL" "$number" "$rest" "$at"
    local first second
    # shellcheck disable=SC2059  # the format is built above
    printf -v first "$base" a $half
    # shellcheck disable=SC2059
    printf -v second "$base" b $((COUNT - half))
    segment_text "$path" | awk -v half=$half -v first="$first.tmp" -v second="$second.tmp" '
        { if (NR <= half) print > first; else print > second }' 2>/dev/null
    if [[ -s $first.tmp && -s $second.tmp ]] && mv -f -- "$first.tmp" "$first" && mv -f -- "$second.tmp" "$second"; then
        rm -f -- "$path"
        list_segments
        return 0
    fi
    rm -f -- "$first.tmp" "$second.tmp"
    return 1
}

segment_text() { if [[ $1 == *.gz ]]; then gzip -dc <"$1"; else cat <"$1"; fi 2>/dev/null; }

# ---------------------------------------------------------------------------------------------- signature

# sha256: standard input -> DIGEST line on standard output. sha256sum starts in a fifth of openssl's time.
sha256() {
    if ((HAVE_SHA256SUM)); then sha256sum; else openssl dgst -sha256 -r; fi
}

# key_pads KEY: INNER and OUTER = the padded key XOR 36 and 5c, as \xHH for printf %b. The key stays inside of bash:
# openssl's own HMAC takes it from the command line only, where every user of the machine can read it.
key_pads() {
    local key=$1 hex='' i byte
    if ((${#key} > 64)); then
        hex=$(printf %s "$key" | sha256)
        hex=${hex%% *}
    else
        for ((i = 0; i < ${#key}; i++)); do printf -v byte %02x "'${key:i:1}"; hex+=$byte; done
    fi
    INNER='' OUTER=''
    for ((i = 0; i < 64; i++)); do
        byte=$((16#0${hex:i*2:2}))
        printf -v INNER '%s\\x%02x' "$INNER" $((byte ^ 0x36))
        printf -v OUTER '%s\\x%02x' "$OUTER" $((byte ^ 0x5c))
    done
}

# hmac TEXT: HMAC = hex of HMAC-SHA256 under the key of INNER and OUTER.
hmac() {
    local inner i bytes=''
    inner=$(printf '%b%s' "$INNER" "$1" | sha256)
    inner=${inner%% *}
    for ((i = 0; i < 64; i += 2)); do bytes+=\\x${inner:i:2}; done
    HMAC=$(printf '%b%b' "$OUTER" "$bytes" | sha256)
    HMAC=${HMAC%% *}
}

# ---------------------------------------------------------------------------------------------- delivery

FLIGHT=0 FLIGHT_SEGMENT='' FLIGHT_PID='' FLIGHT_UNTIL=0 FLIGHT_RECORDS=0 NEXT_TRY=0 FAILURES=0
LAST_ERROR='' LAST_ERROR_AT='' LAST_DELIVERY_AT='' LAST_SAMPLE_AT='' DELIVERED=0 SKEW='' SIGN_OFFSET=0 PLAIN=0
KEY_AT=0 TRIED_KEY=0 TRIED_CLOCK=0 TRIED_NONCE=0 CURRENT_DIRTY=0

# start_delivery LIMIT_MS: sends the oldest segment in the background, whose end is a line in NAP.
start_delivery() {
    local limit=$1
    if ((${#SEGMENTS[@]} == 0 && CURRENT_COUNT > 0)); then close_current; fi
    if ((${#SEGMENTS[@]})); then
        FLIGHT_SEGMENT=${SEGMENTS[0]}
        segment_count "$FLIGHT_SEGMENT"
        FLIGHT_RECORDS=$COUNT
    elif ((${#MEMORY[@]})); then
        FLIGHT_SEGMENT=memory FLIGHT_RECORDS=${#MEMORY[@]}
    else
        return 1
    fi
    FLIGHT=$((FLIGHT + 1))
    ((limit < CFG_REQUEST_TIMEOUT_S)) || limit=$CFG_REQUEST_TIMEOUT_S
    now
    FLIGHT_UNTIL=$((NOW + limit + 5000))
    set -m   # a process group of its own, which can be ended with all that is in it
    { trap - TERM INT USR1; attempt "$FLIGHT" "$limit"; } {SIDE}>&- 2>/dev/null &
    FLIGHT_PID=$!
    set +m
}

body() {
    if [[ $FLIGHT_SEGMENT == memory ]]; then
        printf '%s\n' "${MEMORY[@]}"
    elif ((PLAIN)); then
        segment_text "$FLIGHT_SEGMENT"
    else
        cat <"$FLIGHT_SEGMENT"
    fi
}

# curl's settings. They go to curl through a pipe, never on its command line: the token is among them.
curl_settings() {
    local limit=$1 digest=$2 nonce when
    printf 'url = "%s"\nrequest = "POST"\nsilent\nshow-error\ninclude\ngloboff\nproto = "=http,https"\nmax-filesize = 1048576\n' "$URL"
    printf 'max-time = %d.%03d\nconnect-timeout = %d.%03d\n' $((limit / 1000)) $((limit % 1000)) \
        $((CFG_CONNECT_TIMEOUT_S / 1000)) $((CFG_CONNECT_TIMEOUT_S % 1000))
    printf 'data-binary = "@-"\nheader = "Expect:"\nheader = "Content-Type: application/x-ndjson"\nuser-agent = "fazai-telemetry/%s"\n' "$VERSION"
    [[ $FLIGHT_SEGMENT != *.gz || $PLAIN == 1 ]] || printf 'header = "Content-Encoding: gzip"\n'
    ((OWN_MACHINE == 0)) || printf 'noproxy = "*"\n'   # a proxy elsewhere would get token and records
    [[ -z $CFG_CA_FILE ]] || printf 'cacert = "%s"\n' "$(curl_quote "$CFG_CA_FILE")"
    [[ $CFG_TLS_VERIFY == yes ]] || printf 'insecure\n'
    [[ -z $CFG_TOKEN ]] || printf 'header = "Authorization: Bearer %s"\n' "$(curl_quote "$CFG_TOKEN")"
    if ((${#KEY_NAMES[@]})); then
        read -r nonce </proc/sys/kernel/random/uuid
        printf -v when '%(%s)T' -1
        when=$((when + SIGN_OFFSET))
        INNER=${INNERS[KEY_AT]} OUTER=${OUTERS[KEY_AT]}
        hmac "$when"$'\n'"$nonce"$'\n'POST$'\n'"$ROUTE"$'\n'"$digest"
        printf 'header = "X-Fazai-Agent: %s"\n' "$(curl_quote "$CFG_ID")"
        printf 'header = "X-Fazai-Timestamp: %s"\nheader = "X-Fazai-Nonce: %s"\nheader = "X-Fazai-Signature: sha256=%s"\n' \
            "$when" "$nonce" "$HMAC"
    fi
    printf 'write-out = "\\n@fazai %%{http_code}\\n"\n'
}

curl_quote() { local text=${1//\\/\\\\}; printf %s "${text//\"/\\\"}"; }

# attempt FLIGHT LIMIT_MS: one request; writes one line into NAP:
# F FLIGHT CURL_EXIT HTTP RETRY_MS SKEW ANSWER ERRORS CODE TEXT…
attempt() {
    local flight=$1 limit=$2 digest='' out curl_exit http=000 head text='' answer=other errors=0 code=- skew=- retry=-
    local code_form='"code"[[:space:]]*:[[:space:]]*"([a-z_]{1,40})"' error_form='"error"[[:space:]]*:[[:space:]]*"([^"]{1,200})'
    local ok_form='"ok"[[:space:]]*:[[:space:]]*true' accepted_form='"accepted"[[:space:]]*:[[:space:]]*([0-9]+)'
    if ((${#KEY_NAMES[@]})); then
        if [[ $FLIGHT_SEGMENT != memory && $PLAIN == 0 ]]; then
            digest=$(sha256 <"$FLIGHT_SEGMENT")
        else
            digest=$(body | sha256)
        fi
        digest=${digest%% *}
    fi
    if [[ $FLIGHT_SEGMENT != memory && $PLAIN == 0 ]]; then
        out=$(exec curl -q --config /dev/fd/3 2>&1 3< <(curl_settings "$limit" "$digest") <"$FLIGHT_SEGMENT")
    else
        out=$(curl -q --config /dev/fd/3 2>&1 3< <(curl_settings "$limit" "$digest") < <(body))
    fi
    curl_exit=$?
    http=${out##*@fazai }
    http=${http:0:3}
    [[ $http =~ ^[0-9]{3}$ ]] || http=000
    last_answer "$out"
    head=$HEAD out=$BODY
    answer_headers "$head"
    if ((curl_exit != 0)); then
        text=${out##*curl: }
        text=${text%%$'\n'*}
    elif [[ $out =~ $error_form ]]; then
        text=${BASH_REMATCH[1]}
    fi
    [[ $out =~ $code_form ]] && code=${BASH_REMATCH[1]}
    if [[ $out =~ $ok_form ]]; then
        answer=ok
    elif [[ $out =~ $accepted_form ]]; then
        answer=partial
        head=${out//\"index\"/}
        errors=$(((${#out} - ${#head}) / 7))
    fi
    text=${text//[^ -~]/?}
    printf 'F %s %s %s %s %s %s %s %s %s\n' "$flight" "$curl_exit" "$http" "$retry" "$skew" "$answer" "$errors" "$code" "${text:0:300}" >&"$NAP"
}

# last_answer TEXT: HEAD and BODY of the last answer in what curl printed: those of proxies and the 1xx ones stand before
# it, with their own headers. Our server's text is JSON, and never begins like a head.
last_answer() {
    local end=$'\r\n\r\n' status='^HTTP/[0-9.]+ [0-9]{3}' i
    HEAD='' BODY=$1
    for ((i = 0; i < 8; i++)); do
        [[ $BODY =~ $status && $BODY == *"$end"* ]] || return 0
        HEAD=${BODY%%"$end"*} BODY=${BODY:${#HEAD}+${#end}}
    done
}

# answer_headers TEXT: sets the caller's skew (ours minus the server's, seconds) and retry (milliseconds).
answer_headers() {
    local line value server='' wanted=''
    rows "$1"
    for line in "${ROWS[@]}"; do
        line=${line%$'\r'}
        value=${line#*:} value=${value# }
        case $line in
        [Dd][Aa][Tt][Ee]:*) http_date "$value" && server=$HTTP_DATE ;;
        [Rr][Ee][Tt][Rr][Yy]-[Aa][Ff][Tt][Ee][Rr]:*) wanted=$value ;;
        esac
    done
    epoch
    [[ -z $server ]] || skew=$((EPOCH - server))
    if [[ $wanted =~ ^[0-9]{1,9}$ ]]; then
        retry=$((10#$wanted * 1000))
    elif [[ -n $wanted ]] && http_date "$wanted"; then
        retry=$(((HTTP_DATE - ${server:-$EPOCH}) * 1000))
        ((retry >= 0)) || retry=0
    fi
}

# http_date TEXT: HTTP_DATE = Unix seconds of "Sun, 06 Nov 1994 08:49:37 GMT".
http_date() {
    local form='^[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT' y m d months
    [[ $1 =~ $form ]] || return 1
    months=JanFebMarAprMayJunJulAugSepOctNovDec
    months=${months%%"${BASH_REMATCH[2]}"*}
    ((${#months} < 36)) || return 1
    m=$((${#months} / 3 + 1)) y=$((10#${BASH_REMATCH[3]})) d=$((10#${BASH_REMATCH[1]}))
    ((m > 2)) || { y=$((y - 1)); m=$((m + 12)); }
    d=$((365 * y + y / 4 - y / 100 + y / 400 + (153 * (m - 3) + 2) / 5 + d - 719469))
    HTTP_DATE=$((d * 86400 + 10#${BASH_REMATCH[4]} * 3600 + 10#${BASH_REMATCH[5]} * 60 + 10#${BASH_REMATCH[6]}))
}

# end_flight: reaps the attempt; the segment is nobody's again.
end_flight() {
    wait "$FLIGHT_PID" 2>/dev/null
    FLIGHT_PID=''
    SENT=$FLIGHT_SEGMENT
    FLIGHT_SEGMENT=''
}

# landed LINE: what the attempt's line means. A line of an attempt that was given up is left alone.
landed() {
    local flight curl_exit http retry skew answer errors code text
    words "$1"
    flight=${WORDS[1]-} curl_exit=${WORDS[2]-} http=${WORDS[3]-} retry=${WORDS[4]-} skew=${WORDS[5]-} answer=${WORDS[6]-}
    errors=${WORDS[7]-} code=${WORDS[8]-} text=${WORDS[*]:9}
    [[ -n $FLIGHT_PID && $flight == "$FLIGHT" ]] || return
    end_flight
    if [[ $skew != - ]]; then
        SKEW=$skew SIGN_OFFSET=0
        ((skew > -SKEW_SIGNED_S && skew < SKEW_SIGNED_S)) || SIGN_OFFSET=$((-skew))
    fi
    [[ $retry != - ]] || retry=0
    if ((curl_exit != 0)); then
        put_off 0 "no delivery: ${text:-curl ended with $curl_exit}"
        return
    fi
    case $http:$answer in
    2??:ok) delivered 0 ;;
    2??:partial) delivered "$errors" "$text" ;;
    2??:*) put_off 0 "status $http without the answer of /ingest: is FAZAI_AGENT_SERVER the fazai daemon?" ;;
    401:*) not_let_in "$code" "status 401${text:+: $text}" ;;
    413:*) divide "status 413: $FLIGHT_RECORDS record(s) are too large for the server" ;;
    400:* | 422:*)
        if [[ $answer == partial && $errors -ge $FLIGHT_RECORDS ]]; then
            delivered "$errors" "$text"
        else
            divide "status $http${text:+: $text}"
        fi
        ;;
    415:*)
        ((PLAIN == 0)) || { put_off 0 'status 415: the server takes neither gzip nor plain NDJSON'; return; }
        PLAIN=1 NEXT_TRY=0
        failed 'status 415: the server takes no gzip; sending plain'
        ;;
    *) put_off "$retry" "status $http${text:+: $text}" ;;
    esac
}

# delivered REFUSED [TEXT]: the segment is the server's now.
delivered() {
    if [[ $SENT == memory ]]; then
        MEMORY=("${MEMORY[@]:FLIGHT_RECORDS}")
    else
        rm -f -- "$SENT"
    fi
    epoch
    LAST_DELIVERY_AT=$EPOCH DELIVERED=$((DELIVERED + FLIGHT_RECORDS - $1))
    TRIED_KEY=0 TRIED_CLOCK=0 TRIED_NONCE=0 NEXT_TRY=0
    if ((FAILURES)); then
        FAILURES=0
        rm -f -- "$CFG_STATE_DIR/backoff"
        log info 'delivered again'
    fi
    if (($1)); then
        DROPPED=$((DROPPED + $1)) REFUSED=$((REFUSED + $1))
        failed "$1 record(s) refused by the server: ${2-}"
    fi
    keep_counters
    list_segments
}

# divide WHY: halves what was refused whole, so that one bad record does not take others with it; a single one is given up.
divide() {
    if [[ $SENT == memory ]]; then
        MEMORY=("${MEMORY[@]:FLIGHT_RECORDS}")
    elif ((FLIGHT_RECORDS > 1)) && [[ $SENT == *.gz ]] && ! gzip -t <"$SENT" 2>/dev/null; then
        drop_segment "$SENT" 'the segment is damaged on the disk'
        return
    elif ((FLIGHT_RECORDS > 1)); then
        split_segment "$SENT" || put_off 0 "$1; and it cannot be divided: is there room in $SPOOL?"
        return
    else
        rm -f -- "$SENT"
    fi
    DROPPED=$((DROPPED + FLIGHT_RECORDS)) REFUSED=$((REFUSED + FLIGHT_RECORDS))
    keep_counters
    failed "$FLIGHT_RECORDS record(s) refused by the server: $1"
    list_segments
}

# not_let_in CODE TEXT: clock, nonce and the other key are each tried once at once; then as any failure.
not_let_in() {
    NEXT_TRY=0
    if [[ $1 == bad_clock ]] && ((!TRIED_CLOCK && SIGN_OFFSET != 0)); then
        TRIED_CLOCK=1
        failed "the clock differs by $SKEW s from the server's; requests are signed with the server's time"
    elif [[ $1 == replayed ]] && ((!TRIED_NONCE)); then
        TRIED_NONCE=1
    elif ((${#KEY_NAMES[@]} > 1 && !TRIED_KEY)) && [[ $1 != bad_clock ]]; then
        TRIED_KEY=1 KEY_AT=$((1 - KEY_AT))
    else
        TRIED_KEY=0 TRIED_CLOCK=0 TRIED_NONCE=0
        put_off 0 "$2"
    fi
}

# put_off RETRY_AFTER_MS WHY: doubles the wait up to BACKOFF_MAX_S, half of it at random; never earlier than asked for.
put_off() {
    local wait=$CFG_BACKOFF_MIN_S i
    for ((i = 0; i < FAILURES && wait < CFG_BACKOFF_MAX_S; i++)); do wait=$((wait * 2)); done
    ((wait <= CFG_BACKOFF_MAX_S)) || wait=$CFG_BACKOFF_MAX_S
    random_below $((wait / 2))
    wait=$((wait - RANDOM_BELOW))
    if (($1 > 0)); then
        local asked=$(($1 > 3600000 ? 3600000 : $1))   # no server stops a host for longer than an hour
        random_below $((asked / 10 + 1000))
        ((wait > asked)) || wait=$((asked + RANDOM_BELOW))
    fi
    FAILURES=$((FAILURES + 1))
    now
    NEXT_TRY=$((NOW + wait))
    failed "$2"
    printf '%s %s\n' $((EPOCH + (wait + 999) / 1000)) "$FAILURES" 2>/dev/null >"$CFG_STATE_DIR/backoff"
    list_segments
}

# The wait that an earlier run was told to keep (a restart or cron is no excuse).
resume_backoff() {
    local until failures
    { read -r until failures <"$CFG_STATE_DIR/backoff"; } 2>/dev/null || return
    [[ $until =~ ^[0-9]{1,12}$ && $failures =~ ^[0-9]{1,6}$ ]] || return
    epoch
    now
    FAILURES=$failures
    ((until <= EPOCH || until > EPOCH + 4000)) || NEXT_TRY=$((NOW + (until - EPOCH) * 1000))
}

# write_status STATE: one NAME=VALUE a line, replaced whole, for people and for scripts without JSON.
write_status() {
    epoch
    umask 022
    {
        printf 'version=%s\nstate=%s\npid=%d\nstarted_at=%d\nwritten_at=%d\ninterval_s=%d.%03d\nserver=%s\nhostname=%s\n' \
            "$VERSION" "$1" $$ "$STARTED_AT" "$EPOCH" $((CFG_INTERVAL_S / 1000)) $((CFG_INTERVAL_S % 1000)) "$URL" "$CFG_HOSTNAME"
        printf 'last_sample_at=%s\nlast_delivery_at=%s\nspool_depth=%d\nspool_segments=%d\ndelivered=%d\ndropped=%d\nrefused=%d\n' \
            "$LAST_SAMPLE_AT" "$LAST_DELIVERY_AT" "$DEPTH" ${#SEGMENTS[@]} "$DELIVERED" "$DROPPED" "$REFUSED"
        printf 'failures=%d\nclock_skew_s=%s\nkey=%s\ntls_verify=%s\nlast_error_at=%s\nlast_error=%s\n' \
            "$FAILURES" "$SKEW" "${KEY_NAMES[KEY_AT]-none}" "$CFG_TLS_VERIFY" "$LAST_ERROR_AT" "${LAST_ERROR//[^ -~]/?}"
    } 2>/dev/null >"$CFG_STATE_DIR/status.tmp" && mv -f -- "$CFG_STATE_DIR/status.tmp" "$CFG_STATE_DIR/status" 2>/dev/null
    umask 077
}

# ---------------------------------------------------------------------------------------------- commands

find_tools() {
    local tool
    HAVE_GZIP=0 HAVE_SHA256SUM=0
    command -v gzip >/dev/null && HAVE_GZIP=1
    command -v sha256sum >/dev/null && HAVE_SHA256SUM=1
    local tools='awk curl mv rm mkdir cat stat ln readlink wc'
    [[ $MODE != print ]] || tools='awk cat stat mv'
    for tool in $tools; do
        command -v "$tool" >/dev/null || problem "$tool: not found in PATH; install it"
    done
    [[ $MODE == print ]] || ((HAVE_SHA256SUM)) || command -v openssl >/dev/null || problem 'openssl: not found in PATH; install it or sha256sum'
}

read_keys() {
    local name key
    KEY_NAMES=() INNERS=() OUTERS=()
    for name in KEY KEY_PREVIOUS; do
        key=CFG_$name key=${!key}
        [[ -n $key ]] || continue
        key_pads "$key"
        KEY_NAMES+=("$name") INNERS+=("$INNER") OUTERS+=("$OUTER")
    done
    CFG_KEY='' CFG_KEY_PREVIOUS=''
}

on_signal() { STOPPING=1; printf '\n' >&"$NAP"; }

begin() {
    trap '' PIPE XFSZ   # a closed log or a file size limit is an error to handle, no reason to die
    NAP='' SIDE=''
    exec {NAP}<> <(:)
    side_pipe
    trap on_signal TERM INT
    trap 'SAMPLE_NOW=1; printf "\n" >&"$NAP"' USR1
    STOPPING=0 SAMPLE_NOW=0 LOCKED=0
    local seed
    read -r seed </proc/sys/kernel/random/uuid
    RANDOM=$((16#${seed:0:4}))   # cloned hosts start with equal pids
    now
    epoch
    STARTED=$NOW STARTED_AT=$EPOCH
    page_size
}

finish() {
    ((LOCKED)) || return
    [[ -z $FLIGHT_PID ]] || kill -KILL -- "-$FLIGHT_PID" 2>/dev/null
    ((${#MEMORY[@]} == 0)) || drop ${#MEMORY[@]} 'stopped while the disk took no more'
    write_status "$1"
    rm -f -- "$LOCK"
}

sample_and_store() {
    SAMPLE_NOW=0
    take_sample || return
    keep_counters   # before: a number that was given is not given again, whatever happens now
    store_record
}

# next_sample FIRST: one interval after the last one was due, and a random part of it; late ones are not made up for.
# After the first sample, which is made at once, a host finds a place of its own in the interval.
next_sample() {
    if (($1)); then
        random_below $((CFG_INTERVAL_S / 2))
        DUE=$((NOW + CFG_INTERVAL_S - RANDOM_BELOW))
        return
    fi
    local spread=$((CFG_INTERVAL_S * CFG_JITTER_PERCENT / 100))
    random_below $((spread * 2 + 1))
    DUE=$((DUE + CFG_INTERVAL_S - spread + RANDOM_BELOW))
    now
    ((DUE > NOW)) || DUE=$((NOW + 10))
}

# The event loop. After a signal it delivers what waits, until the first failure or STOP_TIMEOUT_S.
run() {
    local ending=0 until=0 first=1 changed=0
    now
    DUE=$NOW
    while :; do
        now
        if ((STOPPING && !ending)); then ending=1 until=$((NOW + CFG_STOP_TIMEOUT_S)); fi   # one look at a flag that a signal sets
        if ((!ending && (NOW >= DUE || SAMPLE_NOW))); then
            ((NOW < DUE)) || next_sample $first
            first=0 changed=1
            sample_and_store
            now
        fi
        if [[ -n $FLIGHT_PID ]] && ((NOW >= FLIGHT_UNTIL)); then give_up_flight; changed=1; fi
        if may_deliver && ((!ending || NOW < until)); then
            start_delivery $((ending ? until - NOW : CFG_REQUEST_TIMEOUT_S))   # its end writes the status
        elif ((changed)); then
            write_status running
            changed=0
        fi
        if ((ending)) && { [[ -z $FLIGHT_PID ]] || ((NOW >= until)); }; then break; fi
        nap_until $((ending ? until : DUE))
        [[ $LINE != F\ * ]] || { landed "$LINE"; changed=1; }
    done
    finish stopped
}

may_deliver() { [[ -z $FLIGHT_PID ]] && ((DEPTH > 0 && NOW >= NEXT_TRY)); }

give_up_flight() {
    kill -KILL -- "-$FLIGHT_PID" 2>/dev/null
    end_flight
    put_off 0 'the delivery did not end in its time and was killed'
}

# nap_until TIME: or until the delivery on its way is overdue, or the next one may begin, or something happens.
nap_until() {
    local until=$1
    if [[ -n $FLIGHT_PID ]]; then
        ((FLIGHT_UNTIL >= until)) || until=$FLIGHT_UNTIL
    elif ((DEPTH > 0 && NEXT_TRY > NOW && NEXT_TRY < until)); then
        until=$NEXT_TRY
    fi
    now
    nap $((until - NOW))
}

once() {
    local until
    sleep_random "$1"
    ((STOPPING)) && { finish stopped; return; }
    if [[ -r $CFG_STATE_DIR/previous ]]; then
        IFS= read -r -d '' PREVIOUS <"$CFG_STATE_DIR/previous"
    fi
    sample_and_store
    { printf '%s' "$PREVIOUS" >"$CFG_STATE_DIR/previous"; } 2>/dev/null
    now
    until=$((NOW + CFG_REQUEST_TIMEOUT_S * 2))
    while now; may_deliver && ((NOW < until && !STOPPING)); do
        start_delivery $((until - NOW)) || break
        while [[ -n $FLIGHT_PID ]]; do
            now
            ((NOW < FLIGHT_UNTIL && !STOPPING)) || { give_up_flight; break; }
            nap $((FLIGHT_UNTIL - NOW))
            [[ $LINE != F\ * ]] || landed "$LINE"
        done
    done
    finish stopped
    ((DEPTH == 0)) || exit $EXIT_FAILED
}

# print_sample FILE: one record on standard output; rates since the readings in FILE, where one is named.
print_sample() {
    if [[ -n $1 && -r $1 ]]; then
        IFS= read -r -d '' PREVIOUS <"$1"
    fi
    take_sample || exit $EXIT_FAILED
    printf '%s\n' "$RECORD"
    [[ -z $1 ]] || { printf '%s' "$PREVIOUS" >"$1.tmp" && mv -f -- "$1.tmp" "$1"; } 2>/dev/null
}

sleep_random() {
    local until
    random_below $(($1 * 1000 + 1))
    now
    until=$((NOW + RANDOM_BELOW))
    while ((NOW < until && !STOPPING)); do nap $((until - NOW)); now; done
}

check() {
    if eval "$2"; then
        printf 'ok    %s\n' "$1"
    else
        printf 'FAIL  %s\n' "$1"
        FAULTS=$((FAULTS + 1))
    fi
}

# The examples are of RFC 4231 and RFC 9110.
# shellcheck disable=SC2016
selftest() {
    FAULTS=0
    check "bash ${BASH_VERSION%%(*} is new enough" 'true'
    check 'the signature is HMAC-SHA256' 'key_pads Jefe; hmac "what do ya want for nothing?"
        [[ $HMAC == 5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843 ]]'
    check 'dates of HTTP are understood' 'http_date "Sun, 06 Nov 1994 08:49:37 GMT"; ((HTTP_DATE == 784111777))'
    check 'a sample can be made' 'take_sample'
    [[ -r $CFG_PROC/1/stat ]] || printf "note  %s hides other users' processes (hidepid)\n" "$CFG_PROC"
    ((HAVE_GZIP)) || printf 'note  gzip is not there: records are sent and kept uncompressed\n'
    ((!HAVE_GZIP)) || check 'gzip works' '[[ $(printf fazai | gzip -c | gzip -dc) == fazai ]]'
    check "$CFG_STATE_DIR can be written" '{ : >"$CFG_STATE_DIR/selftest.tmp"; } 2>/dev/null && rm -f -- "$CFG_STATE_DIR/selftest.tmp"'
    check 'a server is set' '[[ -n $URL ]]'
    ((FAULTS == 0)) || exit $EXIT_FAILED
}

main() {
    local config='' splay=0 readings=''
    MODE=run CFG_LOG_FORMAT=text
    while (($#)); do
        case $1 in
        --config | --splay | --readings)
            (($# > 1)) || { problem "$1: a value is missing"; break; }
            case $1 in --config) config=$2 ;; --splay) splay=$2 ;; *) readings=$2 ;; esac
            shift
            ;;
        --once | --print | --selftest)
            [[ $MODE == run ]] || problem "$1: only one of --once, --print, --selftest"
            MODE=${1#--}
            ;;
        --version) printf '%s\n' "$VERSION"; exit 0 ;;
        --help) usage; exit 0 ;;
        *) problem "${1//[^ -~]/?}: no such option; telemetry.sh --help lists them" ;;
        esac
        shift
    done
    [[ $splay =~ ^[0-9]{1,5}$ ]] || problem '--splay: expected whole seconds'
    ((PROBLEMS == 0)) || exit $EXIT_INPUT
    ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 402)) || problem "bash ${BASH_VERSION%%(*}: 4.2 or newer is needed"
    read_settings "$config"
    find_tools
    ((PROBLEMS == 0)) || exit $EXIT_INPUT
    begin
    read_keys
    read -r BOOT </proc/sys/kernel/random/boot_id
    BOOT=${BOOT%%-*}
    case $MODE in
    print) print_sample "$readings" ;;
    selftest) selftest ;;
    *)
        open_spool || exit $EXIT_INPUT
        resume_backoff
        [[ $CFG_TLS_VERIFY == yes ]] || log warning 'the server'"'"'s certificate is not checked: FAZAI_AGENT_TLS_VERIFY=no'
        if [[ $MODE == once ]]; then once "$splay"; else run; fi
        ;;
    esac
}

main "$@"
