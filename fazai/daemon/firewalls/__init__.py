"""Firewalls that the daemon watches and never writes to: registry, poller, metrics, `/opn/*`."""
