"""How the agent reaches its daemon: dialling, TLS, WebSocket or signed HTTP, and its own certificate."""
