"""One POSIX shell for each host: questions and changes as script, and the reading of its answers."""
