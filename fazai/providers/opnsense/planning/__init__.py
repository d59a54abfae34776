"""Works out what a firewall needs, without I/O: matching, differences, order, pruning."""
