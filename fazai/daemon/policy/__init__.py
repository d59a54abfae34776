"""The policy of one daemon: its file, the uses of its rules, and the words that it may have."""
