"""One answer on its way to the client: as server-sent events, token by token, or whole."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from anyio import CancelScope, create_task_group
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from clha_core.serving.admission import Admission
from clha_core.serving.chat import ChatRequest, Envelope
from clha_core.serving.engine import Engine, Job, Step
from clha_core.serving.errors import broken

logger = logging.getLogger(__name__)


class Answer(Response):
    """Waits for its turn, generates, and stops in both when the client goes away.

    Args:
        admission: already entered; it is left at the end.
    """

    def __init__(self, engine: Engine, request: ChatRequest, job: Job, admission: Admission) -> None:
        super().__init__()
        self._engine, self._request, self._job, self._admission = engine, request, job, admission
        self._envelope = Envelope(engine.source.version, engine.source.fingerprint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # anyio's cancellation, not asyncio's: it waits for a step that runs in a thread, so that a place is given
            # back when nothing computes in it any more.
            async with create_task_group() as tasks:
                tasks.start_soon(_cancel_at_disconnection, receive, tasks.cancel_scope)
                await self._answer(scope, receive, send)
                tasks.cancel_scope.cancel()
        finally:
            self._admission.leave()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._admission.turn:
            steps = iterate_in_threadpool(self._engine.steps(self._job))
            if self._request.stream:
                headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # no proxy collects events
                events = StreamingResponse(self._events(steps), headers=headers, media_type="text/event-stream")
                await events.stream_response(send)  # called whole, it would wait for the disconnection too
            else:
                await (await self._whole(steps))(scope, receive, send)

    async def _whole(self, steps: AsyncIterator[Step]) -> Response:
        taken = [step async for step in steps]
        text = "".join(step.text for step in taken)
        return JSONResponse(self._envelope.completion(text, taken[-1].finish_reason or "", taken[-1].usage))

    async def _events(self, steps: AsyncIterator[Step]) -> AsyncIterator[str]:
        yield _event(self._envelope.chunk({"role": "assistant", "content": ""}))
        try:
            async for step in steps:
                if step.text:
                    yield _event(self._envelope.chunk({"content": step.text}))
                if step.finish_reason:
                    yield _event(self._envelope.chunk({}, step.finish_reason))
        except Exception:  # the status is sent: what went wrong can only be another event
            logger.exception("an answer broke off")
            yield _event(broken().body)
            return
        options = self._request.stream_options
        if options and options.include_usage:
            yield _event(self._envelope.usage_chunk(step.usage))
        yield "data: [DONE]\n\n"


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


async def _cancel_at_disconnection(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
