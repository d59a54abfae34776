"""Things that go on in a firewall of the lab: made up from a seed, and from what is configured and runs."""
