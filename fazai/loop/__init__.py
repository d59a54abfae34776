"""The action loop's own thought: tools, effects, prompts, proposals, budgets. Nothing here does I/O."""
