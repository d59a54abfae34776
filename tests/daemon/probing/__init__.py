"""Probes as tools of the daemon."""
