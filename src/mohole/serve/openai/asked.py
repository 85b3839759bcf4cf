"""What the body of a request asks for: every key checked by hand or by type, what cannot be done refused by name. No models."""

import difflib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mohole.serve.errors import short
from mohole.serve.openai.refusals import OpenAIRefusal, refused_key

Endpoint = Literal["chat", "completions"]
MOST_CHOICES = 16
"""Of a request: prompts times `n`."""

_NOTHING: dict[str, tuple[object, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None, "none"),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}
"""What is not done here, and the values that ask for nothing."""
_READ_OVER = frozenset(
    [
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "verbosity",
    ]
)
_Text = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Body):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Steering(_Body):
    """What is done to the model; the interventions are read by mohole.act."""

    interventions: Annotated[list[Any], Field(max_length=256)] | None = (
        None  # everybody beside it waits for them, every pass
    )
    variant: _Text | None = None


class ReadingAsk(_Body):
    """A latent to be read at every token."""

    latent: Annotated[int, Field(ge=0)]
    hookpoint: _Text | None = None


class _Asked(_Body):
    """What chat and completions share."""

    model: _Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    stop: _Text | Annotated[list[_Text], Field(max_length=16)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    steering: Steering | None = None
    readings: Annotated[list[ReadingAsk], Field(max_length=16)] | None = None

    def check(self) -> None:
        """Raises: OpenAIRefusal: keys that do not go together."""
        if self.stream_options is not None and not self.stream:
            raise refused_key("stream_options", "goes with stream: true")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Is a chunk of usage wanted at the end of a stream?"""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatAsked(_Asked):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Any], Field(min_length=1, max_length=2048)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def check(self) -> None:
        """Raises: OpenAIRefusal: keys that do not go together."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise refused_key("top_logprobs", "goes with logprobs: true")

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_top(self) -> int | None:
        """Likeliest tokens that are wanted; None: no probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionAsked(_Asked):
    """The body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def n_top(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or several, each a text or tokens."""
        prompt: Any = self.prompt
        is_one = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))
        return [prompt] if is_one else prompt


Asked = TypeVar("Asked", bound=_Asked)


def parse(kind: type[Asked], body: bytes) -> Asked:
    """A body as what it asks for.

    Raises:
        OpenAIRefusal: no JSON, an unknown key, one that asks for what is not done, or a value that cannot be meant.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise OpenAIRefusal(400, "invalid_json", f"the body is not JSON ({short(str(error))})") from None
    if not isinstance(raw, dict):
        raise OpenAIRefusal(400, "invalid_json", f"the body is {type(raw).__name__}, where an object is needed")
    _need_characters(raw)
    for key in [key for key in raw if key in _NOTHING and key not in kind.model_fields]:
        value = raw.pop(key)
        if not any(value == nothing for nothing in _NOTHING[key]):
            raise refused_key(key, "not supported here; leave it out", "unsupported_parameter")
    try:
        asked = kind.model_validate({key: value for key, value in raw.items() if key not in _READ_OVER})
    except ValidationError as error:
        raise _refused(kind, error) from None
    except RecursionError:
        raise OpenAIRefusal(400, "invalid_value", "the body is nested too deeply to be meant") from None
    asked.check()
    return asked


def _need_characters(raw: dict[str, Any]) -> None:
    """JSON can say half of a surrogate pair, which is no character: no tokenizer takes it, and no answer can repeat it."""
    for key, value in raw.items():
        try:
            json.dumps([key, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise refused_key(key, "half of a surrogate pair in it is no character") from None


def _refused(kind: type[BaseModel], error: ValidationError) -> OpenAIRefusal:
    """The first fault, by OpenAI's names for such things."""
    errors = error.errors(include_url=False, include_context=False)
    telling = (
        "extra_forbidden",
        "too_long",
    )  # of a union pydantic lists every member's complaint, the first one's first
    first = next((each for each in errors if each["type"] in telling), errors[0])
    place = [str(part) for part in first["loc"]]
    key = ".".join(part for part in place if part.isidentifier() or part.isdecimal())
    key = place[0] if place and place[0] in ("stop", "prompt") else key
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], kind.model_fields, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        return refused_key(key, f"unrecognized request argument{hint}", "unknown_parameter")
    if first["type"] == "missing":
        return refused_key(key, "needed, and not given", "missing")
    value, message = first["input"], first["msg"]
    return refused_key(key, f"{short(value)}: {message[:1].lower()}{message[1:]}")
