"""How messages of agents and their clients come and go: WebSockets, signed HTTP, and what listens."""
