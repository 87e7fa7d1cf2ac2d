"""A reward model rates candidates: texts in, scores out. Rescoring, reward models and evaluation all use it."""
