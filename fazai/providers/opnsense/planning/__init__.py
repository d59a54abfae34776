"""What a firewall needs, worked out without I/O: matching, differences, order, pruning."""
