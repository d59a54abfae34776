"""The daemon: ingest, events, agents and runs over HTTP (SPEC.md, section 2)."""
