"""The agent's way to its daemon: dialling, TLS, WebSocket or signed HTTP, and its own certificate."""
