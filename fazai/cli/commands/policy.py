"""fazai policy check, explain"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fazai.cli.options import FILE, OUTPUT
from fazai.errors import ExitCode, InputError, missing_file

if TYPE_CHECKING:
    from fazai.loop.effects import Effect
    from fazai.policy.values import Policy

_LIMIT_BYTES = 1 << 20
_EXITS = {"allow": ExitCode.OK, "ask": ExitCode.PENDING, "refuse": ExitCode.REFUSED}
_LIFE_S = 3600.0


@click.group(
    "policy",
    epilog="\b\nExamples:\n  fazai policy check                      is /etc/fazai/policy.yml good?"
    "\n  fazai policy explain plan.json          would this plan need a person?"
    "\n  fazai policy explain action.json --tainted",
)
def policy_command() -> None:
    """Check and explain the policy: what may be done without asking anybody."""


@policy_command.command("check")
@click.argument("file", type=FILE, required=False)
def check_command(file: Path | None) -> None:
    """Read the policy as the daemon does, and warn of rules that are wide, risky or expired.

    What rules let values become is shown.
    FILE is by default $FAZAI_POLICY, else /etc/fazai/policy.yml. Exit 3: with it nothing is allowed.
    """
    from fazai.policy.bounds import describe_field
    from fazai.policy.warnings import find_warnings

    policy = _read_policy(file)
    for warning in find_warnings(policy, time.time()):
        click.echo(f"warning: {warning}", err=True)
    counts = f"{len(policy.rules)} rules, {len(policy.deny)} that deny, {len(policy.shell)} programs"
    click.echo(f"{policy.file} is good: {counts}, generation {policy.generation[:12]}")
    for rule in policy.rules:
        for name, bound in rule.bounds:
            click.echo(f"  {policy.file}:{rule.line}: {rule.name}: {describe_field(name, bound)}")


@policy_command.command("explain")
@click.argument("action", type=FILE)
@click.option("--policy", "file", type=FILE, help="[default: $FAZAI_POLICY, else /etc/fazai/policy.yml]")
@click.option("--tainted", is_flag=True, help="As if the model had read what devices, hosts or notes say.")
@OUTPUT
def explain_command(action: Path, file: Path | None, tainted: bool, output: str) -> int:
    """Say what the policy decides on ACTION, and what each rule has against it, or which bounds it meets.

    ACTION holds JSON: an effect, an action `shell`, or a plan (fazai plan -o). No use of a rule is counted.
    Exit 0: allowed, 2: a person is asked, 7: refused.
    """
    import json

    from fazai.policy.deciding import decide, explain_rules

    policy, now = _read_policy(file), time.time()
    effect = _read_effect(action, policy, now + _LIFE_S)
    decision = decide(policy, effect, tainted=tainted, uses={}, now=now)
    answers = explain_rules(policy, effect, uses={}, now=now)
    if output == "json":
        rules = [
            {"rule": answer.rule.name, "line": answer.rule.line, "against": answer.against}
            | ({"met": answer.met} if answer.met else {})
            for answer in answers
        ]
        body = {"verdict": decision.verdict, "reason": decision.reason, "rule": decision.rule}
        click.echo(json.dumps({**body, "rules": rules}, indent=1))
    else:
        click.echo(f"{decision.verdict}: {decision.reason}")
        for answer in answers:
            said = answer.against or "; ".join(["allows it", *answer.met])
            click.echo(f"  {policy.file}:{answer.rule.line}: {answer.rule.name}: {said}")
    return _EXITS[decision.verdict]


def _read_policy(file: Path | None) -> Policy:
    """Read the policy. Raises InputError, Errors."""
    from fazai.daemon.policy.words import read_known_words
    from fazai.policy.reading import read_policy

    path = file or policy_path()
    if file is None and not path.exists():
        hint = "without one every effect is asked for; fazai policy check FILE reads another"
        raise missing_file(InputError, "policy", path, hint)
    return read_policy(path, read_known_words(), own_paths(path))


def own_paths(policy: Path) -> tuple[str, ...]:
    """Return what no rule reaches on this machine, as the daemon has it: its policy, state and secrets."""
    from fazai.cli.environment import read_config
    from fazai.policy.protection import protected_paths

    config = read_config()
    return protected_paths(policy, config.state, config.secrets)


def policy_path() -> Path:
    """Return the file of the policy that the environment names, or the default one."""
    from fazai.policy.reading import DEFAULT_POLICY

    return Path(os.environ.get("FAZAI_POLICY") or DEFAULT_POLICY)


def _read_effect(path: Path, policy: Policy, expires: float) -> Effect:
    """Read the effect in a file. Raises InputError."""
    from fazai.plan import FORMAT, parse_plan
    from fazai.policy.planned import RECONCILE, plan_effect, read_effect

    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT_BYTES:
        raise InputError("it is larger than 1 MiB", where=str(path))
    if FORMAT.partition("/")[0].encode() in data[:200]:
        plan = parse_plan(data, path)
        return plan_effect(plan, RECONCILE, policy=policy.generation, expires=expires)
    try:
        return read_effect(data, policy=policy.generation, expires=expires)
    except InputError as error:
        raise InputError(error.message, where=str(path), hint=error.hint) from None
