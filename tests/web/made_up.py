"""A server of the made-up runs: for the app's tests, and for working on the app (`python -m tests.web.made_up`)."""

import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from tests.web.made_up_runs import (
    SIZES,
    Columns,
    columns,
    effect,
    example,
    facts_of,
    feature,
    line,
    matches,
    passing,
    run_page,
    xray,
)

from mohole.serve import shapes
from mohole.serve.maps import WHOLE_TO
from mohole.serve.tiles import MOST, TILE_COLUMNS, tile_bytes

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
TOKEN = "let-me-write"
BROKEN_LATENT, UNEDITED_LATENT = 404, 405


def make_app(static: Path | None = None) -> FastAPI:  # noqa: PLR0915, C901 - one route after the other
    app = FastAPI(openapi_url=None)
    labels: dict[tuple[str, str], dict[int, str]] = {place: {} for place in SIZES}
    notes: dict[str, shapes.Note] = {}
    lists: dict[tuple[str, str], list[tuple[str, int]]] = {}
    numbers = itertools.count(1)

    @app.middleware("http")
    async def policy(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        return response

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, problem: HTTPException) -> JSONResponse:
        message, _, step = str(problem.detail).partition(" | ")
        return JSONResponse({"error": message, "next_step": step or None}, problem.status_code)

    @app.exception_handler(RequestValidationError)
    async def misspelled(request: Request, problem: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": str(problem.errors()[0]["msg"]), "next_step": None}, 422)

    def place(run: str, hookpoint: str) -> Columns:
        if (run, hookpoint) not in SIZES:
            raise HTTPException(404, f"{run}/{hookpoint}: no such hookpoint here | GET /api/v1/runs lists them")
        return columns(SIZES[run, hookpoint])

    def inside(at: Columns, latent: int) -> None:
        if not 0 <= latent < len(at.x):
            raise HTTPException(
                404, f"latent {latent}: this dictionary has {len(at.x):,} | latents are 0 to {len(at.x) - 1}"
            )

    def may_write(request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise HTTPException(401, "writing needs the server's token | `mohole serve` printed it when it started")

    base = "/api/v1/runs"

    @app.get(base)
    def runs() -> shapes.Runs:
        return shapes.Runs(
            version="0.6.0", can_write=True, runs=tuple(facts_of(run) for run in dict.fromkeys(r for r, _ in SIZES))
        )

    @app.get(base + "/{run}")
    def one_run(run: str) -> shapes.RunPage:
        if run not in {r for r, _ in SIZES}:
            raise HTTPException(404, f"{run}: no such run is served | GET /api/v1/runs lists them")
        return run_page(run)

    at_place = base + "/{run}/{hookpoint}"

    @app.get(at_place + "/features")
    def features(run: str, hookpoint: str, request: Request, offset: int = 0, limit: int = 50) -> shapes.FeaturePage:
        at, written = place(run, hookpoint), labels[run, hookpoint]
        found = passing(at, written, dict(request.query_params))
        return shapes.FeaturePage(
            total=len(found),
            offset=offset,
            features=tuple(line(at, int(i), written) for i in found[offset : offset + limit]),
        )

    @app.get(at_place + "/features/{latent}")
    def one_feature(run: str, hookpoint: str, latent: int) -> shapes.FeatureFacts:
        at = place(run, hookpoint)
        inside(at, latent)
        if latent == BROKEN_LATENT:
            raise HTTPException(
                500, "catalogue block 6 is damaged: checksum 1f2e, expected 77ab | run `mohole catalogue` again"
            )
        return feature(run, hookpoint, at, latent, labels[run, hookpoint])

    @app.get(at_place + "/features/{latent}/context")
    def context(run: str, hookpoint: str, latent: int, token: int, before: int, after: int) -> shapes.ExampleFacts:
        at = place(run, hookpoint)
        return example(at, latent, token // 1000, 0.9, around=1 + (before > 100))

    @app.get(at_place + "/features/{latent}/effect")
    def one_effect(run: str, hookpoint: str, latent: int, token: int) -> shapes.EffectFacts:
        if latent == UNEDITED_LATENT:
            raise HTTPException(
                422, f"{hookpoint}: the edit fired for 3 rows of 9 | load the model with its self-test on"
            )
        return effect(place(run, hookpoint), latent, token)

    @app.get(at_place + "/features/{latent}/matches")
    def all_matches(run: str, hookpoint: str, latent: int) -> tuple[shapes.DictionaryMatches, ...]:
        return matches(run, hookpoint, latent)

    @app.get(at_place + "/map")
    def map_facts(run: str, hookpoint: str) -> shapes.MapFacts:
        at = place(run, hookpoint)
        is_large = len(at.x) > WHOLE_TO
        return shapes.MapFacts(
            n=len(at.x),
            bounds=(float(at.x.min()), float(at.y.min()), float(at.x.max()), float(at.y.max())),
            columns=(
                ("x", "float32"),
                ("y", "float32"),
                ("log10_density", "float32"),
                ("f1", "float32"),
                ("family", "int32"),
            ),
            tiles=shapes.TileFacts(
                columns=TILE_COLUMNS,
                square=(*at.tiles.corner, at.tiles.side),
                shares=at.tiles.shares,
                most=MOST,
            )
            if is_large
            else None,
        )

    @app.get(at_place + "/map/tiles/{z}/{x}/{y}")
    def map_tile(run: str, hookpoint: str, z: int, x: int, y: int) -> Response:
        return Response(tile_bytes(place(run, hookpoint).tiles.tile(z, x, y)), media_type="application/octet-stream")

    @app.get(at_place + "/map/places")
    def map_places(run: str, hookpoint: str, latent: Annotated[list[int], Query()]) -> list[shapes.MapPlace]:
        at = place(run, hookpoint)
        return [shapes.MapPlace(latent=i, x=float(at.x[i]), y=float(at.y[i])) for i in latent]

    @app.get(at_place + "/map/points")
    def map_points(run: str, hookpoint: str) -> Response:
        return Response(place(run, hookpoint).map_bytes(), media_type="application/octet-stream")

    @app.post(at_place + "/xray")
    def look(run: str, hookpoint: str, ask: shapes.XrayAsk) -> shapes.Xray:
        at = place(run, hookpoint)
        if not facts_of(run).can_xray:
            raise HTTPException(409, f"{run}: its model is not on this machine | put it where the recipe says")
        return xray(at, hookpoint, ask)

    @app.get(at_place + "/search")
    def search(
        run: str, hookpoint: str, q: str, by: Literal["label", "token", "text"] = "label", limit: int = 50
    ) -> shapes.SearchAnswer:
        at, written = place(run, hookpoint), labels[run, hookpoint]
        found = passing(at, written, {"q": q, "sort": "f1", "descending": "true"})[:limit]
        hits = tuple(
            shapes.SearchHit(feature=line(at, int(i), written), score=1 / (1 + rank), why=f"{by}: {q}")
            for rank, i in enumerate(found)
        )
        return shapes.SearchAnswer(query=q, by=by, hits=hits)

    @app.put(at_place + "/features/{latent}/label")
    def put_label(run: str, hookpoint: str, latent: int, ask: shapes.LabelAsk, request: Request) -> shapes.LabelFacts:
        may_write(request)
        inside(place(run, hookpoint), latent)
        labels[run, hookpoint][latent] = ask.text
        return shapes.LabelFacts(
            text=ask.text,
            status="person",
            kind="",
            f1=None,
            precision=None,
            recall=None,
            n_positive=None,
            n_scored=None,
        )

    @app.delete(at_place + "/features/{latent}/label", status_code=204)
    def delete_label(run: str, hookpoint: str, latent: int, request: Request) -> None:
        may_write(request)
        labels[run, hookpoint].pop(latent, None)

    @app.get(at_place + "/features/{latent}/notes")
    def read_notes(run: str, hookpoint: str, latent: int) -> list[shapes.Note]:
        return [note for note in notes.values() if (note.hookpoint, note.latent) == (hookpoint, latent)]

    @app.post(at_place + "/features/{latent}/notes", status_code=201)
    def add_note(run: str, hookpoint: str, latent: int, ask: shapes.NoteAsk, request: Request) -> shapes.Note:
        may_write(request)
        note = shapes.Note(
            note=f"n{next(numbers)}", hookpoint=hookpoint, latent=latent, text=ask.text, written="2026-11-22T06:30:00Z"
        )
        notes[note.note] = note
        return note

    @app.delete(base + "/{run}/notes/{note}", status_code=204)
    def delete_note(run: str, note: str, request: Request) -> None:
        may_write(request)
        notes.pop(note, None)

    def need_list(run: str, name: str) -> list[tuple[str, int]]:
        if (run, name) not in lists:
            raise HTTPException(404, f"{name}: no such list")
        return lists[run, name]

    @app.get(base + "/{run}/lists")
    def all_lists(run: str) -> list[shapes.FeatureList]:
        return [
            shapes.FeatureList(name=name, members=tuple(members))
            for (r, name), members in sorted(lists.items())
            if r == run
        ]

    @app.get(base + "/{run}/lists/{name}")
    def one_list(run: str, name: str) -> shapes.FeatureList:
        return shapes.FeatureList(name=name, members=tuple(need_list(run, name)))

    @app.get(base + "/{run}/lists/{name}/features")
    def list_page(run: str, name: str, offset: int = 0, limit: int = 50) -> shapes.ListPage:
        members = need_list(run, name)
        listed = tuple(
            shapes.ListedFeature(hookpoint=h, feature=line(place(run, h), latent, labels[run, h]))
            for h, latent in members[offset : offset + limit]
        )
        return shapes.ListPage(name=name, total=len(members), offset=offset, members=listed)

    @app.get(at_place + "/features/{latent}/lists")
    def lists_of(run: str, hookpoint: str, latent: int) -> list[shapes.ListLine]:
        return [
            shapes.ListLine(name=name, n_members=len(members), is_in=(hookpoint, latent) in members)
            for (r, name), members in sorted(lists.items())
            if r == run
        ]

    @app.put(base + "/{run}/lists/{name}")
    def put_list(run: str, name: str, ask: shapes.ListAsk, request: Request) -> shapes.FeatureList:
        may_write(request)
        lists[run, name] = list(ask.members)
        return one_list(run, name)

    @app.delete(base + "/{run}/lists/{name}", status_code=204)
    def delete_list(run: str, name: str, request: Request) -> None:
        may_write(request)
        need_list(run, name)
        del lists[run, name]

    @app.put(base + "/{run}/lists/{name}/members/{hookpoint}/{latent}", status_code=204)
    def add_member(run: str, name: str, hookpoint: str, latent: int, request: Request) -> None:
        may_write(request)
        members = lists.setdefault((run, name), [])
        if (hookpoint, latent) not in members:
            members.append((hookpoint, latent))

    @app.delete(base + "/{run}/lists/{name}/members/{hookpoint}/{latent}", status_code=204)
    def delete_member(run: str, name: str, hookpoint: str, latent: int, request: Request) -> None:
        may_write(request)
        need_list(run, name).remove((hookpoint, latent))

    if static:
        app.mount("/", StaticFiles(directory=static, html=True))
    return app


@contextmanager
def serving(static: Path) -> Iterator[str]:
    """The app and its API on a free port of this machine: its address."""
    server = uvicorn.Server(uvicorn.Config(make_app(static), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    built = Path(__file__).parents[2] / "src/mohole/serve/static"
    uvicorn.run(
        make_app(built if built.is_dir() else None), port=int((sys.argv[1:] or ["8765"])[0]), log_level="warning"
    )
