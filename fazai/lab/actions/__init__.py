"""Actions of the controllers; each module brings those of one subject in `ACTIONS`."""
