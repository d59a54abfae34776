"""One call of the API, and the settings with which a firewall is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fazai.providers.opnsense.api.budget import MIB
from fazai.providers.opnsense.api.credentials import Credentials


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Address, key, TLS and time limits of one firewall."""

    target: str
    base_url: str
    credentials: Credentials
    verify_tls: bool = True
    ca_pem: str = ""
    pin: str = ""
    timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    activate_timeout_s: float = 120.0
    probe_timeout_s: float = 20.0
    retries: int = 3
    max_answer_bytes: int = 16 * MIB
    ping: str = "diagnostics/interface/getInterfaceNames"  # 7 ms, where a search takes up to 80


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call. `repeatable`: twice is the same as once. `privilege` is named in the error after a 403.
    `verbatim`: a good answer is handed on as it came, our key in it unmasked."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    repeatable: bool = True
    timeout_s: float | None = None
    privilege: str = ""
    attempts: int | None = None
    verbatim: bool = False


def controller_of(call: ApiCall) -> str:
    """Return the module and controller of a call, such as `firewall/alias`."""
    return "/".join(call.path.split("/")[:2])


def spell_in_snake_case(call: ApiCall) -> ApiCall:
    """Return the call with its action in snake_case, which the firewall takes for the same one."""
    parts = call.path.split("/")
    if len(parts) > 2:
        parts[2] = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in parts[2])
    return replace(call, path="/".join(parts))
