"""What is asked of an endpoint, what comes back, and what it cost."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One chat completion.

    Attributes:
        model: as the endpoint calls it.
        messages: {role, content}, oldest first.
        max_tokens: of the answer.
        temperature: None leaves it to the endpoint (some models take none).
        seed: None sends none; some servers ignore it.
        sample: tells equal requests apart, so that each is asked; it is not sent.
        options: further fields of the request's body (top_p, response_format).
    """

    model: str
    messages: Sequence[Mapping[str, str]]
    max_tokens: int
    temperature: float | None = None
    seed: int | None = None
    sample: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def body(self, attempt: int = 0, limit: str = "max_tokens") -> dict[str, Any]:
        """The fields to send; `attempt` moves the seed, else a server that heeds it would repeat itself."""
        body = {"model": self.model, "messages": [dict(message) for message in self.messages], limit: self.max_tokens}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed + attempt
        return body | dict(self.options)

    def key(self, url: str) -> str:
        """sha256 of all that decides the answer, the server's address included."""
        values = {"url": url, "sample": self.sample, "body": self.body()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Continuation:
    """One completion of token ids, by a server that takes them as they are (vLLM does).

    Attributes:
        model: as the endpoint calls it.
        prompt_ids: of the whole prompt, special tokens included.
        max_tokens: of the answer.
        temperature: 0 takes the likeliest token every time.
        top_p: 1 takes all tokens.
        seed: None sends none.
        stop: texts that end the answer.
        stop_token_ids: tokens that end it, beside the model's own; not OpenAI's, but vLLM's and SGLang's.
    """

    model: str
    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()

    def body(self, attempt: int = 0, limit: str = "max_tokens") -> dict[str, Any]:
        """As `Request.body`."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(self.prompt_ids),
            limit: self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": list(self.stop),
            "extra_body": {"stop_token_ids": list(self.stop_token_ids)},  # joins the others when it is sent
        }
        return body if self.seed is None else body | {"seed": self.seed + attempt}

    def key(self, url: str) -> str:
        """As `Request.key`."""
        return hashlib.sha256(json.dumps({"url": url, "body": self.body()}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What the endpoint said to one try; token counts are None where it did not count."""

    text: str
    refusal: str | None
    finish_reason: str | None
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        text: of the reply that was accepted, else of the last one; "" if there was none.
        value: what `parse` made of it (without `parse`, the text); None if the request failed.
        error: None, or why it failed: connection, timeout, rate_limited, server_error, rejected (by the server),
            bad_reply (not a completion), refused (by the model), unparsed.
        detail: a sentence on `error`; never the key.
        finish_reason: "stop", "length", ... as the endpoint gives it.
        model: as the endpoint names what answered.
        cached: nothing was asked, the reply was on disk.
        prompt_tokens, completion_tokens: of all tries so far, those on disk included.
        unmetered: replies for which the endpoint counted no tokens.
    """

    text: str = ""
    value: Any = None
    error: str | None = None
    detail: str = ""
    finish_reason: str | None = None
    model: str = ""
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0


@dataclass(frozen=True)
class Usage:
    """What answers cost, in tokens and in the currency of the prices."""

    prompt_tokens: int
    completion_tokens: int
    unmetered: int
    cost: float


def usage_of(answers: Iterable[Answer], *, prompt_price: float, completion_price: float) -> Usage:
    """Add up answers; prices are per million tokens. Replies from the disk count: they were paid for once."""
    answers = list(answers)
    prompt = sum(answer.prompt_tokens for answer in answers)
    completion = sum(answer.completion_tokens for answer in answers)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        unmetered=sum(answer.unmetered for answer in answers),
        cost=(prompt * prompt_price + completion * completion_price) / 1e6,
    )
