"""The lab's HTTP server: requests, routes, TLS, and the faults that it can be asked for."""
