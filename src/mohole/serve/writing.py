"""The routes of /api/v1 that write, and those that read what was written: labels by hand, notes, lists."""

import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.security import HTTPBearer
from starlette.responses import Response

from mohole.serve.answers import label_facts, lines
from mohole.serve.bodies import answer, json_bytes
from mohole.serve.errors import Refusal, short
from mohole.serve.people import Member, People, WrittenNote
from mohole.serve.queries import Hookpoint, Latent, ListFeaturesAsk, ListName, NoteId, RunName
from mohole.serve.runs import OpenRun, Served
from mohole.serve.shapes import (
    Error,
    FeatureList,
    LabelAsk,
    LabelFacts,
    ListAsk,
    ListLine,
    ListPage,
    Note,
    NoteAsk,
)

_FEATURE = "/runs/{run}/{hookpoint}/features/{latent}"
_LIST = "/runs/{run}/lists/{name}"
_MEMBER = _LIST + "/members/{hookpoint}/{latent}"
_MAY_NOT: dict[int | str, dict[str, Any]] = {401: {"model": Error}, 403: {"model": Error}}


def writing_routes(served: Served, token: str | None) -> APIRouter:
    """What is written needs the token; what was written may be read by all."""
    router = APIRouter(tags=["write"])
    bearer = HTTPBearer(auto_error=False, description="The token that the server was given.")

    async def allowed(authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
        """Raises: Refusal: no token, or not the right one."""
        if token is None:
            raise Refusal(403, "this server takes nothing in writing", "mohole serve RUN --token-file FILE lets it")
        given = (authorization or "").partition(" ")
        is_bearer = given[0].lower() == "bearer"
        if not is_bearer or not hmac.compare_digest(given[2].strip().encode(), token.encode()):
            what = "not the token of this server" if is_bearer else "no token"
            raise Refusal(401, what, "Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    writes = APIRouter(dependencies=[Depends(allowed), Depends(bearer)], responses=_MAY_NOT)
    _add_lists(router, writes, served)
    _add_members(router, writes, served)
    _add_notes(router, writes, served)
    _add_labels(writes, served)
    router.include_router(writes)
    return router


def _add_labels(writes: APIRouter, served: Served) -> None:
    @writes.put(_FEATURE + "/label", response_model=LabelFacts)
    def put_label(run: RunName, hookpoint: Hookpoint, latent: Latent, ask: LabelAsk) -> Response:
        """Label a feature by hand: shown before its automatic label."""
        place = served.hookpoint(run, hookpoint)
        place.run.people.put_label(place.dictionary, place.name, place.need(latent), ask.text)
        return _written(label_facts(place, latent, place.by_hand))

    @writes.delete(_FEATURE + "/label", response_model=LabelFacts)
    def delete_label(run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Take a label by hand away. Gives the automatic one, which stands again."""
        place = served.hookpoint(run, hookpoint)
        if not place.run.people.delete_label(place.dictionary, place.need(latent)):
            raise Refusal(404, f"{place.name}: latent {latent}: nobody has labelled it by hand")
        return _written(label_facts(place, latent, place.by_hand))


def _add_notes(router: APIRouter, writes: APIRouter, served: Served) -> None:
    @router.get(_FEATURE + "/notes", response_model=tuple[Note, ...])
    def notes(request: Request, run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """What people wrote about a feature, oldest first."""
        place = served.hookpoint(run, hookpoint)
        people = place.run.people
        place.need(latent)
        return answer(
            request,
            place.run.etag,
            lambda: tuple(_note(each) for each in people.notes(place.dictionary, latent)),
        )

    @writes.post(_FEATURE + "/notes", response_model=Note, status_code=201)
    def add_note(run: RunName, hookpoint: Hookpoint, latent: Latent, ask: NoteAsk) -> Response:
        """Write a note."""
        place = served.hookpoint(run, hookpoint)
        note = place.run.people.add_note(place.dictionary, place.name, place.need(latent), ask.text)
        return _written(_note(note), 201)

    @writes.delete("/runs/{run}/notes/{note}", status_code=204, response_class=Response)
    def delete_note(run: RunName, note: NoteId) -> Response:
        """Take a note away."""
        people = served.run(run).people
        if not (note.isascii() and note.isdecimal() and people.delete_note(int(note))):
            raise Refusal(404, f"{run}: note {short(note)}: no such note")
        return Response(status_code=204)


def _add_lists(router: APIRouter, writes: APIRouter, served: Served) -> None:
    @router.get("/runs/{run}/lists", response_model=tuple[FeatureList, ...])
    def lists(request: Request, run: RunName) -> Response:
        """Every list of a run, by name."""
        found = served.run(run)
        return answer(
            request,
            found.etag,
            lambda: tuple(_list(found, name, members) for name, members in found.people.all_lists().items()),
        )

    @router.get(_LIST, response_model=FeatureList)
    def one_list(request: Request, run: RunName, name: ListName) -> Response:
        """One list."""
        found = served.run(run)
        return answer(request, found.etag, lambda: _list(found, name, _need_list(found.people, name)))

    @router.get(_LIST + "/features", response_model=ListPage)
    def list_features(
        request: Request, run: RunName, name: ListName, ask: Annotated[ListFeaturesAsk, Query()]
    ) -> Response:
        """A page of a list's features, as lines, in the order in which they were put there."""
        found = served.run(run)
        return answer(request, found.etag, lambda: _list_page(found, name, ask))

    @writes.put(_LIST, response_model=FeatureList)
    def put_list(run: RunName, name: ListName, ask: ListAsk) -> Response:
        """Set a list, in place of an earlier one of that name."""
        found = served.run(run)
        members = [_member(found, hookpoint, latent) for hookpoint, latent in ask.members]
        found.people.put_list(name, members)
        return _written(_list(found, name, members))

    @writes.delete(_LIST, status_code=204, response_class=Response)
    def delete_list(run: RunName, name: ListName) -> Response:
        """Take a list away."""
        found = served.run(run)
        if not found.people.delete_list(name):
            raise _no_list(name)
        return Response(status_code=204)


def _add_members(router: APIRouter, writes: APIRouter, served: Served) -> None:
    @router.get(_FEATURE + "/lists", response_model=tuple[ListLine, ...])
    def lists_of_feature(request: Request, run: RunName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Every list of the run, and whether the feature is in it."""
        place = served.hookpoint(run, hookpoint)
        place.need(latent)
        return answer(
            request,
            place.run.etag,
            lambda: tuple(
                ListLine(name=name, n_members=n, is_in=is_in)
                for name, n, is_in in place.run.people.lists_with(place.dictionary, latent)
            ),
        )

    @writes.put(_MEMBER, status_code=204, response_class=Response)
    def add_member(run: RunName, name: ListName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Put a feature at the end of a list; a list that is not there is made. One that is in it already stays where it is."""
        found = served.run(run)
        found.people.add_member(name, _member(found, hookpoint, latent))
        return Response(status_code=204)

    @writes.delete(_MEMBER, status_code=204, response_class=Response)
    def delete_member(run: RunName, name: ListName, hookpoint: Hookpoint, latent: Latent) -> Response:
        """Take a feature out of a list."""
        found = served.run(run)
        member = _member(found, hookpoint, latent)
        if not found.people.delete_member(name, member.dictionary, latent):
            raise Refusal(404, f"{short(name)}: {hookpoint} {latent} is not in this list")
        return Response(status_code=204)


def _member(run: OpenRun, hookpoint: str, latent: int) -> Member:
    place = run.hookpoint(hookpoint)
    return Member(place.dictionary, place.name, place.need(latent))


def _list_page(run: OpenRun, name: str, ask: ListFeaturesAsk) -> dict[str, object]:
    """A `ListPage`."""
    members = _list(run, name, _need_list(run.people, name)).members
    shown = members[ask.offset : ask.offset + ask.limit]
    latents: dict[str, list[int]] = {}
    for hookpoint, latent in shown:
        latents.setdefault(hookpoint, []).append(latent)
    found = {
        (place.name, line["latent"]): line
        for place, some in ((run.hookpoint(hookpoint), some) for hookpoint, some in latents.items())
        for line in lines(place, some, place.by_hand)
    }
    listed = [{"hookpoint": each[0], "feature": found[each]} for each in shown]
    return {"name": name, "total": len(members), "offset": ask.offset, "members": listed}


def _list(run: OpenRun, name: str, members: list[Member]) -> FeatureList:
    """Members of a dictionary that is not served (it was trained again) are left out: their numbers mean others now."""
    dictionaries = {place.dictionary for place in run.hookpoints.values()}
    shown = tuple((each.hookpoint, each.latent) for each in members if each.dictionary in dictionaries)
    return FeatureList(name=name, members=shown)


def _need_list(people: People, name: str) -> list[Member]:
    members = people.members_of(name)
    if members is None:
        raise _no_list(name)
    return members


def _no_list(name: str) -> Refusal:
    return Refusal(404, f"{short(name)}: no such list")


def _note(note: WrittenNote) -> Note:
    return Note(note=str(note.note), hookpoint=note.hookpoint, latent=note.latent, text=note.text, written=note.written)


def _written(shape: object, status: int = 200) -> Response:
    return Response(json_bytes(shape), status, {"Cache-Control": "no-store"}, "application/json")
