"""fazai: declarative operations for OPNsense firewalls and Linux telemetry hosts."""

__version__ = "0.1.0"
