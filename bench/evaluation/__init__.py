"""The evaluation of the action loop: tasks on the lab, whose end states and facts are compared."""
