"""Notes of the knowledge base in the state file: the table, its index of words, searching and checking."""
