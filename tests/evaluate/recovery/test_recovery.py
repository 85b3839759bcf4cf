"""Planted directions are found, and only by what can see them; what is not there is not found."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from mohole import config, keys
from mohole.corpus import Corpus
from mohole.dictionary import LayerNorm, NormalisedAutoencoder, SparseAutoencoder
from mohole.evaluate.recovery import measure as recovery_module
from mohole.evaluate.recovery.floors import PrincipalComponents, Probe, random_like
from mohole.evaluate.recovery.measure import measure_recovery
from mohole.evaluate.recovery.results import Recovery
from mohole.evaluate.rows.choice import choose_rows
from mohole.store import Store

HOOKPOINT = "resid_post.0"
SETTINGS = config.Evaluate(min_positives=8)


def recover(store: Store, dictionary: SparseAutoencoder, corpus: Corpus) -> Recovery:
    rows = choose_rows(corpus, store, held_out=True, max_rows=10_000, seed=0)
    return measure_recovery(store, rows, dictionary, corpus, SETTINGS, seed=0)


@pytest.fixture(scope="module")
def recovery(planted_rows, true_dictionary: SparseAutoencoder, world: Corpus) -> Recovery:
    return recover(planted_rows.store, true_dictionary, world)


def test_each_planted_direction_is_the_latent_found(recovery: Recovery) -> None:
    for i, name in enumerate(("fox", "dog")):
        result = recovery.label(f"animal/{name}")
        assert result is not None
        assert result.contrast == "family"
        assert (result.latent.candidate, result.latent.auroc_candidate) == (i, i)
        assert result.latent.f1 == pytest.approx(1.0, abs=0.03)
        assert result.latent.auroc == pytest.approx(1.0, abs=0.01)
        assert result.probe.auroc == pytest.approx(1.0, abs=0.01)


def test_words_stand_above_their_floors(recovery: Recovery) -> None:
    words = recovery.words
    assert words is not None
    assert words.n_labels == 10
    assert words.f1.latent > 0.98
    assert words.margin == words.f1.latent - max(words.f1.neuron, words.f1.pca, words.f1.random)
    assert words.f1.latent - max(words.f1.neuron, words.f1.random) > 0.2
    assert words.margin > 0.02  # what varies most here are the concepts, so principal components come near
    assert words.margin_low is not None
    assert words.margin_low > 0.0
    assert words.f1.probe > 0.95


def test_truth_on_others_words_is_no_family_of_words(recovery: Recovery) -> None:
    is_words = {family.family: family.is_words for family in recovery.families}
    assert is_words == {
        "animal": True, "food": True, "word_language": False, "kind": False, "state": False, "statement": False,
    }  # fmt: skip


def test_what_is_nowhere_in_the_rows_is_not_found(recovery: Recovery) -> None:
    result = recovery.label("statement/true")
    assert result is not None
    for score in (result.latent, result.neuron, result.random, result.probe):
        assert 0.35 < score.auroc < 0.65
        assert score.f1 < 0.72  # calling everything true scores 2/3


def test_a_label_without_alternatives_is_told_from_its_kind_of_document(recovery: Recovery, world: Corpus) -> None:
    result = recovery.label("state/seen")
    assert result is not None
    assert result.contrast == "kind"
    assert result.contrast_text == "tokens of kind/b without state/seen"
    held_out = np.flatnonzero(world.held_out[world.document_of(np.arange(world.n_tokens))])
    of_kind = np.intersect1d(held_out, world.truth("kind/b"))
    assert result.n_positive + result.n_negative == len(of_kind)
    assert result.latent.candidate == 12
    assert result.latent.f1 > 0.95


def test_one_latent_for_two_languages_counts_and_two_latents_do_not(recovery: Recovery) -> None:
    fox, cat = recovery.concept("animal/fox"), recovery.concept("animal/cat")
    assert fox is not None
    assert cat is not None
    assert fox.is_multilingual
    assert (fox.n_fired, len(fox.languages), fox.latent) == (2, 2, 0)
    assert fox.other_rate < 0.05
    assert not cat.is_multilingual
    assert cat.n_fired < 2
    assert len(recovery.multilingual.concepts) == 10
    assert recovery.multilingual.share == pytest.approx(0.9)


def test_shuffled_labels_score_no_more_than_always_saying_yes(
    planted_rows, true_dictionary: SparseAutoencoder, world: Corpus
) -> None:
    random = np.random.default_rng(0)
    animals = [label for label in world.labels if label.startswith("animal/")]
    tokens = random.permutation(np.concatenate([world.truth(label) for label in animals]))
    truth = {label: np.sort(part) for label, part in zip(animals, np.array_split(tokens, len(animals)), strict=True)}

    class Shuffled(Corpus):
        labels = (*animals, "word_language/en", "word_language/de")

        def truth(self, label: str) -> np.ndarray:
            return truth[label] if label in truth else super().truth(label)

    lies = Shuffled.__new__(Shuffled)
    lies.__dict__.update({name: value for name, value in world.__dict__.items() if name != "labels"})
    result = recover(planted_rows.store, true_dictionary, lies).family("animal")
    assert result is not None
    always_yes = 2 / (1 + len(animals))
    for floor in (result.f1.latent, result.f1.neuron, result.f1.random, result.f1.probe):
        assert floor < always_yes + 0.06
    for area in (result.auroc.latent, result.auroc.neuron, result.auroc.random, result.auroc.probe):
        assert 0.4 < area < 0.6


def test_f1_and_auroc_agree_with_scikit_learn(
    recovery: Recovery, planted_rows, true_dictionary: SparseAutoencoder, world: Corpus
) -> None:
    label = "food/tea"
    result = recovery.label(label)
    assert result is not None
    family = np.unique(np.concatenate([world.truth(name) for name in world.labels if name.startswith("food/")]))
    matrix = torch.from_numpy(planted_rows.store.take(HOOKPOINT, planted_rows.store.tokens))
    held_out = world.held_out[world.document_of(family)]
    is_tea = np.isin(family, world.truth(label))
    activations = true_dictionary.encode(matrix[family]).dense().numpy()
    score = result.latent
    decided = activations[held_out, score.candidate] > score.threshold
    assert score.f1 == pytest.approx(f1_score(is_tea[held_out], decided), abs=1e-12)
    expected = roc_auc_score(is_tea[held_out], activations[held_out, score.auroc_candidate])
    assert score.auroc == pytest.approx(expected, abs=1e-12)
    neuron = result.neuron
    decided = neuron.sign * matrix[family][held_out, neuron.candidate].numpy() > neuron.threshold
    assert neuron.f1 == pytest.approx(f1_score(is_tea[held_out], decided), abs=1e-12)
    assert (result.n_positive, result.n_negative) == (is_tea[held_out].sum(), (~is_tea[held_out]).sum())
    scaler = StandardScaler().fit(matrix[family][~held_out])
    probe = LogisticRegression(max_iter=1000).fit(scaler.transform(matrix[family][~held_out]), is_tea[~held_out])
    expected = roc_auc_score(is_tea[held_out], probe.decision_function(scaler.transform(matrix[family][held_out])))
    assert result.probe.auroc == pytest.approx(expected, abs=5e-3)


@dataclass(frozen=True)
class Family:
    """A family's tokens on both sides of the split, as neurons and as latents."""

    tokens: np.ndarray
    held_out: np.ndarray
    neurons: np.ndarray
    latents: np.ndarray


@pytest.fixture(scope="module")
def families(planted_rows, true_dictionary: SparseAutoencoder, world: Corpus) -> dict[str, Family]:
    matrix, found = torch.from_numpy(planted_rows.store.take(HOOKPOINT, planted_rows.store.tokens)), {}
    for family in ("animal", "food", "word_language", "statement"):
        of_family = [world.truth(label) for label in world.labels if label.startswith(f"{family}/")]
        tokens = np.unique(np.concatenate(of_family))
        latents = true_dictionary.encode(matrix[tokens]).dense().double().numpy()
        held_out = world.held_out[world.document_of(tokens)]
        found[family] = Family(tokens, held_out, matrix[tokens].double().numpy(), latents)
    return found


def test_each_score_is_that_of_its_own_candidate(
    recovery: Recovery, families: dict[str, Family], world: Corpus
) -> None:
    """The best neuron by F1 and the best by AUROC often differ, and so may the best latents; each number is its own's."""
    n_different = {"neuron": 0, "latent": 0}
    for result in recovery.labels:
        if (family := families.get(result.family)) is None:
            continue
        positive = np.isin(family.tokens, world.truth(result.label))[family.held_out]
        for name, score, values in (
            ("neuron", result.neuron, family.neurons[family.held_out]),
            ("latent", result.latent, family.latents[family.held_out]),
        ):
            assert score.candidate is not None
            assert score.auroc_candidate is not None
            area, other = (
                roc_auc_score(positive, values[:, column]) for column in (score.auroc_candidate, score.candidate)
            )
            n_different[name] += abs(area - other) > 1e-6
            if name == "latent":
                assert score.auroc == pytest.approx(area, abs=1e-9)
            else:
                assert min(abs(score.auroc - area), abs(score.auroc - (1 - area))) < 1e-9
            decided = score.sign * values[:, score.candidate] > score.threshold
            assert score.f1 == pytest.approx(f1_score(positive, decided), abs=1e-12)
    assert n_different["neuron"] > 0
    assert n_different["latent"] > 0


def test_every_cut_is_the_best_one_on_the_training_documents(
    recovery: Recovery, families: dict[str, Family], world: Corpus
) -> None:
    """Not on the documents that it is scored on: there another cut is often better."""
    n_better = 0
    for result in recovery.labels:
        if (family := families.get(result.family)) is None:
            continue
        positive = np.isin(family.tokens, world.truth(result.label))
        for score, matrix in ((result.neuron, family.neurons), (result.latent, family.latents)):
            values = score.sign * matrix[:, score.candidate]
            best, best_held_out = (
                best_f1(values[side], positive[side]) for side in (~family.held_out, family.held_out)
            )
            assert score.f1_selection == pytest.approx(best, abs=1e-12)
            reached = f1_score(positive[~family.held_out], values[~family.held_out] > score.threshold)
            assert reached == pytest.approx(best, abs=1e-12)
            assert score.f1 <= best_held_out + 1e-12
            n_better += best_held_out > score.f1 + 1e-6
    assert n_better > 5


def best_f1(values: np.ndarray, positive: np.ndarray) -> float:
    """The best F1 of `value >= cut`, every value tried as the cut."""
    passed = values >= np.unique(values)[:, None]
    return float((2 * (passed & positive).sum(1) / (passed.sum(1) + positive.sum())).max())


def test_against_all_tokens_even_a_random_dictionary_looks_good(recovery: Recovery) -> None:
    words = recovery.words
    assert words is not None
    assert words.auroc_all_latent > 0.98
    assert words.auroc_all_random > 0.75


def test_intervals_hold_the_value(recovery: Recovery) -> None:
    for result in recovery.labels:
        for score in (result.latent, result.neuron, result.random, result.probe):
            assert score.f1_low is not None
            assert score.f1_high is not None
            assert score.f1_low - 0.02 <= score.f1 <= score.f1_high + 0.02
            assert score.auroc_low <= score.auroc <= score.auroc_high


def test_the_random_dictionary_is_the_same_for_the_same_seed(
    recovery: Recovery, planted_rows, true_dictionary: SparseAutoencoder, world: Corpus
) -> None:
    assert recover(planted_rows.store, true_dictionary, world) == recovery


def test_turning_latents_round_changes_no_score(
    recovery: Recovery, planted_rows, true_dictionary: SparseAutoencoder, world: Corpus
) -> None:
    turned = torch.arange(true_dictionary.n_latents).flip(0)
    flipped = replace(
        true_dictionary,
        W_enc=true_dictionary.W_enc[turned], b_enc=true_dictionary.b_enc[turned], W_dec=true_dictionary.W_dec[turned],
    )  # fmt: skip
    other = recover(planted_rows.store, flipped, world)
    for mine, theirs in zip(recovery.labels, other.labels, strict=True):
        if mine.family in ("animal", "food"):
            assert theirs.latent.f1 == pytest.approx(mine.latent.f1, abs=1e-9)
            assert theirs.latent.candidate == true_dictionary.n_latents - 1 - (mine.latent.candidate or 0)


def test_rare_labels_are_named_not_dropped(planted_rows, true_dictionary: SparseAutoencoder, world: Corpus) -> None:
    rows = choose_rows(world, planted_rows.store, held_out=True, max_rows=10_000, seed=0)
    n_fox = int(np.isin(rows.tokens, world.truth("animal/fox")).sum())
    settings = config.Evaluate(min_positives=n_fox + 1)
    result = measure_recovery(planted_rows.store, rows, true_dictionary, world, settings, seed=0)
    missing = {item.label: item for item in result.unscored}
    assert missing["animal/fox"].n_positive == n_fox
    assert "fewer than" in missing["animal/fox"].reason
    assert len(result.labels) + len(result.unscored) == len(world.labels)


def test_choosing_rows_takes_whole_documents_of_one_side(planted_rows, world: Corpus) -> None:
    all_rows = choose_rows(world, planted_rows.store, held_out=True, max_rows=10_000, seed=0)
    some = choose_rows(world, planted_rows.store, held_out=True, max_rows=500, seed=0)
    assert world.held_out[all_rows.documents].all()
    assert 480 < len(some) <= 500
    assert (np.diff(some.tokens) > 0).all()
    assert np.isin(some.tokens, planted_rows.store.tokens).all()
    for document in np.unique(some.documents):
        length = world.document_starts[document + 1] - world.document_starts[document]
        assert (some.documents == document).sum() == length
    other = choose_rows(world, planted_rows.store, held_out=True, max_rows=500, seed=1)
    assert not np.array_equal(other.tokens, some.tokens)
    smaller = choose_rows(world, planted_rows.store, held_out=True, max_rows=200, seed=0)
    assert np.isin(smaller.tokens, some.tokens).all()  # a smaller sample is a part of the larger one


def test_principal_components_are_scikit_learns_and_mind_no_offset() -> None:
    random = np.random.default_rng(1)
    rows = (
        random.normal(size=(400, 6)) * np.array([5, 3, 2, 1, 0.5, 0.1]) @ np.linalg.qr(random.normal(size=(6, 6)))[0]
    ).astype(np.float32)
    found, known = PrincipalComponents(rows), PCA().fit(rows)
    assert np.abs((found.directions * known.components_).sum(1)) == pytest.approx(np.ones(6), abs=1e-4)
    assert (found.directions.max(1) >= -found.directions.min(1)).all()
    scores = found.scores(rows)
    assert scores.var(axis=0, ddof=1) == pytest.approx(known.explained_variance_, rel=1e-3)
    assert found.score(rows, 2) == pytest.approx(scores[:, 2], abs=1e-4)
    assert PrincipalComponents(rows + 7).scores(rows + 7) == pytest.approx(scores, abs=1e-3)


def test_a_concept_that_is_the_greatest_variance_is_a_principal_component_and_no_neuron(
    planted_rows, true_dictionary: SparseAutoencoder, world: Corpus, make_store: Callable[..., Store]
) -> None:
    """A direction spread over all coordinates, so that each of them has more noise than concept."""
    random = np.random.default_rng(6)
    rows = 4.0 * random.normal(size=(world.n_tokens, 32))
    spread = np.ones(32) / 32**0.5
    rows -= np.outer(rows @ spread, spread)
    rows[world.truth("food/tea")] += 8.0 * spread
    rows[world.truth("food/pie")] -= 8.0 * spread
    result = recover(make_store(world, rows), true_dictionary, world)
    tea, pie = result.label("food/tea"), result.label("food/pie")
    assert tea is not None
    assert pie is not None
    assert tea.pca.candidate == pie.pca.candidate
    assert tea.pca.sign == -pie.pca.sign
    for found in (tea, pie):
        assert found.pca.f1 > 0.95
        assert found.neuron.f1 < 0.85


def test_the_probe_does_not_mind_units_or_a_coordinate_that_never_changes() -> None:
    random = np.random.default_rng(0)
    rows, positive = random.normal(size=(300, 5)).astype(np.float32), random.random(300) < 0.5
    rows[:, 1] += positive
    rows[:, 4] = 2.0
    units = np.array([1e-3, 1e3, 1.0, 50.0, 7.0], dtype=np.float32)
    plain, scaled = Probe(rows, positive).scores(rows), Probe(rows * units, positive).scores(rows * units)
    assert scaled == pytest.approx(plain, abs=1e-3)
    assert np.abs(plain).max() > 1.0


def test_the_random_dictionary_stands_where_the_training_rows_do(
    planted_rows, true_dictionary: SparseAutoencoder, world: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About their mean, or all of its latents would see little but the offset that every row shares."""
    made: list[Any] = []

    def remember(*arguments: Any) -> Any:
        made.append(random_like(*arguments))
        return made[-1]

    monkeypatch.setattr(recovery_module, "random_like", remember)
    recover(planted_rows.store, true_dictionary, world)
    (floor,) = made
    store = planted_rows.store
    mean = torch.from_numpy(store.take(HOOKPOINT, store.tokens[~store.held_out])).double().mean(0)
    everywhere = torch.from_numpy(store.take(HOOKPOINT, store.tokens)).double().mean(0)
    assert (mean - everywhere).abs().max() > 1e-3
    torch.testing.assert_close(floor.b_dec.double(), mean, rtol=0, atol=1e-5)
    assert floor.W_dec.shape == true_dictionary.W_dec.shape
    torch.testing.assert_close(floor.W_dec.norm(dim=1), torch.ones(floor.n_latents))
    assert torch.equal(floor.W_enc, floor.W_dec)


def test_of_a_dictionary_that_normalises_rows_it_stands_among_the_normalised_ones(
    true_dictionary: SparseAutoencoder,
) -> None:
    rows = (
        torch.linspace(1.0, 50.0, 40)[:, None] * torch.randn(40, 32, generator=torch.Generator().manual_seed(0)) + 3.0
    )
    floor = random_like(NormalisedAutoencoder(true_dictionary, LayerNorm()), rows, 0)
    assert isinstance(floor, NormalisedAutoencoder)
    own = (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True)
    torch.testing.assert_close(floor.own.b_dec, own.mean(0), rtol=0, atol=1e-4)
    plain = random_like(true_dictionary, rows, 0)
    assert isinstance(plain, SparseAutoencoder)
    assert torch.equal(plain.W_dec, floor.own.W_dec)


def test_moving_every_row_by_the_same_vector_changes_no_score_of_the_random_dictionary(
    recovery: Recovery,
    planted_rows,
    true_dictionary: SparseAutoencoder,
    world: Corpus,
    make_store: Callable[..., Store],
) -> None:
    offset = torch.linspace(-8.0, 8.0, true_dictionary.d_model)
    rows = planted_rows.store.take(HOOKPOINT, planted_rows.store.tokens) + offset.numpy()
    moved = recover(make_store(world, rows), replace(true_dictionary, b_dec=true_dictionary.b_dec + offset), world)
    for mine, theirs in zip(recovery.labels, moved.labels, strict=True):
        assert theirs.random.f1 == pytest.approx(mine.random.f1, abs=0.02)
        assert theirs.random.auroc == pytest.approx(mine.random.auroc, abs=0.01)


def test_the_random_dictionary_is_keyed_by_latent() -> None:
    assert np.array_equal(
        keys.normal(3, keys.Use.RANDOM_DICTIONARY, np.arange(8), 4)[:5],
        keys.normal(3, keys.Use.RANDOM_DICTIONARY, np.arange(5), 4),
    )


def test_against_all_tokens_the_right_latent_is_the_concept_and_a_random_one_is_not(
    recovery: Recovery, planted_rows, true_dictionary: SparseAutoencoder, world: Corpus
) -> None:
    """The one that only tells a concept from its family, and fires on other words too, must not be called the concept."""
    result = recovery.label("food/tea")
    assert result is not None
    tokens = planted_rows.store.tokens
    held_out = world.held_out[world.document_of(tokens)]
    matrix = torch.from_numpy(planted_rows.store.take(HOOKPOINT, tokens))
    activations = true_dictionary.encode(matrix).dense().numpy()[:, result.all_latent]
    is_tea = np.isin(tokens, world.truth("food/tea"))
    cuts = np.unique(activations[~held_out])
    cut = max(cuts, key=lambda cut: f1_score(is_tea[~held_out], activations[~held_out] > cut))
    assert result.f1_all_latent == pytest.approx(f1_score(is_tea[held_out], activations[held_out] > cut), abs=0.01)
    assert result.f1_all_latent > 0.9
    assert result.f1_all_random < 0.8
