"""A latent in another dictionary: what comparing every pair finds, what chance gives, and correlations by numpy's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.catalogue.test_neighbours import slowly, some_directions

from mohole.catalogue import elsewhere, matches
from mohole.catalogue.elsewhere import correlation, nearest_to
from mohole.store.latent_index import Entries


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([1, 2, 3, 17]), st.integers(1, 6), st.booleans())
def test_the_nearest_are_what_comparing_every_pair_finds(seed: int, n_latents: int, d: int, n: int, cut: bool) -> None:
    """Copies, other lengths, rows without length; in one block and in many."""
    rows = some_directions(seed, n_latents + 1, d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elsewhere, "_BLOCK_NUMBERS", 2 * d if cut else 1 << 20)
        latents, cosines, n_alive = nearest_to(rows[0].numpy(), rows[1:].numpy(), n)
    everyone, their_cosines = slowly(rows, n_latents)
    expected = [(j - 1, cosine) for j, cosine in zip(everyone[0], their_cosines[0], strict=True) if j > 0][:n]
    assert list(zip(latents.tolist(), cosines.tolist(), strict=True)) == expected
    assert n_alive == int((rows[1:] != 0).any(1).sum())


def test_lengths_that_float32_cannot_square_are_lengths_all_the_same() -> None:
    rows = np.array([[3e-30, 4e-30], [1, 0], [3e30, 4e30], [np.inf, 1], [np.nan, 1], [0, 0]], dtype=np.float32)
    latents, cosines, n_alive = nearest_to(np.array([3, 4], np.float32), rows, 6)
    assert (latents.tolist(), n_alive) == ([0, 2, 1], 3)
    assert cosines.tolist() == pytest.approx([1, 1, 0.6])


def test_one_direction_finds_its_copy_among_random_ones_and_random_ones_find_chance() -> None:
    generator = torch.Generator().manual_seed(3)
    among = torch.randn(4000, 24, generator=generator).numpy()
    among[77] = among[77] * 5
    latents, cosines, _ = nearest_to(among[77] / 9, among, 2)
    assert (int(latents[0]), float(cosines[0])) == (77, pytest.approx(1))
    best = [float(nearest_to(row, among, 1)[1][0]) for row in torch.randn(200, 24, generator=generator).numpy()]
    assert np.mean(best) == pytest.approx(elsewhere.expected_max_cosine(24, 4000), abs=0.01)


def entries(dense: np.ndarray) -> Entries:
    """As an index has them; the tokens looked at are every third one of a text."""
    token = 3 * np.flatnonzero(dense)
    return Entries(np.zeros(len(token), np.int64), token, dense[dense != 0].astype(np.float32))


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_a_correlation_is_numpys_of_the_dense_columns(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = (np.float32(draw.random(n) * (draw.random(n) < 0.5)) for _ in range(2))
    found = correlation(entries(one), entries(other), n)
    if one.std() == 0 or other.std() == 0:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(one.astype(float), other.astype(float))[0, 1], abs=1e-9)


def test_a_latent_is_found_in_a_dictionary_with_other_numbers(make_corpus, make_store, build) -> None:
    """The same latents counted backwards have cosine and correlation 1; over other tokens no correlation is known."""
    corpus = make_corpus([[1 + i, 2, 3, 4] for i in range(6)])
    rows = np.float32(np.maximum(np.random.default_rng(0).normal(size=(24, 5)), 0))
    rows[:, 2] = 0
    backwards = np.ascontiguousarray(rows[:, ::-1])
    one = build(corpus, make_store(rows), "one")
    other = build(corpus, make_store(backwards, name="backwards"), "other")
    part = build(corpus, make_store(backwards, name="again"), "part", max_tokens=8)
    eye = np.eye(5, dtype=np.float32)
    assert matches(one, eye, 0, other, eye[::-1]).matches[0].correlation is None, "nobody knows that the corpus is one"
    for each in (one, other, part):
        each.manifest.inputs.parents["corpus"] = "the same"
    for latent in range(5):
        found = matches(one, eye, latent, other, eye[::-1], n=2)
        best, second = found.matches
        assert (best.latent, best.cosine, second.cosine) == (4 - latent, pytest.approx(1), pytest.approx(0))
        assert best.correlation == (None if latent == 2 else pytest.approx(1)), "one never fires"
        assert 0 < found.chance < 1
    by_direction_alone = matches(one, eye, 0, other, eye).matches[0]
    expected = np.corrcoef(rows[:, 0], rows[:, 4])[0, 1]
    assert (by_direction_alone.latent, by_direction_alone.correlation) == (0, pytest.approx(expected, abs=1e-6))
    assert matches(one, eye, 0, part, eye[::-1]).matches[0].correlation is None, "another sample of the tokens"


def test_what_cannot_be_compared_is_refused(make_corpus, make_store, build) -> None:
    one = build(make_corpus([[1 + i, 2] for i in range(6)]), make_store(np.ones((12, 3), np.float32)))
    eye = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="of 3 and of 4 numbers"):
        matches(one, eye, 0, one, np.eye(4, dtype=np.float32))
    for latent in (-1, 3):
        with pytest.raises(IndexError, match=f"latent {latent}: this dictionary has 3"):
            matches(one, eye, latent, one, eye)
    nothing = matches(one, eye, 0, one, eye * 0)
    assert (nothing.matches, nothing.chance) == ((), 0.0)
