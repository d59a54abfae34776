"""What the long-running processes share: their log, their sockets, and how systemd is told."""
