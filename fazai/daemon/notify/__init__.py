"""Notifications: which events are worth one, who gets it, and when again."""
