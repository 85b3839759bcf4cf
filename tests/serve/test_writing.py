"""What people write: only with the token, beside the artifacts, at once in every answer, bound to the dictionary looked at."""

import concurrent.futures
import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.report.run_folder import BRIDGE, DEAD, HOSTILE
from tests.serve.conftest import HOOKPOINT, TOKEN, WRITER

from mohole import artifact
from mohole.serve import shapes
from mohole.serve.errors import Refusal
from mohole.serve.people import PEOPLE_FILE, Member, People

WRITES = (
    ("PUT", "{at}/features/3/label", {"text": "x"}),
    ("DELETE", "{at}/features/3/label", None),
    ("POST", "{at}/features/3/notes", {"text": "x"}),
    ("DELETE", "/api/v1/runs/small-run/notes/1", None),
    ("PUT", "/api/v1/runs/small-run/lists/mine", {"members": []}),
    ("DELETE", "/api/v1/runs/small-run/lists/mine", None),
    ("PUT", "/api/v1/runs/small-run/lists/mine/members/resid_post.0/3", None),
    ("DELETE", "/api/v1/runs/small-run/lists/mine/members/resid_post.0/3", None),
)


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=[f"{method} {path}" for method, path, _ in WRITES])
def test_nothing_is_written_without_the_token(client, at: str, run: Path, method: str, path: str, body: object) -> None:
    for header in (None, "Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff", TOKEN):
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        answer = client.request(method, path.format(at=at), json=body, headers=headers)
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"] == "Bearer"
        assert shapes.Error.model_validate(answer.json()).error
        assert TOKEN not in answer.text
    assert not (run / PEOPLE_FILE).exists()


def test_nothing_is_named_or_noted_with_spaces_alone(client: httpx.Client, at: str) -> None:
    for method, what in (("PUT", "label"), ("POST", "notes")):
        answer = client.request(method, f"{at}/features/3/{what}", json={"text": " \n\u3000\t"}, headers=WRITER)
        assert (answer.status_code, "nothing but spaces" in answer.json()["error"]) == (422, True)


def test_a_server_without_a_token_takes_nothing(serve, pristine_run: Path, at: str) -> None:
    reader: httpx.Client = serve(pristine_run)
    assert not reader.get("/api/v1/runs").json()["can_write"]
    for method, path, body in WRITES:
        answer = reader.request(method, path.format(at=at), json=body, headers={"Authorization": "Bearer"})
        assert answer.status_code == 403
        assert "--token-file" in answer.json()["next_step"]
    assert reader.get(f"{at}/features/3/notes").json() == []
    assert reader.get("/api/v1/runs/small-run/lists").json() == []
    assert not (pristine_run / PEOPLE_FILE).exists()


def test_a_label_by_hand_stands_before_the_automatic_one(client: httpx.Client, at: str) -> None:
    address, named = f"{at}/features/{BRIDGE}", "Zebra crossing, by hand"
    before = client.get(address)
    n_labelled = client.get("/api/v1/runs").json()["runs"][0]["hookpoints"][0]["n_labelled"]
    given = client.put(f"{address}/label", json={"text": named}, headers=WRITER)
    assert given.status_code == 200
    nothing = dict.fromkeys(("f1", "precision", "recall", "n_positive", "n_scored"))
    assert given.json() == {"text": named, "status": "person", "kind": ""} | nothing
    after = client.get(address, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200, "a reader's copy is old at once"
    assert after.json()["label"] == given.json()

    def listed(**query: object) -> list[int]:
        found = client.get(f"{at}/features", params={"which": "all", "limit": 200} | query).json()["features"]
        return [line["latent"] for line in found]

    assert listed(q="ZEBRA") == listed(status="person") == [BRIDGE]
    assert BRIDGE not in listed(q=before.json()["label"]["text"])
    assert BRIDGE not in listed(least_f1=0.0)
    texts = [line["label"] for line in client.get(f"{at}/features?which=all&limit=200&sort=label").json()["features"]]
    assert texts == sorted(texts, key=str.casefold)
    assert named in texts
    assert listed(sort="f1", descending=True)[-1] == BRIDGE
    hits = client.get(f"{at}/search?q=zebra").json()["hits"]
    assert [(hit["feature"]["latent"], hit["why"]) for hit in hits] == [(BRIDGE, f"a person's label: {named}")]
    assert [
        hit for hit in client.get(f"{at}/search?q=Brücke").json()["hits"] if hit["feature"]["latent"] == BRIDGE
    ] == []
    client.put(f"{at}/features/{DEAD}/label", json={"text": "asleep"}, headers=WRITER)
    facts = client.get("/api/v1/runs").json()["runs"][0]["hookpoints"][0]
    assert facts["n_labelled"] == n_labelled + 1, "the bridge had a good label before"
    assert client.delete(f"{address}/label", headers=WRITER).json() == before.json()["label"]
    assert client.delete(f"{address}/label", headers=WRITER).status_code == 404
    assert client.get(address).json() == before.json()
    assert client.get(address).headers["etag"] != before.headers["etag"], "the other label is still there"


def test_notes_are_kept_as_they_were_written(client: httpx.Client, at: str) -> None:
    address = f"{at}/features/{BRIDGE}/notes"
    texts = [HOSTILE, "مرحبا\u202e بالعالم", "\x00 nul", "x" * 10_000]
    written = [client.post(address, json={"text": text}, headers=WRITER) for text in texts]
    assert [answer.status_code for answer in written] == [201] * 4
    notes = [shapes.Note.model_validate(answer.json()) for answer in written]
    found = [shapes.Note.model_validate(each) for each in client.get(address).json()]
    assert found == notes
    assert [note.text for note in found] == texts
    assert {(note.hookpoint, note.latent) for note in found} == {(HOOKPOINT, BRIDGE)}
    assert client.get(f"{at}/features/4/notes").json() == []
    gone = f"/api/v1/runs/small-run/notes/{notes[0].note}"
    assert client.delete(gone, headers=WRITER).status_code == 204
    assert client.delete(gone, headers=WRITER).status_code == 404
    for no_note in ("x", "-1", "9" * 18, "%F0%9D%9F%99"):
        assert client.delete(f"/api/v1/runs/small-run/notes/{no_note}", headers=WRITER).status_code == 404
    assert [note["text"] for note in client.get(address).json()] == texts[1:]


def test_a_list_is_set_read_and_taken_away(client: httpx.Client, at: str) -> None:
    address = "/api/v1/runs/small-run/lists/my%20bridges"
    members = [[HOOKPOINT, BRIDGE], ["resid_post.1", 2], [HOOKPOINT, 0]]
    assert client.get(address).status_code == 404
    for some in (members[:1], members):
        put = client.put(address, json={"members": some}, headers=WRITER)
        assert put.status_code == 200
        assert put.json() == client.get(address).json() == {"name": "my bridges", "members": some}
    client.put("/api/v1/runs/small-run/lists/empty", json={"members": []}, headers=WRITER)
    names = [each["name"] for each in client.get("/api/v1/runs/small-run/lists").json()]
    assert names == ["empty", "my bridges"]
    wrong = client.put(address, json={"members": [[HOOKPOINT, 10**6]]}, headers=WRITER)
    assert wrong.status_code == 404
    assert client.get(address).json()["members"] == members, "nothing of it was written"
    for bad in ({"members": [[HOOKPOINT]]}, {"members": [[HOOKPOINT, 1, 2]]}, {"members": [[HOOKPOINT, "x"]]}, {}, []):
        assert client.put(address, json=bad, headers=WRITER).status_code == 422
    assert client.delete(address, headers=WRITER).status_code == 204
    assert client.get(address).status_code == 404


def test_features_are_put_into_a_list_and_taken_out_one_by_one(client: httpx.Client, at: str) -> None:
    lists, name = "/api/v1/runs/small-run/lists", "桥 & مرحبا %2F"
    address = f"{lists}/{quote(name, safe='')}"
    members = [("resid_post.1", 2), (HOOKPOINT, BRIDGE), (HOOKPOINT, 0), (HOOKPOINT, BRIDGE)]
    for hookpoint, latent in members:
        assert client.put(f"{address}/members/{hookpoint}/{latent}", headers=WRITER).status_code == 204
    assert client.get(address).json() == {"name": name, "members": [list(each) for each in members[:3]]}
    page = shapes.ListPage.model_validate(client.get(f"{address}/features", params={"offset": 1, "limit": 1}).json())
    assert (page.name, page.total, page.offset) == (name, 3, 1)
    line = client.get(f"{at}/features", params={"q": str(BRIDGE), "which": "all"}).json()["features"]
    assert page.members[0].hookpoint == HOOKPOINT
    assert page.members[0].feature.model_dump() in line
    assert [each.hookpoint for each in page.members] == [HOOKPOINT]
    seen = client.get(f"{at}/features/{BRIDGE}/lists").json()
    assert {"name": name, "n_members": 3, "is_in": True} in seen
    other = client.get(f"/api/v1/runs/small-run/resid_post.1/features/{BRIDGE}/lists").json()
    assert {"name": name, "n_members": 3, "is_in": False} in other, "of another dictionary"
    assert client.delete(f"{address}/members/{HOOKPOINT}/{BRIDGE}", headers=WRITER).status_code == 204
    assert client.delete(f"{address}/members/{HOOKPOINT}/{BRIDGE}", headers=WRITER).status_code == 404
    assert client.put(f"{address}/members/{HOOKPOINT}/{10**6}", headers=WRITER).status_code == 404
    assert client.get(address).json()["members"] == [["resid_post.1", 2], [HOOKPOINT, 0]]
    assert client.delete(address, headers=WRITER).status_code == 204
    assert client.get(f"{address}/features").status_code == 404


def test_two_who_add_at_once_lose_nothing_and_a_full_list_says_so(tmp_path: Path, monkeypatch) -> None:
    """Each from its own process's view of the file."""
    one, other = People(tmp_path), People(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for people, first in ((one, 0), (other, 100)):
            for latent in range(first, first + 20):
                pool.submit(people.add_member, "mine", Member("d", HOOKPOINT, latent))
    members = one.members_of("mine")
    assert members is not None
    assert sorted(each.latent for each in members) == [*range(20), *range(100, 120)]
    monkeypatch.setattr("mohole.serve.people.MOST_MEMBERS", 40)
    with pytest.raises(Refusal, match="40 features"):
        other.add_member("mine", Member("d", HOOKPOINT, 7000))
    assert not other.add_member("mine", Member("d", HOOKPOINT, 7))
    assert one.members_of("mine") == members
    for people in (one, other):
        people.close()


@pytest.mark.parametrize("text", ["", "x" * 301])
def test_a_label_has_a_length(client: httpx.Client, at: str, text: str) -> None:
    assert client.put(f"{at}/features/3/label", json={"text": text}, headers=WRITER).status_code == 422


def test_half_a_character_is_refused_not_kept(client: httpx.Client, at: str) -> None:
    headers = WRITER | {"Content-Type": "application/json"}
    answer = client.post(f"{at}/features/5/notes", content=b'{"text": "\\ud800"}', headers=headers)
    assert answer.status_code == 422
    assert client.get(f"{at}/features/5/notes").json() == []


def test_nothing_is_written_into_artifacts(client: httpx.Client, at: str, run: Path) -> None:
    client.post(f"{at}/features/3/notes", json={"text": "x"}, headers=WRITER)
    assert (run / PEOPLE_FILE).exists()
    for manifest in run.rglob("manifest.json"):
        if "rows" not in str(manifest.parent):
            artifact.open_artifact(manifest.parent)
            listed = {"manifest.json", *json.loads(manifest.read_text())["files"]}
            there = {str(file.relative_to(manifest.parent)) for file in manifest.parent.rglob("*") if file.is_file()}
            assert there == listed


def test_what_is_written_belongs_to_the_dictionary_looked_at(tmp_path: Path) -> None:
    people = People(tmp_path)
    people.put_label("one", HOOKPOINT, 7, "of one")
    people.add_note("one", HOOKPOINT, 7, "about one")
    people.put_list("mine", [Member("one", HOOKPOINT, 7)])
    assert (people.labels("other"), people.notes("other", 7)) == ({}, [])
    people.close()
    again = People(tmp_path)
    assert again.edition == 3
    assert again.labels("one") == {7: "of one"}
    assert [note.text for note in again.notes("one", 7)] == ["about one"]
    assert again.members_of("mine") == [Member("one", HOOKPOINT, 7)]
    again.close()
