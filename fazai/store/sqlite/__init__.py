"""The embedded store: SQLite files in the state folder."""
