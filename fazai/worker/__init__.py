"""The Gemma worker: a process of its own behind a Unix socket (SPEC.md, section 1).

`bridge` is the only importer of the native module; `server` speaks the protocol; `main` puts them together.
"""
