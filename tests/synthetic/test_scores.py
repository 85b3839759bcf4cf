"""Scores of dictionaries whose faults are known: perfect, too small, turned round, split, silent. And their verb."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mohole import artifact
from mohole.cli.app import app
from mohole.config import ReLU, Synthetic
from mohole.dictionary import SparseAutoencoder
from mohole.errors import ArtifactError
from mohole.metrics.known_features import Pairs, cosines, detection, found, mcc, own_latents, uniqueness
from mohole.store import Store
from mohole.store.stream import Stream
from mohole.synthetic import HOOKPOINT, SyntheticWorld, read_scores, score, write_rows

SETTINGS = Synthetic(
    n_features=24, d_model=24, highest_chance=0.2, lowest_chance=0.02, roots=0, correlation_rank=0, overlap=0.0,
    magnitude_spread=0.0, n_rows=3000, held_out=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(SETTINGS, seed=0)


@pytest.fixture(scope="module")
def truth(world: SyntheticWorld) -> SparseAutoencoder:
    """Latent i is feature i, read along its direction."""
    return SparseAutoencoder(
        HOOKPOINT, ReLU(), world.directions, torch.full((24,), -1e-3), world.directions, world.bias
    )


def values(world: SyntheticWorld, dictionary: SparseAutoencoder) -> dict[str, float]:
    found = score(world, dictionary, n_rows=3000, seed=0)
    assert all(measure.name == name and measure.definition for name, measure in found.items())
    return {name: measure.value for name, measure in found.items()}  # type: ignore[misc]


def test_the_truth_scores_one(world: SyntheticWorld, truth: SparseAutoencoder) -> None:
    found = values(world, truth)
    for name in ("mcc", "uniqueness", "precision", "recall", "f1", "owned", "found_mass"):
        assert found[name] == pytest.approx(1.0, abs=1e-4), name
    assert found["l0"] == found["true_l0"]
    assert found["true_l0"] == pytest.approx(world.chances.sum(), rel=0.05)
    assert found["shrinkage"] == pytest.approx(1.0, abs=1e-3)
    assert found["fvu"] < 1e-5
    assert found["dead"] == 0


def some_of(truth: SparseAutoencoder, latents: list[int]) -> SparseAutoencoder:
    return replace(truth, W_enc=truth.W_enc[latents], b_enc=truth.b_enc[latents], W_dec=truth.W_dec[latents])


def test_a_dictionary_that_is_too_small_is_flattered_by_every_score_but_the_mass_it_finds(
    world: SyntheticWorld, truth: SparseAutoencoder
) -> None:
    found = values(world, some_of(truth, [20, 21, 22]))
    for name in ("mcc", "uniqueness", "precision", "recall", "f1"):
        assert found[name] == pytest.approx(1.0, abs=1e-4), name
    magnitude = world.chances * world.mean_magnitudes
    assert found["found_mass"] == pytest.approx(magnitude[[20, 21, 22]].sum() / magnitude.sum(), rel=0.15)
    assert found["owned"] == pytest.approx(3 / 24)


def test_frequent_features_weigh_more(world: SyntheticWorld, truth: SparseAutoencoder) -> None:
    frequent, rare = (values(world, some_of(truth, chosen))["found_mass"] for chosen in ([0, 1, 2], [21, 22, 23]))
    assert frequent > 3 * rare


def test_a_latent_that_points_the_other_way_is_not_the_feature(world: SyntheticWorld, truth: SparseAutoencoder) -> None:
    """Its encoder still finds the feature, so the score that takes |cosine| says nothing."""
    turned = truth.W_dec.clone()
    turned[0] *= -1
    found = values(world, replace(truth, W_dec=turned))
    assert found["mcc"] == pytest.approx(1.0, abs=1e-4)
    assert found["f1"] == pytest.approx(1.0, abs=1e-4)
    magnitude = world.chances * world.mean_magnitudes
    assert found["found_mass"] == pytest.approx(1 - magnitude[0] / magnitude.sum(), abs=0.02)
    assert found["owned"] < 1.0


def test_two_latents_of_one_feature_are_not_two_features(world: SyntheticWorld, truth: SparseAutoencoder) -> None:
    found = values(world, some_of(truth, [0, 0, 1, 2]))
    assert found["uniqueness"] == pytest.approx(0.75)
    assert found["owned"] == pytest.approx(3 / 24)


def test_shrinkage_silence_and_noise_show(world: SyntheticWorld, truth: SparseAutoencoder) -> None:
    halved = values(world, replace(truth, W_dec=truth.W_dec / 2, b_dec=truth.b_dec))
    assert 0.5 < halved["shrinkage"] < 0.7  # the bias is not halved, and is all that rows without a feature have
    silent = truth.b_enc.clone()
    silent[:6] = -100.0
    found = values(world, replace(truth, b_enc=silent))
    assert found["dead"] == 6
    assert found["f1"] == pytest.approx(18 / 24, abs=1e-4)
    always = truth.b_enc.clone()
    always[0] = 1.0
    loose = values(world, replace(truth, b_enc=always))
    assert loose["precision"] == pytest.approx((23 + world.chances[0]) / 24, abs=0.01)
    assert loose["recall"] == pytest.approx(1.0, abs=1e-4)


def test_mcc_is_the_best_of_all_matchings() -> None:
    random = torch.Generator().manual_seed(0)
    latents, features = torch.randn(5, 6, generator=random), torch.randn(7, 6, generator=random)
    size = cosines(latents, features).abs().numpy()
    best = max(np.mean([size[i, j] for i, j in enumerate(order)]) for order in permutations(range(7), 5))
    assert mcc(cosines(latents, features)) == pytest.approx(best)
    assert mcc(cosines(features, latents)) == pytest.approx(best)
    assert uniqueness(cosines(latents, features)) == len(set(size.argmax(1))) / 5


def test_a_feature_goes_to_the_nearest_of_the_latents_that_it_is_best_for() -> None:
    cosine = torch.tensor([[0.9, 0.1, 0.0], [0.95, 0.2, 0.0], [-0.99, 0.3, -0.5], [-0.4, -0.3, -0.2]])
    assert own_latents(cosine).tolist() == [1, 2, -1]


def test_detection_counts_agree_with_a_matrix() -> None:
    random = np.random.default_rng(0)
    latents, features = random.random((200, 7)) < 0.3, random.random((200, 5)) < 0.4
    best = random.integers(0, 5, 7)
    sparse = [Pairs(*np.nonzero(side), side.shape[1]) for side in (latents, features)]
    counts = detection(best, *sparse)
    both = (latents & features[:, best]).sum(0)
    assert counts.both.tolist() == both.tolist()
    assert counts.precision == pytest.approx(both / latents.sum(0))
    assert counts.recall == pytest.approx(both / features[:, best].sum(0))
    own = np.array([3, -1, 0, 6, 2])
    hits = found(own, *sparse)
    rows, columns = np.nonzero(features)
    expected = [own[j] >= 0 and latents[i, own[j]] for i, j in zip(rows, columns, strict=True)]
    assert hits.tolist() == expected


def test_the_store_holds_the_worlds_rows_and_training_can_read_them(world: SyntheticWorld, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", world, seed=0, dtype="float32")
    store = Store.open(tmp_path / "rows")
    tokens = np.sort(store.tokens)
    assert tokens.tolist() == list(range(3000))
    rows = world.rows(world.firings(np.arange(3000))).numpy()
    np.testing.assert_allclose(store.take(HOOKPOINT, tokens), rows, rtol=1e-5, atol=1e-5)
    assert 0.03 < 1 - store.facts.n_training / 3000 < 0.25
    assert Stream(store, HOOKPOINT).d_model == 24
    with pytest.raises(ArtifactError, match="already there"):
        write_rows(tmp_path / "rows", world, seed=1)


def test_the_verb_makes_rows_dictionary_and_scores_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'run = "{tmp_path}/run"\n[harvest]\ndtype = "float32"\n[synthetic]\nn_features = 24\nd_model = 16\nroots = 0\n'
        "correlation_rank = 0\nhighest_chance = 0.1\nlowest_chance = 0.05\nn_rows = 6000\nscored_rows = 1500\n"
        '[train]\nn_latents = 24\nnonlinearity = { kind = "topk", k = 3 }\nsteps = 150\nbatch_rows = 256\n'
    )
    first = CliRunner().invoke(app, ["synthesize", str(recipe)], catch_exceptions=False)
    assert first.exit_code == 0
    scores = read_scores(tmp_path / "run/synthetic/scores")
    assert scores["mcc"].value > 0.6
    assert scores["found_mass"].value > 0.4
    assert f"{scores['found_mass'].value:.4f}" in first.stdout
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("manifest.json")}
    assert {artifact.read_manifest(path.parent).inputs.kind for path in made} == {"activations", "dictionary", "scores"}
    again = CliRunner().invoke(app, ["synthesize", str(recipe)], catch_exceptions=False)
    assert again.stdout.splitlines()[-14:] == first.stdout.splitlines()[-14:]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    with pytest.raises(ArtifactError, match="already there"):
        CliRunner().invoke(app, ["synthesize", str(recipe), "-o", "seed=5"], catch_exceptions=False)
