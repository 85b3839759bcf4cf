"""What stands before every route: the size of bodies, the host asked for, the headers of every answer. Plain ASGI."""

from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mohole.serve.errors import MOST_BODY_BYTES, error_answer, too_large
from mohole.serve.openai import refusals
from mohole.serve.openai.refusals import OpenAIRefusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guards:
    """Wraps the app. `hosts`: names it answers to; None: any.

    On loopback the name matters: a page of a stranger whose name is made to lead to 127.0.0.1 could read what is served here.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None = None) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        n_received = 0

        async def limited() -> Message:
            nonlocal n_received
            message = await receive()
            n_received += len(message.get("body", b""))
            if n_received > MOST_BODY_BYTES:
                raise HTTPException(413)  # the framework's own: any other that a body raises is a 400 to it
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        is_openai = scope["path"].startswith("/v1/")  # whose clients know one body of errors
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if self.hosts is not None and _host(headers.get(b"host", b"")) not in self.hosts:
            what, step = "this server does not go by that name", "ask for 127.0.0.1 or localhost"
            refusal = OpenAIRefusal(400, "unknown_host", f"{what}; {step}").answer
            answer = refusal if is_openai else error_answer(400, what, step)
            await answer(scope, receive, guarded)
        elif length.isdigit() and int(length[:20]) > MOST_BODY_BYTES:
            answer = refusals.too_large().answer if is_openai else too_large()
            await answer(scope, receive, guarded)
        else:
            await self.app(scope, limited, guarded)


def _host(header: bytes) -> str:
    """The name without its port, brackets taken from an IPv6 address."""
    host = header.decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
