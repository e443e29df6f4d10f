"""How answers are written: as one document once all of them are there, or as server-sent events while they come."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest

from trainer.ship.answering import Answer
from trainer.ship.api import ApiError, Request, usage
from trainer.ship.waiting import Job

DISCONNECT_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Shape:
    """How one kind of endpoint writes its answers."""

    prefix: str
    whole: str
    chunk: str

    def new_id(self) -> str:
        return f"{self.prefix}-{uuid.uuid4().hex}"

    def choice(
        self, index: int, text: str, reason: str | None, *, streamed: bool, first: bool = False
    ) -> dict[str, Any]:
        raise NotImplementedError


class ChatShape(Shape):
    def choice(
        self, index: int, text: str, reason: str | None, *, streamed: bool, first: bool = False
    ) -> dict[str, Any]:
        role = {"role": "assistant"} if first or not streamed else {}
        message = {**role, **({"content": text} if text or not streamed or first else {})}
        about = {} if streamed else {"refusal": None}
        key = "delta" if streamed else "message"
        return {"index": index, key: {**message, **about}, "logprobs": None, "finish_reason": reason}


class CompletionShape(Shape):
    def choice(
        self, index: int, text: str, reason: str | None, *, streamed: bool, first: bool = False
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


CHAT = ChatShape("chatcmpl", "chat.completion", "chat.completion.chunk")
COMPLETION = CompletionShape("cmpl", "text_completion", "text_completion")


STOPPING = ApiError(503, "The server is shutting down.", kind="server_error", code="shutting_down")


async def waited_for(http: HttpRequest, jobs: Sequence[Job]) -> list[Answer]:
    """Whole answers; where the client goes away they end, and those behind it come sooner."""
    answers = asyncio.gather(*(job.answer() for job in jobs))
    try:
        while not answers.done():
            await asyncio.wait({answers}, timeout=DISCONNECT_LOOK_SECONDS)
            if await http.is_disconnected():
                break
        else:
            found = list(answers.result())
            if any(answer.ended == "left" for answer in found):
                raise STOPPING
            return found
    finally:
        for job in jobs:
            job.left.set()
    answers.cancel()
    raise ApiError(499, "The client has gone.")


async def events_of(
    jobs: Sequence[Job], begun: Sequence[str], document: dict[str, Any], shape: Shape, request: Request
) -> AsyncIterator[str]:
    """Chunks of each choice, one choice after the other; the generator is closed where the client goes away."""
    wants_usage = bool(request.stream_options and request.stream_options.include_usage)
    answers: list[Answer] = []

    def event(choices: list[dict[str, Any]], used: dict[str, int] | None = None) -> str:
        more = {"usage": used} if wants_usage else {}
        return f"data: {json.dumps({**document, 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    try:
        for index, (job, text) in enumerate(zip(jobs, begun, strict=True)):
            yield event([shape.choice(index, text, None, streamed=True, first=True)])
            async for part in job.parts():
                if isinstance(part, str):
                    yield event([shape.choice(index, part, None, streamed=True)])
                elif part.ended == "left":
                    raise STOPPING
                else:
                    answers.append(part)
                    yield event([shape.choice(index, "", part.ended, streamed=True)])
        if wants_usage:
            prompt_tokens = sum(found.prompt_tokens for found in answers[:: request.n or 1])
            yield event([], usage(prompt_tokens, sum(found.tokens for found in answers)))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.body)}\n\n"
    finally:
        for job in jobs:
            job.left.set()
