"""fazai pki init, issue, enrol, renew, revoke, listener, list, ca"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fazai.cli.options import FILE, OUTPUT
from fazai.errors import FazaiError, InputError, UsageError, count_noun, spelling_hint

if TYPE_CHECKING:
    from fazai.pki import Authority, IssuedCertificate
    from fazai.pki.building import KeyType
    from fazai.pki.rotation import Rotation
    from fazai.store.certificates import CertificateStore

_PORT = 3121
_ASKED_S = 3.0
_DIR = click.Path(file_okay=False, path_type=Path)


@click.group(
    "pki",
    epilog="\b\nExamples:\n  fazai pki init --name fazai.example.net        the CA, and its listener"
    "\n  fazai pki enrol edge-7                         a token for one machine"
    "\n  fazai pki list"
    '\n  fazai pki revoke edge-7 --reason "stolen"      acts at once',
)
def pki_command() -> None:
    """The small CA for remote agents: certificates, enrolment tokens, revocation."""


@pki_command.command("init")
@click.option(
    "--name", "names", multiple=True, metavar="HOST", help="How agents call the daemon; repeatable."
)
@click.option("--key", "key_type", type=click.Choice(["p256", "ed25519"]), help="[default: p256]")
@click.option("--lifetime", metavar="3650d", help="Of the CA. [default: 3650d]")
@click.option("--existing-ca", type=FILE, help="Trust this CA, PEM, and make none.")
@click.option("--existing-crl", type=FILE, help="Its revocation list; read again when it changes.")
def init_command(
    names: tuple[str, ...],
    key_type: KeyType | None,
    lifetime: str | None,
    existing_ca: Path | None,
    existing_crl: Path | None,
) -> None:
    """Make the CA, and with --name the certificate of the daemon's listener. What stands there is left as it
    is."""
    from fazai.pki.administration import CA_LIFETIME_S, Maker
    from fazai.pki.building import host_names_of
    from fazai.pki.listing import describe_ca, describe_listener

    maker = Maker(_pki_folder())
    if existing_crl is not None and existing_ca is None:
        raise UsageError(
            "--existing-crl needs --existing-ca", hint="ours revokes with: fazai pki revoke NAME"
        )
    if existing_ca is not None:
        if names or key_type or lifetime:
            text = "an existing CA issues the listener's certificate itself"
            raise UsageError(text, hint="put it into listener.pem and listener.key in secrets/pki")
        authority, made = maker.trust_existing(existing_ca, existing_crl)
        click.echo(f"{'trusted from now on' if made else 'nothing was changed'}: {describe_ca(authority)}")
        return
    lifetime_s = _parse_duration_s("--lifetime", lifetime, "ca_lifetime")
    authority, made = maker.make_ca(key_type, CA_LIFETIME_S if lifetime_s is None else lifetime_s)
    before = authority.read_listener()
    if before is None and names:
        authority.issue_listener(names)
    listener = authority.read_listener()
    changed = made or listener != before
    found = "it stands there" if changed else "it stands there, nothing was changed"
    click.echo(f"{'made' if made else found}: {describe_ca(authority)}")
    if listener is None:
        click.echo(
            "agents cannot connect yet; next: fazai pki listener --name HOST, as they call it", err=True
        )
    else:
        click.echo(f"{'' if before is not None or made else 'made: '}{describe_listener(listener)}")
    if before is not None and names and set(names) != set(host_names_of(before)):
        click.echo("for other names: fazai pki listener, with all of them", err=True)
    if changed:
        click.echo(f"back it up: {authority.folder} (whoever has ca.key can be every agent)", err=True)


@pki_command.command("listener")
@click.option("--name", "names", multiple=True, required=True, metavar="HOST", help="Host name or address.")
@click.option("--lifetime", metavar="90d", help="[default: listener_lifetime of pki.yml, else 90d]")
def listener_command(names: tuple[str, ...], lifetime: str | None) -> None:
    """Make the certificate of the daemon's listener anew, for these names; its key stays."""
    from fazai.pki.listing import describe_listener

    authority = _load_authority()
    authority.issue_listener(names, _parse_duration_s("--lifetime", lifetime, "listener_lifetime"))
    listener = authority.read_listener()
    assert listener is not None
    click.echo(describe_listener(listener))


def _check_name(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Return a name that an agent can have. Raises UsageError."""
    from fazai.pki import PkiError
    from fazai.pki.reading import check_agent_name

    try:
        check_agent_name(name)
    except PkiError as error:  # nobody refused anything: it is a mistake in the command
        raise UsageError(error.message, hint=error.hint) from None
    return name


@pki_command.command("issue")
@click.argument("name", callback=_check_name)
@click.option("--csr", help="A request (PEM) for it, - for standard input: no key is made.")
@click.option("--out", type=_DIR, help="Folder for NAME.key and NAME.pem. [default: secrets/pki/issued]")
@click.option("--lifetime", metavar="30d", help="[default: agent_lifetime of pki.yml, else 30d]")
def issue_command(name: str, csr: str | None, out: Path | None, lifetime: str | None) -> None:
    """Issue a certificate to the agent NAME: for its request, or with a key made here.

    For a request the certificate goes to standard output. An agent that enrols with a token needs none of
    this: its key never leaves its machine.
    """
    from fazai.pki.administration import issue_pair
    from fazai.pki.files import ISSUED

    lifetime_s = _parse_duration_s("--lifetime", lifetime, "agent_lifetime")
    if csr is not None and out is not None:
        raise UsageError("--csr and --out do not go together", hint="the certificate goes to standard output")
    authority = _load_authority()
    with _open_store() as store:
        if csr is None:
            folder = out or authority.folder / ISSUED
            issued, key, path = issue_pair(authority, store, name, folder, lifetime_s)
            click.echo(f"{path}\n{key}")
        else:
            now = authority.clock()
            issued = authority.issue(_read_request(csr), name, lifetime_s, now=now)
            store.add_certificate(issued.record("issued", now))
            click.echo(issued.pem, nl=False)
    _tell_validity(issued)


@pki_command.command("enrol")
@click.argument("name", callback=_check_name)
@click.option("--expires", metavar="1h", help="[default: token_lifetime of pki.yml, else 1h]")
def enrol_command(name: str, expires: str | None) -> None:
    """Make a token with which the machine NAME enrols itself, once, and print it. It is shown once."""
    from fazai.pki import Enrolments
    from fazai.pki.settings import format_duration
    from fazai.timestamps import format_time

    authority, lifetime_s = _load_authority(), _parse_duration_s("--expires", expires, "token_lifetime")
    port, warning = _find_agents_port(authority)  # before there is a token
    with _open_store() as store:
        made = Enrolments(authority, store).create(name, lifetime_s)
        now = authority.clock()
        valid = [one for one in store.certificates() if one.name == name and one.revoked is None]
    click.echo(made.token)
    for line in _enrol_lines(authority, name, port, warning):
        click.echo(line, err=True)
    click.echo(
        f"the token is for {name} alone, once, within {format_duration(made.expires - now)};"
        " it is shown this once",
        err=True,
    )
    until = max((one.not_after for one in valid), default=0.0)
    if until > now:
        text = f"{name} has a certificate until {format_time(until)}, which stays good"
        click.echo(f"warning: {text}; lost machine? fazai pki revoke {name}, then enrol it", err=True)


def _enrol_lines(authority: Authority, name: str, port: int, warning: str) -> list[str]:
    """Return what is to be run on the machine that enrols."""
    from fazai.pki.building import host_names_of

    listener = authority.read_listener()
    names = host_names_of(listener) if listener is not None else ()
    if not names:
        hint = "fazai pki listener --name HOST"
        return [f"warning: the daemon has no certificate yet, so agents cannot connect; make it with: {hint}"]
    host = f"[{names[0]}]" if ":" in names[0] else names[0]
    command = f"fazai agent enrol --daemon wss://{host}:{port} --name {name}"
    head = f"on {name}, which asks for the token (or reads it from standard input):"
    return [head, f"  {command}", *([warning] if warning else [])]


def _find_agents_port(authority: Authority) -> tuple[int, str]:
    """Return the port on which the daemon here hears agents, and a warning where it does not, or nobody says
    so. Raises InputError for a daemon that would not take the token."""
    from fazai.cli import environment
    from fazai.cli.agents.registry import ask_same_place
    from fazai.cli.clients import DaemonAddress

    url = os.environ.get("FAZAI_URL", "")
    named = Path(url.removeprefix("unix:")) if url.startswith("unix:") else None
    path = named or environment.find_local_socket(os.geteuid() == 0)
    if path is None:
        state = environment.read_config().state
        text = (
            f"warning: no daemon runs with the state {state} (FAZAI_STATE_DIR), and no other takes the token"
        )
        return _PORT, f"{text}; {_PORT} is the port that it has without --agents-port"
    try:
        known = ask_same_place(DaemonAddress("http://fazai", socket=path), authority, timeout_s=_ASKED_S)
    except InputError:
        raise
    except FazaiError as error:
        return _PORT, f"{error.message}; {_PORT} is the port that it has without --agents-port"
    port = known.port
    if port is None:
        return _PORT, "warning: the daemon that runs here hears no agents: restart it, now that there is a CA"
    return port, ""


@pki_command.command("renew")
@click.argument("certificate", required=False, type=FILE)
@click.option("--key", type=FILE, help="Of the certificate. [default: the .key beside it]")
@click.option("--force", is_flag=True, help="The listener's also when it is not due.")
def renew_command(certificate: Path | None, key: Path | None, force: bool) -> None:
    """Renew the listener's certificate, where it is due, or with a file that of an agent, before it expires.

    Agents renew theirs by themselves, and so does the daemon.
    """
    from fazai.pki import Enrolments
    from fazai.pki.building import build_request
    from fazai.pki.listing import describe_listener

    authority = _load_authority()
    if certificate is None:
        if key is not None:
            raise UsageError("--key needs a certificate", hint="fazai pki renew NAME.pem --key NAME.key")
        authority.require_issuing("renewal")
        listener = authority.read_listener()
        if listener is None:
            text = "the listener has no certificate yet"
            raise InputError(text, hint="make it with: fazai pki listener --name HOST")
        done = authority.renew_listener(force=force)
        listener = authority.read_listener()
        assert listener is not None
        click.echo(f"{'renewed' if done else 'not due, nothing was changed'}: {describe_listener(listener)}")
        return
    from fazai.pki.administration import read_pair
    from fazai.pki.files import hold_folder, write_file

    pem, private, name = read_pair(certificate, key)
    with _open_store() as store:
        issued = Enrolments(authority, store).renew(pem, build_request(private, name))
    with hold_folder(certificate.parent):
        write_file(certificate, issued.pem.encode())
    click.echo(certificate)
    _tell_validity(issued)


@pki_command.command("revoke")
@click.argument("name")
@click.option("--certificate", help="Only this one: its file, or its fingerprint (SHA-256).")
@click.option("--reason", default="", help="Is shown to whoever is refused, and in the list.")
@click.option("--unknown", is_flag=True, help="Also a name that was never issued anything here.")
@click.option("--lift", is_flag=True, help="Accept the name again; only with an existing CA.")
def revoke_command(name: str, certificate: str | None, reason: str, unknown: bool, lift: bool) -> None:
    """Revoke all certificates of NAME, and its tokens. A running daemon closes its connection within a
    second. To let the machine in again, enrol it anew."""
    from fazai.pki.administration import find_fingerprint
    from fazai.store.certificates import Revocation

    authority = _load_authority()
    with _open_store() as store:
        if lift:
            _lift_revocation(authority, store, name)
            return
        fingerprint = find_fingerprint(store, name, certificate) if certificate else ""
        if authority.can_issue and not unknown:
            _require_known(store, name)
        before = store.revocations()
        known = before.names.get(name) if before is not None and not fingerprint else None
        gone = store.revoke(Revocation(name, authority.clock(), reason, fingerprint))
    what = count_noun(len(gone), "valid certificate")
    again = " (it was revoked before)" if known else ""
    click.echo(f"revoked: {name}, {what}{again}", err=True)


def _lift_revocation(authority: Authority, store: CertificateStore, name: str) -> None:
    if authority.can_issue:
        text = "what our CA issued stays revoked"
        raise UsageError(text, hint=f"let the machine in again with: fazai pki enrol {name}")
    if not store.lift_revocation(name):
        raise InputError(f'"{name}" is not revoked', hint="see: fazai pki list")
    click.echo(f"accepted again: {name}", err=True)


def _require_known(store: CertificateStore, name: str) -> None:
    """Refuse a name that is probably a slip of the pen."""
    known = {one.name for one in store.certificates()} | {one.name for one in store.enrolments()}
    if name not in known:
        hint = spelling_hint(name, known) or "see: fazai pki list;"
        text = f'nothing was issued to "{name}" here, so nothing is revoked'
        raise InputError(text, hint=f"{hint} to do it all the same: --unknown")


@pki_command.command("list")
@click.option("--all", "all_", is_flag=True, help="Also certificates that were replaced by newer ones.")
@OUTPUT
def list_command(output: str, all_: bool) -> None:
    """List the CA, the certificates of agents, tokens and revocations. Shows neither keys nor tokens."""
    import json

    from fazai.pki.listing import list_lines, list_record

    authority = _load_authority()
    with _open_store() as store:
        record = list_record(authority, store, with_replaced=all_)
    if output == "json":
        click.echo(json.dumps(record, indent=1))
        return
    for line in list_lines(record):
        click.echo(line)


@pki_command.group(
    "ca",
    epilog="\b\nIn this order:\n  fazai pki ca rotate    make the next CA; agents that are connected are told"
    "\n  fazai pki ca status    who does not trust it yet\n  fazai pki ca switch    it issues from now on"
    "\n  fazai pki ca retire    the CA before is trusted no more",
)
def ca_command() -> None:
    """Replace the CA, without enrolling agents anew."""


@ca_command.command("rotate")
@click.option("--key", "key_type", type=click.Choice(["p256", "ed25519"]), help="[default: as the CA's own]")
@click.option("--lifetime", metavar="3650d", help="Of the next CA. [default: 3650d]")
def rotate_command(key_type: KeyType | None, lifetime: str | None) -> None:
    """Make the next CA, trusted beside the one that issues. A running daemon tells its agents of it."""
    from fazai.pki.administration import CA_LIFETIME_S
    from fazai.pki.rotation import Rotation

    lifetime_s = _parse_duration_s("--lifetime", lifetime, "ca_lifetime")
    rotation = Rotation(_pki_folder())
    authority, made = rotation.begin(key_type, CA_LIFETIME_S if lifetime_s is None else lifetime_s)
    click.echo("made, and trusted from now on:" if made else "it stands there, and no other was made:")
    _tell_rotation(rotation, authority)
    click.echo(f"back it up: {authority.folder}; next: fazai pki ca status", err=True)


@ca_command.command("status")
@OUTPUT
def status_command(output: str) -> None:
    """Show the CAs, and which agents are not ready for the next step, with the reason."""
    import json

    from fazai.pki.rotation import Rotation, rotation_record

    rotation, authority = Rotation(_pki_folder()), _load_authority()
    if output == "json":
        with _open_store() as store:
            click.echo(json.dumps(rotation_record(rotation, authority, store), indent=1))
        return
    _tell_rotation(rotation, authority)


@ca_command.command("switch")
@click.option("--force", is_flag=True, help="Also while agents do not trust it; they are enrolled anew.")
def switch_command(force: bool) -> None:
    """Have the next CA issue from now on, also the daemon's own certificate; agents renew in minutes."""
    _take_step("switch", force)


@ca_command.command("retire")
@click.option("--force", is_flag=True, help="Also while agents need it; they are enrolled anew.")
def retire_command(force: bool) -> None:
    """Trust the CA before no more, and delete its key."""
    _take_step("retire", force)


def _take_step(name: Literal["switch", "retire"], force: bool) -> None:
    """Take a step of the replacement, and tell what stands then, and how agents come back that are left
    behind."""
    from fazai.pki.rotation import Rotation, agent_states

    rotation = Rotation(_pki_folder())
    with _open_store() as store:
        left = [one.name for one in agent_states(_load_authority(), store) if one.lacks]
        step = rotation.switch if name == "switch" else rotation.retire
        authority = step(store, force=force)
    _tell_rotation(rotation, authority)
    for agent in left if name == "retire" else ():
        click.echo(f"{agent} has to be enrolled anew: fazai pki enrol {agent}", err=True)


def _tell_rotation(rotation: Rotation, authority: Authority) -> None:
    from fazai.pki.rotation import rotation_lines, rotation_record
    from fazai.report.lines import escape_controls

    with _open_store() as store:
        record = rotation_record(rotation, authority, store)
    for line in rotation_lines(record):
        click.echo(escape_controls(line))  # an agent says what it lacks


def _pki_folder() -> Path:
    """Return the CA's folder. Raises UsageError for root, where the daemon is somebody else: it could read
    nothing of what root makes."""
    from fazai.cli import environment

    config = environment.read_config()
    with contextlib.suppress(OSError):
        owner = config.state.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            from fazai.pki.files import as_user

            places = f"FAZAI_STATE_DIR={config.state} FAZAI_SECRETS={config.secrets}"
            text = f"the state folder {config.state} belongs to another user, and so should the CA"
            raise UsageError(text, hint=f"{as_user(owner)} env {places} fazai pki …")
    return config.secrets / "pki"


def _load_authority() -> Authority:
    from fazai.pki import Authority

    return Authority.load(_pki_folder())


@contextlib.contextmanager
def _open_store() -> Iterator[CertificateStore]:
    from fazai.cli import environment
    from fazai.store.factory import open_certificates

    with contextlib.closing(open_certificates(environment.read_config().state)) as store:
        yield store


def _parse_duration_s(option: str, text: str | None, setting: str) -> float | None:
    """Return the seconds of an option that stands for a setting of this name. Raises UsageError,
    InputError."""
    if text is None:
        return None
    from fazai.pki.settings import check_duration_s
    from fazai.timestamps import parse_duration_s

    seconds = parse_duration_s(text)
    if seconds is None:
        raise UsageError(f"{option} {text!r} is no duration", hint="such as 30m, 12h or 90d")
    return check_duration_s(setting, seconds, option)


def _read_request(csr: str) -> bytes:
    from fazai.pki.files import read_public
    from fazai.pki.reading import REQUEST_MAX_BYTES

    if csr == "-":
        return sys.stdin.buffer.read(REQUEST_MAX_BYTES + 1)
    return read_public(Path(csr), "request")


def _tell_validity(issued: IssuedCertificate) -> None:
    from fazai.timestamps import format_time

    click.echo(f"{issued.name}: valid until {format_time(issued.not_after)}", err=True)
