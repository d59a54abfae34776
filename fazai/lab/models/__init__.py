"""What single models of the lab's firewall do beyond the generic verbs; one module a topic."""
