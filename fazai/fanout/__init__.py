"""One program, or one file, for many targets: `fazai exec` and `fazai cp`.

Neither is a second way to a target. A program is a resource `host.command`, a file is a `host.file`, and the
engine (`fazai.apply`) carries them out as those of a playbook: waves, one budget of failures, locks, journal,
events, interrupts and reports are its own. What is here are the sessions that it gets for them.
"""
