"""Hosts: one provider whose kinds are `host.*`, reached over SSH or as this machine itself."""

from __future__ import annotations

#: What an inventory's `provider:` names, and the module of this package that holds its `PROVIDER`.
PROVIDERS = {"local": "local.provider", "ssh": "ssh.provider", "agent": "remote.provider"}
KINDS = "host"  # the first word of its kinds
OLD_KINDS = ("ssh",)  # what that word was before: still read
