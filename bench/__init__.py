"""Measurements: ratios against peers in one interleaved run, medians, the command that made them.

`make bench` runs all; `python -m bench NAME…` some. Peers are used where they are installed;
`python -m bench --install-peers` puts ansible-core into `.bench/` beside the repository's sources.
"""
