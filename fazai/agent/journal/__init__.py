"""The agent's journal: what it was asked to do, what came of it, and whether the daemon has that.

    journal = Journal(folder, limit_bytes, now)
    answer = journal.begin(action_id, digest, method)   # None: carry it out; else the recorded answer
    journal.finish(action_id, answer)

Intent before the effect and outcome after it are on the disk when these return, so that an action has at most
one effect whenever the agent dies (docs/adr/0027-files-and-journal-of-the-agent.md).
"""

from fazai.agent.journal.journal import Journal

__all__ = ["Journal"]
