"""In the place of `rich`, for the processes that tests start (`tests/conftest.py` puts this folder first).

httpx imports its own command line where click, pygments and rich are installed. Only tools of the tests bring
rich along: with it, every process that speaks HTTP took a tenth of a second more than with users.
"""

raise ImportError("rich is not installed where fazai is")
