"""Sessions of the daemon's clients with the Gemma worker: `/agent/*`."""
