"""Parts of the kind `host.telemetry_agent`: the agent's files, a host's report on it, and the scripts that
install, restart and remove it."""
