"""Rules of what may be done without asking anybody (/etc/fazai/policy.yml): reading, matching, deciding.
Pure."""
