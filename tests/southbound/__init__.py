"""Remote agents and their daemon as whole processes: namespaces, cuts, kills, certificates."""
