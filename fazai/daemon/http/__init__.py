"""HTTP of the daemon: connections, TLS, authentication, routing, the description, the page's files."""
