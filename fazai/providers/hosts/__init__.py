"""Linux hosts, however they are reached: questions, kinds, and the session that speaks to one shell.

The providers `ssh` and `local` bring the shell; all else is here.
"""
