"""Reads the daemon's configuration file (`fazai daemon --config`, docs/daemon.md). Strict: everything that
is wrong is said at once, with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, cast

from fazai.daemon.gemma.endpoints import read_endpoints
from fazai.daemon.runs.config import (
    AgentsConfig,
    DaemonConfig,
    GemmaLimits,
    Hook,
    Job,
    LoopConfig,
    Polling,
    Retention,
    Schedule,
)
from fazai.daemon.runs.config_notify import read_notify
from fazai.daemon.runs.config_probes import read_probes
from fazai.daemon.runs.config_values import (
    TOP,
    Load,
    Readers,
    Section,
    beside_file,
    choice_reader,
    interval_reader,
    number_reader,
    read_age,
    read_age_of_days,
    read_flag,
    read_heartbeat,
    read_mode,
    read_modes,
    read_named,
    read_pause,
    read_size,
    read_span,
    read_string,
    read_texts,
    read_variables,
    read_window,
    read_zone,
)
from fazai.daemon.runs.schedule import Rhythm, Window
from fazai.errors import FazaiError, InputError, raise_found, spelling_hint
from fazai.inventory.patterns import select_hosts
from fazai.yamltext import YamlList, YamlMap, load_yaml

_TOP_KEYS = (
    *("runs", "webhooks", "opnsense", "gemma", "retention", "agents", "loop", "policy", "rules"),
    *("probes", "notify"),
)
_HOSTS = ("github", "gitlab", "gitea")


def read_daemon_config(path: Path, load_inventory: Load | None = None) -> DaemonConfig:
    """Read the file. With `load_inventory` what it names must be there, too: inventories, playbooks, secrets
    of webhooks, a host for each limit. An inventory that is there and cannot be read now is no reason: a run
    of it says why. Raises YamlError, InputError, Errors with every problem of the file."""
    found = load_yaml(path, what="configuration")
    problems: list[InputError] = []
    if found is None:
        return DaemonConfig()
    if not isinstance(found, YamlMap):
        raise InputError("the daemon's configuration is a mapping", where=found.mark(), hint="runs: …")
    top = Section(found, TOP, problems, path.absolute().parent, load_inventory)
    top.check_keys(*_TOP_KEYS)
    jobs = {job.name: job for job in read_named(top, "runs", _read_job)}
    hooks = tuple(read_named(top, "webhooks", _read_hook))
    _check_hooks(top, hooks, jobs)
    polling, retention = top.read_below("opnsense", Polling(), _POLLING), _read_retention(top)
    gemma = _read_gemma(top)
    agents = top.read_below("agents", AgentsConfig(), _AGENTS)
    loop = top.read_below("loop", LoopConfig(), _LOOP)
    agents = replace(agents, configured=top.node.get("agents") is not None)
    named = {key: top.read(key, read_string, None) for key in ("policy", "rules")}
    files = {key: Path(beside_file(top, text)) for key, text in named.items() if text is not None}
    probes, notify = read_probes(top), read_notify(top)
    raise_found(problems)
    return DaemonConfig(
        jobs=jobs,
        hooks=hooks,
        polling=polling,
        retention=retention,
        gemma=gemma,
        agents=agents,
        loop=loop,
        **files,
        probes=probes,
        notify=notify,
    )


def _read_job(name: str, section: Section) -> Job | None:
    section.check_keys(*_JOB_KEYS)
    inventory = section.require("inventory", read_texts)
    modes = section.read("modes", read_modes, ("check", "approve"))
    schedule = _read_job_schedule(section, modes)
    if inventory is None:
        return None
    playbooks = section.read("playbook", read_texts, ())
    job = Job(
        name=name,
        inventory=tuple(beside_file(section, each) for each in inventory),
        playbooks=tuple(beside_file(section, each) for each in playbooks),
        modes=cast("Any", modes),
        schedule=schedule,
    )
    job = section.read_fields(job, _JOB)
    if job.entries and not {"check", "approve"} <= set(modes):
        section.note_problem(
            "entries", "entries needs the modes check and approve", "modes: [check, approve]"
        )
    if section.load_inventory is not None and _files_are_there(section, job):
        _check_limit(section, job, section.load_inventory)
    return job


def _files_are_there(section: Section, job: Job) -> bool:
    there = True
    for key, paths in (("inventory", job.inventory), ("playbook", job.playbooks)):
        for path in paths:
            if "," not in path and not Path(path).exists():
                section.note_problem(
                    key, f"{key} names {path}, and there is no such file", _nearest_name(Path(path))
                )
                there = False
    return there


def _nearest_name(path: Path) -> str | None:
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent}, either"
    return spelling_hint(path.name, names)


def _check_limit(section: Section, job: Job, load_inventory: Load) -> None:
    if not job.limit:
        return
    try:
        inventory = load_inventory(job.inventory)
    except FazaiError:
        return  # a run of it says so
    try:
        select_hosts(inventory, job.limit)
    except FazaiError as error:
        for each in getattr(error, "errors", (error,)):
            section.note_problem("limit", f"limit: {each.message}", each.hint)


def _read_job_schedule(job: Section, modes: tuple[str, ...]) -> Schedule | None:
    section = job.section_below("schedule")
    if section is None:
        return None
    section.check_keys("every", "jitter", "mode", "windows", "timezone")
    every_s = section.require("every", interval_reader(10))
    jitter_s = section.read("jitter", read_span, 0.0)
    mode = section.read("mode", read_mode, "check")
    zone = section.read("timezone", read_zone, UTC)
    windows: tuple[Window, ...] = ()
    listed = section.node.get("windows")
    if isinstance(listed, YamlList):
        windows = tuple(filter(None, (read_window(section, each) for each in listed)))
    elif listed is not None:
        section.note_problem("windows", "windows is a list", "- {days: mon-fri, from: '01:00', to: '05:00'}")
    if mode not in modes:
        section.note_problem(
            "mode", f"the schedule's mode {mode} is none of the job's modes", "add it to modes:"
        )
    if every_s is None:
        return None
    return Schedule(Rhythm(every_s, jitter_s, windows, zone), cast("Any", mode))


def _read_hook(name: str, section: Section) -> Hook | None:
    section.check_keys("host", "secret_file", "playbook", "mode", "branch")
    host = section.require("host", choice_reader(_HOSTS))
    secret, job = section.require("secret_file", read_string), section.require("playbook", read_string)
    mode = section.read("mode", read_mode, "check")
    branch = section.require("branch", read_string) if "branch" in section.node else None
    if host is None or secret is None or job is None:
        return None
    secret_file = Path(beside_file(section, secret))
    if section.load_inventory is not None and not secret_file.exists():
        text = f"secret_file names {secret_file}, and there is no such file"
        section.note_problem("secret_file", text, "openssl rand -hex 32, in a file of mode 0600")
    return Hook(
        name=name,
        host=cast("Any", host),
        secret_file=secret_file,
        job=job,
        mode=cast("Any", mode),
        branch=branch,
    )


def _check_hooks(top: Section, hooks: tuple[Hook, ...], jobs: dict[str, Job]) -> None:
    for hook in hooks:
        one = replace(top, node=top.node["webhooks"][hook.name], title=f"webhooks.{hook.name}")
        if hook.job not in jobs:
            one.note_problem("playbook", f"runs: has no {hook.job!r}", spelling_hint(hook.job, jobs))
        elif hook.mode not in jobs[hook.job].modes:
            one.note_problem("mode", f"runs.{hook.job} does not allow {hook.mode}", "add it to its modes:")


def _read_gemma(top: Section) -> GemmaLimits:
    section = top.section_below("gemma")
    if section is None:
        return GemmaLimits()
    section.check_keys(*_GEMMA, "endpoints")
    return replace(section.read_fields(GemmaLimits(), _GEMMA), endpoints=read_endpoints(section))


def _read_retention(top: Section) -> Retention:
    section = top.section_below("retention")
    kept = Retention()
    if section is None:
        return kept
    section.check_keys(*_RETENTION_BELOW, *_RETENTION)
    for key, readers in _RETENTION_BELOW.items():
        kept = section.read_below(key, kept, readers)
    return section.read_fields(kept, _RETENTION)


_JOB: Readers = {
    "limit": ("limit", read_texts),
    "delete": ("deletes", read_flag),
    "timeout": ("timeout_s", read_span),
    "plan_ttl": ("plan_ttl_s", read_span),
    "environment": ("environment", read_variables),
    "entries": ("entries", read_flag),
}
_JOB_KEYS = ("inventory", "playbook", "modes", "schedule", *_JOB)
_POLLING: Readers = {
    "poll": ("every_s", interval_reader(5)),
    "at_once": ("at_once", number_reader(1, 1000)),
    "timeout": ("timeout_s", read_span),
}
_GEMMA: Readers = {"sessions": ("sessions", number_reader(1, 1000)), "idle": ("idle_s", read_span)}
_AGENTS: Readers = {
    "host": ("host", read_string),
    "port": ("port", number_reader(0, 65535)),
    "heartbeat": ("heartbeat_s", read_heartbeat),
    "output": ("output_bytes", read_size),
}
_LOOP: Readers = {
    "sessions": ("sessions", number_reader(1, 10_000)),
    "approval": ("approval_s", read_span),
    "iterations": ("iterations", number_reader(1, 200)),
    "tokens": ("tokens", number_reader(1, 1_000_000)),
    "time": ("seconds", interval_reader(1)),
    "read": ("bytes", read_size),
}
_RETENTION_BELOW: Mapping[str, Readers] = {
    "events": {"age": ("events_s", read_age), "size": ("events_bytes", read_size)},
    "telemetry": {"age": ("telemetry_s", read_age), "size": ("telemetry_bytes", read_size)},
    "actions": {"age": ("actions_s", read_age_of_days), "size": ("actions_bytes", read_size)},
    "notes": {
        "count": ("notes", number_reader(10, 1_000_000)),
        "size": ("notes_bytes", read_size),
        "age": ("notes_s", read_age),
    },
    "compaction": {
        "every": ("compact_every_s", read_pause),
        "index": ("index_records", number_reader(1000, 10_000_000)),
    },
}
_RETENTION: Readers = {
    "hosts": ("hosts_s", read_age),
    "runs": ("runs", number_reader(10, 1_000_000)),
    "ledger": ("ledger", number_reader(10, 1_000_000)),
    "deliveries": ("deliveries_s", partial(read_age_of_days, hint="a replay would work after it")),
    "targets": ("targets_s", read_age_of_days),
}
