"""The client of the Gemma worker: generates text that conforms to schemas. It has no targets and no kinds."""

from __future__ import annotations

#: A client only: the registry offers it to no inventory and no playbook.
PROVIDERS: dict[str, str] = {}
