"""Embedded store: one SQLite file, one writer thread a process, lock files; `store.factory` opens it."""
