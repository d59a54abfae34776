"""Telemetry of the embedded store: samples in chunks, compacted in the background."""
