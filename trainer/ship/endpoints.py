"""The server's endpoints: a request becomes prompts in tokens, waits its turn, and is answered whole or as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
from trainer.ship.answering import Answer, OnText, Sampling
from trainer.ship.api import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    RatingRequest,
    Request,
    parsed,
    usage,
)
from trainer.ship.encoders import EMBEDDING, OF_ENCODERS, Encoder
from trainer.ship.models import Models
from trainer.ship.rated import NotRated, Rated
from trainer.ship.responses import CHAT, COMPLETION, Shape, events_of, waited_for
from trainer.ship.sources import ENCODER
from trainer.ship.waiting import Ask, Full, Job, Waiting

AUTO = "auto"
"""The model's name where `task` chooses it."""


@dataclass(frozen=True)
class Limits:
    most_waiting: int
    most_bytes: int
    temperature: float
    """Where a request names none."""


class Endpoints:
    def __init__(
        self, models: Models, encoders: dict[str, Encoder], limits: Limits, key: str | None, routes: dict[str, str],
        hosts: Sequence[str], started: int, rated: Rated | None = None,
    ) -> None:  # fmt: skip
        """`hosts`: what a request's Host header may name; empty: anything.  `rated`: where answers may be rated."""
        self.models, self.limits, self.key, self.rated = models, limits, key, rated
        self.encoders = {**models.encoders, **encoders}
        self.routes, self.hosts, self.started = routes, hosts, started
        self.waiting = Waiting(limits.most_waiting)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/ratings", self._ratings, methods=["POST"]),
            ],
            lifespan=self._life,
            exception_handlers={ApiError: _refused, HTTPException: _unknown, Exception: _failed},
        )

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(self.rated.follow(self.waiting)) if self.rated else None
        yield
        if following:
            following.cancel()

    # ---- models ----

    async def _health(self, request: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def _models(self, request: HttpRequest) -> Response:
        self._check_sender(request)
        return JSONResponse({"object": "list", "data": [self._about(name) for name in self._names]})

    async def _model(self, request: HttpRequest) -> Response:
        self._check_sender(request)
        return JSONResponse(self._about(self._named(request.path_params["name"])))

    @property
    def _names(self) -> list[str]:
        return [*self.models.names, *self.encoders]

    def _about(self, name: str) -> dict[str, Any]:
        about = {"id": name, "object": "model", "created": self.started, "owned_by": "toonswarm"}
        if name in self.encoders:
            return {**about, "parent": None, "max_model_len": self.encoders[name].longest}
        base = self.models.names[0]
        return {**about, "parent": None if name == base else base, "max_model_len": self.models.context_tokens}

    def _named(self, name: str) -> str:
        if name not in self._names:
            raise ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")
        return name

    def _chosen(self, model: str, task: str) -> str:
        """The named model, of a pair its encoder for an encoder's tasks; for `auto` the one that the task's route names, else an encoder for its
        tasks, else what the run has promoted or its canary, else the first adapter.
        """
        if model != AUTO:
            encoder = f"{self._named(model)}/{ENCODER}"
            return encoder if task in OF_ENCODERS and encoder in self.encoders else model
        able = [name for name, encoder in self.encoders.items() if task == EMBEDDING or encoder.has_head]
        usual = able if task in OF_ENCODERS else self.models.names[:2][-1:]
        if self.rated and task not in {*self.routes, *OF_ENCODERS}:
            return self.rated.chosen()
        if not (names := [self.routes[task]] if task in self.routes else usual):
            what = f"No encoder is served for the task '{task}': --encoder names one, --route {task}=MODEL takes another model."
            raise ApiError(400, what, param="task", code="no_route")
        return names[0]

    def _check_sender(self, request: HttpRequest) -> None:
        """A page in a browser may point its own name at this machine (DNS rebinding); then its name is in the Host header.

        One that posts here without that, and without reading the answer, is named by its browser in the Origin header.
        """
        if self.hosts and _host_in(request.headers.get("host", "")) not in self.hosts:
            raise ApiError(403, "The Host header does not name this machine.", code="host_not_allowed")
        page = request.headers.get("origin")
        if self.hosts and page is not None and _host_in(page.partition("://")[2]) not in self.hosts:
            raise ApiError(403, "Pages of other sites may not ask this machine.", code="origin_not_allowed")
        if self.key and not _key_is_right(request.headers.get("authorization", ""), self.key):
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    # ---- answers ----

    async def _chat(self, http: HttpRequest) -> Response:
        request: ChatRequest = parsed(ChatRequest, await self._body(http))
        name = self._chosen(request.model, request.task or "")
        turns = _turns(request.messages)
        if name in self.encoders:
            return await self._classified(http, request, name, turns)
        prompt = _within(lambda: self.models.asker(name).conversation(turns), "messages")
        return await self._answered(http, request, name, [prompt], CHAT, request.max_completion_tokens, turns=turns)

    async def _completions(self, http: HttpRequest) -> Response:
        request: CompletionRequest = parsed(CompletionRequest, await self._body(http))
        name = self._chosen(request.model, request.task or "")
        if name in self.encoders:
            raise _cannot(name, "complete a text")
        if not (prompts := [self._prompt(name, prompt) for prompt in request.prompts]):
            raise ApiError(400, "The list of prompts is empty.", param="prompt", code="invalid_value")
        return await self._answered(http, request, name, prompts, COMPLETION, None, echo=bool(request.echo))

    async def _classified(self, http: HttpRequest, request: ChatRequest, name: str, turns: Sequence[Turn]) -> Response:
        """The label of the last message, as an answer."""
        encoder = self.encoders[name]
        if not encoder.has_head:
            raise _cannot(name, "classify: it has no classification head")
        ids = _fitting(encoder, str(turns[-1]["content"]), "messages")

        jobs = self._all_of([lambda on_text, left: encoder.answer(ids, on_text)])
        return await self._written(http, request, name, [ids], CHAT, [""], jobs, CHAT.new_id())

    async def _embeddings(self, http: HttpRequest) -> Response:
        request: EmbeddingRequest = parsed(EmbeddingRequest, await self._body(http))
        name = self._chosen(request.model, EMBEDDING)
        if name not in self.encoders:
            raise _cannot(name, "make embeddings: --encoder serves a model that does")
        encoder = self.encoders[name]
        texts = [_fitting(encoder, text, "input") for text in request.texts]
        try:
            vectors = await self.waiting.result_of(lambda: encoder.vectors(texts))
        except Full:
            raise _too_many() from None
        write = _as_base64 if request.encoding_format == "base64" else list
        data = [{"object": "embedding", "index": at, "embedding": write(one)} for at, one in enumerate(vectors)]
        tokens = sum(map(len, texts))
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": used})

    async def _ratings(self, http: HttpRequest) -> Response:
        request: RatingRequest = parsed(RatingRequest, await self._body(http))
        if self.rated is None:
            raise ApiError(404, "No run with `feedback:` in its config is served here.", code="no_feedback")
        row = {"answer": request.id, "rating": request.rating, "because": request.because, "better": request.better}
        try:
            seq = await self.rated.rate(row)
        except NotRated as error:
            raise ApiError(400, str(error), param="id", code="not_rated") from None
        return JSONResponse({"object": "rating", "id": request.id, "rating": request.rating, "seq": seq})

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
            body = json.loads(raw)
            json.dumps(body, ensure_ascii=False).encode()  # half of a surrogate pair is JSON and no text
        except (ValueError, RecursionError):
            raise ApiError(400, "The body is no JSON.") from None
        return body

    async def _answered(
        self, http: HttpRequest, request: Request, name: str, prompts: Sequence[list[int]], shape: Shape,
        most: int | None, *, echo: bool = False, turns: Sequence[Turn] = (),
    ) -> Response:  # fmt: skip
        """`turns`: of a conversation whose answer may be rated, the first one where there are several."""
        most = most or request.max_tokens
        for prompt in prompts:
            if most is not None and len(prompt) + most > self.models.context_tokens:
                raise self._too_long(len(prompt) + most, "max_tokens")
        begun = [
            str(self.models.tokenizer.decode(prompt, skip_special_tokens=True)) if echo else "" for prompt in prompts
        ]
        asked = [(prompt, number) for prompt in prompts for number in range(request.n or 1)]
        asks = [self._ask(request, name, prompt, number, most) for prompt, number in asked]
        answer = shape.new_id()
        if self.rated and turns:
            asks[0] = _kept(asks[0], self.rated, answer, name, turns)
        return await self._written(http, request, name, prompts, shape, begun, self._all_of(asks), answer)

    async def _written(
        self, http: HttpRequest, request: Request, name: str, prompts: Sequence[list[int]], shape: Shape, begun: Sequence[str],
        jobs: Sequence[Job], answer: str,
    ) -> Response:  # fmt: skip
        document = {"id": answer, "created": int(time.time()), "model": name}
        texts = [text for text in begun for _ in range(len(jobs) // len(begun))]
        if request.stream:
            events = events_of(jobs, texts, {**document, "object": shape.chunk}, shape, request)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        answers = await waited_for(http, jobs)
        choices = [
            shape.choice(index, text + found.text, found.ended, streamed=False)
            for index, (text, found) in enumerate(zip(texts, answers, strict=True))
        ]
        return JSONResponse({**document, "object": shape.whole, "choices": choices, "usage": _used(prompts, answers)})

    def _all_of(self, asks: Sequence[Ask]) -> list[Job]:
        """A job for each, in order; all of them or none."""
        try:
            self.waiting.refuse_beyond(len(asks))
        except Full:
            raise _too_many() from None
        return [self.waiting.add(ask) for ask in asks]

    def _ask(self, request: Request, name: str, prompt: list[int], number: int, most: int | None) -> Ask:
        temperature = self.limits.temperature if request.temperature is None else request.temperature
        seed = None if request.seed is None else (request.seed + number) % (1 << 63)
        top_p = 1.0 if request.top_p is None else request.top_p
        room = self.models.room(prompt)
        sampling = Sampling(most or room, temperature, top_p, seed, request.stops)
        return lambda on_text, left: self.models.answer(name, prompt, sampling, on_text, left)


def _kept(ask: Ask, rated: Rated, answer: str, name: str, turns: Sequence[Turn]) -> Ask:
    """The same, and what was answered is kept for a rating before the client has all of it."""

    def asked(on_text: OnText, left: Callable[[], bool]) -> Answer:
        found = ask(on_text, left)
        if found.ended != "left":
            rated.keep(answer, name, turns, found.text)
        return found

    return asked


def _too_many() -> ApiError:
    what = "Too many requests wait here; try again later."
    return ApiError(429, what, kind="rate_limit_error", code="rate_limit_exceeded")


def _cannot(name: str, what: str) -> ApiError:
    return ApiError(400, f"The model '{name}' cannot {what}.", param="model", code="unsupported_model")


def _fitting(encoder: Encoder, text: str, param: str) -> list[int]:
    try:
        ids = encoder.tokens(text)
    except TooLong as error:
        raise ApiError(400, f"{error.what}: {error.fix}.", param=param, code="context_length_exceeded") from None
    if not ids:
        raise ApiError(400, "The text has no tokens.", param=param, code="invalid_value")
    return ids


def _as_base64(vector: Sequence[float]) -> str:
    """Of little-endian floats of 32 bits, as the official client asks for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


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
