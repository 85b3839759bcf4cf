"""How a request at /v1 is refused: OpenAI's error body, and every failure's way into it. No routes."""

from collections.abc import Mapping
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mohole.errors import (
    ArtifactError,
    ConfigError,
    EngineError,
    HookpointError,
    ModelError,
    MoholeError,
    NumericsError,
    StageError,
)
from mohole.serve.bodies import json_bytes
from mohole.serve.errors import MOST_BODY_BYTES, Refusal, holdable, short

Kind = Literal["invalid_request_error", "authentication_error", "not_found_error", "rate_limit_error", "server_error"]
_KINDS: dict[int, Kind] = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_OF_ENGINES = {
    "full": (503, "overloaded", {"Retry-After": "2"}),
    "ending": (503, "shutting_down", {"Retry-After": "10"}),
    "late": (504, "timeout", {"x-should-retry": "false"}),
}
NOT_SOON = {"Retry-After": "3600", "x-should-retry": "false"}
"""OpenAI's clients ask three times of themselves, unless they are told that it is no use."""


class OpenAIRefusal(Exception):  # noqa: N818, it is no fault of the server
    """A request that is not answered, as OpenAI's API says such things."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, object]:
        """`{"error": ...}`. What no JSON can hold (half of a surrogate pair) becomes a question mark."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        param = None if self.param is None else holdable(self.param)
        return {"error": {"message": holdable(self.message), "type": kind, "param": param, "code": self.code}}

    @property
    def answer(self) -> Response:
        headers = {**self.headers, "Cache-Control": "no-store"}
        return Response(json_bytes(self.body), self.status, headers, "application/json")


def refused_key(param: str, message: str, code: str = "invalid_value") -> OpenAIRefusal:
    """400 for one key of the body."""
    return OpenAIRefusal(400, code, f"{short(param)}: {message}", param=short(param))


def too_large() -> OpenAIRefusal:
    """Of a body."""
    return OpenAIRefusal(413, "body_too_large", f"the body is larger than {MOST_BODY_BYTES} bytes; send less at once")


def as_refusal(error: Exception, param: str | None = None) -> OpenAIRefusal:
    """What to say of an exception.

    Args:
        param: the key of the body that was being looked at. None: an answer was being written.
    """
    match error:
        case OpenAIRefusal():
            return error
        case Refusal():
            message = error.error if error.next_step is None else f"{error.error}; {error.next_step}"
            code = "overloaded" if error.status == 503 else "invalid_value"
            return OpenAIRefusal(error.status, code, message, param=param, headers=error.headers)
        case EngineError():
            status, code, headers = _OF_ENGINES[error.reason]
            return OpenAIRefusal(status, code, str(error), headers=headers)
        case MoholeError():
            return _of_mohole(error, param)
        case HTTPException(status_code=413):
            return too_large()
        case HTTPException():
            code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code, "invalid_value")
            return OpenAIRefusal(error.status_code, code, error.detail, headers=error.headers)
        case _:
            return OpenAIRefusal(500, "internal_error", "the server failed at this request; its terminal says how")


def _of_mohole(error: MoholeError, param: str | None) -> OpenAIRefusal:
    if isinstance(error, NumericsError):
        return OpenAIRefusal(400, "invalid_value", str(error), param="steering.interventions")
    if isinstance(error, StageError) and param is None:
        return OpenAIRefusal(500, "not_steered", str(error))
    if isinstance(error, ConfigError | HookpointError | StageError):
        return OpenAIRefusal(400, "invalid_value", str(error), param=param)
    if isinstance(error, ModelError | ArtifactError):
        return OpenAIRefusal(503, "model_unavailable", str(error), headers=NOT_SOON)
    return OpenAIRefusal(500, "internal_error", str(error))


async def answer_failure(request: Request, failure: Exception) -> Response:
    """An exception handler of the app."""
    if isinstance(failure, HTTPException) and failure.status_code in (404, 405):
        what = f"{short(request.method)} {short(request.url.path)}"
        failure = HTTPException(
            failure.status_code, f"{what}: there are POST /v1/chat/completions, POST /v1/completions, GET /v1/models"
        )
    return as_refusal(failure).answer
