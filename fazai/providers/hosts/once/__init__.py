"""Things that are done once on a host, and are no resource: one program run, one file fetched."""
