"""What the controllers do; each module brings the actions of one subject."""
