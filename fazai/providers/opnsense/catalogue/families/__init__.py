"""Families of kinds: one module with the rows and one file with the device's facts of their fields."""
