"""The agent's process and its connection, against a daemon written from SPEC.md alone."""
