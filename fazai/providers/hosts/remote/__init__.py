"""Hosts that are reached through their agent: what travels is data, and the agent runs the kinds itself."""
