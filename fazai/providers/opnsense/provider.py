"""The provider of OPNsense firewalls: kinds, options and sessions. Light to import: no HTTP client."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fazai.errors import InputError
from fazai.model import Resource, Session, Target
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind, load_kinds
from fazai.providers.opnsense.options import OPTIONS, find_option_problems

if TYPE_CHECKING:
    from fazai.providers.opnsense.api.budget import Budget


class OpnsenseProvider:
    """OPNsense firewalls over their REST API."""

    name = "opnsense"
    noun = "firewall"  # the word for its targets in reports
    options = OPTIONS
    atomic_writes = True  # a change that it refuses has left nothing behind

    @cached_property
    def _budget(self) -> Budget:
        """Memory for the answers to all sessions of this process."""
        from fazai.providers.opnsense.api.budget import Budget  # asyncio is heavy

        return Budget()

    @cached_property
    def kinds(self) -> Mapping[str, CatalogueKind]:
        return load_kinds()

    def check(self, target: Target) -> list[InputError]:
        """Return everything that is wrong with the options of a target, each with its place."""
        return list(find_option_problems(target, self.kinds))

    def check_list(self, resources: Sequence[Resource]) -> list[InputError]:
        """Return the contradictions within the list of one firewall, each with its place."""
        from fazai.providers.opnsense.catalogue import contradictions  # needed once lists are read

        return list(contradictions.find_contradictions(self.kinds, resources))

    def connect(self, target: Target) -> Session:
        """Return a session that has sent nothing yet.

        Raises InventoryError when `base_url` still names the lab, or the `ca` file cannot be used.
        """
        from fazai.providers.opnsense.session import open_firewall_session  # the HTTP client is heavy

        return open_firewall_session(target, self.kinds, budget=self._budget)

    def box_of(self, target: Target) -> str:
        """Return the address of the firewall itself; for a firewall of the lab its name there."""
        lab = target.options.get("lab")
        return str(lab) if lab else _canonical_address(str(target.options.get("base_url", "")))


def _canonical_address(base_url: str) -> str:
    """Return an address in one notation: lower case, IDNA, short numbers, with port, no slash at its end."""
    url = urlsplit(base_url)
    host = (url.hostname or "").removesuffix(".")
    with contextlib.suppress(UnicodeError):  # a name that is no name is left as it is
        host = host.encode("idna").decode("ascii").lower()
    with contextlib.suppress(OSError, ValueError):  # 127.1 and 0x7f000001 are numbers to the resolver
        host = socket.inet_ntoa(socket.inet_aton(host))
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(host)
        mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
        host = (mapped or number).compressed
    port = url.port or (80 if url.scheme == "http" else 443)
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}{url.path.rstrip('/')}"


PROVIDER = OpnsenseProvider()
