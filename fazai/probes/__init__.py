"""Probes: read-only questions to a network, each with a deadline and a bound, asked of one address.

A probe never raises for what it finds: a closed port, a certificate that expired, a name that is not there
are results with their facts. It raises InputError for arguments that make no sense, and Refused where it may
not ask (`reach.py`) or may not open what it needs.
"""
