"""Who is told what, when, and when again."""
