"""Responses of an OpenAI-compatible endpoint."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clha_core.candidates.pool import Draft
from clha_core.endpoint import Answer, Endpoint, Request, usage_of
from clha_core.params import EndpointCandidatesParams

REPLIES = "replies.sqlite"


class EndpointGenerator:
    """A model behind an endpoint. Its replies are kept: a run that was killed asks only for what is missing.

    Args:
        model: as the endpoint calls it.
        params: how to ask.
        kept: folder for the replies.

    Raises:
        UserError: the environment does not say where the endpoint is.
    """

    def __init__(self, model: str, params: EndpointCandidatesParams, kept: Path) -> None:
        self.model = model
        self.origin = f"endpoint:{model}"
        self.params = params
        self._endpoint = Endpoint.from_environment(kept / REPLIES, params.environment, concurrency=params.concurrency)
        self._answers: list[Answer] = []

    def generate(self, rows: Sequence[Mapping[str, Any]], room: Sequence[int]) -> Iterator[Draft]:
        """Up to `samples` responses for each row, `room` of it at most; rows of one prompt get the same ones.

        Raises:
            UserError: as `Endpoint.complete`.
        """
        asked = [
            (number, self._request(row, sample))
            for number, row in enumerate(rows)
            for sample in range(min(self.params.samples, room[number]))
        ]
        self._answers = self._endpoint.complete([request for _, request in asked], description=f"ask {self.model}")
        for (number, _), answer in zip(asked, self._answers, strict=True):
            yield Draft(number, answer.text, answer.finish_reason != "length", answer.error)

    def _request(self, row: Mapping[str, Any], sample: int) -> Request:
        return Request(
            model=self.model,
            messages=row["prompt"],
            max_tokens=self.params.max_tokens,
            temperature=self.params.temperature,
            seed=None if self.params.seed is None else self.params.seed + sample,
            sample=sample,
        )

    def describe(self) -> dict[str, Any]:
        """What made the responses; neither key nor address."""
        return {
            "kind": "endpoint",
            "model": self.model,
            "answered_by": sorted({answer.model for answer in self._answers if answer.model}),
            **self.params.model_dump(include={"temperature", "seed", "max_tokens"}),
        }

    def usage(self) -> dict[str, Any]:
        """Tokens, and what they cost where prices are given. Rows that share an answer paid for it once."""
        params, place = self.params, self.params.models.index(self.model)
        priced = bool(params.prompt_prices and params.completion_prices)
        usage = usage_of(
            {id(answer): answer for answer in self._answers}.values(),
            prompt_price=params.prompt_prices[place] if priced else 0.0,
            completion_price=params.completion_prices[place] if priced else 0.0,
        )
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "unmetered": usage.unmetered,
        }
        return counts | {"cost": round(usage.cost, 6)} if priced else counts
