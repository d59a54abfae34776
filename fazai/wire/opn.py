"""Section 2 of SPEC.md, `/opn/*`: bodies and answers of the routes of firewalls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

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


class OpnError(Message, frozen=True, kw_only=True):
    """`{"success":false,"error":…}`."""

    constants: ClassVar[Mapping[str, Any]] = {"success": False}
    error: str
    code: str | None = None
