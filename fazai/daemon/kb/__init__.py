"""The knowledge base in the daemon: the service, its routes, and the notes that runs leave."""
