"""The parts that all models of the lab share: stored configuration, generic verbs, fields, search."""
