"""Says in plain sentences what agent.yml allows, and warns of what it may allow without meaning to."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from typing import TYPE_CHECKING

from fazai.agent.config.launchers import describe_launcher
from fazai.agent.config.policy import ExecRequest, find_rule
from fazai.agent.config.probing import find_remarks, find_slow_text
from fazai.agent.errors import Refused
from fazai.errors import count_noun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fazai.agent.config.settings import AgentConfig, ProgramRule
    from fazai.policy.arguments import ArgumentRule

_INDENT = "    "


def explain_config(config: AgentConfig) -> list[str]:
    """Return what the configuration allows, a sentence or a part of one on each line."""
    through = "" if config.proxy is None else f", through the proxy {config.proxy}"
    lines = [f"{config.agent_id} connects to {', then '.join(map(str, config.daemon))}{through}."]
    if config.root != "/":
        lines.append(f"{config.root} stands for / where files and reconciling are meant.")
    lines.append(_explain_programs(config))
    for rule in config.programs:
        lines += _explain_program(rule)
    lines += _explain_files(config)
    lines += _explain_reconciling(config)
    telemetry = config.telemetry
    lines.append(
        f"Telemetry is sent every {telemetry.interval_s:g} s." if telemetry else "No telemetry is sent."
    )
    return lines


def _explain_programs(config: AgentConfig) -> str:
    if not config.programs:
        return "The daemon can run no program (command.exec)."
    return f"The daemon can run {count_noun(len(config.programs), 'program')} (command.exec):"


def _explain_program(rule: ProgramRule) -> Iterator[str]:
    named = f" ({rule.name})" if rule.name else ""
    yield f"  {' '.join([rule.path, *map(_show_argument, rule.args)])}{named}"
    parts = [f"as {rule.user}" if rule.user else "as the agent's user"]
    parts.append(f"for {rule.timeout_s:g} s at most")
    parts.append(f"{rule.output} bytes of output")
    if rule.stdin:
        parts.append("with standard input")
    if rule.cwd:
        parts.append(f"in / or below {', '.join(rule.cwd)}")
    yield _INDENT + ", ".join(parts)
    for name, pattern in rule.env:
        yield f"{_INDENT}{name} may be set to what fits {pattern}"
    if rule.write is not None:
        yield (
            f"{_INDENT}writes only below {', '.join(rule.write)}"
            if rule.write
            else f"{_INDENT}writes nothing"
        )
    limits = rule.limits
    bounds = [
        f"{value} {what}"
        for value, what in (
            (limits.memory, "bytes of memory"),
            (limits.processes, "processes"),
            (limits.cpu_seconds, "s of CPU"),
            (limits.files, "open files"),
        )
        if value is not None
    ]
    if bounds:
        yield f"{_INDENT}with at most {', '.join(bounds)}"


def _show_argument(rule: ArgumentRule) -> str:
    text = rule.literal if rule.literal is not None else f"<{rule.pattern}>"
    if rule.literal is not None and (not text or any(c in text for c in " <>[]'\"\\")):
        text = f'"{text}"'
    if rule.rest:
        text += "…"
    return f"[{text}]" if rule.optional else text


def _explain_files(config: AgentConfig) -> Iterator[str]:
    if not config.files:
        yield "The daemon can compare, replace and fetch no file (file.diff, file.apply, file.read)."
    for root in config.files:
        verbs = ["compare", *(["replace"] if root.write else []), *(["fetch"] if root.read else [])]
        words = " and ".join([", ".join(verbs[:-1]), verbs[-1]]) if verbs[1:] else verbs[0]
        yield f"The daemon can {words} files below {root.root}."


def _explain_reconciling(config: AgentConfig) -> Iterator[str]:
    rule = config.reconcile
    if rule.mode == "no":
        yield "The machine cannot be reconciled, nor looked at for that."
        return
    kinds = (
        "every kind but those that run a text" if rule.kinds is None else ", ".join(rule.kinds) or "no kind"
    )
    paths = (
        "everywhere" if rule.paths is None else f"below {', '.join(rule.paths)}" if rule.paths else "nowhere"
    )
    verb = "looked at, not changed" if rule.mode == "look" else "reconciled"
    yield f"The machine can be {verb}: {kinds}, {paths}."


#: What `run` does where `check` only warns.
_NOT_RUN = "; an agent does not start with it: chmod go-w"


def find_warnings(config: AgentConfig) -> list[str]:
    """Return what should be looked at again, each with its place. Must be called in the main thread."""
    found = [f"{config.file}: {text}" for text in _check_file(config.file, "this file")]
    found = [text + _NOT_RUN if "can write this file" in text else text for text in found]
    if config.reconcile.mode == "yes" and config.reconcile.paths is None and config.root == "/":
        found.append(f"{config.file}: the whole machine can be reconciled (`paths` bounds that)")
    if config.telemetry and not sys.platform.startswith("linux"):
        found.append(f"{config.file}: telemetry is taken on Linux alone: the sampler reads its /proc")
    for root in config.files:
        if root.write and root.root in ("/", "/etc", "/usr", "/root", "/bin", "/sbin"):
            found.append(
                f"{config.file}:{root.line}: every file below {root.root} can be replaced, also this one"
            )
        if root.read and root.root in ("/", "/etc", "/root", "/home", "/var", "/srv"):
            found.append(f"{config.file}:{root.line}: every file below {root.root} can be fetched, also keys")
    for rule in config.programs:
        for text in _check_program(rule):
            found.append(f"{config.file}:{rule.line}: {rule.path}: {text}")
    return found


def _check_program(rule: ProgramRule) -> Iterator[str]:
    yield from _check_executable(rule.path)
    free = any(each.pattern is not None for each in rule.args) or rule.stdin or bool(rule.env)
    launcher = describe_launcher(os.path.realpath(rule.path)) or describe_launcher(rule.path)
    if launcher and free:
        yield f"it {launcher}; make sure that no free place leads there"
    for number, argument in enumerate(rule.args, 1):
        if argument.pattern is None:
            continue
        for text in _check_pattern(argument.pattern):
            yield f"argument {number}: {text}"
        if argument.dash:
            yield f"argument {number}: a value may be taken for an option (`dash: true`)"
    for name, pattern in rule.env:
        for text in _check_pattern(pattern):
            yield f"{name}: {text}"
    yield from _check_confinement(rule)


def _check_pattern(pattern: str) -> Iterator[str]:
    for remark in find_remarks(pattern):
        yield f"the pattern {pattern} {remark}"
    slow = find_slow_text(pattern)
    if slow is not None:
        yield f"the pattern {pattern} may take for ever, such as on {slow}; then nothing is run"


def _check_confinement(rule: ProgramRule) -> Iterator[str]:
    from fazai.agent.execution import landlock, launching

    if rule.write is not None:
        missing = landlock.missing_rights(landlock.read_abi())
        if missing:
            yield f"`write` cannot be kept: {missing}" + (
                ", so it is not run" if landlock.read_abi() == 0 else ""
            )
    try:
        user = launching.find_user(rule.user)
    except Refused as error:
        yield error.message
        return
    if user.uid == 0 and rule.limits.processes is not None:
        yield "the number of root's processes is limited by a cgroup only; where there is none it is not run"


def _check_executable(path: str) -> Iterator[str]:
    """Say why somebody else may put another program in the place of this one."""
    real = os.path.realpath(path)
    if not os.path.exists(real):
        yield "it is not there"
        return
    if not os.path.isfile(real) or not os.access(real, os.X_OK):
        yield "it is no program that can be run"
        return
    yield from _check_file(path, "it")
    if real != path:
        yield from (f"it is a link: {text}" for text in _check_file(real, real))


def _check_file(path: str, name: str) -> Iterator[str]:
    """Say who can replace or change a file: by itself, or by a folder above it."""
    try:
        yield from _check_mode(os.stat(path), name, sticky_is_safe=False)
        folder = os.path.dirname(os.path.abspath(path))
        while True:
            yield from _check_mode(os.stat(folder), f"the folder {folder}", sticky_is_safe=True)
            if folder == "/":
                return
            folder = os.path.dirname(folder)
    except OSError as error:
        yield f"{error.filename}: {error.strerror}"


def _check_mode(found: os.stat_result, name: str, *, sticky_is_safe: bool) -> Iterator[str]:
    sticky = sticky_is_safe and found.st_mode & stat.S_ISVTX  # only owners rename in it
    if found.st_mode & 0o002 and not sticky:
        yield f"anybody can write {name} (mode {stat.S_IMODE(found.st_mode):04o})"
    elif found.st_mode & 0o020 and found.st_gid != 0 and not sticky:
        yield f"the group {found.st_gid} can write {name} (mode {stat.S_IMODE(found.st_mode):04o})"
    if found.st_uid not in (0, os.geteuid()):
        yield f"{name} belongs to the user {found.st_uid}, who can replace it"


def explain_request(request: ExecRequest, config: AgentConfig) -> list[str]:
    """Return how this would be run, a part on each line. Raises Refused where it would not."""
    rule = find_rule(request, config.programs)
    words = " ".join(map(shlex.quote, (rule.path, *request.args)))
    return [f"it would run, by {config.file}:{rule.line}: {words}", *list(_explain_program(rule))[1:]]
