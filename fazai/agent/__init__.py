"""What runs on the hosts: the telemetry agent (one bash file) and its service files, shipped as data."""
