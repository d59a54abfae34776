"""Grammars and schemas: what is refused, what is tried apart, and the masks that follow from them."""
