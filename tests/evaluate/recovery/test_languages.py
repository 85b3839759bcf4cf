"""A concept is one latent in every language only where it fires on all of them, on no other word, in unseen documents."""

import numpy as np
import pytest

from mohole.corpus import Corpus
from mohole.evaluate.recovery.finder import Side
from mohole.evaluate.recovery.languages import measure_languages
from mohole.evaluate.recovery.ranking import SparseColumns
from mohole.evaluate.recovery.results import ConceptLanguages
from mohole.evaluate.recovery.truth import Marks, Truth
from mohole.evaluate.rows.choice import Rows

N = 100  # tokens of each concept in each language on each side, so a rate is a whole number of hundredths
GROUPS = ("fox/en", "fox/de", "dog/en", "dog/de")

Fired = tuple[int, int, int]
"""On how many of 100 tokens a latent fires: English foxes, German foxes, dogs of either language."""


class Words(Corpus):
    """Tokens in blocks of a hundred: English foxes, German foxes, English dogs, German dogs; then the same, held out."""

    labels = ("animal/dog", "animal/fox", "word_language/de", "word_language/en")

    def truth(self, label: str) -> np.ndarray:
        blocks = [i for i, group in enumerate(GROUPS * 2) if label.partition("/")[2] in group.split("/")]
        return np.concatenate([np.arange(N) + N * block for block in blocks])


def side(marks: Marks, *latents: Fired) -> Side:
    dense = np.zeros((len(marks.rows), len(latents)), dtype=np.float32)
    for latent, (english, german, others) in enumerate(latents):
        for block, fired in enumerate((english, german, others, others)):
            dense[N * block : N * block + fired, latent] = 1.0
    rows, columns = dense.nonzero()
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(dense, axis=1))])
    found = SparseColumns(starts, columns, dense[rows, columns], len(latents))
    return Side(marks, dense, found, found)


def fox(selection: list[Fired], scoring: list[Fired]) -> ConceptLanguages:
    """What is said of the fox, of latents that fire like this on the two sides."""
    corpus = Words.__new__(Words)
    n_rows = len(GROUPS) * N
    chosen, judged = (
        Marks(corpus, Rows(tokens, tokens)) for tokens in (np.arange(n_rows), np.arange(n_rows, 2 * n_rows))
    )
    truth = Truth(list(Words.labels), chosen, judged, min_positives=10)
    found = measure_languages(truth, side(chosen, *selection), side(judged, *scoring), min_tokens=20)
    return next(concept for concept in found.concepts if concept.label == "animal/fox")


@pytest.mark.parametrize(
    ("others", "is_multilingual"), [(0, True), (4, True), (5, False), (6, False), (50, False), (100, False)]
)
def test_a_latent_that_fires_on_other_words_of_the_family_is_not_the_concept(
    others: int, is_multilingual: bool
) -> None:
    found = fox([(100, 100, 0)], [(100, 100, others)])
    assert found.n_fired == len(found.languages) == 2
    assert (found.other_rate, found.n_other) == (others / 100, 2 * N)
    assert found.is_multilingual is is_multilingual


@pytest.mark.parametrize(
    ("german", "n_fired"), [(100, 2), (91, 2), (90, 1), (89, 1), (70, 1), (51, 1), (0, 1)]
)  # fmt: skip
def test_a_latent_counts_in_a_language_only_where_it_fires_on_more_than_nine_in_ten(german: int, n_fired: int) -> None:
    found = fox([(100, 100, 0)], [(100, german, 0)])
    assert found.n_fired == n_fired
    assert found.is_multilingual is (n_fired == 2)


def test_rates_are_those_of_the_documents_that_did_not_choose_the_latent() -> None:
    looked_good, held_up = fox([(100, 99, 0)], [(95, 60, 20)]), fox([(60, 70, 20)], [(99, 95, 1)])
    assert {item.language: (item.rate, item.n) for item in looked_good.languages} == {"en": (0.95, N), "de": (0.6, N)}
    assert (looked_good.n_fired, looked_good.other_rate, looked_good.is_multilingual) == (1, 0.2, False)
    assert {item.language: (item.rate, item.n) for item in held_up.languages} == {"en": (0.99, N), "de": (0.95, N)}
    assert (held_up.n_fired, held_up.other_rate, held_up.is_multilingual) == (2, 0.01, True)


def test_the_latent_is_the_one_that_was_best_where_it_was_chosen() -> None:
    """The second latent is the better one in the held-out documents, which have no say."""
    found = fox([(100, 90, 0), (80, 80, 0)], [(100, 70, 0), (100, 100, 0)])
    assert (found.latent, found.is_multilingual) == (0, False)
    turned = fox([(80, 80, 0), (100, 90, 0)], [(100, 100, 0), (100, 70, 0)])
    assert (turned.latent, turned.is_multilingual) == (1, False)
