"""One artifact in a terminal: its own figures, hostile text made harmless, and clear refusals."""

import io
import re
import shutil

import pytest
from rich.cells import cell_len
from rich.console import Console
from tests.report.run_folder import BRIDGE, HOOKPOINTS, make_run

from mohole.catalogue import Catalogue
from mohole.errors import ArtifactError, ConfigError
from mohole.evaluate.files import read_evaluation
from mohole.interpret import Labels
from mohole.report import print_contents
from mohole.visible import visible


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("contents") / "demo")


def shown(path, latent=None, width=80):
    out = io.StringIO()
    print_contents(path, Console(file=out, width=width), latent)
    text = out.getvalue()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    return text


def test_an_evaluation_shows_every_measure_with_its_interval(run):
    path = run / HOOKPOINTS[0] / "evaluation"
    text = shown(path)
    for name, measure in read_evaluation(path).measures.items():
        assert name in text
        if measure.value is not None:
            assert f"{measure.value:.5g}" in text
        if measure.low is not None:
            assert f"{measure.low:.5g}" in text


def test_an_evaluation_shows_whose_error_it_is_and_which_guards_have_seen_something(run):
    path = run / HOOKPOINTS[0] / "evaluation"
    evaluation, text = read_evaluation(path), shown(path, width=120)
    for each in evaluation.dark_matter.classes:
        assert re.search(rf"{each.name} +{each.n:,} +{each.share_of_rows} +{each.share_of_error.value}", text)
    assert "5 (40%, 0.9)" in text
    for warning in evaluation.warnings:
        assert f"{warning.name}: {warning.sentence}" in text


def test_labels_show_the_best_first_and_how_many_there_are(run):
    path = run / HOOKPOINTS[0] / "labels"
    labels, text = list(Labels.open(path)), shown(path, width=120)
    best = max(labels, key=lambda label: (label.f1, label.n_positive, -label.latent))
    assert visible(best.text)[:20] in text
    assert f"{sum(label.status == 'dead' for label in labels)} dead" in text


def test_a_catalogue_shows_one_feature_with_its_texts(run):
    path = run / HOOKPOINTS[0] / "catalogue"
    feature, text = Catalogue.open(path).feature(BRIDGE), shown(path, BRIDGE)
    assert Labels.open(run / HOOKPOINTS[0] / "labels").label(BRIDGE).text in text
    assert f"({feature.count:,})" in text
    assert "«" in text
    assert f"{feature.top[0].activation:.3g}" in text
    assert "raises the next token" in text
    assert "One feature: mohole show" in shown(path)


def test_a_dead_latent_is_shown_without_examples(run):
    path = run / HOOKPOINTS[0] / "catalogue"
    dead = int((Catalogue.open(path).counts == 0).argmax())
    assert Catalogue.open(path).counts[dead] == 0
    assert "strongest" not in shown(path, dead)


@pytest.mark.parametrize(("part", "says"), [("corpus", "documents, "), ("steering", "with the feature held")])
def test_the_other_artifacts_say_what_they_hold(run, part, says):
    assert says in shown(run / part)


def test_what_cannot_be_shown_is_named(run, tmp_path):
    catalogue = run / HOOKPOINTS[0] / "catalogue"
    with pytest.raises(ConfigError, match=r"latent 4000: .*catalogue has latents 0 to \d+"):
        shown(catalogue, 4000)
    with pytest.raises(ConfigError, match="a latent's number goes with a catalogue"):
        shown(run / HOOKPOINTS[0] / "labels", 3)
    shutil.copytree(catalogue, tmp_path / "a" / "b")
    with pytest.raises(ArtifactError, match="show the catalogue inside its run"):
        shown(tmp_path / "a" / "b", BRIDGE)
