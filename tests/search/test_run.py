"""`mohole search`, `xray`, `effect` and `matches` on a run that was made by the job, as a user meets them."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import exit_status
from tests.report.run_folder import make_run

from mohole import ablation_effect, job
from mohole.catalogue import matches
from mohole.config import from_tables
from mohole.corpus import Corpus
from mohole.dictionary.files import open_autoencoder
from mohole.errors import ArtifactError, ConfigError, ModelError
from mohole.model import load_model, save_model
from mohole.search.run import SearchedRun
from mohole.search.xray import xray

Mohole = Callable[..., tuple[int, str, str]]
PLACES = ("resid_post.0", "resid_post.1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "run"
    tables = {
        "run": str(folder),
        "machine": {"processes": 1, "threads": 1},
        "corpus": {"kind": "planted", "n_documents": 150},
        "windows": {"context": 64},
        "harvest": {"hookpoints": list(PLACES)},
        "train": {"n_latents": 64, "nonlinearity": {"kind": "topk", "k": 4}, "steps": 30, "batch_rows": 256},
        "evaluate": {"max_documents": 8},
    }
    for verb in ("harvest", "train", "catalogue", "label"):
        job.run_verb(from_tables(tables), verb, say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def word(run: Path) -> str:
    """A word that some latent fires most on."""
    corpus = Corpus.open(run / "corpus")
    ids = corpus.tokens[SearchedRun.open(run).places[0].catalogue.strongest()[0][:, 0]]
    return next(piece for piece in (corpus.pieces[i].strip() for i in ids) if piece.isalpha() and len(piece) > 2)


@pytest.fixture
def mohole(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Mohole:
    """Run the command line in this process; returns exit status, standard output, standard error."""

    def call(*arguments: object, given: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        status = exit_status(monkeypatch, *arguments)
        out, err = capfd.readouterr()
        return status, out, err

    return call


def test_all_three_ways_answer_together_and_say_why(mohole: Mohole, run: Path, word: str) -> None:
    status, out, err = mohole("search", run, word, "--json", "--limit", 5)
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert answer["query"] == word
    assert {hit["by"] for hit in answer["hits"]} >= {"token", "text"}
    for kind in ("label", "token", "text"):
        mine = [hit for hit in answer["hits"] if hit["by"] == kind]
        assert len(mine) <= 5
        assert [hit["score"] for hit in mine] == sorted((hit["score"] for hit in mine), reverse=True)
        assert json.loads(mohole("search", run, word, "--json", "--limit", 5, "--by", kind)[1])["hits"] == mine
    assert {hit["hookpoint"] for hit in answer["hits"]} <= set(PLACES)
    alone = json.loads(mohole("search", run, word, "--json", "--hookpoint", "blocks.1.hook_resid_post")[1])
    assert {hit["hookpoint"] for hit in alone["hits"]} == {"resid_post.1"}


def test_a_label_of_the_run_finds_its_latent(mohole: Mohole, run: Path) -> None:
    opened = SearchedRun.open(run)
    named = [
        (place.name, label)
        for place in opened.places
        for label in place.labels or ()
        if label.status in ("good", "partial")
    ]
    assert named
    for name, label in named[:3]:
        hits = json.loads(mohole("search", run, label.text, "--by", "label", "--json", "--limit", 100)[1])["hits"]
        best = [(hit["hookpoint"], hit["latent"]) for hit in hits if hit["score"] == 1.0]
        assert (name, label.latent) in best
        assert {label.text} == {hit["label"] for hit in hits if hit["score"] == 1.0}
    unnamed = next(
        label for place in opened.places for label in place.labels or () if label.status in ("few", "dead", "none")
    )
    assert all(hit["label"] != unnamed.text for hit in json.loads(
        mohole("search", run, unnamed.text, "--by", "label", "--json", "--limit", 200)[1])["hits"])  # fmt: skip


def test_features_are_found_by_their_numbers(mohole: Mohole, run: Path) -> None:
    asked = (
        "search",
        run,
        "--by",
        "statistics",
        "--limit",
        5,
        "--least-density",
        0.01,
        "--most-maximum",
        1e9,
        "--json",
    )
    hits = json.loads(mohole(*asked)[1])["hits"]
    known = {
        (place.name, latent): float(density)
        for place in SearchedRun.open(run).places
        for latent, density in enumerate(place.catalogue.density)
    }
    assert [hit["score"] for hit in hits] == sorted((d for d in known.values() if d >= 0.01), reverse=True)[:5]
    assert all(known[hit["hookpoint"], hit["latent"]] == hit["score"] for hit in hits)
    unscored = json.loads(mohole("search", run, "--by", "statistics", "--sort", "f1", "--limit", 1000, "--json")[1])[
        "hits"
    ]
    scores = [hit["score"] for hit in unscored]
    n_scored = len(scores) - scores.count(None)
    assert len(scores) == sum(density > 0 for density in known.values())
    assert scores[:n_scored] == sorted(scores[:n_scored], reverse=True)
    out = mohole("search", run, "--by", "statistics", "--least-maximum", 1e9)[1]
    assert out == "no living feature is within these bounds; widen them\n"


def test_tables_have_no_colour_when_nobody_looks_and_say_where_to_go_on(mohole: Mohole, run: Path, word: str) -> None:
    status, out, _ = mohole("search", run, word, "--by", "token", "--limit", 3)
    assert status == 0
    assert "\x1b" not in out
    assert "by the words they fire on or raise" in out
    hint = next(line for line in out.splitlines() if line.startswith("one of them: mohole show "))
    assert "resid_post." in hint
    status, out, _ = mohole("search", run, "zzyzx", "--by", "token")
    assert (status, out) == (0, "nothing found by token for “zzyzx”; try another word, or --by all\n")


def test_xray_of_a_run_is_the_xray_of_its_dictionary(mohole: Mohole, run: Path) -> None:
    text = "The owl sees the fox. " * 20
    status, out, err = mohole(
        "xray", run, "-", "--hookpoint", PLACES[1], "--top", 4, "--follow", 3, "--json", given=text.encode()
    )
    assert (status, err) == (0, "")
    shown = json.loads(out)
    dictionary = open_autoencoder(run / PLACES[1] / "dictionary")
    rows = xray(load_model("planted"), dictionary, text, hookpoint=PLACES[1], top=4, follow=3, context=64)
    assert [token["token"] for token in shown["tokens"]] == list(rows.tokens)
    assert [tuple(f["latent"] for f in token["features"]) for token in shown["tokens"]] == list(rows.latents)
    assert shown["along"] == list(rows.along or ())
    opened = SearchedRun.open(run, PLACES[1])
    maximum = opened.places[0].catalogue.maximum
    for token in shown["tokens"]:
        for feature in token["features"]:
            most = float(maximum[feature["latent"]])
            assert feature["of_maximum"] == (pytest.approx(feature["activation"] / most) if most else None)


def test_the_effect_of_a_feature_is_that_of_python(mohole: Mohole, run: Path) -> None:
    place = SearchedRun.open(run, PLACES[1]).places[0]
    latent = int(place.catalogue.counts.argmax())
    token = place.catalogue.feature(latent).top[1].token
    found = ablation_effect(load_model("planted"), place.dictionary, Corpus.open(run / "corpus"), latent, token)
    asked = ("effect", run, latent, "--hookpoint", PLACES[1])
    for more in (("--example", 2), ("--token", token)):
        status, out, _ = mohole(*asked, *more, "--json")
        assert status == 0
        said = json.loads(out)
        assert said["loss_change"] == list(found.loss_change)
        assert (said["token"], said["n_removed"]) == (token, found.n_removed)
        assert [each["token"] for each in said["promoted"]] == [each.token for each in found.promoted]
    status, out, _ = mohole(*asked, "--example", 2)
    assert status == 0
    assert f"Without latent {latent} of {PLACES[1]}" in out
    assert "after a random push as far" in " ".join(out.split())


def test_matches_are_those_of_the_other_hookpoint_and_of_other_runs(mohole: Mohole, run: Path, tmp_path: Path) -> None:
    one, other = (SearchedRun.open(run, place).places[0] for place in PLACES)
    expected = matches(
        one.catalogue, one.dictionary.W_dec.numpy(), 3, other.catalogue, other.dictionary.W_dec.numpy(), n=2
    )  # fmt: skip
    narrow = make_run(tmp_path / "narrow", n_documents=12)
    status, out, _ = mohole("matches", run, 3, narrow, "--hookpoint", PLACES[0], "--limit", 2, "--json")
    assert status == 0
    found = json.loads(out)["matches"]
    assert [(each["hookpoint"], each["latent"], each["cosine"]) for each in found] == [
        (PLACES[1], each.latent, pytest.approx(each.cosine)) for each in expected.matches
    ]
    assert [each["chance"] for each in found] == [expected.chance] * 2
    status, out, _ = mohole("matches", run, 3, "--hookpoint", PLACES[0])
    assert (status, out.count(f"{PLACES[1]}/")) == (0, 3)
    status, out, _ = mohole("matches", narrow, 3, "--hookpoint", PLACES[0])
    assert (status, "chance" in out) == (0, True)


def test_xray_is_of_every_dictionary_unless_one_is_named(mohole: Mohole, run: Path) -> None:
    status, out, _ = mohole("xray", run, "the owl", "--json")
    assert status == 0
    alone = [mohole("xray", run, "the owl", "--json", "--hookpoint", name)[1] for name in PLACES]
    assert out == "".join(alone)  # a line for each
    status, out, _ = mohole("xray", run, "the owl")
    heads = [line.strip() for line in out.splitlines() if "What fires at" in line]
    assert heads == [f"What fires at {name}, strongest first" for name in PLACES]


def test_xray_shows_control_characters_and_marks_the_followed_latent(mohole: Mohole, run: Path) -> None:
    rows = SearchedRun.open(run, PLACES[0]).xray("the owl", load_model("planted"), top=1, follow=None)
    follow = rows.latents[-1][0]
    status, out, _ = mohole("xray", run, "\x1b[31m\u202e the owl", "--hookpoint", PLACES[0], "--follow", follow)
    assert status == 0
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "«" in out.splitlines()[-1]
    assert f"{PLACES[0]}/{follow}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["xray", "{run}", "the owl", "--follow", "3"], "say whose latent 3 is with --hookpoint"),
        (["xray", "{run}", "", "--hookpoint", "resid_post.0"], "TEXT: empty"),
        (
            ["xray", "{run}", "owl", "--hookpoint", "resid_post.3"],
            "has no dictionary there, only at resid_post.0, resid_post.1",
        ),
        (["xray", "{run}", "owl", "--hookpoint", "resid_post.0", "--follow", "64"], "latents 0 to 63"),
        (["effect", "{run}", "64", "--hookpoint", "resid_post.0"], "latents 0 to 63"),
        (["effect", "{run}", "3"], "say which with --hookpoint"),
        (["effect", "{run}", "3", "--hookpoint", "resid_post.0", "--example", "500"], "--example 500: latent 3"),
        (
            ["effect", "{run}", "3", "--hookpoint", "resid_post.0", "--token", "99999999"],
            "token 99999999: the corpus has",
        ),
        (["effect", "{run}", "3", "--hookpoint", "resid_post.0", "--model", "no/where"], "no/where: no such folder"),
        (["matches", "{run}", "64", "--hookpoint", "resid_post.0"], "latents 0 to 63"),
        (["matches", "{run}", "3", "no/where", "--hookpoint", "resid_post.0"], "no/where: no such folder"),
        (["xray", "{run}", "owl", "--hookpoint", "resid_post.0", "--model", "no/where"], "no/where: no such folder"),
        (["search", "{run}", ""], "QUERY: empty"),
        (["search", "{run}"], "QUERY: missing"),
        (["search", "{run}", "owl", "--least-f1", "0.5"], "--by all: takes no bounds"),
        (["search", "{run}", "owl", "--by", "label", "--sort", "f1"], "--by label: takes no bounds"),
        (["search", "{run}", "owl", "--by", "statistics"], "QUERY 'owl': not with --by statistics"),
        (
            ["search", "{run}", "--by", "statistics", "--least-f1", "1", "--most-f1", "0.5"],
            "f1: at least 1 and at most 0.5",
        ),
        (["search", "{run}/nothing", "owl"], "no such folder; name a run folder"),
        (["search", "{run}/job.jsonl", "owl"], "a file, not a folder"),
        (["search", "{run}/corpus", "owl"], "no dictionary in it"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(mohole: Mohole, run: Path, arguments: list[str], message: str) -> None:
    status, out, err = mohole(*(argument.format(run=run) for argument in arguments))
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert message in err


def test_standard_input_that_is_no_text_is_refused(mohole: Mohole, run: Path) -> None:
    assert "not UTF-8 text (byte 2)" in mohole("search", run, "-", given=b"ow\xffl")[2]
    assert "more than 1 MiB" in mohole("search", run, "-", given=b"x" * ((1 << 20) + 1))[2]


def test_the_model_must_be_the_runs_own(run: Path, tmp_path: Path) -> None:
    other = load_model("planted")
    with torch.no_grad():
        next(other.hf.parameters()).add_(1.0)
    save_model(other, tmp_path / "other")
    opened = SearchedRun.open(run)
    with pytest.raises(ModelError, match="another model than that of"):
        opened.load_model(str(tmp_path / "other"))
    assert opened.load_model().name == "planted"


def test_what_is_missing_is_named_and_the_rest_still_answers(mohole: Mohole, tmp_path: Path) -> None:
    """A run without labels, whose model nobody recorded."""
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "resid_post.0" / "labels")
    shutil.rmtree(run / "resid_post.1" / "labels")
    status, out, err = mohole("search", run, "Bridge")
    assert status == 0
    assert "not by label: " in err
    assert "mohole label RECIPE" in err
    assert "name it with --model FOLDER" in err
    assert "resid_post.0/3" in out
    assert mohole("search", run, "Bridge", "--by", "label")[0] == 1
    for place in PLACES:
        shutil.rmtree(run / place / "catalogue")
    assert "`mohole catalogue RECIPE` makes it" in mohole("search", run, "Bridge", "--by", "token")[2]


def test_hostile_labels_are_shown_as_text(mohole: Mohole, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    status, out, _ = mohole("search", run, "<script> onerror", "--by", "label")
    assert status == 0
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "<img" in "".join(out.split())


def test_places_are_in_order_of_execution_and_drafts_are_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "resid_post.1").rename(run / "resid_post.10")
    shutil.copytree(run / "resid_post.0", run / "resid_post.2")
    shutil.copytree(run / "resid_post.0", run / "transcoder")
    shutil.copytree(run / "resid_post.0", run / ".resid_post.3.partial")
    names = [place.name for place in SearchedRun.open(run).places]
    assert names == ["resid_post.0", "resid_post.2", "resid_post.10", "transcoder"]
    with pytest.raises(ConfigError, match="only at"):
        SearchedRun.open(run, "mlp_out.0")
    with pytest.raises(ArtifactError, match="no such folder"):
        SearchedRun.open(tmp_path / "nothing")
