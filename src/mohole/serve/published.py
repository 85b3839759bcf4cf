"""Serving a folder of `mohole publish` as any static host would: whole files, or the bytes asked for. No API."""

from collections.abc import Iterable
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response

from mohole.artifact import file_digest, read_manifest
from mohole.errors import ArtifactError, ConfigError
from mohole.serve.errors import Refusal, say_errors
from mohole.serve.guards import Guards

KIND = "published"
INDEX_FILE = "published.json"
"""What the app reads first: which runs there are and where their files lie."""

READ_AT_ONCE_BYTES = 1 << 31
"""A folder up to here, which is a million features, is compared with its checksums: one or two seconds."""
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}


def is_published(folder: Path) -> bool:
    """Is it, or was it, a folder of `mohole publish`?"""
    return (folder / INDEX_FILE).is_file()


def make_published_app(folder: Path, *, hosts: Iterable[str] | None = None) -> FastAPI:
    """The app over one published folder. What is in it now is served; a name from outside is never a path.

    Raises:
        ArtifactError: not a whole published folder. Of one beyond `READ_AT_ONCE_BYTES` sizes are looked at, bytes not; a reader's
            browser finds what cannot be decoded, and no more.
    """
    manifest = read_manifest(folder)
    if manifest.kind != KIND:
        raise ArtifactError(f"{folder}: holds {manifest.kind!r}, not a published folder")
    sizes = {name: n_bytes for name, (n_bytes, _) in manifest.files.items()}
    for name, n_bytes in sizes.items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else "no"
        if there != n_bytes:
            raise ArtifactError(f"{folder / name}: {there} bytes, {n_bytes} were published; publish it again")
    if sum(sizes.values()) <= READ_AT_ONCE_BYTES:
        for name, (_, digest) in manifest.files.items():
            if file_digest(folder / name) != digest:
                raise ArtifactError(f"{folder / name}: its bytes are not those that were published; publish it again")
    app = FastAPI(title="mohole", openapi_url=None, docs_url=None, redoc_url=None)
    say_errors(app)

    @app.api_route("/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    def file(path: str) -> Response:
        name = path or "index.html"
        if name not in sizes:
            raise Refusal(404, f"/{path[:300]}: no such file", "a published folder has no API; `mohole serve RUN` has")
        media_type = _TYPES.get(Path(name).suffix) or ("text/html" if name.endswith(".html") else None)
        return FileResponse(
            folder / name,
            media_type=media_type or "application/octet-stream",
            headers={"Cache-Control": "no-cache"},
        )

    app.add_middleware(Guards, hosts=hosts)
    return app


def the_one_published(folders: Iterable[Path]) -> Path | None:
    """The published folder among what is to be served, which then is all of it; None: there are only runs.

    Raises:
        ConfigError: it stands beside other folders.
    """
    all_of_them = list(folders)
    found = [folder for folder in all_of_them if is_published(folder)]
    if found and len(all_of_them) > 1:
        raise ConfigError(f"{found[0]}: a published folder is served alone; give it a server (--port) of its own")
    return found[0] if found else None
