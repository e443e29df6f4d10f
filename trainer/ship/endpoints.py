"""The server's endpoints: a request becomes prompts in tokens, waits its turn, and is answered whole or as server-sent events."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trainer.data.bad import NotARow, TooLong
from trainer.data.messages import Turn, turns_of
from trainer.ship.answering import Answer, Sampling
from trainer.ship.api import ApiError, ChatRequest, CompletionRequest, Request, parsed, usage
from trainer.ship.models import Models
from trainer.ship.waiting import Full, Job, Waiting

AUTO = "auto"
"""The model's name where `task` chooses it."""
OF_ENCODERS = ("classification", "embedding")
"""Tasks that an encoder answers; any other is a decoder's."""
DISCONNECT_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    most_waiting: int
    most_bytes: int
    temperature: float
    """Where a request names none."""


@dataclass(frozen=True)
class Shape:
    """How one kind of endpoint writes its answers."""

    prefix: str
    whole: str
    chunk: str

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


class Endpoints:
    def __init__(
        self,
        models: Models,
        limits: Limits,
        key: str | None,
        routes: dict[str, str],
        hosts: Sequence[str],
        started: int,
    ) -> None:
        """`hosts`: what a request's Host header may name; empty: anything."""
        self.models, self.limits, self.key, self.routes, self.started = models, limits, key, routes, started
        self.hosts = hosts
        self.waiting = Waiting(limits.most_waiting)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completions, methods=["POST"]),
            ],
            exception_handlers={ApiError: _refused, HTTPException: _unknown, Exception: _failed},
        )

    # ---- models ----

    async def _health(self, request: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def _models(self, request: HttpRequest) -> Response:
        self._check_sender(request)
        return JSONResponse({"object": "list", "data": [self._about(name) for name in self.models.names]})

    async def _model(self, request: HttpRequest) -> Response:
        self._check_sender(request)
        return JSONResponse(self._about(self._named(request.path_params["name"])))

    def _about(self, name: str) -> dict[str, Any]:
        base = self.models.names[0]
        parent = None if name == base else base
        about = {"id": name, "object": "model", "created": self.started, "owned_by": "toonswarm"}
        return {**about, "parent": parent, "max_model_len": self.models.context_tokens}

    def _named(self, name: str) -> str:
        if name not in self.models.names:
            raise ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")
        return name

    def _chosen(self, request: Request) -> str:
        """The named model, or for `auto` the one that the task's route names, else the first adapter."""
        if request.model != AUTO:
            return self._named(request.model)
        task = request.task or ""
        if task in OF_ENCODERS and task not in self.routes:
            what = f"No encoder is served for the task '{task}': --route {task}=MODEL names a model for it."
            raise ApiError(400, what, param="task", code="no_route")
        return self.routes.get(task, self.models.names[:2][-1])

    def _check_sender(self, request: HttpRequest) -> None:
        """A page in a browser may point its own name at this machine (DNS rebinding); then its name is in the Host header."""
        if self.hosts and _host_in(request.headers.get("host", "")) not in self.hosts:
            raise ApiError(403, "The Host header does not name this machine.", code="host_not_allowed")
        if self.key and not _key_is_right(request.headers.get("authorization", ""), self.key):
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    # ---- answers ----

    async def _chat(self, http: HttpRequest) -> Response:
        request: ChatRequest = parsed(ChatRequest, await self._body(http))
        name = self._chosen(request)
        turns = _turns(request.messages)
        prompt = _within(lambda: self.models.asker(name).conversation(turns), "messages")
        return await self._answered(http, request, name, [prompt], CHAT, request.max_completion_tokens)

    async def _completions(self, http: HttpRequest) -> Response:
        request: CompletionRequest = parsed(CompletionRequest, await self._body(http))
        name = self._chosen(request)
        prompts = [self._prompt(name, prompt) for prompt in request.prompts]
        return await self._answered(http, request, name, prompts, COMPLETION, None, echo=bool(request.echo))

    def _prompt(self, name: str, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return _within(lambda: self.models.asker(name).text(prompt), "prompt")
        if not prompt or not all(0 <= token < len(self.models.tokenizer) for token in prompt):
            raise ApiError(400, "The prompt holds no ids of this model's tokens.", param="prompt", code="invalid_value")
        if len(prompt) >= self.models.context_tokens:
            raise self._too_long(len(prompt), "prompt")
        return prompt

    def _too_long(self, tokens: int, param: str) -> ApiError:
        what = (
            f"This model's maximum context length is {self.models.context_tokens} tokens; the request needs {tokens}."
        )
        return ApiError(400, what, param=param, code="context_length_exceeded")

    async def _body(self, http: HttpRequest) -> Any:
        self._check_sender(http)
        raw = bytearray()
        async for chunk in http.stream():
            raw += chunk
            if len(raw) > self.limits.most_bytes:
                what = f"The request is larger than {self.limits.most_bytes} bytes."
                raise ApiError(413, what, code="request_too_large")
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise ApiError(400, "The body is no JSON.") from None

    async def _answered(
        self, http: HttpRequest, request: Request, name: str, prompts: Sequence[list[int]], shape: Shape,
        most: int | None, *, echo: bool = False,
    ) -> Response:  # fmt: skip
        most = most or request.max_tokens
        for prompt in prompts:
            if most is not None and len(prompt) + most > self.models.context_tokens:
                raise self._too_long(len(prompt) + most, "max_tokens")
        begun = [
            str(self.models.tokenizer.decode(prompt, skip_special_tokens=True)) if echo else "" for prompt in prompts
        ]
        jobs = self._jobs(request, name, prompts, most)
        document = {"id": f"{shape.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        texts = [text for text in begun for _ in range(request.n or 1)]
        if request.stream:
            events = _events(jobs, texts, {**document, "object": shape.chunk}, shape, request)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        answers = await _waited_for(http, jobs)
        choices = [
            shape.choice(index, text + found.text, found.ended, streamed=False)
            for index, (text, found) in enumerate(zip(texts, answers, strict=True))
        ]
        return JSONResponse({**document, "object": shape.whole, "choices": choices, "usage": _used(prompts, answers)})

    def _jobs(self, request: Request, name: str, prompts: Sequence[list[int]], most: int | None) -> list[Job]:
        """One for each prompt and choice, in order; all of them or none."""
        count = request.n or 1
        asked = [(prompt, number) for prompt in prompts for number in range(count)]
        try:
            self.waiting.refuse_beyond(len(asked))
            return [self._job(request, name, prompt, number, most) for prompt, number in asked]
        except Full:
            what = "Too many requests wait here; try again later."
            raise ApiError(429, what, kind="rate_limit_error", code="rate_limit_exceeded") from None

    def _job(self, request: Request, name: str, prompt: list[int], number: int, most: int | None) -> Job:
        temperature = self.limits.temperature if request.temperature is None else request.temperature
        seed = None if request.seed is None else (request.seed + number) % (1 << 63)
        top_p = 1.0 if request.top_p is None else request.top_p
        room = self.models.room(prompt)
        sampling = Sampling(most or room, temperature, top_p, seed, request.stops)
        return self.waiting.add(lambda on_text, left: self.models.answer(name, prompt, sampling, on_text, left))


def _host_in(header: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _key_is_right(sent: str, key: str) -> bool:
    scheme, _, word = sent.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(word.strip().encode(), key.encode())


def _turns(messages: list[dict[str, Any]]) -> list[Turn]:
    """As training rows are read; the answer that is wanted completes the conversation."""
    try:
        return turns_of([*messages, {"role": "assistant", "content": "x"}])[:-1]
    except NotARow as error:
        raise ApiError(400, f"{error.what}: {error.fix}.", param="messages", code="invalid_value") from None


def _within(make: Any, param: str) -> list[int]:
    try:
        return list(make())
    except TooLong as error:
        raise ApiError(400, f"{error.what}: {error.fix}.", param=param, code="context_length_exceeded") from None
    except NotARow as error:
        raise ApiError(400, f"{error.what}: {error.fix}.", param=param, code="invalid_value") from None


def _used(prompts: Sequence[list[int]], answers: Sequence[Answer]) -> dict[str, int]:
    return usage(sum(map(len, prompts)), sum(found.tokens for found in answers))


STOPPING = ApiError(503, "The server is shutting down.", kind="server_error", code="shutting_down")


async def _waited_for(http: HttpRequest, jobs: Sequence[Job]) -> list[Answer]:
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


async def _events(
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


async def _refused(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {429: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(error.status)
    return JSONResponse(error.body, status_code=error.status, headers=headers)


async def _unknown(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{error.detail}: {request.method} {request.url.path}"
    return JSONResponse(ApiError(error.status_code, what).body, status_code=error.status_code, headers=error.headers)


async def _failed(request: HttpRequest, error: Exception) -> Response:
    """Its traceback goes to the server's own output; the client is told the kind of error only."""
    failed = ApiError(500, f"The model failed ({type(error).__name__}).", kind="server_error")
    return JSONResponse(failed.body, status_code=500)
