"""The app factory: runs in, an ASGI app out. Starts no server and reads no command line."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.routing import Mount

from mohole.serve.elsewhere import Matcher
from mohole.serve.errors import say_errors
from mohole.serve.guards import Guards
from mohole.serve.health import health_routes
from mohole.serve.microscope import Microscope
from mohole.serve.models import Models
from mohole.serve.neuronpedia import neuronpedia_routes
from mohole.serve.openai.app import ChatApp
from mohole.serve.openai.settings import ChatSettings
from mohole.serve.openai.talkers import Talkers
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
    chat: ChatSettings | None = ChatSettings(),  # noqa: B008, it is frozen
) -> FastAPI:
    """The app over these run folders.

    Args:
        token: who gives it may write; None: nobody may.
        models: folders or hub ids where the runs' models may be.
        hosts: names that requests may ask for; None: any.
        chat: how `/v1` is run; None: it is not there.

    Raises:
        ArtifactError: no run, an unfinished one, or artifacts that do not belong together.
        ConfigError: a journal that cannot be written.
    """
    served, loaded = open_runs(runs, models), Models("cpu" if chat is None else chat.device)
    microscope, matcher = Microscope(loaded), Matcher(served)
    talking = None if chat is None else ChatApp(Talkers(served, loaded, chat), chat)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if talking is not None:
            talking.close()
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
    app.state.served, app.state.microscope, app.state.chat = served, microscope, talking
    say_errors(app)
    app.router.routes.insert(0, feature_route(served))
    app.include_router(writing_routes(served, token), prefix="/api/v1", responses=_REFUSALS)
    app.include_router(
        reading_routes(served, microscope, matcher, can_write=token is not None),
        prefix="/api/v1",
        responses=_REFUSALS,
    )
    app.include_router(neuronpedia_routes(served, microscope), prefix="/api", responses=_REFUSALS)
    app.include_router(health_routes(served, talking))
    if talking is not None:
        app.router.routes.append(Mount("/v1", talking.app))
    app.include_router(static_routes(static))
    app.add_middleware(Guards, hosts=hosts)
    return app
