"""Answers of any OpenAI-compatible endpoint to many requests."""

from clha_core.endpoint.client import Endpoint
from clha_core.endpoint.request import Answer, Continuation, Request, Usage, usage_of

__all__ = ["Answer", "Continuation", "Endpoint", "Request", "Usage", "usage_of"]
