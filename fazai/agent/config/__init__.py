"""The agent's configuration file: reading it, matching requests with its allow-list, explaining it."""
