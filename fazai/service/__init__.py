"""Code that the long-running processes share: their log, sockets and metrics, and messages to systemd."""
