"""Transports of the messages of agents and their clients: WebSockets, signed HTTP, and what listens."""
