"""The action loop: sessions, their objectives, approvals. A model proposes; code decides (SPEC.md, 2.1)."""
