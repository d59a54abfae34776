"""Playbooks: from an inventory and plays to work, with all errors found before the first contact.

    plays = load_playbooks(["site.yml"])
    works = resolve_work(inventory, plays, providers=…, kinds=…, selection=…, extra_vars={}, secrets=reader)

The grammar and the rules are in docs/playbooks.md.
"""

from fazai.playbook.grammar import load_playbooks
from fazai.playbook.nodes import Selection
from fazai.playbook.resolving import resolve_work

__all__ = ["Selection", "load_playbooks", "resolve_work"]
