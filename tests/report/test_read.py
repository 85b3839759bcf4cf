"""From a run folder to findings: which hookpoints, which features, and what is said where something is missing."""

import shutil

import pytest
from tests.report.run_folder import BRIDGE, DEAD, HOOKPOINTS, make_run

from mohole.catalogue import Catalogue
from mohole.errors import ArtifactError
from mohole.report import read_findings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("read") / "demo")


def test_features_are_the_catalogues_with_their_texts(run):
    findings = read_findings(run)
    catalogue = Catalogue.open(run / HOOKPOINTS[0] / "catalogue")
    cards = {card.latent: card for card in findings.hookpoints[0].features}
    assert DEAD not in cards
    bridge, feature = cards[BRIDGE], catalogue.feature(BRIDGE)
    assert (bridge.count, bridge.maximum, bridge.density) == (feature.count, feature.maximum, feature.density)
    for snippet, example in zip(bridge.top, feature.top, strict=True):
        assert snippet.pieces[snippet.focus].strip() in ("Bridge", "Golden-Gate-Brücke", "金门大桥")
        assert snippet.value == example.activation
        assert len(snippet.pieces) == len(snippet.values)
    assert sum(band.count for band in bridge.bands) == sum(bridge.histogram) == bridge.count


def test_the_best_are_kept_planted_concepts_first(run):
    findings = read_findings(run, max_features=5)
    cards = findings.hookpoints[0].features
    assert len(cards) == 5
    assert {card.latent for card in cards[:3]} == {BRIDGE, 4, 5}  # F1 of .7 or more on a planted concept
    assert [card.concept is not None for card in cards] == [True, True, True, False, False]
    assert cards[3].f1 >= cards[4].f1
    concept = next(card for card in cards if card.latent == BRIDGE).concept
    assert (concept.label, concept.n_languages) == ("landmark/golden_gate_bridge", 4)


def test_a_latent_that_fires_too_rarely_has_no_f1(run):
    cards = {card.latent: card for card in read_findings(run).hookpoints[0].features}
    assert cards[8].f1 is None
    assert cards[BRIDGE].f1 == pytest.approx(0.954)


def test_hookpoints_come_in_order_of_execution(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for name in ("resid_post.10", "mlp_out.1"):
        shutil.copytree(run / HOOKPOINTS[0], tmp_path / "run" / name)
    findings = read_findings(tmp_path / "run", max_features=1)
    names = [facts.name.split("/")[0] for facts in findings.artifacts if facts.name.endswith("/labels")]
    assert names == ["resid_post.0", "mlp_out.1", "resid_post.1", "resid_post.10"]


def test_the_page_can_be_made_before_anything_was_steered(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "steering")
    assert read_findings(tmp_path / "run").steering is None


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda run: shutil.rmtree(run / "corpus"), "corpus: no artifact there"),
        (lambda run: shutil.rmtree(run / "resid_post.1" / "labels"), r"resid_post\.1/labels: no artifact there"),
        (lambda run: (run / "resid_post.0" / "evaluation" / "evaluation.json").write_text("{}"), r"evaluation\.json"),
        (lambda run: [shutil.rmtree(run / name) for name in HOOKPOINTS], "no hookpoint with a dictionary"),
        (lambda run: (run / "resid_post.0").rename(run / "elsewhere"), "not named by its hookpoint"),
    ],
)
def test_what_is_missing_or_damaged_is_named(run, tmp_path, break_it, words):
    shutil.copytree(run, tmp_path / "run")
    break_it(tmp_path / "run")
    with pytest.raises(ArtifactError, match=words):
        read_findings(tmp_path / "run")
