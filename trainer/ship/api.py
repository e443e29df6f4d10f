"""OpenAI's requests and answers as far as they are served: what a request may hold, what is refused and how.

After the API reference of `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.  A value that would be ignored and would change the
answer is refused; one that cannot change it (`user`, `metadata`) is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

MOST_CHOICES = 16
MOST_INPUTS = 2048
"""Texts of one request for embeddings, as in the API."""
MOST_STOPS = 4
"""The API's own limit."""


class ApiError(Exception):
    """What a client is answered: an HTTP status and an error object."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str = "invalid_request_error"
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class StreamOptions(BaseModel):
    include_usage: bool = False


class ResponseFormat(BaseModel):
    type: Literal["text"] = "text"


class Request(BaseModel):
    """What both kinds have in common."""

    model_config = ConfigDict(extra="allow", strict=False)

    model: str = Field(min_length=1)
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    task: str | None = None
    """Ours: with the model `auto` it chooses by `--route`."""

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and (len(value) > MOST_STOPS or not all(value)):
            raise ValueError(f"at most {MOST_STOPS} texts, none of them empty")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) and self.stop else tuple(self.stop or ())


class ChatRequest(Request):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(Request):
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return list(self.prompt)  # type: ignore[arg-type]


class EmbeddingRequest(BaseModel):
    model_config = ConfigDict(extra="allow", strict=False)

    model: str = Field(min_length=1)
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class RatingRequest(BaseModel):
    """Ours: of an answer by its id."""

    model_config = ConfigDict(extra="allow", strict=False)

    id: str = Field(min_length=1)
    rating: Annotated[float, Field(ge=1, le=5)]
    because: str | None = None
    better: Annotated[str, Field(min_length=1)] | None = None


REFUSED: dict[str, Sequence[Any]] = {
    "logprobs": (False, 0), "top_logprobs": (0,), "logit_bias": ({},), "frequency_penalty": (0,), "presence_penalty": (0,),
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "suffix": ("",), "dimensions": (), "best_of": (1,), "audio": (), "modalities": (["text"],), "prediction": (), "web_search_options": (),
}  # fmt: skip
"""Parameters that would change the answer and are not served, with the values that change nothing."""
KNOWN = {
    *REFUSED, "user", "metadata", "store", "service_tier", "parallel_tool_calls", "reasoning_effort", "verbosity",
    "prompt_cache_key", "safety_identifier", "prompt_cache_retention",
}  # fmt: skip
"""What a request may hold beside the fields above."""


def parsed(kind: type[ChatRequest | CompletionRequest | EmbeddingRequest | RatingRequest], body: Any) -> Any:
    """Raises ApiError."""
    if not isinstance(body, dict):
        raise ApiError(400, "The body is no JSON object.")
    for name, neutral in REFUSED.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise ApiError(400, f"{name} is not supported here.", param=name, code="unsupported_parameter")
    try:
        request = kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(step) for step in first["loc"][:1]) or None
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise ApiError(400, f"{param}: {first['msg']}", param=param, code=code) from None
    if unknown := sorted(set(request.model_extra or ()) - KNOWN):
        raise ApiError(400, f"Unrecognized request argument: {unknown[0]}", param=unknown[0], code="unknown_parameter")
    return request


def usage(prompt_tokens: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
