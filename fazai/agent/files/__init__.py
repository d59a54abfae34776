"""file.diff and file.apply of the remote agent: comparing files with texts, and replacing them.

Each is called in a forked child with the checked request and the agent's configuration, and returns the
fields of its answer or raises Refused. Why files are opened and replaced the way they are:
docs/adr/0027-files-and-journal-of-the-agent.md.
"""
