"""What commands know of agents: those that the daemon knows, and those that hosts declare."""
