"""Hosts: one provider whose kinds are `host.*`, reached over SSH or as this machine itself."""

from __future__ import annotations

__all__ = ["KINDS", "PROVIDERS"]

#: What an inventory's `provider:` names, and the module of this package that holds its `PROVIDER`.
PROVIDERS = {"local": "local.provider", "ssh": "ssh.provider"}
KINDS = "ssh"  # the first word of its kinds
