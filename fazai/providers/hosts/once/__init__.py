"""What is done once on a host, and is no resource: one program run, one file fetched."""
