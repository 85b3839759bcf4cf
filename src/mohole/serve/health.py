"""Is it there, and what has it done: `/health` and `/metrics`, for those who look after a server. No key is asked for."""

from fastapi import APIRouter
from starlette.responses import Response

from mohole.serve.bodies import json_bytes
from mohole.serve.openai.app import ChatApp
from mohole.serve.runs import Served

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def health_routes(served: Served, chat: ChatApp | None) -> APIRouter:
    """Routes outside the APIs. Without `/v1` there is nothing to measure, and no /metrics."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health")
    def health() -> Response:
        is_ending = chat is not None and chat.talkers.is_ending
        body = {"status": "ending" if is_ending else "ok", "runs": list(served.runs), "chat": chat is not None}
        return Response(json_bytes(body), 503 if is_ending else 200, {"Cache-Control": "no-store"}, "application/json")

    if chat is not None:

        @router.get("/metrics")
        def metrics() -> Response:
            return Response(chat.measures.text(), 200, {"Cache-Control": "no-store"}, _PROMETHEUS)

    return router
