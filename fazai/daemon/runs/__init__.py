"""Runs that the daemon starts: configuration, queue, child processes, approvals, webhooks, schedule."""
