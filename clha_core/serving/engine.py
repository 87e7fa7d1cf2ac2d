"""A policy in memory that answers one request at a time per caller, token by token; callers may be many threads."""

import inspect
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError

from clha_core.data.dialogue import RowError, parse_prompt
from clha_core.errors import UserError
from clha_core.evaluation.generation.endings import ROLE_MARKERS, end_token_ids
from clha_core.evaluation.sampling import Sampler, Sampling
from clha_core.models.loading import load_policy, load_tokenizer, on_device
from clha_core.serving.chat import ChatRequest, Message, Usage
from clha_core.serving.errors import invalid, too_long
from clha_core.serving.source import Source
from clha_core.serving.text_stream import TextStream
from clha_core.tokenization import encode_prompt, framing_of

GREEDY_BELOW = 1e-5  # temperature: nothing but the likeliest token has a chance there, and far below, logits overflow


@dataclass(frozen=True)
class Job:
    """A checked request: how to generate; `seed` is None where the likeliest token is taken every time."""

    prompt_ids: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stops: Sequence[str]


@dataclass(frozen=True)
class Step:
    """One more token: the text that is certain now, perhaps none; a reason at the end."""

    text: str
    usage: Usage
    finish_reason: str | None = None


class Engine:
    """A loaded policy.

    Args:
        source: which one.
        max_context: tokens of prompt and answer together; None for as many as it was trained with.

    Raises:
        UserError: it cannot be loaded, or its positions end before `max_context`.
    """

    def __init__(self, source: Source, max_context: int | None = None) -> None:
        self.source = source
        trust = source.trust_remote_code
        self._tokenizer = load_tokenizer(source.tokenizer, trust_remote_code=trust)
        self._framing = framing_of(self._tokenizer, source.settings.prompt_format)
        self.model = on_device(load_policy(source.weights, dtype=source.settings.dtype, trust_remote_code=trust)).eval()
        self._eos_ids = end_token_ids(self.model.generation_config, self._tokenizer)
        self.max_context = max_context or source.settings.max_length
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and self.max_context > positions:
            raise UserError(f"{source.version} has {positions} positions: --max-context cannot be {self.max_context}.")
        parameters = inspect.signature(self.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def job(self, request: ChatRequest) -> Job:
        """Check what needs the model to be checked.

        Raises:
            ApiError: turns that the policy was not trained on, or more tokens than its context has.
        """
        ids = self._prompt_ids(request.messages)
        room = self.max_context - len(ids)
        if room < 1:
            raise too_long(
                f"The messages have {len(ids)} tokens; prompt and answer together may have {self.max_context}."
            )
        if request.limit is not None and request.limit > room:
            raise too_long(
                f"The messages have {len(ids)} tokens and the answer may have {request.limit} more, together over the "
                f"{self.max_context} of this model: ask for {room} at most.",
                "max_tokens",
            )
        temperature = 1.0 if request.temperature is None else request.temperature
        seed = secrets.randbits(63) if request.seed is None else request.seed
        return Job(
            prompt_ids=ids,
            max_tokens=request.limit or room,
            temperature=temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=seed if temperature >= GREEDY_BELOW else None,
            stops=[*ROLE_MARKERS, *request.stops],
        )

    def _prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        try:
            turns: Sequence[Any] = parse_prompt([message.turn() for message in messages])
        except RowError as error:
            raise invalid(error.detail, "messages") from None
        roles = [turn["role"] for turn in turns]
        speakers = roles[1:] if roles[0] == "system" else roles
        if "system" in speakers:
            raise invalid("A system message has to be the first.", "messages")
        if roles[-1] != "user":
            raise invalid("The last message has to be the user's.", "messages")
        if any(role != ("user", "assistant")[at % 2] for at, role in enumerate(speakers)):
            raise invalid(
                "User and assistant have to take turns, the user first, as in training: join messages of one that "
                "follow each other.",
                "messages",
            )
        if not all(turn["content"] for turn in turns):
            raise invalid("A message is empty.", "messages")
        prompt_format, length = self.source.settings.prompt_format, self.max_context + 1
        try:
            return encode_prompt(self._tokenizer, turns, prompt_format, length, self._framing)[0]
        except TemplateError as error:
            raise invalid(f"The model's chat template does not take these messages: {error}", "messages") from None

    def steps(self, job: Job) -> Iterator[Step]:
        """Generate; the texts of all steps join to the answer, and the last step has a reason.

        The tokens are those of `generate_responses`. Not `model.generate`, which pushes its tokens and can be left
        only by an exception: here a caller who goes away simply takes no more.
        """
        sampler = None
        if job.seed is not None:
            sampler = Sampler(Sampling(job.temperature, job.top_p, [job.seed]), job.max_tokens)
        text = TextStream(self._tokenizer, job.stops)
        ids = torch.tensor([job.prompt_ids], device=self.model.device)
        cache = None
        while True:
            scores, cache = self._scores(ids, cache)
            token = scores.argmax(dim=-1) if sampler is None else sampler.draw(scores, [(0, text.tokens)])
            ids = token[None]
            piece = text.push(int(token))
            usage = Usage(len(job.prompt_ids), text.tokens)
            ended = text.ended or int(token) in self._eos_ids
            if ended or text.tokens == job.max_tokens:
                yield Step(piece + text.rest(), usage, "stop" if ended else "length")
                return
            yield Step(piece, usage)

    @torch.inference_mode()  # here, not around the loop: a mode is a thread's, and each step may run in another one
    def _scores(self, ids: torch.Tensor, cache: object) -> tuple[torch.Tensor, object]:
        """Logits behind `ids` (1 x tokens that are not in the cache), 1 x vocabulary, and the cache with them."""
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self._last_only)
        return output.logits[:, -1, :].float(), output.past_key_values

    def complete(self, job: Job) -> tuple[str, str, Usage]:
        """The whole answer, why it ended, and what it took."""
        steps = list(self.steps(job))
        return "".join(step.text for step in steps), steps[-1].finish_reason or "", steps[-1].usage
