"""host.download"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fazai.model import FieldSpec, Problem, Value
from fazai.providers.hosts.blob import reveal_text
from fazai.providers.hosts.kind import PRESENCE, Act, Answers, Block, Difference, Have, HostKind, Want
from fazai.providers.hosts.kinds.shared.paths import WholePathKind
from fazai.providers.hosts.shell import writing
from fazai.providers.hosts.shell.preconditions import Precondition
from fazai.providers.hosts.shell.questions import FileAt, OutputOf, PathState, Question, find_output
from fazai.providers.hosts.shell.quoting import quote

_URL: Final = re.compile(r"(?:https?|ftp)://[^\s/@]+(?:[/?#]\S*)?", re.ASCII)
_CHECKSUM: Final = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TIMEOUT_S: Final = 600
_SHA512: Final = """if command -v sha512sum >/dev/null 2>&1; then sha512sum
elif command -v sha512 >/dev/null 2>&1; then sha512 -q; else shasum -a 512; fi"""


class DownloadKind(WholePathKind):
    """A file that the host fetches itself. Its checksum says whether it has the right one."""

    name = "host.download"
    summary = "A file that the host downloads, with a checksum"
    example = (
        'host.download: {url: https://example.com/tool, dest: /usr/local/bin/tool, mode: "0755",'
        " checksum: sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}"
    )
    identity = ("dest",)
    options = frozenset(("url", "headers", "url_username", "url_password", "timeout", "backup", "validate"))
    specs = (
        FieldSpec("dest", "path", "where it is put", required=True),
        FieldSpec("url", "text", "http, https or ftp", required=True),
        FieldSpec("checksum", "text", "sha256:… or sha512:…", required=True),
        *writing.ATTRIBUTES,
        FieldSpec("headers", "map", "sent with the request; secrets may be among them"),
        FieldSpec("url_username", "text", "for HTTP's basic log-in"),
        FieldSpec("url_password", "secret", "for HTTP's basic log-in", secret=True),
        FieldSpec("timeout", "integer", "seconds that it may take", default=_TIMEOUT_S, minimum=1),
        *writing.REPLACING,
        PRESENCE,
    )
    asked = True  # a script compares no sha512

    def problems(self, fields: dict[str, Value], absent: bool) -> Iterable[Problem]:
        yield from writing.check_replacing(fields)
        if "url" in fields and not _URL.fullmatch(fields["url"]):
            hint = "https://…, without a space (%20) or a password (url_password:)"
            yield Problem("url", f'is no address: "{fields["url"]}"', hint)
        if "checksum" in fields:
            fields["checksum"] = fields["checksum"].lower()
            if not _CHECKSUM.fullmatch(fields["checksum"]):
                hint = "sha256: and 64 digits, or sha512: and 128"
                yield Problem("checksum", f'is none: "{fields["checksum"]}"', hint)
        for name, value in fields.get("headers", {}).items():
            if not _HEADER.fullmatch(name) or not reveal_text(value).isprintable():
                yield Problem("headers", f'"{name}" cannot be sent', "one line, as in Authorization: …")
        for name in ("url_username", "url_password"):
            if not reveal_text(fields.get(name, "")).isprintable():
                yield Problem(name, "must be one line")
        if "url_password" in fields and "url_username" not in fields:
            yield Problem("url_username", "is missing beside url_password")

    def question(self, want: Want) -> FileAt:
        return FileAt(self.path(want), hashed=True)

    def ask(self, want: Want) -> Iterable[Question]:
        yield self.question(want)
        if want.fields.get("checksum", "").startswith("sha512:"):
            yield self._sha512_question(want)

    def _sha512_question(self, want: Want) -> OutputOf:
        return OutputOf(f"fz_512() {{\n{_SHA512}\n}}\nfz_with {quote(self.path(want))} fz_512")

    def ask_more(self, want: Want, answers: Answers) -> Iterable[Question]:
        state, sum_ = self._state(want, answers)
        if state.type == "file" and (want.absent or sum_ != want.fields["checksum"]):
            yield self.content_question(want)

    def _state(self, want: Want, answers: Answers) -> tuple[PathState, str]:
        """Return what is there, and its checksum."""
        state = self.path_state(want, answers)
        if not want.fields.get("checksum", "").startswith("sha512:"):
            return state, f"sha256:{state.sha256}"
        answer = find_output(answers, self._sha512_question(want))
        return state, f"sha512:{answer.out.decode('ascii', 'replace').partition(' ')[0].strip()}"

    def read(self, want: Want, answers: Answers) -> Have | None:
        state, sum_ = self._state(want, answers)
        if state.type == "missing":
            return None
        if state.type != "file":
            raise want.error(f"there is a {state.noun}, not a file", "move it away first")
        have = {**writing.seen_attributes(want, state), "checksum": sum_}
        if self.content_question(want) in answers:
            have["content"] = self.kept_content(want, state, answers, private=not state.mode & 0o004)
        return have

    def compare(self, want: Want, have: Have | None) -> Difference | None:
        """Compare; what is replaced is kept, to be put back."""
        found = HostKind.compare(self, want, have)
        if found is None or have is None:
            return found
        verb, before, after = found
        return verb, {**before, "content": have["content"]} if "checksum" in after else before, after

    def left(self, path: str, act: Act) -> Precondition:
        method, _, digest = act.after.get("checksum", "").partition(":")
        return writing.file_left(path, act, "0644", digest if method == "sha256" else "")

    def put(self, path: str, act: Act) -> Iterator[Block]:
        if "content" in act.after:
            yield from writing.replace_host_file(path, act.after["content"], act, "0644")
        elif "checksum" in act.after:
            yield _fetch_block(path, act)
        else:
            yield writing.change_attributes(path, act)


def _fetch_block(path: str, act: Act) -> Block:
    """Return a block that fetches into a temporary file, which takes the name when the checksum is right.
    Addresses, headers and passwords reach the programs by standard input or a file of ours: no list of
    processes has them."""
    options, timeout_s = act.options, int(act.options.get("timeout", _TIMEOUT_S))
    method, _, digest = act.after["checksum"].partition(":")
    lines = [
        f"set -e; fz_open {quote(path)} {act.token}",
        f'{writing.check_recipient(act)}umask 077; set -C; : >"$fz_tmp"',
        "if command -v curl >/dev/null 2>&1; then set +C",
        f'{_print_lines(_curl_config(options, timeout_s))} | curl -K - -o "$fz_tmp" >&2',
        "elif wget --version 2>/dev/null | grep -q GNU; then",
        f'{_print_lines(_wget_config(options))} >"$fz_tmp.rc"; set +C',
        f'{_print_lines([options["url"]])} | wget -nv --config="$fz_tmp.rc" -O "$fz_tmp" -i - >&2',
        'rm -f "$fz_tmp.rc"',
        "else set +C",
        *_other_programs(options),
        "fi",
        f'fz_sum=$({"fz_hash" if method == "sha256" else _SHA512} <"$fz_tmp"); fz_sum=${{fz_sum%% *}}',
        f'[ "$fz_sum" = {digest} ] || {{',
        f'echo "what came has the checksum {method}:$fz_sum, and $(wc -c <"$fz_tmp") bytes" >&2; exit 1; }}',
        writing.finish_file(act, "0644"),
    ]
    return Block(
        "\n".join(lines), writing.temporary_path(path, act.token), timeout_s=timeout_s + 30.0, compares=True
    )


def _print_lines(lines: Iterable[str]) -> str:
    return "printf '%s\\n' " + " ".join(map(quote, lines))


def _header_lines(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {reveal_text(value)}" for name, value in options.get("headers", {}).items()]


def _read_login(options: Mapping[str, Any]) -> tuple[str, str] | None:
    if "url_username" not in options:
        return None
    return options["url_username"], reveal_text(options.get("url_password", ""))


def _curl_config(options: Mapping[str, Any], timeout_s: int) -> Iterator[str]:
    """Iterate over lines of a configuration of curl."""
    yield from ("silent", "show-error", "fail", "location", "connect-timeout = 30", f"max-time = {timeout_s}")
    pairs = [("url", options["url"]), *(("header", header) for header in _header_lines(options))]
    if (login := _read_login(options)) is not None:
        pairs.append(("user", ":".join(login)))
    for name, value in pairs:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        yield f'{name} = "{escaped}"'


def _wget_config(options: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over lines of a configuration of GNU wget."""
    yield from ("timeout = 60", "tries = 2")
    yield from (f"header = {header}" for header in _header_lines(options))
    if (login := _read_login(options)) is not None:
        user, password = login
        yield from (f"http_user = {user}", f"http_password = {password}", "auth_no_challenge = on")


def _other_programs(options: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over lines for programs that take everything as arguments: busybox's wget, FreeBSD's fetch."""
    if options.get("headers") or "url_username" in options:
        yield "echo 'headers and passwords need curl or GNU wget: others take them as arguments' >&2; exit 1"
        return
    url = quote(options["url"])
    yield f'if command -v wget >/dev/null 2>&1; then wget -q -O "$fz_tmp" {url} >&2'
    yield f'elif command -v fetch >/dev/null 2>&1; then fetch -q -T 60 -o "$fz_tmp" {url} >&2'
    yield "else echo 'there is neither curl nor wget' >&2; exit 1; fi"


KINDS = (DownloadKind(),)
