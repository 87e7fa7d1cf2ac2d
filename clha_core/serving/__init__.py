"""Serving a policy behind OpenAI's chat API, with the prompt format and the endings of its training."""
