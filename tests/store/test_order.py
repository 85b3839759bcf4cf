"""Keys: training rows in the order of their random words below the split, held-out rows in theirs above it; text order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.worlds import make_documents

from mohole import keys
from mohole.store.order import Documents, Order


def words(documents: Documents, seed: int, epoch: int = 0) -> np.ndarray:
    """Each token's whole random word."""
    tokens = np.arange(documents.starts[-1])
    document = np.repeat(np.arange(len(documents.held_out)), np.diff(documents.starts))
    return keys.row_keys(seed, document, tokens - documents.starts[document], epoch=epoch)


def all_keys(order: Order, documents: Documents) -> np.ndarray:
    return order.keys(np.arange(documents.starts[-1]), documents)


@given(st.integers(1, 2**16 - 1), st.integers(0, 99), st.integers(0, 3))
def test_each_part_keeps_the_order_of_its_words_and_has_its_own_range_whatever_the_split(
    split: int, seed: int, epoch: int
) -> None:
    documents = make_documents(40, seed=seed, held_out=0.4)
    held_out = np.repeat(documents.held_out, np.diff(documents.starts))
    order = Order("random", seed, epoch, split)
    found, own = all_keys(order, documents), words(documents, seed, epoch)
    for part in (held_out, ~held_out):
        in_order = found[part][np.argsort(own[part], kind="stable")]
        assert (in_order[1:] >= in_order[:-1]).all()
    assert all(int(key) < order.training_end for key in found[~held_out])
    assert all(int(key) >= order.training_end for key in found[held_out])


@pytest.mark.parametrize("held_out", [0.0, 1.0])
def test_one_part_alone_is_the_order_of_the_words(held_out: float) -> None:
    documents = make_documents(40, held_out=held_out)
    order = Order.random(documents, seed=3)
    np.testing.assert_array_equal(np.argsort(all_keys(order, documents)), np.argsort(words(documents, 3)))
    if held_out == 0.0:  # and the words themselves: nothing is squeezed
        np.testing.assert_array_equal(all_keys(order, documents), words(documents, 3))


def test_both_parts_of_the_key_range_are_filled_alike() -> None:
    documents = make_documents(2000, longest=40, held_out=0.3)
    order = Order.random(documents, seed=0)
    assert order.split / 2**16 == pytest.approx(1 - documents.held_out_share(), abs=2**-16)
    counts = np.bincount((all_keys(order, documents) >> np.uint64(60)).astype(int), minlength=16)
    expected = documents.starts[-1] / 16
    assert (np.abs(counts - expected) < 5 * expected**0.5).all()


def test_a_few_held_out_documents_or_a_few_others_still_have_a_part_of_the_range() -> None:
    many = np.zeros(1_000_001, dtype=bool)
    many[0] = True
    for held_out in (many, ~many):
        documents = Documents(np.arange(1_000_002), held_out)
        assert 0 < Order.random(documents, seed=0).split < 2**16


def test_another_seed_and_another_epoch_are_other_orders() -> None:
    documents = make_documents(100)
    orders = [
        np.argsort(all_keys(Order.random(documents, seed=seed, epoch=epoch), documents))
        for seed, epoch in ((1, 0), (2, 0), (1, 1))
    ]
    for i in range(3):
        assert (orders[i] != orders[i - 1]).mean() > 0.98


def test_more_documents_leave_the_order_of_the_old_rows_as_it_was() -> None:
    """What makes a 1 % run a prefix: of the training rows that both have, the order is the same, for any split."""
    more = make_documents(300)
    old = Documents(more.starts[:101], more.held_out[:100])
    n_old = int(old.starts[-1])
    held_out = np.repeat(more.held_out, np.diff(more.starts))
    for whole in (Order.random(more, seed=1), Order("random", 1, split=Order.random(old, seed=1).split)):
        for part in (held_out, ~held_out):
            mine = np.argsort(
                np.where(part[:n_old], all_keys(Order.random(old, seed=1), old), 2**64 - 1), kind="stable"
            )
            theirs = np.argsort(np.where(part, all_keys(whole, more), 2**64 - 1), kind="stable")[: part.sum()]
            np.testing.assert_array_equal(theirs[theirs < n_old], mine[: part[:n_old].sum()])


def test_a_key_depends_on_its_row_alone() -> None:
    documents, order = make_documents(50), Order.random(make_documents(50), seed=4)
    some = np.array([7, 3, 3, 200, 0])
    np.testing.assert_array_equal(order.keys(some, documents), all_keys(order, documents)[some])


@given(st.integers(1, 3000))
def test_text_order_is_the_order_of_tokens_and_fills_more_than_half_of_the_range(n_tokens: int) -> None:
    documents = Documents(np.array([0, n_tokens]), np.array([False]))
    found = all_keys(Order.text(documents), documents)
    assert found[0] == 0
    assert (np.diff(found) > 0).all()
    if n_tokens > 2:
        assert int(found[-1]) >= 1 << 63


def test_a_document_is_found_by_its_tokens_even_beside_empty_ones() -> None:
    documents = Documents(np.array([0, 0, 3, 3, 5]), np.array([False, True, False, True]))
    assert documents.of(np.array([0, 2, 3, 4])).tolist() == [1, 1, 3, 3]
    assert documents.held_out_share() == 1.0


@pytest.mark.parametrize("order", [Order("random", 3, 1, 50_000), Order("text", n_tokens=77)])
def test_an_order_is_read_back_from_json(order: Order) -> None:
    assert Order.from_json(order.as_json()) == order
