"""What the API says of a run is what its artifacts say: pages, features, contexts, maps, searches, x-rays."""

import gzip
import json
import math
from pathlib import Path

import httpx
import numpy as np
import pytest
import zstandard
from pydantic import TypeAdapter
from tests.report.run_folder import BRIDGE, DEAD, HOOKPOINTS, HOSTILE, make_run
from tests.serve.conftest import HOOKPOINT, WRITER

from mohole import __version__, act
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.dictionary.files import open_directions
from mohole.errors import StageError
from mohole.interpret import Labels
from mohole.search.peaks import Peaks
from mohole.search.xray import XrayRows
from mohole.serve import elsewhere, shapes
from mohole.serve.columns import Columns
from mohole.serve.runs import open_runs
from mohole.serve.xrays import strongest


@pytest.fixture(scope="module")
def catalogue(run: Path) -> Catalogue:
    return Catalogue.open(run / HOOKPOINT / "catalogue")


@pytest.fixture(scope="module")
def labels(run: Path) -> list:
    return list(Labels.open(run / HOOKPOINT / "labels"))


@pytest.fixture(scope="module")
def corpus(run: Path) -> Corpus:
    return Corpus.open(run / "corpus")


def test_runs_are_listed(client: httpx.Client, catalogue: Catalogue, labels: list) -> None:
    found = shapes.Runs.model_validate(client.get("/api/v1/runs").json())
    assert (found.version, found.can_write, len(found.runs)) == (__version__, True, 1)
    (run,) = found.runs
    assert (run.run, run.can_xray) == ("small-run", True)
    assert tuple(each.hookpoint for each in run.hookpoints) == HOOKPOINTS
    assert run.hookpoints[0] == shapes.HookpointFacts(
        hookpoint=HOOKPOINT,
        n_latents=catalogue.n_latents,
        n_dead=int((catalogue.counts == 0).sum()),
        n_labelled=sum(label.status in ("good", "partial") for label in labels),
        n_tokens=catalogue.n_tokens,
        n_documents=catalogue.n_documents,
        n_counted_together=catalogue.n_tokens,
        firing_share=0.3,
    )


def test_the_run_page_has_curves_measures_and_where_everything_came_from(
    client: httpx.Client, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "job.jsonl").write_text('{"stage": "train", "cpu_seconds": 2.5, "wall_seconds": 3}\n{"odd": 1}\n{"half')
    page = shapes.RunPage.model_validate(client.get("/api/v1/runs/small-run").json())
    assert page.costs == (("train", 2.5, 3.0),)
    fvu = next(curve for curve in page.curves[HOOKPOINT] if curve.name == "fvu")
    assert (fvu.steps[0], fvu.steps[-1]) == (1, 891)
    assert fvu.values[0] == pytest.approx(0.02 + 0.9 * math.exp(-1 / 60))
    measure = next(each for each in page.measures[HOOKPOINT] if each.name == "fvu")
    assert (measure.value, measure.unit, measure.baseline) == (0.021, "share of variance", "the mean row")
    assert measure.definition
    assert (measure.low, measure.high, measure.n) == (pytest.approx(0.021 * 0.96), pytest.approx(0.021 * 1.04), 21_314)
    assert {each.name for each in page.artifacts} >= {"corpus", f"{HOOKPOINT}/catalogue", "steering"}
    manifest = json.loads((run / HOOKPOINT / "dictionary" / "manifest.json").read_text())
    facts = next(each for each in page.artifacts if each.name == f"{HOOKPOINT}/dictionary")
    assert (facts.kind, facts.seed, facts.parents) == ("dictionary", 7, manifest["inputs"]["parents"])
    monkeypatch.setattr("mohole.serve.run_page._MOST_POINTS", 7)
    page = shapes.RunPage.model_validate(client.get("/api/v1/runs/small-run").json())
    few = next(curve for curve in page.curves[HOOKPOINT] if curve.name == "fvu")
    assert 3 < len(few.steps) <= 7
    assert (few.steps[-1], few.values[-1]) == (891, fvu.values[-1]), "a thinned curve ends where the training did"


def test_a_feature_is_what_the_catalogue_says(
    client: httpx.Client, at: str, catalogue: Catalogue, labels: list, corpus: Corpus
) -> None:
    for latent in (BRIDGE, 0, 7, DEAD):
        feature, label = catalogue.feature(latent), labels[latent]
        found = shapes.FeatureFacts.model_validate(client.get(f"{at}/features/{latent}").json())
        for name in ("latent", "count", "density", "maximum", "mean", "is_dead"):
            assert getattr(found, name) == getattr(feature, name), name
        assert (found.hookpoint, found.n_tokens) == (HOOKPOINT, catalogue.n_tokens)
        assert (found.label.text, found.label.status) == (label.text, label.status)
        assert found.promoted == tuple(shapes.Piece(token=token, logit=logit) for token, logit in feature.promoted)
        assert len(found.suppressed) == len(feature.suppressed)
        assert [(each.low, each.high, each.count) for each in found.intervals] == [
            (each.low, each.high, each.count) for each in feature.intervals
        ]
        shown = [*found.top, *(example for each in found.intervals for example in each.examples)]
        known = [*feature.top, *(example for each in feature.intervals for example in each.examples)]
        assert len(shown) == len(known)
        for example, true in zip(shown, known, strict=True):
            first, last = corpus.document_starts[true.document : true.document + 2]
            tokens = corpus.tokens[true.start : true.end]
            assert example == shapes.ExampleFacts(
                document=true.document,
                token=true.token,
                at=true.token - true.start,
                tokens=tuple(corpus.pieces[token] for token in tokens),
                activations=true.activations,
                begins_document=bool(true.start == first),
                ends_document=bool(true.end == last),
            )


def test_answers_are_byte_for_byte_those_of_their_shapes(client: httpx.Client, at: str) -> None:
    """Bodies are dumped from plain dictionaries; the shapes are what is described. Keys, their order, types, every number."""
    token = client.get(f"{at}/features/{BRIDGE}").json()["top"][0]["token"]
    asked: dict[str, object] = {f"features/{latent}": shapes.FeatureFacts for latent in range(40)}
    asked |= {
        f"features/{BRIDGE}/context?token={token}": shapes.ExampleFacts,
        f"features/{BRIDGE}/neighbours": tuple[shapes.Neighbour, ...],
        f"features/{BRIDGE}/together": tuple[shapes.Together, ...],
        "features?which=all&limit=200": shapes.FeaturePage,
        "search?q=a": shapes.SearchAnswer,
        "search?q=Bridge&by=text": shapes.SearchAnswer,
    }
    for path, shape in asked.items():
        body, of = client.get(f"{at}/{path}").content, TypeAdapter(shape)
        assert of.dump_json(of.validate_json(body, strict=True)) == body, path


def test_a_feature_has_one_answer_however_its_number_is_written(client: httpx.Client, at: str) -> None:
    """A short number takes the short way; a long one and what is no number go the way that the description says."""
    assert client.get(f"{at}/features/{BRIDGE:012}").content == client.get(f"{at}/features/{BRIDGE}").content
    n_latents = client.get("/api/v1/runs").json()["runs"][0]["hookpoints"][0]["n_latents"]
    for number, status in (
        (n_latents, 404),
        (10**8, 404),
        (2**31 - 1, 404),
        (2**31, 422),
        ("9" * 6000, 422),
        ("-1", 422),
        ("٣", 422),
    ):
        answer = client.get(f"{at}/features/{number}")
        assert (answer.status_code, set(answer.json())) == (status, {"error", "next_step"}), number


def test_a_dead_feature_says_so_and_has_no_numbers_that_mean_nothing(client: httpx.Client, at: str) -> None:
    found = client.get(f"{at}/features/{DEAD}").json()
    assert found["is_dead"]
    assert (found["histogram"], found["top"], found["intervals"]) == (None, [], [])
    assert found["label"] | {"text": ""} == {
        "text": "", "status": "dead", "kind": found["label"]["kind"], "f1": None, "precision": None, "recall": None,
        "n_positive": None, "n_scored": None,
    }  # fmt: skip


def test_hostile_text_comes_back_exact(client: httpx.Client, at: str) -> None:
    answer = client.get(f"{at}/features/0")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = answer.json()
    assert found["label"]["text"] == HOSTILE
    assert HOSTILE in "".join(found["top"][0]["tokens"])


def test_pages_add_up_to_everything_in_order(client: httpx.Client, at: str, catalogue: Catalogue, labels: list) -> None:
    seen, total = [], 1
    while len(seen) < total:
        query = {"sort": "density", "descending": True, "which": "all", "limit": 7, "offset": len(seen)}
        page = shapes.FeaturePage.model_validate(client.get(f"{at}/features", params=query).json())
        total = page.total
        seen += page.features
    assert total == catalogue.n_latents
    assert sorted(line.latent for line in seen) == list(range(total))
    assert [(-line.count, line.latent) for line in seen] == sorted((-line.count, line.latent) for line in seen)
    for line in seen:
        label = labels[line.latent]
        assert (line.label, line.status) == (label.text, label.status)
        assert line.f1 == (label.f1 if label.status in ("good", "partial", "none") else None)
        assert line.density == pytest.approx(line.count / catalogue.n_tokens)
        assert line.maximum == catalogue.maximum[line.latent]
    past = client.get(f"{at}/features", params={"offset": 10**6}).json()
    assert (past["features"], past["total"] > 0) == ([], True)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["latent", "density", "maximum", "f1", "label"])
def test_every_sort_is_the_obvious_one(
    client: httpx.Client, at: str, catalogue: Catalogue, labels: list, sort: str, descending: bool
) -> None:
    query = {"sort": sort, "descending": descending, "which": "all", "limit": 200}
    shown = [line["latent"] for line in client.get(f"{at}/features", params=query).json()["features"]]
    f1 = [label.f1 if label.status in ("good", "partial", "none") else None for label in labels]
    value = {
        "latent": lambda latent: latent,
        "density": lambda latent: catalogue.counts[latent],
        "maximum": lambda latent: catalogue.maximum[latent],
        "f1": lambda latent: f1[latent],
        "label": lambda latent: labels[latent].text.casefold(),
    }[sort]
    values = [value(latent) for latent in shown if value(latent) is not None]
    assert values == sorted(values, reverse=descending)
    assert all(value(latent) is None for latent in shown[len(values) :]), "those without a value come last"
    assert len(set(shown)) == catalogue.n_latents


def test_filters_keep_what_they_say(client: httpx.Client, at: str, catalogue: Catalogue, labels: list) -> None:
    def kept(**query: object) -> set[int]:
        found = client.get(f"{at}/features", params={"limit": 200, "which": "all"} | query).json()
        assert found["total"] == len(found["features"])
        return {line["latent"] for line in found["features"]}

    density = catalogue.density
    everything = range(catalogue.n_latents)
    assert kept(which="dead") == {i for i in everything if density[i] == 0} >= {DEAD}
    assert kept(which="alive") == {i for i in everything if density[i] > 0}
    assert kept(status="few") == {i for i in everything if labels[i].status == "few"}
    middle = float(np.median(density))
    assert kept(least_density=middle) == {i for i in everything if density[i] >= middle}
    assert kept(most_density=middle) == {i for i in everything if density[i] <= middle}
    assert kept(least_f1=0.8) == {i for i in everything if labels[i].status == "good" and labels[i].f1 >= 0.8}
    assert kept(q="BRIDGE") == {i for i in everything if "bridge" in labels[i].text.casefold()} != set()
    assert kept(q="金门") == {i for i in everything if "金门" in labels[i].text} >= {BRIDGE}
    assert kept(q="7") >= {7}
    assert kept(q="no label has this") == kept(family=3) == set()
    rare = {"most_density": middle, "sort": "maximum", "descending": True, "limit": 200}
    shown = client.get(f"{at}/features", params=rare).json()["features"]
    assert [line["maximum"] for line in shown] == sorted((line["maximum"] for line in shown), reverse=True)
    assert all(line["count"] > 0 for line in shown), "only those that fire, unless asked otherwise"
    assert kept(q="the", least_f1=0.8, most_density=middle) == {
        i for i in everything if "the" in labels[i].text and labels[i].f1 >= 0.8 and density[i] <= middle
    }


def test_a_wider_context_is_the_document(client: httpx.Client, at: str, corpus: Corpus, catalogue: Catalogue) -> None:
    example = client.get(f"{at}/features/{BRIDGE}").json()["top"][0]
    query = {"token": example["token"], "before": 512, "after": 512}
    wide = client.get(f"{at}/features/{BRIDGE}/context", params=query).json()
    first, last = corpus.document_starts[example["document"] : example["document"] + 2]
    assert wide["tokens"] == [corpus.pieces[token] for token in corpus.tokens[first:last]]
    assert (wide["begins_document"], wide["ends_document"], wide["document"]) == (True, True, example["document"])
    assert wide["activations"] == list(catalogue.activations(BRIDGE, int(first), int(last)))
    assert wide["tokens"][wide["at"]] == example["tokens"][example["at"]]
    assert max(wide["activations"]) == wide["activations"][wide["at"]] == max(example["activations"])
    narrow = client.get(f"{at}/features/{BRIDGE}/context", params=query | {"before": 1, "after": 0}).json()
    assert (len(narrow["tokens"]), narrow["at"]) == (2, 1)
    assert client.get(f"{at}/features/{BRIDGE}/context", params={"token": corpus.n_tokens}).status_code == 404


def test_the_effect_of_taking_a_feature_away_at_one_of_its_examples(
    client: httpx.Client, at: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = client.get(f"{at}/features/{BRIDGE}").json()["top"][0]
    address, query = f"{at}/features/{BRIDGE}/effect", {"token": example["token"]}
    answer = client.get(address, params=query)
    effect = shapes.EffectFacts.model_validate(answer.json())
    assert (effect.token, effect.document, effect.start) == (example["token"], example["document"], example["token"])
    assert effect.tokens[0] == example["tokens"][example["at"]]
    assert effect.loss_change == (None, float(BRIDGE))
    assert effect.promoted[0].token == "<0xE2>"
    silent = client.get(address, params={"token": corpus.n_tokens + 1})
    assert silent.status_code == 404
    assert "does not fire" in silent.json()["error"]

    def missed(*arguments: object) -> object:
        raise StageError("the edit fired for 3 rows of 9")

    monkeypatch.setattr(act, "ablation_effect", missed)
    known = client.get(address, params=query, headers={"If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304, "the model does not run for who has the answer"
    failed = client.get(address, params=query)
    assert (failed.status_code, failed.json()["error"]) == (422, "the edit fired for 3 rows of 9")


def test_a_feature_is_found_in_the_other_dictionaries(
    serve, run: Path, at: str, pristine_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the run's other layer and in another run; not in itself, nor in a run whose rows have another width."""
    other = make_run(tmp_path / "other", n_documents=24, n_latents=38)
    both: httpx.Client = serve(run, make_run(tmp_path / "narrow", n_documents=12), other)
    answer = both.get(f"{at}/features/{BRIDGE}/matches")
    found = [shapes.DictionaryMatches.model_validate(each) for each in answer.json()]
    wide = np.asarray(open_directions(run / HOOKPOINTS[0] / "dictionary"))
    expected = [("small-run", HOOKPOINTS[1]), *(("other", name) for name in HOOKPOINTS)]
    assert [(each.run, each.hookpoint) for each in found] == expected
    theirs = np.asarray(open_directions(run / HOOKPOINTS[1] / "dictionary"))
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(wide[BRIDGE])
    cosines = theirs @ wide[BRIDGE] / np.where(lengths > 0, lengths, np.inf)
    first = found[0]
    assert [each.cosine for each in first.matches] == pytest.approx(np.sort(cosines)[::-1][:3].tolist(), abs=1e-5)
    assert (
        first.matches[0].label
        == both.get(f"/api/v1/runs/small-run/{HOOKPOINTS[1]}/features/{first.matches[0].latent}").json()["label"][
            "text"
        ]
    )
    assert first.matches[0].correlation is not None
    assert first.is_same_model
    assert 0 < first.chance < 1
    again = both.get(f"{at}/features/{BRIDGE}/matches", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    monkeypatch.setattr(elsewhere, "MOST_NUMBERS", theirs.size - 1)
    (left_out, *_) = both.get(f"{at}/features/{BRIDGE + 1}/matches").json()
    assert (left_out["matches"], left_out["chance"]) == ([], None)
    assert "too many" in left_out["left_out"]
    alone: httpx.Client = serve(pristine_run)
    assert len(alone.get(f"{at}/features/{BRIDGE}/matches").json()) == 1


def test_neighbours_families_and_map_come_when_the_catalogue_has_them(
    client: httpx.Client, at: str, catalogue: Catalogue, labels: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, together = ((5, 0.75), (6, 0.5)), ((2, 9, 0.25),)
    families = np.arange(catalogue.n_latents, dtype=np.int32) % 3 - 1
    xy = np.arange(2 * catalogue.n_latents, dtype=np.float32).reshape(-1, 2)
    missing = client.get(f"{at}/map", headers={"If-None-Match": "-"})
    assert missing.status_code in (200, 404)
    monkeypatch.setattr("mohole.serve.answers.neighbours_of", lambda feature: near)
    monkeypatch.setattr("mohole.serve.answers.together_of", lambda feature: together)
    monkeypatch.setattr("mohole.serve.answers.family_of", lambda feature: 1)
    monkeypatch.setattr("mohole.serve.maps.places_of", lambda catalogue: xy)
    monkeypatch.setattr("mohole.serve.columns.families_of", lambda catalogue: families)
    monkeypatch.setattr(Columns, "families", property(lambda self: families))
    monkeypatch.setattr(Columns, "_by_family", property(vars(Columns)["_by_family"].func))
    found = client.get(f"{at}/features/{BRIDGE}").json()
    assert found["neighbours"] == [{"latent": i, "label": labels[i].text, "cosine": cosine} for i, cosine in near]
    assert found["neighbours"] == client.get(f"{at}/features/{BRIDGE}/neighbours").json()
    assert found["together"] == [{"latent": 2, "label": labels[2].text, "n_together": 9, "phi": 0.25}]
    assert found["together"] == client.get(f"{at}/features/{BRIDGE}/together").json()
    members = [line["latent"] for line in found["family"]["members"]]
    assert found["family"]["size"] == len(members) == (families == 1).sum()
    assert members == sorted(np.flatnonzero(families == 1), key=lambda i: (-catalogue.counts[i], i))
    listed = client.get(f"{at}/features", params={"family": 1, "which": "all", "limit": 200}).json()
    assert {line["latent"] for line in listed["features"]} == set(members)
    facts = client.get(f"{at}/map").json()
    assert (facts["n"], facts["bounds"]) == (len(xy), [0.0, 1.0, len(xy) * 2 - 2.0, len(xy) * 2 - 1.0])
    body, start, columns = client.get(f"{at}/map/points").content, 0, {}
    for name, kind in facts["columns"]:
        columns[name] = np.frombuffer(body, dtype=np.dtype(kind).newbyteorder("<"), count=len(xy), offset=start)
        start += columns[name].nbytes
    assert start == len(body)
    assert columns["y"].tolist() == xy[:, 1].tolist()
    assert columns["family"].tolist() == families.tolist()
    alive = catalogue.counts > 0
    assert 10 ** columns["log10_density"][alive] == pytest.approx(catalogue.density[alive], rel=1e-5)
    assert np.isnan(columns["log10_density"][~alive]).all()
    assert np.isnan(columns["f1"][DEAD])
    assert columns["f1"][BRIDGE] == pytest.approx(labels[BRIDGE].f1)


def test_tiles_and_places_of_the_map_are_those_of_its_points(
    client: httpx.Client, at: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get(f"{at}/map").json()["tiles"] is None, "it is small"
    monkeypatch.setattr("mohole.serve.maps.WHOLE_TO", 1)
    facts = client.get(f"{at}/map", headers={"If-None-Match": "-"}).json()
    answer = client.get(f"{at}/map/tiles/0/0/0")
    n, n_below = np.frombuffer(answer.content, "<i4", 2)
    assert (n, n_below) == (facts["n"], 0)
    latents, x, y = (
        np.frombuffer(answer.content, kind, n, 8 + 4 * n * i) for i, kind in enumerate(("<i4", "<f4", "<f4"))
    )
    assert sorted(latents.tolist()) == list(range(n))
    np.testing.assert_array_equal(np.stack([x, y], 1), catalogue.xy[latents])
    known = {"If-None-Match": answer.headers["etag"]}
    assert client.get(f"{at}/map/tiles/0/0/0", headers=known).status_code == 304
    f1 = dict(zip(latents.tolist(), np.frombuffer(answer.content, "<f4", n, 8 + 16 * n).tolist(), strict=True))
    assert f1[BRIDGE] == pytest.approx(client.get(f"{at}/features/{BRIDGE}").json()["label"]["f1"])
    assert client.put(f"{at}/features/{BRIDGE}/label", json={"text": "by hand"}, headers=WRITER).is_success
    changed = client.get(f"{at}/map/tiles/0/0/0", headers=known)
    assert changed.status_code == 200
    own = dict(zip(latents.tolist(), np.frombuffer(changed.content, "<f4", n, 8 + 16 * n).tolist(), strict=True))
    assert np.isnan(own[BRIDGE]), "a label by hand has no score"
    client.delete(f"{at}/features/{BRIDGE}/label", headers=WRITER)
    places = client.get(f"{at}/map/places", params={"latent": [5, 2]}).json()
    assert places == [{"latent": i, "x": float(catalogue.xy[i, 0]), "y": float(catalogue.xy[i, 1])} for i in (5, 2)]
    assert client.get(f"{at}/map/tiles/3/7/7").content == bytes(8)
    for wrong, status in (("tiles/1/2/0", 404), ("tiles/16/0/0", 422), ("tiles/0/0/-1", 422), ("places", 422)):
        refused = client.get(f"{at}/map/{wrong}")
        assert refused.status_code == status
        assert shapes.Error.model_validate(refused.json())
    assert client.get(f"{at}/map/places", params={"latent": 10**6}).status_code == 404


def test_a_catalogue_without_a_map_says_what_to_do(
    client: httpx.Client, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mohole.serve.maps.places_of", lambda catalogue: None)
    for place in ("map", "map/points"):
        answer = client.get(f"{at}/{place}")
        assert answer.status_code == 404
        assert shapes.Error.model_validate(answer.json()).next_step


def test_searches_find_by_label_token_and_text(client: httpx.Client, at: str) -> None:
    def search(**query: object) -> shapes.SearchAnswer:
        return shapes.SearchAnswer.model_validate(client.get(f"{at}/search", params=query).json())

    found = search(q="bridge", limit=3)
    assert (found.query, found.by) == ("bridge", "label")
    assert all("bridge" in hit.feature.label.casefold() for hit in found.hits)
    assert found.hits
    assert found.hits[0].why == "it is there"
    assert search(q="never fires").hits == search(q="too rarely").hits == (), "what says only that there is no name"
    assert [hit.feature.latent for hit in search(q="Bridge", by="token").hits] == [BRIDGE]
    fired = search(q="the Bridge", by="text")
    assert {hit.feature.latent for hit in fired.hits} == {BRIDGE, 1}
    assert [hit.score for hit in fired.hits] == sorted((hit.score for hit in fired.hits), reverse=True)
    assert "“Bridge”" in next(hit.why for hit in fired.hits if hit.feature.latent == BRIDGE)
    assert {hit.feature.latent for hit in search(q="Bridge", by="text").hits} == {BRIDGE, 1}, (
        "not only each token's first"
    )


def test_a_search_by_numbers_is_the_table_sorted_and_cut(client: httpx.Client, at: str) -> None:
    def search(**query: object) -> shapes.SearchAnswer:
        return shapes.SearchAnswer.model_validate(
            client.get(f"{at}/search", params={"by": "statistics"} | query).json()
        )

    table = {"which": "alive", "limit": 200, "sort": "maximum", "descending": True, "least_density": 0.01}
    lines = shapes.FeaturePage.model_validate(client.get(f"{at}/features", params=table).json()).features
    found = search(sort="maximum", least_density=0.01, limit=200)
    assert tuple(hit.feature for hit in found.hits) == lines
    assert [hit.score for hit in found.hits] == [line.maximum for line in lines]
    middle = lines[len(lines) // 2].maximum
    assert {hit.feature.latent for hit in search(most_maximum=middle, least_density=0.01).hits} == {
        line.latent for line in lines if line.maximum <= middle
    }
    unscored = search(sort="f1", ascending=True, limit=200).hits
    assert [hit.score for hit in unscored] == [hit.feature.f1 for hit in unscored]
    for query in ({"by": "statistics", "q": "a"}, {"by": "label"}, {"q": "a", "least_f1": 0.5}, {"q": "a", "sort": "f1"},
                  {"by": "statistics", "least_f1": 0.9, "most_f1": 0.1}, {"by": "statistics", "least_f": 0.1}):  # fmt: skip
        refused = client.get(f"{at}/search", params=query)
        assert (refused.status_code, set(refused.json())) == (422, {"error", "next_step"}), query


def test_an_xray_shows_each_token(client: httpx.Client, at: str, catalogue: Catalogue, labels: list) -> None:
    body = {"text": "the Bridge", "top": 1, "latent": BRIDGE}
    found = shapes.Xray.model_validate(client.post(f"{at}/xray", json=body).json())
    assert [token.token for token in found.tokens] == ["<s>", "the", "Bridge"]
    assert found.tokens[0].features == ()
    (feature,) = found.tokens[2].features
    share = 4.0 / float(catalogue.maximum[BRIDGE])
    known = shapes.XrayFeature(latent=BRIDGE, label=labels[BRIDGE].text, activation=4.0, of_maximum=share)
    assert feature == known
    assert found.along == (0.0, 0.0, 4.0)
    assert len(found.strongest) == 1
    second = client.post(f"{at}/xray", json={"text": "Bridge", "top": 2}).json()["strongest"]
    assert {each["latent"] for each in second} == {BRIDGE, 1}
    (best,) = client.post(f"{at}/xray", json={"text": "Bridge", "top": 1}).json()["strongest"]
    assert best == max(second, key=lambda each: each["of_maximum"]), "of all that fire, whatever is shown of a token"
    for wrong in ({"text": ""}, {"text": "x" * 20_001}, {"text": "x", "top": 51}, {"text": "x", "tpo": 3}, {}):
        assert client.post(f"{at}/xray", json=wrong).status_code == 422
    assert client.post(f"{at}/xray", json={"text": "x", "latent": 10**6}).status_code == 404


def test_what_is_strongest_in_a_text_goes_by_each_ones_own_maximum(run: Path) -> None:
    served = open_runs([run])
    place = served.hookpoint(next(iter(served.runs)), HOOKPOINT)
    place.catalogue.maximum = np.float32([10, 1, 4, 0, 2])
    peaks = Peaks(np.arange(5), np.float32([5, 2, 3, 9, 1]), np.array([7, 6, 5, 4, 3]))
    rows = XrayRows((), (), (), None, peaks)
    # shares 2, .75, .5 twice (the lower latent first), and last the one that the catalogue never saw
    assert strongest(place, rows, 9) == [(1, 2.0, 6), (2, 3.0, 5), (0, 5.0, 7), (4, 1.0, 3), (3, 9.0, 4)]
    assert strongest(place, rows, 1) == [(1, 2.0, 6)]
    served.close()


def test_what_a_reader_has_is_not_sent_again(client: httpx.Client, at: str) -> None:
    for path in ("/api/v1/runs", "/api/v1/runs/small-run", f"{at}/features", f"{at}/features/3", f"{at}/search?q=the"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
        assert again.headers["etag"] == first.headers["etag"]
        several = client.get(path, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
        assert several.status_code == 304
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_bodies_are_packed_for_those_who_can_read_that(client: httpx.Client, at: str) -> None:
    plain = client.get(f"{at}/features/3", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with client.stream("GET", f"{at}/features/3", headers={"Accept-Encoding": "br, gzip;q=0.5"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in answer.headers["vary"].lower()
        packed = b"".join(answer.iter_raw())
    assert len(packed) < len(plain.content) / 2
    assert gzip.decompress(packed) == plain.content
    with client.stream("GET", f"{at}/features/3", headers={"Accept-Encoding": "gzip, br, zstd"}) as answer:
        assert answer.headers["content-encoding"] == "zstd"
        assert zstandard.ZstdDecompressor().decompress(b"".join(answer.iter_raw())) == plain.content
    for refusal in ("gzip;q=0", "gzip;q=0, zstd; q=0.0"):
        refused = client.get(f"{at}/features/3", headers={"Accept-Encoding": refusal})
        assert "content-encoding" not in refused.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/nothing", 404),
        ("/api/v1/runs/other", 404),
        ("/api/v1/runs/small-run/resid_post.9/features", 404),
        ("{at}/features/999999", 404),
        ("{at}/features/-1", 422),
        ("{at}/features/one", 422),
        ("{at}/features/3/context?token=-1", 422),
        ("{at}/features/3/context?token=0&before=513", 422),
        ("{at}/features/3/context", 422),
        ("{at}/features/3/effect", 422),
        ("{at}/features/3/effect?token=-1", 422),
        ("{at}/features/999999/effect?token=0", 404),
        ("{at}/features/999999/matches", 404),
        ("{at}/features?limit=201", 422),
        ("{at}/features?offset=-1", 422),
        ("{at}/features?sort=colour", 422),
        ("{at}/features?limt=3", 422),
        ("{at}/features?least_density=nan", 422),
        ("{at}/features?q=" + "x" * 201, 422),
        ("{at}/search?q=", 422),
        ("{at}/search?q=x&limit=1000", 422),
    ],
)
def test_what_cannot_be_meant_is_said_in_the_one_shape(client: httpx.Client, at: str, path: str, status: int) -> None:
    answer = client.get(path.format(at=at))
    assert answer.status_code == status
    assert shapes.Error.model_validate(answer.json()).error
    assert client.delete(f"{at}/features").status_code == 405
