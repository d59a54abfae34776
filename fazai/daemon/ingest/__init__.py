"""Telemetry of hosts on its way in: bodies, signatures, bounds, the store, silent hosts."""
