"""What is sent to a firewall, what it is asked before, and what its running state says after."""
