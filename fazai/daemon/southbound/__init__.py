"""The daemon's end of the southbound protocol (SPEC.md, section 3): remote agents, and who asks them."""
