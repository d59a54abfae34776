"""The client of a firewall's REST API: connections, repetition, bounds, masking."""
