"""The routes of /api/v1 that read: runs, features, examples, maps, searches, x-rays."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mohole.serve import answers, maps
from mohole.serve.bodies import answer, is_known
from mohole.serve.elsewhere import Matcher
from mohole.serve.line import Line
from mohole.serve.microscope import Microscope
from mohole.serve.queries import (
    ContextAsk,
    EffectAsk,
    FeaturesAsk,
    Hookpoint,
    Latent,
    PlacesAsk,
    RunName,
    SearchAsk,
    TileLevel,
    TilePlace,
)
from mohole.serve.run_page import run_page
from mohole.serve.runs import Served
from mohole.serve.searching import Searcher, check, found_in_text
from mohole.serve.shapes import (
    DictionaryMatches,
    EffectFacts,
    ExampleFacts,
    FeatureFacts,
    FeaturePage,
    MapFacts,
    MapPlace,
    Neighbour,
    RunPage,
    Runs,
    SearchAnswer,
    Together,
    Xray,
    XrayAsk,
)
from mohole.serve.xrays import xray_facts

_AT = "/runs/{run}/{hookpoint}"
_FEATURE = _AT + "/features/{latent}"
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


def reading_routes(served: Served, microscope: Microscope, matcher: Matcher, *, can_write: bool) -> APIRouter:
    """What anyone who can reach the server may ask."""
    router = APIRouter(tags=["read"])
    _add_runs(router, served, can_write)
    _add_features(router, served)
    _add_matches(router, served, matcher)
    _add_map(router, served)
    _add_searches(router, served, microscope)
    return router


class _FewDigits(Convertor[int]):
    """A latent's number in an address, where it is short enough to be one; all else goes to the route that says what is wrong."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("latent", _FewDigits())


def feature_route(served: Served) -> Route:
    """The feature of `reading_routes` once more, without the framework's parameters and first in line: of 90 us that an answer
    took beyond its body, these were 60."""
    line: Line[Response] = Line()

    async def feature(request: Request) -> Response:
        asked = request.path_params
        return await line.made(lambda: _feature(request, served, asked["run"], asked["hookpoint"], asked["latent"]))

    return Route("/api/v1" + _AT + "/features/{latent:latent}", feature, methods=["GET"], include_in_schema=False)


def _feature(request: Request, served: Served, run: str, hookpoint: str, latent: int) -> Response:
    place = served.hookpoint(run, hookpoint)
    return answer(request, place.run.etag, lambda: answers.feature_facts(place, latent))


def _add_runs(router: APIRouter, served: Served, can_write: bool) -> None:
    @router.get("/runs", response_model=Runs)
    def runs(request: Request) -> Response:
        """Every run that is served."""
        etag = f'{served.etag[:-1]}-{int(can_write)}"'
        return answer(request, etag, lambda: answers.runs(served, can_write))

    @router.get("/runs/{run}", response_model=RunPage)
    def run_facts(request: Request, run: RunName) -> Response:
        """How a run's training went, how good its dictionaries are, what it cost, and where everything came from."""
        found = served.run(run)
        return answer(request, found.etag, lambda: run_page(found))


def _add_features(router: APIRouter, served: Served) -> None:
    @router.get(_AT + "/features", response_model=FeaturePage)
    def features(
        request: Request, run: RunName, hookpoint: Hookpoint, ask: Annotated[FeaturesAsk, Query()]
    ) -> Response:
        """A page of features, filtered and sorted."""
        place = served.hookpoint(run, hookpoint)
        return answer(request, place.run.etag, lambda: answers.feature_page(place, ask))

    @router.get(_FEATURE, response_model=FeatureFacts)
    def feature(request: Request, run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Everything known about one feature."""
        return _feature(request, served, run, hookpoint, latent)

    @router.get(_FEATURE + "/context", response_model=ExampleFacts)
    def context(
        request: Request,
        run: RunName,
        hookpoint: Hookpoint,
        latent: Latent,
        ask: Annotated[ContextAsk, Query()],
    ) -> Response:
        """A wider stretch of the document around an example."""
        place = served.hookpoint(run, hookpoint)
        return answer(request, place.run.etag, lambda: answers.context(place, latent, ask))

    @router.get(_FEATURE + "/neighbours", response_model=tuple[Neighbour, ...])
    def neighbours(request: Request, run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Features whose decoder directions are nearest."""
        place = served.hookpoint(run, hookpoint)
        etag = place.run.etag
        return answer(request, etag, lambda: answers.neighbours(place, latent))

    @router.get(_FEATURE + "/together", response_model=tuple[Together, ...])
    def together(request: Request, run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Features that fire at the same tokens."""
        place = served.hookpoint(run, hookpoint)
        return answer(request, place.run.etag, lambda: answers.together(place, latent))


def _add_matches(router: APIRouter, served: Served, matcher: Matcher) -> None:
    @router.get(_FEATURE + "/matches", response_model=tuple[DictionaryMatches, ...])
    async def matches(request: Request, run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """The nearest features of the other dictionaries that are served, at other layers and of other runs."""
        place, etag = served.hookpoint(run, hookpoint), served.etag
        place.need(latent)
        if is_known(request, etag):
            return answer(request, etag, lambda: None)
        found = await matcher.matches(place, latent)
        return answer(request, etag, lambda: found)


def _add_map(router: APIRouter, served: Served) -> None:
    @router.get(_AT + "/map", response_model=MapFacts)
    def map_facts(request: Request, run: RunName, hookpoint: Hookpoint) -> Response:
        """How to read `map/points`; and, of a large map, its tiles."""
        place = served.hookpoint(run, hookpoint)
        return answer(request, place.run.etag, lambda: maps.map_facts(place))

    @router.get(_AT + "/map/points", response_class=Response, responses=_BYTES)
    def map_points(request: Request, run: RunName, hookpoint: Hookpoint) -> Response:
        """The columns named by `map`, one after the other, little-endian, one entry for each latent."""
        place = served.hookpoint(run, hookpoint)
        headers = {"ETag": place.run.etag, "Cache-Control": "no-cache"}
        if is_known(request, place.run.etag):
            return Response(status_code=304, headers=headers)
        columns = maps.map_points(place)
        headers["Content-Length"] = str(sum(map(len, columns)))
        return StreamingResponse(iter(columns), 200, headers, "application/octet-stream")

    @router.get(_AT + "/map/tiles/{z}/{x}/{y}", response_class=Response, responses=_BYTES)
    def map_tile(
        request: Request, run: RunName, hookpoint: Hookpoint, z: TileLevel, x: TilePlace, y: TilePlace
    ) -> Response:
        """A few thousand points of the map, as `tiles` of `map` says; with the tiles above it, a fair sample of its square."""
        place = served.hookpoint(run, hookpoint)
        headers = {"ETag": place.run.etag, "Cache-Control": "no-cache"}
        if is_known(request, place.run.etag):
            return Response(status_code=304, headers=headers)
        return Response(maps.map_tile(place, z, x, y), 200, headers, "application/octet-stream")

    @router.get(_AT + "/map/places", response_model=tuple[MapPlace, ...])
    def map_places(
        request: Request, run: RunName, hookpoint: Hookpoint, ask: Annotated[PlacesAsk, Query()]
    ) -> Response:
        """Where some features lie; those that lie nowhere are left out."""
        place = served.hookpoint(run, hookpoint)
        return answer(request, place.run.etag, lambda: maps.map_places(place, ask.latent))


def _add_searches(router: APIRouter, served: Served, microscope: Microscope) -> None:
    searcher = Searcher()

    @router.post(_AT + "/xray", response_model=Xray)
    async def xray(run: RunName, hookpoint: Hookpoint, ask: XrayAsk) -> Response:
        """Run a text through the model: each token's strongest features."""
        place = served.hookpoint(run, hookpoint)
        if ask.latent is not None:
            place.need(ask.latent)
        rows = await microscope.look(place, ask.text, top=ask.top, follow=ask.latent)
        body = await run_in_threadpool(
            lambda: xray_facts(place, rows, ask.top).model_dump_json()
        )  # of a long text, long
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")

    @router.get(_FEATURE + "/effect", response_model=EffectFacts)
    async def effect(
        request: Request,
        run: RunName,
        hookpoint: Hookpoint,
        latent: Latent,
        ask: Annotated[EffectAsk, Query()],
    ) -> Response:
        """Run an example's window with and without the feature's contribution: what the predictions lose."""
        place = served.hookpoint(run, hookpoint)
        if is_known(request, etag := place.run.etag):
            return answer(request, etag, lambda: None)
        await run_in_threadpool(answers.firings_at, place, latent, ask.token)
        found = await microscope.effect(place, latent, ask.token)
        return answer(request, etag, lambda: answers.effect_facts(found))

    @router.get(_AT + "/search", response_model=SearchAnswer)
    async def search(
        request: Request, run: RunName, hookpoint: Hookpoint, ask: Annotated[SearchAsk, Query()]
    ) -> Response:
        """Features by their label, by the token they fire on, by a text, or by their numbers."""
        place = served.hookpoint(run, hookpoint)
        check(ask)
        if ask.by == "text":
            if is_known(request, etag := place.run.etag):
                return answer(request, etag, lambda: None)
            rows = await microscope.look(place, ask.q, top=1)
            return await run_in_threadpool(answer, request, etag, lambda: found_in_text(place, ask, rows))
        return await run_in_threadpool(answer, request, place.run.etag, lambda: searcher.search(place, ask))
