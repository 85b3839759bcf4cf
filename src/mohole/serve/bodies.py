"""From shapes to HTTP bodies: JSON, ETag with 304, compression. What is true of every answer that is not an error."""

import gzip
from collections.abc import Callable

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from zstandard import ZstdCompressor

_PACKED_FROM_BYTES = 2048  # below this a body goes in one or two packets anyhow
_LEVEL = 1
"""Of both. Of features of 17 KB in the mean zstd makes 4.5 KB in .04 ms, gzip 4.7 KB in .11."""


def json_bytes(value: object) -> bytes:
    """Shapes, or plain values of the same keys, as JSON; a number that is none is null."""
    return to_json(value, inf_nan_mode="null")


def answer(request: Request, etag: str, make: Callable[[], object]) -> Response:
    """200 with what `make` gives, or 304 without asking it, where the reader has this version already."""
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    return packed(request, json_bytes(make()), headers, "application/json")


def packed(request: Request, body: bytes, headers: dict[str, str], media_type: str) -> Response:
    """200 with a body, compressed for those who can read that."""
    if len(body) >= _PACKED_FROM_BYTES:
        taken = encodings(request)
        if "zstd" in taken:  # RFC 8878; browsers ask this machine for it
            body, headers = ZstdCompressor(_LEVEL).compress(body), headers | {"Content-Encoding": "zstd"}
        elif "gzip" in taken or "*" in taken:
            body, headers = gzip.compress(body, _LEVEL, mtime=0), headers | {"Content-Encoding": "gzip"}
    return Response(body, 200, headers, media_type)


def is_known(request: Request, etag: str) -> bool:
    """Does the reader have this version? Tags are weak: however compressed, the same thing is said."""
    tags = request.headers.get("if-none-match")
    if tags is None:
        return False
    known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def encodings(request: Request) -> set[str]:
    """Those that it names, and not with a weight of zero."""
    offers = (offer.partition(";") for offer in request.headers.get("accept-encoding", "").lower().split(","))
    return {name.strip() for name, _, weight in offers if weight.replace(" ", "") not in _NEVER}


_NEVER = ("q=0", "q=0.0", "q=0.00", "q=0.000")
