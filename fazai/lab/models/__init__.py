"""Behaviour of single models of the lab's firewall beyond the generic verbs; one module a topic."""
