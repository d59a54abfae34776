"""Parts of the kind `host.agent`: the remote agent's files, its policy, the proof of an update, and a host's
report on it."""
