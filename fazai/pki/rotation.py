"""Replaces the CA without enrolling anew: the next one is trusted beside it, then issues in its place, and
then the old one is retired. The old one endorses the next, which is what agents go by.

Each step is one name that changes hands, so that one who is killed goes on where he was. `ca.pem` has all CAs
that are trusted; the one that `ca.key` belongs to issues.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography import x509

from fazai.errors import Refused, count_noun
from fazai.faults import no_fault
from fazai.pki.authority import Authority
from fazai.pki.building import (
    BACKDATE_S,
    KeyType,
    Period,
    build_ca,
    build_endorsement,
    host_names_of,
    make_key,
    pem_of,
)
from fazai.pki.files import (
    CA_CERTIFICATE,
    CA_KEY,
    ENDORSEMENTS,
    NEXT_KEY,
    OLD_KEY,
    hold_folder,
    read_key,
    remove_file,
    rename_file,
    write_file,
    write_key,
)
from fazai.pki.reading import check_public_key, common_name, fingerprint_of, same_key, show_text
from fazai.store.certificates import CertificateStore, RevocationList
from fazai.timestamps import timestamp

#: `single`: one CA. `overlap`: the next one is trusted, too. `switched`: it issues, and the old one is
#: trusted still.
Phase = Literal["single", "overlap", "switched"]
_NEXT = {"overlap": "fazai pki ca switch", "switched": "fazai pki ca retire"}


@dataclass(frozen=True, slots=True)
class AgentTrustState:
    """An agent that could connect, and what keeps it from going on with the next CA; empty: nothing."""

    name: str
    lacks: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """The replacement of the CA of a folder. `fault` is called by name at each instant at which a crash
    matters. All raise SecretError, StateError, InputError, LockHeld, PkiError(not_offered)."""

    folder: Path
    clock: Callable[[], float] = time.time
    fault: Callable[[str], None] = no_fault

    def phase(self) -> Phase:
        """Return how far it is."""
        if (self.folder / NEXT_KEY).exists():
            return "overlap"
        return "switched" if (self.folder / OLD_KEY).exists() else "single"

    def begin(self, key_type: KeyType | None, lifetime_s: float) -> tuple[Authority, bool]:
        """Make the next CA, and trust it beside the one that issues; return whether it was made. After the
        switch it makes what the CA before says of this one, where that was lost, and raises Refused
        otherwise: no third one is made."""
        self._load()
        path = self.folder / NEXT_KEY
        with hold_folder(self.folder):
            authority = self._load()  # another command may have gone on meanwhile
            if self.phase() == "switched":
                if self._endorse_issuing(authority):
                    return Authority.load(self.folder, self.clock), False
                hint = "fazai pki ca status, then: fazai pki ca retire"
                raise Refused("the CA before this one is trusted still, and no third one is made", hint=hint)
            if not path.exists():
                sort: KeyType = "ed25519" if authority.key_type == "ed25519" else "p256"
                write_key(path, make_key(key_type or sort))
                self.fault("next.key")
            key = read_key(path)
            public = check_public_key(key.public_key())
            found = [one for one in authority.trusted if same_key(public, one.public_key())]
            made, now = not found, self.clock()
            period = Period(now - BACKDATE_S, now + lifetime_s)
            next_ca = found[0] if found else build_ca(key, f"fazai CA {os.urandom(4).hex()}", period)
            if not authority.is_endorsed(next_ca) or authority.problem:  # also where the file was lost
                self._endorse(authority.trusted[0], self.folder / CA_KEY, next_ca)
            if made:
                self._write_trusted([*authority.trusted, next_ca])
                self.fault("next.trusted")
        return Authority.load(self.folder, self.clock), made

    def switch(self, store: CertificateStore, *, force: bool) -> Authority:
        """Have the next CA issue from now on, also the certificate of the listener. Raises Refused where an
        agent does not trust it yet, unless with `force`."""
        self._load()
        with hold_folder(self.folder):
            authority = self._load()
            if self.phase() == "single":
                raise Refused("there is no next CA", hint="make it with: fazai pki ca rotate")
            if self.phase() == "overlap":
                self._require_made(authority)
                self._require_ready(authority, store, force, "does not trust the next CA yet")
                write_key(self.folder / OLD_KEY, read_key(self.folder / CA_KEY))
                self.fault("old.kept")
                rename_file(self.folder / NEXT_KEY, CA_KEY)
                self.fault("switched")
                authority = self._load()
        authority.renew_listener()
        self.fault("listener.renewed")
        return authority

    def retire(self, store: CertificateStore, *, force: bool) -> Authority:
        """Trust the CA before no more, and delete its key. Raises Refused where an agent still has a
        certificate of it, unless with `force`."""
        self._load()
        with hold_folder(self.folder):
            authority = self._load()
            if self.phase() == "overlap":
                raise Refused("the next CA does not issue yet", hint="first: fazai pki ca switch")
            if self.phase() == "single":
                hint = "fazai pki ca rotate makes the next one"
                raise Refused("there is one CA, and none to retire", hint=hint)
            if len(authority.trusted) > 1:  # else one who was killed did so, and asked before
                self._require_ready(authority, store, force, "needs the CA before still")
                self._write_trusted(authority.trusted[:1])
                self.fault("retired")
            authority = self._load()
        listener = authority.read_listener()
        if listener is not None:
            authority.issue_listener(host_names_of(listener))  # with this CA alone behind it
        remove_file(self.folder / ENDORSEMENTS)
        remove_file(self.folder / OLD_KEY)
        return authority

    def _endorse(self, issuer: x509.Certificate, key: Path, endorsed: x509.Certificate) -> None:
        write_file(self.folder / ENDORSEMENTS, build_endorsement(issuer, read_key(key), endorsed).encode())
        self.fault("next.endorsed")

    def _endorse_issuing(self, authority: Authority) -> bool:
        """Have the CA before endorse the one that issues, where nothing that holds says so, and return
        whether it was done: agents that know the one before alone take no other without it."""
        if authority.is_endorsed(authority.trusted[0]) and not authority.problem:
            return False
        public = check_public_key(read_key(self.folder / OLD_KEY).public_key())
        before = [one for one in authority.trusted[1:] if same_key(public, one.public_key())]
        if before:
            self._endorse(before[0], self.folder / OLD_KEY, authority.trusted[0])
        return bool(before)

    def _load(self) -> Authority:
        authority = Authority.load(self.folder, self.clock)
        authority.require_issuing("the replacement of the CA")
        return authority

    def _write_trusted(self, trusted: Sequence[x509.Certificate]) -> None:
        write_file(self.folder / CA_CERTIFICATE, "".join(map(pem_of, trusted)).encode())

    def _require_made(self, authority: Authority) -> None:
        """Refuse a next CA that has a key and no certificate: who made it was killed. Without one its key
        would be that of no CA, and nothing could issue any more."""
        public = check_public_key(read_key(self.folder / NEXT_KEY).public_key())
        if not any(same_key(public, one.public_key()) for one in authority.trusted):
            text = "the next CA has a key and no certificate: what made it was cut off"
            raise Refused(text, hint="it goes on where it was: fazai pki ca rotate")

    def _require_ready(self, authority: Authority, store: CertificateStore, force: bool, why: str) -> None:
        if (
            not force and not store.certificates() and not store.trust_holders()
        ):  # another state knows them, perhaps
            hint = "FAZAI_STATE_DIR is that of the daemon? without any agent: --force"
            raise Refused("no agent was ever enrolled in this state", hint=hint)
        lacking = [one.name for one in agent_states(authority, store) if one.lacks]
        if lacking and not force:
            shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            text = f"{shown} {why}" if len(lacking) == 1 else f"{shown}: each {why}"
            hint = "fazai pki ca status shows why; they are enrolled anew after: --force"
            raise Refused(text, hint=hint)


def agent_states(authority: Authority, store: CertificateStore) -> list[AgentTrustState]:
    """Return the agents that may connect, by name: those with a certificate that is good, and those that took
    part without one (signed HTTP). With one CA that nobody was told of, none lacks anything."""
    now, issuer = authority.clock(), fingerprint_of(authority.trusted[0])
    revoked = store.revocations() or RevocationList()
    holders = store.trust_holders()
    newest = {one.name: one for one in store.certificates()}
    good = {
        name: one
        for name, one in newest.items()
        if one.not_after > now and revoked.find(name, one.fingerprint) is None
    }
    names = {*good, *(name for name in holders if name not in newest and name not in revoked.names)}
    is_changed = len(authority.trusted) > 1
    found = []
    for name in sorted(names):
        holder, lacks = holders.get(name), ""
        if holder is not None and holder.problem:
            lacks = f"it did not take the CAs: {holder.problem}"
        elif holder is not None and holder.bundle != authority.bundle_mark:
            lacks = "not told yet of this step: it is when it is connected"
        elif holder is None and is_changed:
            lacks = "not told yet: it is when it is connected, unless it is too old"
        elif authority.is_switched and name in good and good[name].issuer != issuer:
            lacks = "its certificate is of the CA before: it renews within minutes while it is connected"
        found.append(AgentTrustState(name, lacks))
    return found


def rotation_record(rotation: Rotation, authority: Authority, store: CertificateStore) -> dict[str, Any]:
    """Return all as a document: the phase, the CAs, the agents."""
    phase = rotation.phase()
    roles = {"overlap": "next", "switched": "before"}
    return {
        "phase": phase if authority.can_issue else "existing",
        "problem": authority.problem,
        "cas": [
            {
                "name": show_text(common_name(one.subject)),
                "role": ("issues" if place == 0 else roles.get(phase, "trusted"))
                if authority.can_issue
                else "trusted",
                "fingerprint": fingerprint_of(one),
                "endorsed": authority.is_endorsed(one),
                "not_after": timestamp(one.not_valid_after_utc.timestamp()).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for place, one in enumerate(authority.trusted)
        ],
        "agents": [
            {"name": one.name, "ready": not one.lacks, "lacks": one.lacks or None}
            for one in agent_states(authority, store)
        ],
    }


def rotation_lines(record: dict[str, Any]) -> Iterator[str]:
    """Return the lines of a document of `rotation_record` for people."""
    for one in record["cas"]:
        yield f"{one['role']:<8} {one['name']}  until {one['not_after']}  {one['fingerprint'][:16]}"
    if len(record["cas"]) > 1 and not any(one["endorsed"] for one in record["cas"]):
        mend = "docs/pki.md, An existing CA" if record["phase"] == "existing" else "fazai pki ca rotate"
        yield f"warning: none endorses another, so agents take none that they do not know: {mend}"
    if record["problem"]:
        yield f"warning: {record['problem']}"
    agents = record["agents"]
    waiting = [one for one in agents if not one["ready"]]
    for one in waiting:
        yield f"{one['name']:<24} {one['lacks']}"
    if record["phase"] in _NEXT:
        ready = f"{len(agents) - len(waiting)} of {count_noun(len(agents), 'agent')} ready"
        step = _NEXT[record["phase"]]
        if not agents:
            ready += " (FAZAI_STATE_DIR is that of the daemon?)"
        yield f"{ready}; " + (f"wait (fazai pki ca status), then: {step}" if waiting else f"next: {step}")
