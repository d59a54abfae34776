"""Notifications: one message to one channel, by SMTP, a signed webhook or Telegram's Bot API.

What is sent to whom, and when again, is decided in `fazai.daemon.notify`; here it is only carried.
"""
