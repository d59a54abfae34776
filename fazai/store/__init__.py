"""What fazai remembers: protocols, and the embedded store in the state folder."""
