"""The knowledge base's own thought: words, ranking, redaction, reading of files. Nothing here does I/O."""
