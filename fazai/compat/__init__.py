"""Things that newer Pythons have and 3.9 has not, and the half of a WebSocket that no library has: the remote
agent, and what of the host provider it runs, work with 3.9 as well (docs/adr/0028)."""
