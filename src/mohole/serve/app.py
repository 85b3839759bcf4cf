"""The app factory: runs in, an ASGI app out. Starts no server and reads no command line."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from mohole.serve.elsewhere import Matcher
from mohole.serve.errors import say_errors
from mohole.serve.guards import Guards
from mohole.serve.microscope import Microscope
from mohole.serve.neuronpedia import neuronpedia_routes
from mohole.serve.reading import feature_route, reading_routes
from mohole.serve.runs import open_runs
from mohole.serve.shapes import Error
from mohole.serve.static import FOLDER, static_routes
from mohole.serve.writing import writing_routes
from mohole.version import __version__

_REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": Error} for status in (400, 404, 413, 422, 503)}


def make_app(
    runs: Sequence[Path | str],
    token: str | None = None,
    *,
    models: Sequence[str] = (),
    hosts: Iterable[str] | None = None,
    static: Path = FOLDER,
) -> FastAPI:
    """The app over these run folders.

    Args:
        token: who gives it may write; None: nobody may.
        models: folders or hub ids where the runs' models may be.
        hosts: names that requests may ask for; None: any.

    Raises:
        ArtifactError: no run, an unfinished one, or artifacts that do not belong together.
    """
    served, microscope = open_runs(runs, models), Microscope()
    matcher = Matcher(served)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        microscope.close()
        matcher.close()
        served.close()

    app = FastAPI(
        title="mohole",
        version=__version__,
        summary="Features of a neural network: what they fire on, what they promote, what lies near them.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.served, app.state.microscope = served, microscope
    say_errors(app)
    app.router.routes.insert(0, feature_route(served))
    app.include_router(writing_routes(served, token), prefix="/api/v1", responses=_REFUSALS)
    app.include_router(
        reading_routes(served, microscope, matcher, can_write=token is not None),
        prefix="/api/v1",
        responses=_REFUSALS,
    )
    app.include_router(neuronpedia_routes(served, microscope), prefix="/api", responses=_REFUSALS)
    app.include_router(static_routes(static))
    app.add_middleware(Guards, hosts=hosts)
    return app
