"""Section 2 of SPEC.md, `/opn/*`: bodies and answers of the routes of firewalls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from fazai.wire.base import Count, Ident, Label, Message, RequestMessage, Timestamp

Url = Annotated[
    str,
    Meta(
        max_length=2048,
        pattern=r"(?#https, http or lab, a host, no user, query or fragment)\A(?:https?|lab)://[^\s/@?#]+(?:/[^\s?#]*)?\Z",
    ),
]
SecretText = Annotated[str, Meta(min_length=1, max_length=4096)]
Tags = Annotated[tuple[Label, ...], Meta(max_length=64)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class OpnAddBody(RequestMessage, frozen=True, kw_only=True):
    """POST /opn/add. Its text form shows neither key nor secret."""

    name: Label
    base_url: Url
    api_key: SecretText
    api_secret: SecretText
    verify_tls: bool = True
    tags: Tags = ()

    def __repr__(self) -> str:
        return f"OpnAddBody(name={self.name!r}, base_url={self.base_url!r}, api_key=***, api_secret=***)"


class OpnAnswer(Message, frozen=True, kw_only=True, omit_defaults=False):
    """Base of the answers of `/opn/*`, which say `success` where the others say `ok`."""

    constants: ClassVar[Mapping[str, Any]] = {"success": True}


class OpnAddedAnswer(OpnAnswer, frozen=True, kw_only=True):
    id: Ident
    tested: bool
    info: dict[str, Any] | None


class OpnLastError(Message, frozen=True, kw_only=True, omit_defaults=False):
    when: Timestamp
    message: str


class OpnItem(Message, frozen=True, kw_only=True, omit_defaults=False):
    """A registered firewall; never a secret."""

    id: Ident
    name: Label
    base_url: Url
    verify_tls: bool
    tags: Tags
    created_at: Timestamp
    updated_at: Timestamp
    last_seen: Timestamp | None = None
    last_error: OpnLastError | None = None
    version: str | None = None


class OpnListAnswer(OpnAnswer, frozen=True, kw_only=True):
    items: tuple[OpnItem, ...]


class OpnInfoAnswer(OpnAnswer, frozen=True, kw_only=True):
    """GET /opn/{id}/health."""

    info: dict[str, Any]


class OpnIface(Message, frozen=True, kw_only=True):
    name: Label
    status: str
    device: str | None = None
    description: str | None = None
    addresses: tuple[str, ...] = ()
    rx_bytes: Count | None = None
    tx_bytes: Count | None = None


class OpnInterfacesAnswer(OpnAnswer, frozen=True, kw_only=True):
    data: tuple[OpnIface, ...]


class OpnMetrics(Message, frozen=True, kw_only=True, omit_defaults=False):
    """A figure that the firewall did not give is null, never 0."""

    id: Ident
    name: Label
    version: str | None
    uptime: str | float | None
    cpu_percent: Percent | None
    mem_percent: Percent | None
    sessions: Count | None
    ifaces: tuple[OpnIface, ...]
    last_seen: Timestamp | None


class OpnMetricsAnswer(OpnAnswer, frozen=True, kw_only=True):
    data: OpnMetrics


# -- what a firewall says when it is asked: every text was written by it, or by those who send packets to it;
# what it did not say is left out, and is never 0 or false


class OpnRulesQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /opn/{id}/rules. `interface` is its identifier (`lan`, `opt1`)."""

    interface: Label | None = None
    search: Label | None = None
    automatic: bool = True
    limit: Annotated[int, Meta(ge=1, le=5000)] = 500


class OpnRule(Message, frozen=True, kw_only=True):
    """A filter rule. Without `interface`, `protocol`, `source`, `destination` or `port`: any of them."""

    id: str | None = None
    sequence: Count | None = None
    automatic: bool = False
    enabled: bool | None = None
    action: str | None = None
    interface: str | None = None
    direction: str | None = None
    ip: str | None = None
    protocol: str | None = None
    source: str | None = None
    source_port: str | None = None
    destination: str | None = None
    port: str | None = None
    description: str | None = None
    log: bool | None = None
    evaluations: Count | None = None
    packets: Count | None = None
    bytes: Count | None = None
    states: Count | None = None


class OpnRulesAnswer(OpnAnswer, frozen=True, kw_only=True):
    """The rules in the order in which they are judged; `total` counts those past the limit, too."""

    data: tuple[OpnRule, ...]
    total: Count


class OpnService(Message, frozen=True, kw_only=True):
    """A service. `locked`: the firewall itself needs it, and it cannot be stopped."""

    name: str
    description: str | None = None
    running: bool | None = None
    locked: bool | None = None


class OpnServicesAnswer(OpnAnswer, frozen=True, kw_only=True):
    data: tuple[OpnService, ...]
    total: Count


class OpnStatesQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /opn/{id}/states. `search`: words that all stand in a state; an address, a network,
    `address:port`."""

    search: Label | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class OpnState(Message, frozen=True, kw_only=True):
    """A state of pf. `nat`: the other address of one that is translated, before that where it goes out.
    Packets and bytes of both directions."""

    source: str
    destination: str
    interface: str | None = None
    protocol: str | None = None
    direction: str | None = None
    source_port: str | None = None
    port: str | None = None
    nat: str | None = None
    gateway: str | None = None
    state: str | None = None
    age_s: Count | None = None
    expires_s: Count | None = None
    packets: Count | None = None
    bytes: Count | None = None
    rule: str | None = None
    rule_id: str | None = None


class OpnStatesAnswer(OpnAnswer, frozen=True, kw_only=True):
    """The first states that match; `total` counts all that do."""

    data: tuple[OpnState, ...]
    total: Count


class OpnActivityQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /opn/{id}/activity: the busiest so many."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 20


class OpnProcess(Message, frozen=True, kw_only=True):
    """A thread of a process. `time`: the CPU time that it took, as `top` writes it."""

    command: str
    pid: Count | None = None
    user: str | None = None
    cpu_percent: Annotated[float, Meta(ge=0)] | None = None
    resident_bytes: Count | None = None
    state: str | None = None
    time: str | None = None


class OpnActivityAnswer(OpnAnswer, frozen=True, kw_only=True):
    """The busiest threads first; `total` counts all but the idle ones of the kernel. `headers`: what `top`
    says of CPU, memory and swap."""

    data: tuple[OpnProcess, ...]
    total: Count
    headers: tuple[str, ...]


class OpnLogQuery(RequestMessage, frozen=True, kw_only=True):
    """GET /opn/{id}/log. `src` and `dst` are an address, a network, or how an address begins; `port` is that
    of either side. `scan`: how many of the newest lines are looked at."""

    interface: Label | None = None
    action: Label | None = None
    src: Label | None = None
    dst: Label | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    since: Timestamp | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    scan: Annotated[int, Meta(ge=1, le=5000)] = 2000


class OpnLogEntry(Message, frozen=True, kw_only=True):
    """A packet that a rule with logging met. `local_time` instead of `time`: in the firewall's own zone."""

    action: str
    time: Timestamp | None = None
    local_time: str | None = None
    interface: str | None = None
    direction: str | None = None
    protocol: str | None = None
    source: str | None = None
    source_port: str | None = None
    destination: str | None = None
    port: str | None = None
    length: Count | None = None
    reason: str | None = None
    rule: str | None = None
    rule_id: str | None = None


class OpnLogAnswer(OpnAnswer, frozen=True, kw_only=True):
    """Entries that match, the newest first; `total` counts those past the limit, too, and `scanned` the lines
    that were looked at."""

    data: tuple[OpnLogEntry, ...]
    total: Count
    scanned: Count


class OpnTunnel(Message, frozen=True, kw_only=True):
    """A part of a VPN: an interface or a peer of WireGuard, a server, a client or a session of OpenVPN, a
    connection or a child of IPsec. `since`: the last handshake of a peer, else the beginning."""

    kind: Literal["wireguard", "openvpn", "ipsec"]
    role: Literal["interface", "peer", "server", "client", "session", "connection", "child"]
    name: str | None = None
    interface: str | None = None
    status: str | None = None
    remote: str | None = None
    local: str | None = None
    addresses: str | None = None
    rx_bytes: Count | None = None
    tx_bytes: Count | None = None
    since: Timestamp | None = None


class OpnVpnAnswer(OpnAnswer, frozen=True, kw_only=True):
    """All tunnels; `missing` names what the firewall does not have, or does not let this key read."""

    data: tuple[OpnTunnel, ...]
    total: Count
    missing: tuple[str, ...]


class OpnUpdate(Message, frozen=True, kw_only=True):
    """A package that waits to be updated. Without `old` it is new, without `new` it goes."""

    name: str
    old: str | None = None
    new: str | None = None
    reason: str | None = None


class OpnFirmware(Message, frozen=True, kw_only=True):
    """Versions, and what the firewall's own last check for updates found. `total` counts the updates past the
    limit, too."""

    updates: tuple[OpnUpdate, ...]
    total: Count
    version: str | None = None
    latest: str | None = None
    os: str | None = None
    last_check: str | None = None
    status: str | None = None
    message: str | None = None
    needs_reboot: bool | None = None
    upgrade: str | None = None
    upgrade_needs_reboot: bool | None = None


class OpnFirmwareAnswer(OpnAnswer, frozen=True, kw_only=True):
    data: OpnFirmware


class OpnError(Message, frozen=True, kw_only=True):
    """`{"success":false,"error":…}`."""

    constants: ClassVar[Mapping[str, Any]] = {"success": False}
    error: str
    code: str | None = None
