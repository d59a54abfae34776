"""The telemetry agent that runs on hosts (one bash file), and its service files, shipped as data."""
