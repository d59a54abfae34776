"""The tools that the daemon offers to models, to people and to other assistants."""
