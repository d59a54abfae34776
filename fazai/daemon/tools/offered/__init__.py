"""The tools themselves, a subject a module; `fazai/daemon/tools/table.py` has all of them."""
