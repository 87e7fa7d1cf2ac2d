"""Faults on purpose, and what comes of them: `make faults` runs all, docs/reliability.md has the figures."""
