"""Parts that several kinds of hosts share: paths, lines of files, accounts, package managers."""
