"""The memory of fazai: protocols, and the embedded store in the state folder."""
