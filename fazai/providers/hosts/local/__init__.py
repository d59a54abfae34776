"""The machine that fazai runs on, or a folder of it."""
