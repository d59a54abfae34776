"""The reconciler of the agent: the host provider's own code, in a process of its own."""
