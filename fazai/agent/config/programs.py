"""Reads one entry of `programs`: the allow-list of command.exec."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fazai.agent.config.fields import Fields, Mistakes, describe
from fazai.agent.config.settings import ProgramLimits, ProgramRule
from fazai.policy.arguments import ArgumentRule, compile_pattern

if TYPE_CHECKING:
    from fazai.agent.config.yamltext import Node

PATTERN_MAX = 2000
_KEYS = ("path", "name", "args", "user", "timeout", "output", "cwd", "env", "stdin", "write", "limits")
_ARGUMENT_KEYS = ("text", "pattern", "optional", "rest", "dash")
_USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}(?::[A-Za-z_][A-Za-z0-9_.-]{0,31})?|[0-9]{1,10}:[0-9]{1,10}"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

#: With these, whoever sets them has programs run something else, or load it, or read other settings.
_PREFIXES_TEXT = """
_LD_ LD_ DYLD_ GIT_ PYTHON PERL RUBY NODE_ NPM_ JAVA_ _JAVA JDK_ LUA_ PHP GEM_ BUNDLE_ LESS BASH_ MALLOC_
GLIBC_ GCONV_ SSH_ RSYNC_ TAR_ GTK_ QT_ XDG_ SUDO_ DOCKER_ KUBE HELM_ ANSIBLE_ VIM GDB CARGO_ RUST GOFLAGS
GODEBUG GOPATH TCL SYSTEMD_ SYSTEMCTL_ DBUS_ OPENSSL_ CURL_ WGET PG MYSQL_ TERMINFO AWK GREP_ GZIP BZIP
XZ_ ZSTD_ GPG GNUPG KRB5_ NMAP WIRESHARK ODBC ORACLE_ TNS_ PKG_ APT_ DPKG_ RPM_ YUM DNF_ SCREEN TMUX
SSL_CERT UNZIP ZIP HIST
"""
_FORBIDDEN_PREFIXES = tuple(_PREFIXES_TEXT.split())
_NAMES_TEXT = """
PATH ENV IFS CDPATH FPATH MANPATH INFOPATH ZDOTDIR SHELL SHELLOPTS BASHOPTS PS0 PS1 PS2 PS3 PS4
PROMPT_COMMAND HOME USER LOGNAME PWD OLDPWD TMPDIR TEMP TMP EDITOR VISUAL FCEDIT PAGER MANPAGER MANOPT
BROWSER TERMCAP TERMPATH LOCPATH NLSPATH HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_HOST_CONF CLASSPATH
SSLKEYLOGFILE NETRC INPUTRC POSIXLY_CORRECT MAIL MAILCAPS MAKEFLAGS MAKEFILES MFLAGS CC CXX AR EXINIT
NEXINIT R_PROFILE R_ENVIRON LD AS NM CPP CFLAGS LDFLAGS TZDIR GETCONF_DIR
"""
_FORBIDDEN_NAMES = frozenset(_NAMES_TEXT.split())


def is_forbidden_variable(name: str) -> bool:
    """Tell whether a request may never set this variable, whatever the configuration says."""
    return name.upper() in _FORBIDDEN_NAMES or name.upper().startswith(_FORBIDDEN_PREFIXES)


def read_program(node: Node, output_max: int, mistakes: Mistakes) -> ProgramRule:
    """Read one entry; what is wrong with it is added to the mistakes."""
    fields = Fields(node, "a program", _KEYS, mistakes)
    path = fields.path("path")
    if isinstance(node.value, dict) and fields.node("path") is None:
        fields.missing("path")
    return ProgramRule(
        path=path,
        name=fields.text("name", pattern=r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", what="a name without slashes")
        or None,
        args=_read_arguments(fields),
        user=fields.text("user", pattern=_USER, what="NAME, NAME:GROUP or UID:GID") or None,
        timeout_s=fields.fraction("timeout", 60, 0.001, 3600),
        output=fields.number("output", min(256 * 1024, output_max), 0, output_max),
        cwd=fields.paths("cwd"),
        env=_read_env(fields),
        stdin=fields.switch("stdin"),
        write=fields.paths("write") if fields.node("write") is not None else None,
        limits=_read_limits(fields),
        line=node.line,
    )


def _read_arguments(fields: Fields) -> tuple[ArgumentRule, ...]:
    nodes = list(fields.items("args"))
    found = []
    for index, node in enumerate(nodes):
        rule = _read_argument(fields, node)
        if rule.rest and index < len(nodes) - 1:
            fields.mistakes.add(node.line, "`rest: true` belongs to the last argument")
        found.append(rule)
    return tuple(found)


def _read_argument(fields: Fields, node: Node) -> ArgumentRule:
    if isinstance(node.value, str) and "\0" not in node.value:
        return ArgumentRule(literal=node.value, line=node.line)
    if not isinstance(node.value, dict):
        hint = "put it in quotes" if isinstance(node.value, (bool, int, float)) else None
        fields.mistakes.add(
            node.line, f"an argument must be a text or {{pattern: …}}, not {describe(node)}", hint
        )
        return ArgumentRule(literal="", line=node.line)
    inner = Fields(node, "an argument", _ARGUMENT_KEYS, fields.mistakes)
    literal = inner.text("text") if inner.node("text") is not None else None
    pattern = read_pattern(inner, inner.node("pattern"), "pattern")
    if (inner.node("text") is None) == (inner.node("pattern") is None):
        fields.mistakes.add(node.line, "an argument needs either `pattern` or `text`")
    rest, dash = inner.switch("rest"), inner.switch("dash")
    if literal is not None and (rest or dash):
        fields.mistakes.add(node.line, "`rest` and `dash` belong to a `pattern`")
    return ArgumentRule(literal, pattern, inner.switch("optional"), rest, dash, node.line)


def read_pattern(fields: Fields, node: Node | None, key: str) -> str | None:
    """Read a regular expression and see that it is one; None where there is none."""
    if node is None:
        return None
    pattern = fields.text_of(node, key, what="a regular expression")
    if not pattern:
        return None
    if len(pattern) > PATTERN_MAX:
        fields.mistakes.add(node.line, f"a pattern has at most {PATTERN_MAX} characters")
        return None
    try:
        compile_pattern(pattern)
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        fields.mistakes.add(node.line, f"`{key}` is no regular expression: {error}")
        return None
    return pattern


def _read_env(fields: Fields) -> tuple[tuple[str, str], ...]:
    node = fields.node("env")
    if node is None:
        return ()
    if not isinstance(node.value, dict):
        fields.wrong("env", f"`env` must be a mapping of names to patterns, not {describe(node)}")
        return ()
    found = []
    for name, child in node.value.items():
        if not _ENV_NAME.fullmatch(name):
            fields.mistakes.add(child.key_line, f'"{name[:80]}" is no name of a variable')
        elif is_forbidden_variable(name):
            fields.mistakes.add(
                child.key_line,
                f"{name} may never be set by a request",
                "with it a program can be made to run, load or read something else",
            )
        else:
            pattern = read_pattern(fields, child, name)
            if child.value is None:
                fields.mistakes.add(child.key_line, f"{name} needs a pattern")
            found.append((name, pattern or ""))
    return tuple(found)


def _read_limits(fields: Fields) -> ProgramLimits:
    inner = fields.mapping("limits", ("memory", "processes", "cpu_seconds", "files"))
    if inner is None:
        return ProgramLimits()
    return ProgramLimits(
        memory=inner.number("memory", 0, 1024 * 1024, 1 << 50) or None,
        processes=inner.number("processes", 0, 1, 1_000_000) or None,
        cpu_seconds=inner.number("cpu_seconds", 0, 1, 1_000_000) or None,
        files=inner.number("files", 0, 8, 1_000_000) or None,
    )
