"""The client of the Gemma worker: generates text, and conforms to schemas. It has no targets and no kinds."""

from __future__ import annotations

from fazai.providers.gemma.client import GemmaClient, GemmaSession, Stream
from fazai.providers.gemma.endpoint import Endpoint

__all__ = ["PROVIDER", "Endpoint", "GemmaClient", "GemmaSession", "Stream"]

#: A client only: the registry offers it to no inventory and no playbook.
PROVIDER = None
