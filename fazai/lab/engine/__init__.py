"""What all models of the lab's firewall share: stored configuration, generic verbs, fields, search."""
