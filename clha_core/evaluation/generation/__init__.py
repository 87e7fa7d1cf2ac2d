"""Answers of a policy to many prompts."""

from clha_core.evaluation.generation.answers import generate_responses
from clha_core.evaluation.generation.endings import Generation

__all__ = ["Generation", "generate_responses"]
