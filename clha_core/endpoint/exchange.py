"""One request to an OpenAI-compatible server: its reply, or what went wrong and whether asking again may help.

The openai package retries what may pass (time-outs, 408, 409, 429, 5xx) with growing pauses, or as long as the server's
Retry-After says.
"""

from collections.abc import Callable
from typing import Any

from openai import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from openai.types import Completion
from openai.types.chat import ChatCompletion

from clha_core.endpoint.request import Continuation, Reply, Request
from clha_core.errors import UserError

DETAIL_CHARS = 500


class Failed(Exception):
    """A request came to nothing; `again` says that another try may help, `unavailable` that the server is to blame."""

    def __init__(self, error: str, detail: str, *, again: bool = False, unavailable: bool = False) -> None:
        super().__init__(detail)
        self.error, self.detail, self.again, self.unavailable = error, detail, again, unavailable


class Exchange:
    """Requests and replies, with one server.

    Args:
        client: of the server.
        address: what messages call the server.
        hidden: an error in the server's own words, less what is secret in them.
    """

    def __init__(self, client: AsyncOpenAI, address: str, hidden: Callable[[BaseException], str]) -> None:
        self._client = client
        self._address = address
        self._hidden = hidden
        self._limits: dict[str, str] = {}  # by model, what its servers call the limit of tokens

    async def reply(self, request: Request | Continuation, attempt: int) -> Reply:
        """Ask once.

        Raises:
            Failed: there is no reply of use.
            UserError: and no other request will have one: the key is wrong, the model unknown, the quota spent.
        """
        return _reply_of(await self._completion(request, attempt), request.model)

    async def _completion(self, request: Request | Continuation, attempt: int) -> Any:
        limit = self._limits.get(request.model, "max_tokens")
        try:
            if isinstance(request, Continuation):
                return await self._client.completions.create(**request.body(attempt, limit))
            return await self._client.chat.completions.create(**request.body(attempt, limit))
        except (AuthenticationError, NotFoundError) as error:
            raise UserError(
                f"{self._address} refuses model {request.model!r} or the key: {self._hidden(error)} Check "
                "both and the URL; they come from the parameters and from the environment."
            ) from None
        except BadRequestError as error:
            # What newer models of OpenAI call the limit, while most other servers know the older name only.
            if error.param == "max_tokens" and limit == "max_tokens":
                self._limits[request.model] = "max_completion_tokens"
                return await self._completion(request, attempt)
            raise Failed("rejected", self._hidden(error)) from None
        except RateLimitError as error:
            if error.code == "insufficient_quota":
                raise UserError(f"{self._address} wants to be paid first: {self._hidden(error)}") from None
            raise Failed("rate_limited", self._hidden(error), unavailable=True) from None
        except InternalServerError as error:
            raise Failed("server_error", self._hidden(error), unavailable=True) from None
        except APIStatusError as error:
            raise Failed("rejected", self._hidden(error)) from None
        except APITimeoutError as error:
            raise Failed("timeout", self._hidden(error), unavailable=True) from None
        except APIConnectionError as error:
            raise Failed("connection", self._hidden(error.__cause__ or error), unavailable=True) from None
        except (APIResponseValidationError, ValueError) as error:  # what comes is no JSON
            raise Failed("bad_reply", self._hidden(error), again=True) from None


def _reply_of(completion: Any, model: str) -> Reply:
    """What is of use in a completion.

    Raises:
        Failed: there is nothing: another kind of page, an error under status 200, no choices, text that is none.
    """
    known = isinstance(completion, ChatCompletion | Completion)
    choice = completion.choices[0] if known and completion.choices else None
    message = choice.message if isinstance(completion, ChatCompletion) and choice else None
    content = message.content if message else getattr(choice, "text", None)
    if choice is None or (message is None and content is None):
        shown = completion.to_json(indent=None) if known else str(completion)
        raise Failed("bad_reply", f"not a completion: {shown[:DETAIL_CHARS]}", again=True)
    text = content or ""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Failed("bad_reply", "the text has half a surrogate pair (a broken emoji).", again=True) from None
    usage = completion.usage
    return Reply(
        text=text,
        refusal=message.refusal if message else None,
        finish_reason=choice.finish_reason,
        model=completion.model or model,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
    )
