"""The web app's built files, if they are there; other addresses lead to the app's, behind the #. Nothing outside the folder."""

import mimetypes
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from mohole.artifact import data_digest
from mohole.serve.bodies import is_known, packed
from mohole.serve.errors import Refusal

FOLDER = Path(__file__).resolve().parent / "static"

_INDEX = "index.html"
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml",
    ".json": "application/json", ".woff2": "font/woff2", ".webmanifest": "application/manifest+json",
}  # fmt: skip
_PACKED = ("text/", "application/json", "image/svg+xml", "application/manifest+json")


def static_routes(folder: Path) -> APIRouter:
    """Routes for what is in `folder` now. What is served is looked up in this list: a name from outside is never a path."""
    router = APIRouter(include_in_schema=False)
    files = {
        file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if _is_inside(file, folder)
    }

    @router.get("/{path:path}")
    def file(request: Request, path: str) -> Response:
        if path.startswith("api/") or path == "api":
            raise Refusal(404, f"/{path[:300]}: no such address", "GET /api/v1/openapi.json lists those there are")
        if path.startswith("v1/") or path == "v1":
            raise Refusal(
                404, f"/{path[:300]}: no such address", "GET /v1/models lists what can be talked to, if anything"
            )
        if _INDEX not in files:
            raise Refusal(404, "the app is not built in this installation", "the API is at /api/v1/runs")
        if path not in files and PurePosixPath(path).suffix in _TYPES:
            raise Refusal(404, f"/{path[:300]}: no such file")
        if path and path not in files:
            return _to_the_app(path)
        name = path or _INDEX
        return _sent(request, name, files[name].read_bytes())

    return router


def _to_the_app(path: str) -> Response:
    """`/demo/resid_post.1/417`, typed without its #, is that page. Said from where it was asked for: whatever stands before the
    address in front of a proxy stays, and no path can name another host."""
    up = "../" * path.count("/") or "./"
    return Response(status_code=307, headers={"Location": f"{up}#/{quote(path)}", "Cache-Control": "no-store"})


def _sent(request: Request, name: str, body: bytes) -> Response:
    """Names under assets/ hold a digest of what is in them, so they may be kept for good."""
    etag = f'W/"{data_digest(body)[:20]}"'
    kept = "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache"
    headers = {"ETag": etag, "Cache-Control": kept, "Vary": "Accept-Encoding"}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    media_type = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    if media_type.startswith(_PACKED):
        return packed(request, body, headers, media_type)
    return Response(body, 200, headers, media_type)


def _is_inside(file: Path, folder: Path) -> bool:
    """A file, and no link that leads out."""
    return file.is_file() and file.resolve().is_relative_to(folder.resolve())
