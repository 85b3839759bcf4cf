"""The shuffled order: the same rows, in an order that depends on ids alone and that no statistic tells from chance."""

from pathlib import Path

import numpy as np
import pytest

from mohole import artifact, store
from mohole.store import Store, StoreWriter
from mohole.store.shuffle import shuffled_order

N, PER_DOCUMENT = 20_000, 40
DOCUMENT, POSITION = np.divmod(np.arange(N), PER_DOCUMENT)


def harvested(path: Path, order: np.ndarray) -> Store:
    """A store whose row says which token it is: (token, document, position), and half of that."""
    tokens = np.arange(N)[order]
    rows = np.stack([tokens, DOCUMENT[order], POSITION[order]], axis=1).astype(np.float32)
    with (
        artifact.create(path, artifact.Inputs(kind="activations", config={}, seed=0)) as draft,
        StoreWriter(draft, tokens, DOCUMENT[order] % 10 == 0, {"embed": 3, "mlp_out.0": 3}, "float32") as writer,
    ):
        writer.write("embed", 0, rows)
        writer.write("mlp_out.0", 0, rows / 2)
    return Store.open(path)


def shuffled(path: Path, source: Store, *, seed: int = 1, epoch: int = 0) -> Store:
    document, position = np.divmod(np.asarray(source.tokens), PER_DOCUMENT)
    with artifact.create(path, artifact.Inputs(kind="shuffled", config={}, seed=seed)) as draft:
        store.shuffle(draft, source, document, position, seed=seed, epoch=epoch)
    return Store.open(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("shuffle")
    source = harvested(folder / "harvested", np.arange(N))
    return source, shuffled(folder / "shuffled", source)


def test_the_same_rows_with_their_tokens_in_another_order(pair: tuple[Store, Store]) -> None:
    source, mixed = pair
    assert (mixed.hookpoints, mixed.dtype, mixed.n_rows) == (source.hookpoints, source.dtype, N)
    assert (np.sort(mixed.tokens) == np.arange(N)).all()
    assert (mixed.tokens != source.tokens).mean() > 0.99
    rows = mixed.rows("embed", 0, N).numpy()
    np.testing.assert_array_equal(rows[:, 0], mixed.tokens)
    np.testing.assert_array_equal(mixed.rows("mlp_out.0", 0, N).numpy(), rows / 2)
    np.testing.assert_array_equal(mixed.held_out, rows[:, 1] % 10 == 0)


def test_a_store_harvested_in_another_order_is_shuffled_into_the_same_bytes(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    other = harvested(tmp_path / "h", np.random.default_rng(0).permutation(N))
    again = shuffled(tmp_path / "s", other)
    assert (again.path / "rows.safetensors").read_bytes() == (pair[1].path / "rows.safetensors").read_bytes()


def test_another_seed_and_another_epoch_are_other_orders() -> None:
    orders = [shuffled_order(seed, DOCUMENT, POSITION, epoch=epoch) for seed, epoch in ((1, 0), (2, 0), (1, 1))]
    for i in range(3):
        assert (orders[i] != orders[i - 1]).mean() > 0.99


def test_more_documents_leave_the_order_of_the_old_rows_as_it_was() -> None:
    old = DOCUMENT < 100
    first = shuffled_order(1, DOCUMENT[old], POSITION[old])
    everything = shuffled_order(1, DOCUMENT, POSITION)
    assert (everything[np.isin(everything, np.flatnonzero(old))] == first).all()


def test_a_prefix_is_a_fair_sample_of_documents_and_positions(pair: tuple[Store, Store]) -> None:
    prefix = np.asarray(pair[1].tokens[: N // 10])
    for values, n_values in ((prefix // PER_DOCUMENT // 5, 100), (prefix % PER_DOCUMENT, PER_DOCUMENT)):
        counts = np.bincount(values, minlength=n_values)
        expected = len(prefix) / n_values
        chi2 = ((counts - expected) ** 2 / (expected * 0.9)).sum()  # drawn without replacement: a tenth less variance
        assert abs(chi2 - (n_values - 1)) < 4 * (2 * n_values) ** 0.5


def test_neighbours_have_nothing_to_do_with_each_other(pair: tuple[Store, Store]) -> None:
    """Two-sided: as few neighbours from the same document as chance gives is right, none at all would be wrong too."""
    tokens = np.asarray(pair[1].tokens)
    assert abs(np.corrcoef(tokens[:-1], tokens[1:])[0, 1]) < 4 / N**0.5
    same = int((np.diff(tokens // PER_DOCUMENT) == 0).sum())
    expected = (N - 1) * (PER_DOCUMENT - 1) / (N - 1)
    assert abs(same - expected) < 4 * expected**0.5


def test_every_block_of_the_text_is_spread_over_every_block_of_the_order(pair: tuple[Store, Store]) -> None:
    blocks = 20
    table = np.histogram2d(np.asarray(pair[1].tokens), np.arange(N), bins=blocks, range=((0, N), (0, N)))[0]
    expected = N / blocks**2
    chi2 = ((table - expected) ** 2 / expected).sum()
    freedom = (blocks - 1) ** 2
    assert abs(chi2 - freedom) < 4 * (2 * freedom) ** 0.5  # too even is as wrong as too uneven
