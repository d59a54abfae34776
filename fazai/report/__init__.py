"""Outcomes -> text for people (`text`) or machines (`machine`). Nothing here knows what is printed where."""
