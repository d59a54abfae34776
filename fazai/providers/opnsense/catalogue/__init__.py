"""The kinds of a firewall as rows of data, and how their fields are written and compared."""
