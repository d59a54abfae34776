"""Notifications against real receivers on loopback: a mail server, a webhook, a server of Telegram's API."""
