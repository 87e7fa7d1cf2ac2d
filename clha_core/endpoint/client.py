"""A client of OpenAI-compatible endpoints for many requests: bounded concurrency, retries, answers kept on disk.

What is here decides when to ask again for a reply that is of no use, and when to stop altogether; a single request and
its errors are in exchange.py.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI, OpenAIError
from tqdm import tqdm

from clha_core.addresses import public_address, without_secrets
from clha_core.endpoint.exchange import DETAIL_CHARS, Exchange, Failed
from clha_core.endpoint.request import Answer, Continuation, Reply, Request
from clha_core.endpoint.store import ReplyStore
from clha_core.errors import UserError

OPENAI_URL = "https://api.openai.com/v1"
UNAVAILABLE_IN_A_ROW = 20


class Endpoint:
    """A server and how to ask it.

    Args:
        url: base URL, up to /v1.
        key: API key; any text where the server wants none.
        store: file that keeps the replies.
        concurrency: requests under way at once, at most.
        max_retries: of a request that the server could not take, after its first try.
        timeout: seconds a request may take.
    """

    def __init__(
        self, url: str, key: str, store: Path, *, concurrency: int = 8, max_retries: int = 6, timeout: float = 120.0
    ) -> None:
        self.url = url
        self.key = key
        self.store = store
        self.concurrency = concurrency
        self._options: dict[str, Any] = {
            "base_url": url,
            "api_key": key,
            "max_retries": max_retries,
            "timeout": timeout,
        }

    @classmethod
    def from_environment(cls, store: Path, name: str = "OPENAI", **options: Any) -> "Endpoint":
        """The server of <name>_BASE_URL (empty: OpenAI's own) with the key of <name>_API_KEY.

        Raises:
            UserError: no key.
        """
        return cls(*_address_and_key(name), store, **options)

    @classmethod
    def serving(cls, model: str, store: Path, name: str, **options: Any) -> "Endpoint | None":
        """Of the servers of <name>_BASE_URL, separated by spaces, the first one that has a model; None has it.

        Raises:
            UserError: no key or no server in the environment, or a server that does not answer.
        """
        urls, key = _address_and_key(name)
        endpoints = (cls(url, key, store, **options) for url in urls.split())
        return next((endpoint for endpoint in endpoints if model in endpoint.models()), None)

    def models(self) -> list[str]:
        """What the server calls its models.

        Raises:
            UserError: it does not answer, or refuses the key.
        """
        try:
            with OpenAI(**self._options) as client:
                return [model.id for model in client.models.list()]
        except OpenAIError as error:
            raise UserError(f"{self.address} does not name its models: {self.hidden(error)}") from None

    @property
    def address(self) -> str:
        """The URL less what may be secret in it."""
        return public_address(self.url)

    def hidden(self, error: BaseException) -> str:
        """A server's own words; some repeat the key in them."""
        return without_secrets(str(error), self.url).replace(self.key, "***")[:DETAIL_CHARS]

    def complete(
        self,
        requests: Iterable[Request | Continuation],
        parse: Callable[[str], Any] | None = None,
        *,
        parse_retries: int = 2,
        description: str = "ask",
    ) -> list[Answer]:
        """Answers in the order of the requests; equal requests share one. What is on disk is not asked again.

        Args:
            requests: to ask.
            parse: makes a value of a reply's text; a ValueError says that it cannot, and the request is asked again.
            parse_retries: further tries, at most, for replies that `parse` refuses or that are no chat completion.
            description: label of the progress bar.

        Raises:
            UserError: the key is wrong, the model unknown, the quota spent; the server is gone (many requests in a
                row failed for it); not one request succeeded. Replies so far are kept: the next call goes on.
        """
        keyed = [(request.key(self.url), request) for request in requests]
        with (
            ReplyStore(self.store) as store,
            tqdm(total=len(dict(keyed)), desc=description, unit="answer") as progress,
        ):
            asking = _Asking(self, store, parse, parse_retries, progress)
            answers = asyncio.run(asking.answer_all(dict(keyed), self._options))
        failed = [answer for answer in answers.values() if answer.error]
        if failed and len(failed) == len(answers):
            reasons = ", ".join(f"{count} {error}" for error, count in Counter(a.error for a in failed).most_common())
            raise UserError(
                f"{self.address} gave no usable answer to any of {len(answers)} requests ({reasons}). The first: "
                f"{failed[0].detail}"
            )
        return [answers[key] for key, _ in keyed]


class _Asking:
    """One pass over requests, in an event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: ReplyStore,
        parse: Callable[[str], Any] | None,
        parse_retries: int,
        progress: tqdm,
    ) -> None:
        self.endpoint = endpoint
        self.store = store
        self.parse = parse or (lambda text: text)
        self.tries = parse_retries + 1
        self.progress = progress
        self.unavailable = 0  # requests in a row

    async def answer_all(
        self, requests: dict[str, Request | Continuation], options: dict[str, Any]
    ) -> dict[str, Answer]:
        """Answers by key."""
        answers: dict[str, Answer] = {}
        waiting = iter(requests.items())

        async def work() -> None:
            for key, request in waiting:
                answers[key] = await self._answer(key, request)
                self.progress.update()

        async with AsyncOpenAI(**options) as client:
            self.exchange = Exchange(client, self.endpoint.address, self.endpoint.hidden)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.endpoint.concurrency, len(requests))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return answers

    async def _answer(self, key: str, request: Request | Continuation) -> Answer:
        replies = self.store.replies(key)
        for reply in replies:  # a parser that was mended may take what an older one refused
            try:
                return _answer(replies, reply, value=self._value(reply), cached=True)
            except Failed as failed:
                if not failed.again:
                    return _answer(replies, reply, failed=failed, cached=True)
        failure = None
        for _ in range(self.tries):
            try:
                reply = await self._ask(request, len(replies))
                self.store.add(key, len(replies), reply)
                replies.append(reply)
                return _answer(replies, reply, value=self._value(reply))
            except Failed as failed:
                failure = failed
                if not failed.again:
                    break
        return _answer(replies, replies[-1] if replies else None, failed=failure)

    def _value(self, reply: Reply) -> Any:
        if reply.refusal is not None:
            raise Failed("refused", f"{reply.model} refused: {reply.refusal[:DETAIL_CHARS]}")
        if not reply.text and reply.finish_reason == "content_filter":
            raise Failed("refused", f"a content filter took the answer of {reply.model}.")
        try:
            return self.parse(reply.text)
        except ValueError as error:
            raise Failed("unparsed", str(error)[:DETAIL_CHARS], again=True) from None

    async def _ask(self, request: Request | Continuation, attempt: int) -> Reply:
        try:
            reply = await self.exchange.reply(request, attempt)
        except Failed as failed:
            # Many in a row: the server is gone, and every further request would wait out all of its retries.
            self.unavailable = self.unavailable + 1 if failed.unavailable else 0
            if self.unavailable >= max(UNAVAILABLE_IN_A_ROW, 2 * self.endpoint.concurrency):
                raise UserError(
                    f"{self.endpoint.address} does not answer: the last {self.unavailable} requests failed, each after "
                    f"all its retries ({failed.error}: {failed.detail}). What was answered is kept: run this again "
                    "when the server is back."
                ) from None
            raise
        self.unavailable = 0
        return reply


def _address_and_key(name: str) -> tuple[str, str]:
    """<name>_BASE_URL (empty: OpenAI's own) and <name>_API_KEY."""
    url = os.environ.get(f"{name}_BASE_URL", "").strip() or (OPENAI_URL if name == "OPENAI" else "")
    key = os.environ.get(f"{name}_API_KEY", "").strip()
    missing = [variable for variable, value in ((f"{name}_BASE_URL", url), (f"{name}_API_KEY", key)) if not value]
    if missing:
        raise UserError(
            f"The environment has no {' and no '.join(missing)}: set {name}_BASE_URL to the endpoint (up to /v1) "
            f"and {name}_API_KEY to its key, any text for a server without keys."
        )
    return url, key


def _answer(
    replies: list[Reply], reply: Reply | None, *, value: Any = None, failed: Failed | None = None, cached: bool = False
) -> Answer:
    return Answer(
        text=reply.text if reply else "",
        value=value,
        error=failed.error if failed else None,
        detail=failed.detail if failed else "",
        finish_reason=reply.finish_reason if reply else None,
        model=reply.model if reply else "",
        cached=cached,
        prompt_tokens=sum(one.prompt_tokens or 0 for one in replies),
        completion_tokens=sum(one.completion_tokens or 0 for one in replies),
        unmetered=sum(one.prompt_tokens is None for one in replies),
    )
