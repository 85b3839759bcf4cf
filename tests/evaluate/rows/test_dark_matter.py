"""What is unexplained is found where it was put: by class, as a linear map, as a length, in few rows, along the mean."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mohole import config
from mohole.corpus import Corpus, Document
from mohole.dictionary import SparseAutoencoder
from mohole.evaluate.results import DarkMatter
from mohole.evaluate.rows.choice import choose_rows
from mohole.evaluate.rows.dark_matter import measure_dark_matter
from mohole.evaluate.rows.measure import measure_rows
from mohole.evaluate.rows.token_classes import CLASSES, classes_of
from mohole.evaluate.standin import stand_in
from mohole.metrics import Measure
from mohole.metrics.linear import LinearFit
from mohole.store import Store

HOOKPOINT, D = "resid_post.0", 32
MakeStore = Callable[..., Store]


def linear_part(keeps: Tensor, centre: Tensor | None = None) -> SparseAutoencoder:
    """Rebuilds `centre` and, of the rest, the part in the span of `keeps`' orthonormal rows."""
    encoder, none = torch.cat([keeps, -keeps]), torch.zeros(2 * len(keeps))
    return SparseAutoencoder(
        HOOKPOINT, config.ReLU(), encoder, none, encoder, torch.zeros(D) if centre is None else centre
    )


def look(
    store: Store, corpus: Corpus, dictionary: SparseAutoencoder, max_rows: int = 100_000
) -> tuple[dict[str, Measure], DarkMatter]:
    rows = choose_rows(corpus, store, held_out=True, max_rows=100_000, seed=0)
    spliced = stand_in(dictionary)
    firing = measure_rows(store, rows, spliced, seed=0).firing
    measures, dark = measure_dark_matter(store, corpus, rows, spliced, firing, max_rows, seed=0)
    return {measure.name: measure for measure in measures}, dark


@pytest.fixture(scope="module")
def noise(world: Corpus) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(world.n_tokens, D))


def test_an_error_that_is_a_linear_map_of_the_row_is_predicted_whole(
    world: Corpus, noise: np.ndarray, make_store: MakeStore
) -> None:
    measures, dark = look(make_store(world, noise + 2.0), world, linear_part(torch.eye(D)[:20]))
    assert measures["error_r2"].value == pytest.approx(1.0, abs=1e-5)
    assert measures["fvu_nonlinear"].value == pytest.approx(0.0, abs=1e-5)
    assert dark.n_rows == np.diff(world.document_starts)[world.held_out].sum()
    assert measures["error_r2"].n < 0.7 * dark.n_rows


def test_an_error_that_the_row_says_nothing_of_is_not_predicted(
    world: Corpus, noise: np.ndarray, make_store: MakeStore
) -> None:
    """The dictionary says plus or minus one where the row is a fair coin's: of the rest, |x| - 1, x says nothing linear."""
    coins = np.sign(noise) * (1 + 0.5 * np.abs(np.roll(noise, 1, axis=0)))
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    steps = config.JumpReLU()
    dictionary = SparseAutoencoder(
        HOOKPOINT, steps, 1e-6 * both, torch.ones(2 * D), both, torch.zeros(D), threshold=torch.ones(2 * D)
    )
    measures, _ = look(make_store(world, coins), world, dictionary)
    error = 1 - np.mean(np.abs(coins)) ** 2 / np.mean(coins**2)
    assert 0 < error < 0.2
    assert -0.2 < measures["error_norm_r2"].value < 0.05
    few, _ = look(make_store(world, coins), world, dictionary, max_rows=250)  # 32 coordinates fitted to some 120 rows
    assert few["error_norm_r2"].value < 0  # which would be 0.3 on the rows that it was fitted to


def test_a_length_that_is_linear_in_the_row_is_predicted_though_the_error_is_not(
    world: Corpus, noise: np.ndarray, make_store: MakeStore
) -> None:
    """A row's first coordinate says how long the error is, and another's sign, which no linear map sees, which way it points."""
    rows = noise.copy()
    level = np.random.default_rng(1).uniform(1, 9, size=len(rows))
    rows[:, 0] = level
    rows[:, 31] = np.sqrt(level) * np.sign(rows[:, 1] * rows[:, 2])
    measures, _ = look(make_store(world, rows), world, linear_part(torch.eye(D)[:31]))
    assert measures["error_norm_r2"].value == pytest.approx(1.0, abs=1e-3)
    assert measures["error_r2"].value == pytest.approx(
        1.0, abs=1e-4
    )  # the row itself holds the coordinate that is missed
    fit = LinearFit(31, 1)  # and without it, nothing
    fit.add(torch.from_numpy(rows[:2000, :31]), torch.from_numpy(rows[:2000, 31:]))
    left = torch.from_numpy(rows[2000:, 31:]) - fit.predict(torch.from_numpy(rows[2000:, :31]))
    assert float(left.square().sum()) / float((rows[2000:, 31] ** 2).sum()) > 0.95


def test_errors_are_told_to_the_class_they_were_put_in(world: Corpus, noise: np.ndarray, make_store: MakeStore) -> None:
    rows = noise.copy()
    rows[:, 31] = 0.0
    is_first = np.zeros(world.n_tokens, dtype=bool)
    is_first[world.windows.start] = True
    rows[is_first, 31] = 10.0
    _, dark = look(make_store(world, rows), world, linear_part(torch.eye(D)[:31]))
    found = {each.name: each for each in dark.classes}
    assert found["first"].share_of_error.value == pytest.approx(1.0, abs=1e-9)
    assert sum(each.share_of_rows for each in dark.classes) == pytest.approx(1.0)
    assert sum(each.share_of_error.value for each in dark.classes) == pytest.approx(1.0)
    assert found["word start"].fvu.value == pytest.approx(0.0, abs=1e-12)
    assert 0.3 < found["first"].fvu.value < 1.0
    assert sum(each.n for each in dark.classes) == dark.n_rows


def test_a_few_enormous_rows_are_told_apart(world: Corpus, noise: np.ndarray, make_store: MakeStore) -> None:
    """A dictionary that has only learned the enormous rows has a fine FVU, and says nothing of any other row."""
    rows = noise.copy()
    enormous = world.document_starts[np.flatnonzero(world.held_out)[:2]]
    rows[enormous] = 0.0
    rows[enormous, 0] = 3000.0
    measures, _ = look(make_store(world, rows), world, linear_part(torch.eye(D)[:1]))
    assert measures["outlier_variance"].value > 0.99


def test_dense_latents_along_the_mean_are_found(world: Corpus, noise: np.ndarray, make_store: MakeStore) -> None:
    mean = torch.zeros(D)
    mean[3] = 20.0
    encoder = torch.eye(D)
    dictionary = SparseAutoencoder(
        HOOKPOINT, config.ReLU(), encoder, torch.full((D,), -1.0) - 20 * (torch.arange(D) == 5), encoder, torch.zeros(D)
    )
    _, dark = look(make_store(world, noise + mean.numpy()), world, dictionary)
    assert dark.dense[0].latent == 3
    assert dark.dense[0].density == 1.0
    assert dark.dense[0].mean_cosine == pytest.approx(1.0, abs=0.01)
    assert all(abs(each.mean_cosine) < 0.1 for each in dark.dense[1:])
    assert 5 not in {each.latent for each in dark.dense}
    assert len(dark.dense) == D - 1


def test_too_few_or_too_equal_rows_leave_it_undefined(world: Corpus, noise: np.ndarray, make_store: MakeStore) -> None:
    store = make_store(world, noise)
    measures, dark = look(store, world, linear_part(torch.eye(D)[:20]), max_rows=30)
    assert measures["error_r2"].value is None
    assert "rows to fit on, where 64 are needed" in measures["error_r2"].undefined
    assert dark.n_rows <= 30
    constant = np.tile(noise[:1], (world.n_tokens, 1))
    measures, dark = look(make_store(world, constant), world, linear_part(torch.eye(D)))
    assert measures["outlier_variance"].value in (None, 0.0)
    assert measures["error_r2"].value is None
    assert all(each.fvu.value is None or each.fvu.value >= 0 for each in dark.classes)


def test_parts_and_order_of_rows_change_nothing(
    world: Corpus, noise: np.ndarray, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, dictionary = make_store(world, noise), linear_part(torch.eye(D)[:20])
    whole = look(store, world, dictionary)
    monkeypatch.setattr("mohole.evaluate.rows.choice._CHUNK_ELEMENTS", 1)
    small = look(store, world, dictionary)
    for name, measure in whole[0].items():
        assert small[0][name].value == pytest.approx(measure.value, rel=1e-6, abs=1e-9), name
    for one, other in zip(whole[1].classes, small[1].classes, strict=True):
        assert one.share_of_error.value == pytest.approx(other.share_of_error.value, rel=1e-9)


def test_each_token_has_the_class_a_reader_would_give_it(
    make_corpus: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = ("<s>", " the", "cat", "42", " 7", ".", " (", "\n", " \N{REPLACEMENT CHARACTER}", "s", " x1", "\u00bd", "")
    corpus = make_corpus([Document("the a of " * 5), Document("a the " * 5)])
    monkeypatch.setattr(corpus, "pieces", pieces)
    tokens = [1, 2, 9, 3, 9, 4, 5, 6, 7, 8, 10, 11, 12, 2]
    monkeypatch.setattr(corpus, "tokens", np.array(tokens * 200, dtype=np.int32))
    monkeypatch.setattr(corpus, "windows", type(corpus.windows)(np.array([0]), np.array([len(tokens)])))
    names = [CLASSES[i] for i in classes_of(corpus, np.arange(len(tokens)))]
    assert names == [
        "first", "word continued", "word continued", "number", "word start", "number", "punctuation", "punctuation",
        "white space", "part of a character", "word start", "number", "white space", "word start",
    ]  # fmt: skip
    monkeypatch.setattr(corpus, "tokens", np.array([1, *[2] * 999, 3, *[5] * 5, 4, *[1] * 500], dtype=np.int32))
    found = classes_of(corpus, np.array([1000, 1001, 1006, 500]))
    assert [CLASSES[i] for i in found] == ["rare", "rare", "rare", "word continued"]


def test_rows_far_from_zero_are_measured_about_their_mean(
    world: Corpus, noise: np.ndarray, make_store: MakeStore
) -> None:
    """By hand, in double: what is divided by is a distance from the mean row, never a length."""
    rows = 0.5 * noise + 20.0
    store = make_store(world, rows)
    centred = linear_part(torch.eye(D)[:20], torch.full((D,), 20.0))
    measures, dark = look(store, world, centred)
    chosen = choose_rows(world, store, held_out=True, max_rows=100_000, seed=0).tokens
    kept = store.take(HOOKPOINT, chosen).astype(np.float64)
    lost = (kept[:, 20:] - 20.0) ** 2
    far = (kept - kept.mean(0)) ** 2
    for found in dark.classes:
        own = classes_of(world, chosen) == CLASSES.index(found.name)
        assert found.fvu.value == pytest.approx(lost[own].sum() / far[own].sum(), rel=1e-4)
    n_outliers = -(-len(kept) // 1000)
    longest = np.argsort(np.linalg.norm(kept, axis=1))[-n_outliers:]
    assert measures["outlier_variance"].value == pytest.approx(far[longest].sum() / far.sum(), rel=1e-4)


def test_the_upper_half_alone_leaves_a_known_share_that_is_not_linear(
    world: Corpus, noise: np.ndarray, make_store: MakeStore
) -> None:
    """Of a normal z, max(z, 0) is kept: min(z, 0) has variance 1/2 - 1/(2 pi), of which a line says 1/4, wherever zero lies."""
    upper = SparseAutoencoder(
        HOOKPOINT, config.ReLU(), torch.eye(D), torch.zeros(D), torch.eye(D), torch.full((D,), 20.0)
    )
    measures, _ = look(make_store(world, 0.5 * noise + 20.0), world, upper)
    assert measures["fvu_nonlinear"].value == pytest.approx(0.25 - 0.5 / np.pi, rel=0.1)
