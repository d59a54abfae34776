"""Telemetry of hosts in the embedded store: records, their compaction and packing."""
