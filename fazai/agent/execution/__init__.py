"""Runs one program of the allow-list in a child of the agent, and ends all that it started."""
