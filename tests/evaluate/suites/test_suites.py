"""Suites of supervised and causal measurements: what must be true of them on rows and on a model whose concepts are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluate.conftest import CONCEPTS, HOOKPOINT, D, Rows

from mohole import config
from mohole.corpus import Corpus, Task
from mohole.dictionary import LayerNorm, LengthNorm, NormalisedAutoencoder, RowNorm, SparseAutoencoder
from mohole.errors import StageError
from mohole.evaluate import evaluate, read_evaluation
from mohole.evaluate.files import read_recovery
from mohole.evaluate.recovery.truth import Marks, Truth
from mohole.evaluate.results import Rated
from mohole.evaluate.rows.choice import choose_rows
from mohole.evaluate.suites.classes import WORD, Classed, groups, thinned
from mohole.evaluate.suites.coders import along, coders_for, scaled, span
from mohole.evaluate.suites.material import Material
from mohole.evaluate.suites.measure import measure_suites
from mohole.evaluate.suites.readout import ReadOut, some_windows
from mohole.evaluate.suites.sparse_probing import measure_probing
from mohole.metrics import Measure
from mohole.metrics.concept_removal import without
from mohole.metrics.disentangle import interchange
from mohole.model import LanguageModel
from mohole.store import Store

ALL: tuple[config.Suite, ...] = ("sparse_probing", "absorption", "scr", "tpp", "ravel", "unlearning")
SETTINGS = config.Evaluate(
    suites=ALL, suite_rows=600, suite_windows=60, min_positives=5, max_documents=20, recovery=False, unlearn="echo"
)


@pytest.fixture(scope="module")
def tasks(model: LanguageModel) -> tuple[Task, ...]:
    """Two tasks that the tiny model does perfectly, because their answers are what it says."""
    pieces = [model.tokenizer.piece(token).strip() for token in range(len(model.tokenizer))]
    made = []
    for name, first in (("echo", 1), ("other", 12)):
        prompts = [f"{pieces[first + i % 10]} {pieces[1 + (3 * i) % 20]}" for i in range(24)]
        tokens = [torch.tensor([[0, *model.tokenizer.encode_with_offsets(prompt)[0]]]) for prompt in prompts]
        answers = [" " + pieces[int(model.logits(each)[0, -1, 1:].argmax()) + 1] for each in tokens]
        made.append(Task(name, tuple(prompts), tuple(answers)))
    return tuple(made)


@pytest.fixture(scope="module")
def store(harvested: Callable[[Corpus], Store], world: Corpus) -> Store:
    return harvested(world)


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
    model: LanguageModel,
    identity: SparseAutoencoder,
    world: Corpus,
    store: Store,
    tasks: tuple[Task, ...],
) -> Path:
    place = tmp_path_factory.mktemp("suites")
    evaluate(place, model, identity, world, store, SETTINGS, seed=0, tasks=tasks)
    return place


def truth_of(corpus: Corpus, store: Store, min_positives: int = 5) -> Truth:
    sides = [choose_rows(corpus, store, held_out=side, max_rows=10_000, seed=0) for side in (False, True)]
    return Truth(list(corpus.labels), Marks(corpus, sides[0]), Marks(corpus, sides[1]), min_positives)


def test_every_suite_is_measured_in_the_order_asked_and_read_back(done: Path) -> None:
    suites = read_evaluation(done).suites
    assert [suite.suite for suite in suites] == list(ALL)
    assert all(suite.rated and suite.left_out == () for suite in suites)


def test_every_number_says_what_it_is(done: Path, world: Corpus) -> None:
    for suite in read_evaluation(done).suites:
        for rated in suite.rated:
            for measure in rated.measures.values():
                assert measure.name == rated.name
                assert measure.unit
                assert measure.n > 0
                assert "held-out" in measure.definition
                assert measure.masks.counted != "none" or measure.masks.scored != "none"
                if suite.suite != "unlearning":
                    assert measure.n_documents <= int(world.held_out.sum())
                if None not in (measure.value, measure.low, measure.high):
                    assert measure.low <= measure.high


def test_shares_are_shares_and_floors_stand_beside_them(done: Path) -> None:
    found = {suite.suite: suite for suite in read_evaluation(done).suites}
    for name in ("sparse_probing", "ravel"):
        for rated in found[name].rated:
            if "latents swapped" not in rated.name and "selectivity" not in rated.name:
                assert set(rated.measures) == {"dictionary", "random", "neurons", "pca", "probe"}
                assert all(m.value is None or 0 <= m.value <= 1 for m in rated.measures.values())
    known = found["unlearning"].rating("echo: no edit")
    assert known is not None
    assert value(known, "dictionary") > 0.8


def test_no_suite_asked_for_none_measured(
    folder: Path, model: LanguageModel, identity: SparseAutoencoder, world: Corpus, store: Store
) -> None:
    evaluate(folder, model, identity, world, store, config.Evaluate(max_documents=5, recovery=False), seed=0)
    assert read_evaluation(folder).suites == ()


def test_a_corpus_without_labels_is_refused_with_the_next_step(
    model: LanguageModel, identity: SparseAutoencoder, own_text: Corpus, harvested: Callable[[Corpus], Store]
) -> None:
    material = Material(model, identity, own_text, harvested(own_text), None, (), SETTINGS, 0)
    with pytest.raises(StageError, match=r"sparse_probing, .* need labels.*docs/supervised-metrics.md"):
        measure_suites(material)


def test_a_task_that_is_not_there_is_named(
    model: LanguageModel, identity: SparseAutoencoder, world: Corpus, store: Store, tasks: tuple[Task, ...]
) -> None:
    settings = SETTINGS.model_copy(update={"suites": ("unlearning",), "unlearn": "nothing"})
    material = Material(model, identity, world, store, truth_of(world, store), tasks, settings, 0)
    with pytest.raises(StageError, match="no task nothing; there are: echo, other"):
        measure_suites(material)


def test_a_suite_that_lacks_evidence_says_so(
    model: LanguageModel, identity: SparseAutoencoder, world: Corpus, store: Store
) -> None:
    settings = SETTINGS.model_copy(update={"suites": ("unlearning",), "unlearn": None})
    (found,) = measure_suites(Material(model, identity, world, store, truth_of(world, store), (), settings, 0))
    assert found.rated == ()
    assert found.left_out == ("unlearning needs two tasks, of which the model can do one well; it was not measured.",)


def test_a_dictionary_of_the_concepts_is_read_by_one_latent(
    model: LanguageModel, true_dictionary: SparseAutoencoder, world: Corpus, planted_rows: Rows
) -> None:
    truth = truth_of(world, planted_rows.store)
    material = Material(model, true_dictionary, world, planted_rows.store, truth, (), SETTINGS, 0)
    found = {rated.name: rated for rated in measure_probing(material)}
    food = found["food: 1 latent"]
    assert value(food, "dictionary") > 0.95
    assert value(food, "probe") > 0.95
    assert value(food, "dictionary") > value(food, "neurons") + 0.1
    assert value(food, "dictionary") > value(food, "random") + 0.1
    chance = found["statement: 1 latent"]
    assert abs(value(chance, "dictionary") - 0.5) < 0.1
    assert abs(value(chance, "probe") - 0.5) < 0.1


def test_classes_exclude_each_other_and_words_are_sorted_by_family(world: Corpus, store: Store) -> None:
    found = {group.name: group for group in groups(truth_of(world, store))}
    assert found[WORD].classes == ("animal", "food")
    assert set(found["animal"].classes) == {name for name in CONCEPTS if name.startswith("animal")}
    for side in (found["animal"].selection, found["animal"].scoring):
        for c, label in enumerate(found["animal"].classes):
            assert np.isin(side.tokens[side.classes == c], world.truth(label)).all()
    assert not np.intersect1d(found[WORD].selection.documents, found[WORD].scoring.documents).size


def test_thinning_keeps_as_many_of_each_class_in_any_order() -> None:
    items = Classed(np.arange(100), np.arange(100) % 4, np.arange(100))
    few = thinned(items, 20, 4, seed=0)
    assert np.bincount(few.classes).tolist() == [5, 5, 5, 5]
    turned = thinned(items.take(np.arange(100)[::-1]), 20, 4, seed=0)
    assert set(turned.tokens) == set(few.tokens)


def test_an_edit_of_nothing_changes_nothing_and_sees_each_token_once(
    model: LanguageModel, world: Corpus, store: Store
) -> None:
    windows = some_windows(world, np.arange(0, world.n_tokens, 7), 12, seed=1)
    reader = ReadOut(model, world, HOOKPOINT, windows, batch_tokens=64)
    seen: list[int] = []

    def look(rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        np.testing.assert_allclose(
            rows, store.take(HOOKPOINT, np.sort(tokens))[np.argsort(np.argsort(tokens))], atol=1e-5
        )
        seen.extend(tokens.tolist())
        return rows

    np.testing.assert_array_equal(reader.rows(reader.tokens, look), reader.rows(reader.tokens))
    assert sorted(seen) == reader.tokens.tolist()
    some = reader.tokens[::5]
    np.testing.assert_array_equal(reader.rows(some), reader.rows(reader.tokens)[::5])


def test_floors_rebuild_the_row_and_removing_all_of_them_leaves_the_mean(
    identity: SparseAutoencoder, store: Store
) -> None:
    rows = store.take(HOOKPOINT, store.tokens[:200]).astype(np.float32)
    for coder in coders_for(identity, rows, seed=0):
        codes = coder.encode(rows)
        if coder.name == "random":
            continue
        np.testing.assert_allclose(codes @ coder.decoder + coder.bias, rows, atol=1e-4)
        left = without(rows, codes, coder.decoder, np.arange(codes.shape[1]))
        np.testing.assert_allclose(left, np.broadcast_to(coder.bias, rows.shape), atol=1e-4)


@pytest.mark.parametrize("row_norm", [LayerNorm(), LengthNorm()])
def test_edits_of_a_dictionary_that_normalises_rows_are_made_in_each_row_s_own_units(
    identity: SparseAutoencoder, store: Store, row_norm: RowNorm
) -> None:
    """All latents at zero is what it decodes from silence; scaling a row scales what a latent adds, and not how it fires."""
    dictionary = NormalisedAutoencoder(replace(identity, b_dec=torch.full((D,), 0.5)), row_norm)
    rows = store.take(HOOKPOINT, store.tokens[:200]).astype(np.float32)
    coder, random, *_ = coders_for(dictionary, rows, seed=0)
    given = torch.from_numpy(rows)
    codes = dictionary.encode(given)
    silent = dictionary.decode(
        replace(codes, values=torch.zeros_like(codes.values)), dictionary.units_of(given)
    ).numpy()
    error = rows - dictionary.reconstruct(given).numpy()
    left = without(rows, coder.parts(rows), coder.decoder, np.arange(dictionary.n_latents))
    np.testing.assert_allclose(left, silent + error, atol=1e-4)
    np.testing.assert_allclose(coder.silent(rows), silent, atol=1e-4)
    np.testing.assert_allclose(coder.encode(3 * rows).toarray(), coder.encode(rows).toarray(), atol=1e-3)
    np.testing.assert_allclose(coder.parts(3 * rows).toarray(), 3 * coder.parts(rows).toarray(), rtol=1e-3, atol=1e-3)
    one = np.array([7])
    swapped = interchange(
        rows, coder.parts(rows), scaled(coder.encode(rows[::-1].copy()), coder.scale(rows)), coder.decoder, one
    )
    again = dictionary.units_of(given).scale[:, 0].numpy()
    change = (coder.encode(rows[::-1].copy()) - coder.encode(rows)).toarray()[:, 7]
    np.testing.assert_allclose(swapped - rows, (again * change)[:, None] * coder.decoder[7], atol=1e-4)
    assert random.normalises is not None


def test_every_suite_measures_a_dictionary_that_normalises_rows(
    folder: Path,
    model: LanguageModel,
    identity: SparseAutoencoder,
    world: Corpus,
    store: Store,
    tasks: tuple[Task, ...],
    done: Path,
) -> None:
    """One that rebuilds each row and whose rows are of like length is one that does not normalise: numbers are near its own."""
    evaluate(folder, model, NormalisedAutoencoder(identity, LengthNorm()), world, store, SETTINGS, seed=0, tasks=tasks)
    ours = {suite.suite: suite for suite in read_evaluation(done).suites}
    for suite in read_evaluation(folder).suites:
        assert suite.rated
        assert [rated.name for rated in suite.rated] == [rated.name for rated in ours[suite.suite].rated]
        for rated in suite.rated:
            for name in ("neurons", "pca", "probe"):
                if name in rated.measures:
                    was = ours[suite.suite].rating(rated.name)
                    assert was is not None
                    assert rated.measures[name].value == was.measures[name].value, "floors do not depend on it"


def test_a_span_is_orthonormal_and_drops_what_adds_nothing() -> None:
    axes = span(np.array([[2.0, 0, 0], [1.0, 1.0, 0], [3.0, 3.0, 0]]))
    assert axes.shape == (2, 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(axes[:, 2], 0, atol=1e-12)
    coder = along("probe", axes, np.zeros(3))
    np.testing.assert_allclose(coder.encode(np.array([[1.0, 2.0, 3.0]])) @ axes, [[1.0, 2.0, 0.0]], atol=1e-12)


def value(rated: Rated, name: str) -> float:
    measure: Measure = rated.measures[name]
    assert measure.value is not None
    return measure.value


def test_a_dictionary_in_another_dtype_has_suites_and_recovery_too(
    folder: Path, model: LanguageModel, identity: SparseAutoencoder, world: Corpus, store: Store
) -> None:
    halved = {name: getattr(identity, name).bfloat16() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    settings = config.Evaluate(suites=("sparse_probing",), suite_rows=200, max_documents=20, min_positives=5)
    evaluate(folder, model, replace(identity, **halved), world, store, settings, seed=0)
    (found,) = read_evaluation(folder).suites
    assert found.rated
    assert read_recovery(folder) is not None
