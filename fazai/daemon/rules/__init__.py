"""Event rules in the daemon: what telemetry and events start, and the entries that rules keep in aliases."""
