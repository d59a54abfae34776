"""Reads agent.yml into an AgentConfig, strictly: what is unknown or mistyped is refused, all of it at once.

Only the file itself is looked at. Whether the key is private, the state folder ours and a program there is
checked by who uses them.
"""

from __future__ import annotations

import os
import re
import stat

from fazai.agent.config.fields import Fields, Mistakes, describe
from fazai.agent.config.programs import read_program
from fazai.agent.config.settings import (
    AgentConfig,
    AgentLimits,
    DaemonAddress,
    FilesRoot,
    ProgramRule,
    ProxyAddress,
    ReconcileRule,
    TelemetryRule,
)
from fazai.agent.config.yamltext import MAX_BYTES, read_yaml
from fazai.agent.errors import ConfigError
from fazai.errors import missing_file, raise_found

DEFAULT_CONFIG = "/etc/fazai/agent.yml"
#: A southbound id (SPEC.md), which is also a certificate's common name.
AGENT_ID = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
_ADDRESS = re.compile(r"(wss|https)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?")
_PROXY = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})/?")
_MISSING = "--config FILE; or have one written: fazai agent enrol --daemon wss://HOST:3121 --name NAME"
#: A kind, or one of its fields that runs a program, such as host.file.validate.
_KIND = r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*){1,2}"
_SAMPLES = "processes|netstat|iostat|os|cpu|mem|swap|disk|io|net|sockets|top|uptime|users|failed_units|checks"
_SETTINGS = (
    "agent_id",
    "name",
    "daemon",
    "ca",
    "certificate",
    "key",
    "signing_key",
    "proxy",
    "proxy_credentials",
    "state",
    "root",
    "programs",
    "files",
    "reconcile",
    "telemetry",
    "limits",
)


def load_config(path: str | os.PathLike[str] = DEFAULT_CONFIG, *, guarded: bool = False) -> AgentConfig:
    """Read the configuration; `guarded`: it is no policy where somebody else can write it. Raises
    ConfigError, or Errors where there are several."""
    name = os.fspath(path)
    return parse_config(_read_file(name, guarded), name)


def _read_file(name: str, guarded: bool) -> bytes:
    try:
        # without O_NONBLOCK a pipe would be waited for
        with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError("this is no regular file", where=name)
            if guarded:
                _refuse_foreign(found, "it", name)
                folder = os.path.dirname(os.path.realpath(name))
                _refuse_foreign(os.stat(folder), f"its folder {folder}", name)
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise missing_file(ConfigError, "configuration of the agent", name, _MISSING) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"it cannot be read: {reason}", where=name) from None


def _refuse_foreign(found: os.stat_result, what: str, name: str) -> None:
    """Check that nobody else decides what the configuration says: with it he would be the agent's user.
    Raises ConfigError."""
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{what} belongs to user {found.st_uid}, who could have the agent run anything", where=name
        )
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:  # only owners rename in it
        return
    foreign = found.st_gid not in (0, os.getegid())
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and foreign):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        text = f"others may write to {what} (mode {mode}), and have the agent run anything"
        raise ConfigError(text, where=name, hint="chmod go-w")


def parse_config(data: bytes, name: str) -> AgentConfig:
    """Read the text of a configuration; `name` stands in errors. Raises ConfigError or Errors."""
    mistakes = Mistakes(name)
    node = read_yaml(data, name)
    if node.value is None:
        raise ConfigError("it is empty", where=name, hint="see docs/agents.md for what belongs here")
    top = Fields(node, "the configuration", _SETTINGS, mistakes)
    needed = [key for key in ("agent_id", "daemon", "ca", "certificate", "key") if top.node(key) is None]
    if isinstance(node.value, dict):
        for key in needed:
            top.missing(key)
    limits = _read_limits(top)
    config = AgentConfig(
        file=name,
        agent_id=top.text(
            "agent_id", pattern=AGENT_ID, what="a name of letters, digits, `.`, `_`, `-`, at most 64"
        ),
        name=top.text("name", pattern=r"[^\x00-\x1f\x7f]{1,256}", what="a line of at most 256 characters"),
        daemon=_read_addresses(top),
        ca=top.path("ca"),
        certificate=top.path("certificate"),
        key=top.path("key"),
        signing_key=top.path("signing_key") or None,
        proxy=_read_proxy(top),
        state=top.path("state", "/var/lib/fazai-remote"),
        root=top.path("root", "/"),
        programs=_read_programs(top, limits),
        files=_read_files(top),
        reconcile=_read_reconcile(top),
        telemetry=_read_telemetry(top),
        limits=limits,
    )
    if config.signing_key is None and any(address.scheme == "https" for address in config.daemon):
        top.wrong("daemon", "https:// needs `signing_key`, the file with the key that signs each request")
    raise_found(mistakes.errors)
    return config


def _read_addresses(top: Fields) -> tuple[DaemonAddress, ...]:
    node = top.node("daemon")
    if node is None:
        return ()
    nodes = node.value if isinstance(node.value, list) else [node]
    found = []
    for each in nodes:
        text = top.text_of(each, "daemon", what="an address such as wss://HOST:3121")
        match = _ADDRESS.fullmatch(text) if text else None
        port = int(match[3] or 3121) if match else 0
        if match and 0 < port < 65536:
            found.append(DaemonAddress(match[1], match[2].strip("[]"), port))
        elif text:
            hint = "wss:// for a WebSocket, https:// for signed HTTP; no path, no user"
            top.mistakes.add(
                each.line, f'`daemon` must be wss://HOST:PORT or https://HOST:PORT, not "{text[:80]}"', hint
            )
    if not nodes:
        top.mistakes.add(node.line, "`daemon` is an empty list")
    return tuple(found)


def _read_proxy(top: Fields) -> ProxyAddress | None:
    node = top.node("proxy")
    credentials: str | None = top.path("proxy_credentials") or None
    if node is None:
        if credentials is not None:
            top.wrong("proxy_credentials", "`proxy_credentials` is of no use without `proxy`")
        return None
    text = top.text_of(node, "proxy", what="an address such as http://HOST:PORT")
    try:
        return parse_proxy(text, credentials) if text else None
    except ConfigError as error:
        top.mistakes.add(node.line, f"`proxy` {error.message}", error.hint)
        return None


def parse_proxy(text: str, credentials: str | None = None) -> ProxyAddress:
    """Return the proxy that an address names. Raises ConfigError."""
    if "@" in text:  # no word of it is shown: a password may stand there
        raise ConfigError(
            "has no user and no password", hint="`proxy_credentials: FILE`, with one line USER:PASSWORD"
        )
    match = _PROXY.fullmatch(text)
    port = int(match[2]) if match else 0
    if not match or not 0 < port < 65536:
        hint = "TLS to a proxy (https://) is not spoken" if text.startswith("https:") else None
        raise ConfigError(f'must be http://HOST:PORT, not "{text[:80]}"', hint=hint)
    return ProxyAddress(match[1].strip("[]"), port, credentials)


def _read_programs(top: Fields, limits: AgentLimits) -> tuple[ProgramRule, ...]:
    found = [read_program(node, limits.output, top.mistakes) for node in top.items("programs")]
    named: dict[str, ProgramRule] = {}
    for rule in found:
        if rule.name is not None and named.setdefault(rule.name, rule).path != rule.path:
            first = named[rule.name]
            top.mistakes.add(
                rule.line, f'the name "{rule.name}" already stands for {first.path} (line {first.line})'
            )
    return tuple(found)


def _read_files(top: Fields) -> tuple[FilesRoot, ...]:
    found: list[FilesRoot] = []
    for node in top.items("files"):
        fields = Fields(node, "an entry of `files`", ("root", "write", "read"), top.mistakes)
        root = fields.path("root")
        if isinstance(node.value, dict) and fields.node("root") is None:
            fields.missing("root")
        if any(root and each.root == root for each in found):
            fields.wrong("root", f"{root} stands in `files` twice")
        found.append(FilesRoot(root, fields.switch("write"), node.line, fields.switch("read")))
    return tuple(found)


def _read_reconcile(top: Fields) -> ReconcileRule:
    fields = top.mapping("reconcile", ("mode", "kinds", "paths", "hold"))
    if fields is None:
        return ReconcileRule()
    node = fields.node("mode")
    mode = "no"
    if node is not None:  # `no` and `yes` are truth values to YAML
        value = node.value
        mode = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        if mode not in ("no", "look", "yes"):
            fields.wrong("mode", f"`mode` must be no, look or yes, not {describe(node)}")
    kinds = fields.texts("kinds", pattern=_KIND, what="a kind such as host.file")
    paths = fields.paths("paths")
    return ReconcileRule(
        mode=mode,
        kinds=kinds if fields.node("kinds") is not None else None,
        paths=paths if fields.node("paths") is not None else None,
        hold_s=fields.number("hold", 600, 1, 86_400),
    )


def _read_telemetry(top: Fields) -> TelemetryRule | None:
    known = (
        "interval jitter_percent hostname sample top_n checks_dir checks_every check_timeout units_every"
        " spool_max_bytes spool_max_age batch_records batch_bytes proc"
    )
    fields = top.mapping("telemetry", known.split())
    if fields is None:
        return None
    return TelemetryRule(
        interval_s=fields.fraction("interval", 60, 0.05, 86_400),
        jitter_percent=fields.number("jitter_percent", 10, 0, 50),
        hostname=fields.text("hostname", pattern=r"[A-Za-z0-9._-]{1,253}", what="a host's name") or None,
        sample=fields.texts("sample", pattern=_SAMPLES, what=f"one of {_SAMPLES.replace('|', ', ')}"),
        top_n=fields.number("top_n", 10, 0, 100),
        checks_dir=fields.path("checks_dir", "/etc/fazai/checks.d"),
        checks_every_s=fields.fraction("checks_every", 60, 1, 86_400),
        check_timeout_s=fields.fraction("check_timeout", 5, 0.1, 300),
        units_every_s=fields.fraction("units_every", 300, 1, 86_400),
        spool_max_bytes=fields.number("spool_max_bytes", 20_000_000, 65_536, 10**10),
        spool_max_age_s=fields.number("spool_max_age", 86_400, 60, 31_536_000),
        batch_records=fields.number("batch_records", 60, 1, 1000),
        batch_bytes=fields.number("batch_bytes", 262_144, 4096, 1_048_576),
        proc=fields.path("proc", "/proc"),
    )


def _read_limits(top: Fields) -> AgentLimits:
    fields = top.mapping("limits", ("journal", "output"))
    if fields is None:
        return AgentLimits()
    return AgentLimits(
        journal=fields.number("journal", 64 * 1024 * 1024, 1024 * 1024, 10**10),
        output=fields.number("output", 1024 * 1024, 1024, 64 * 1024 * 1024),
    )
