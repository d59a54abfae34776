"""Probes against real servers on loopback, good and hostile ones."""
