"""What the kind `host.telemetry_agent` is made of: the agent's files, what a host says of it, and the
scripts that install, restart and remove it."""
