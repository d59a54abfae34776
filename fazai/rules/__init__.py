"""Event rules (/etc/fazai/rules.yml): what telemetry and events start. Reading, matching, counting. Pure."""
