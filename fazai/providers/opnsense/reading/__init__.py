"""Reads what a firewall says of itself beside its configuration: rules, states, log, services and more, one
topic a module. Each has a parser of one answer, and a function that asks. Nothing here changes a firewall: a
GET, or the POST of a search."""
