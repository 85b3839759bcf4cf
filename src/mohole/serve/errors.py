"""How a request is refused: one exception, and every failure's way into the shape `Error`. No routes."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mohole.errors import ArtifactError, ConfigError, CorpusError, ModelError, MoholeError, StageError
from mohole.serve.shapes import Error

MOST_BODY_BYTES = 256 * 1024

_LONGEST = 300  # letters of somebody's value in an error
_STATUS: tuple[tuple[type[MoholeError], int], ...] = (
    (ConfigError, 422),
    (CorpusError, 422),
    (StageError, 422),
    (ModelError, 503),
    (ArtifactError, 503),
)


class Refusal(Exception):  # noqa: N818, it is no fault of the server
    """A request that is not answered, with the status and words to say so."""

    def __init__(
        self, status: int, error: str, next_step: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.next_step = status, error, next_step
        self.headers = dict(headers or {})


def error_answer(
    status: int, error: str, next_step: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A body in the shape `Error`. What no JSON can hold (half of a surrogate pair) becomes a question mark."""
    body = Error(error=holdable(error), next_step=next_step if next_step is None else holdable(next_step))
    return Response(
        body.model_dump_json(), status, {**(headers or {}), "Cache-Control": "no-store"}, "application/json"
    )


def too_large() -> Response:
    """Of a body."""
    return error_answer(413, f"the body is larger than {MOST_BODY_BYTES} bytes", "send less at once")


def holdable(text: str) -> str:
    """As JSON can hold it: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def short(value: object) -> str:
    """Somebody's value for an error, not longer than is read."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def say_errors(app: FastAPI) -> None:
    """Every failure of `app` is said in the shape `Error`."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return error_answer(refusal.status, refusal.error, refusal.next_step, refusal.headers)

    @app.exception_handler(HTTPException)
    async def not_routed(request: Request, failure: HTTPException) -> Response:
        path = short(request.url.path)
        step: str | None = None
        match failure.status_code:
            case 404:
                error = f"{path}: no such address"
                step = "GET /api/v1/openapi.json lists those there are"
            case 405:
                error = f"{path}: not an address for {short(request.method)}"
                step = "GET /api/v1/openapi.json lists what is"
            case 413:
                return too_large()
            case _:
                error = f"{path}: {failure.detail}"
        return error_answer(failure.status_code, error, step, failure.headers)

    @app.exception_handler(RequestValidationError)
    async def not_meant(request: Request, failure: RequestValidationError) -> Response:
        first = failure.errors()[0]
        where, *rest = first["loc"]
        name = ".".join(map(str, rest)) or str(where)
        value = "" if first["type"] in ("missing", "json_invalid") else f"{short(first['input'])}: "
        what = "nothing but spaces" if first["type"] == "string_pattern_mismatch" else short(first["msg"])
        return error_answer(422, f"{where} {short(name)}: {value}{what}")

    @app.exception_handler(MoholeError)
    async def foreseen(request: Request, failure: MoholeError) -> Response:
        status = next((status for kind, status in _STATUS if isinstance(failure, kind)), 500)
        return error_answer(status, str(failure))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, failure: Exception) -> Response:
        return error_answer(500, "the server failed at this request", "its terminal says how; please report it")
