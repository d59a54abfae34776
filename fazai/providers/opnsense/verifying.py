"""What the running state says, where the API can be asked; where it cannot tell, nothing is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fazai.errors import FazaiError
from fazai.model import Change
from fazai.providers.opnsense.client import Api
from fazai.providers.opnsense.kinds import CatalogueKind

__all__ = ["verify"]


async def verify(api: Api, kinds: Mapping[str, CatalogueKind], changes: Sequence[Change]) -> list[FazaiError]:
    return []
