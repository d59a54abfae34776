"""Sends changes to a firewall, asks for its objections before, and looks at its running state after."""
