"""What several kinds of hosts share: paths, lines of files, attributes, numbers."""
