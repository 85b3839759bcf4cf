"""The interval of an F1 takes the tokens of a document as one, as its weights are drawn by document."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mohole.evaluate.recovery.finder import Resampled
from mohole.metrics import document_weights, interval


def test_the_interval_of_an_f1_covers_the_truth_where_documents_are_clustered() -> None:
    """All tokens of a document are decided alike, right in four documents of five, so the true F1 is 0.8.

    Taken as a document each, the same tokens seem ten times the evidence, and their interval misses far more often.
    """
    rng = np.random.default_rng(0)
    n_documents, length = 60, 10
    rows = np.arange(n_documents * length)
    clustered, alone = Resampled(rows // length, seed=0), Resampled(rows, seed=0)
    covered, naive_covered, widths = 0, 0, []
    for _ in range(100):
        positive = np.repeat(rng.random(n_documents) < 0.5, length)
        decided = positive ^ np.repeat(rng.random(n_documents) < 0.2, length)
        (low, high), (naive_low, naive_high) = (
            interval(resampled.f1(rows, decided, positive)) for resampled in (clustered, alone)
        )
        assert low is not None
        assert high is not None
        assert naive_low is not None
        assert naive_high is not None
        covered += low <= 0.8 <= high
        naive_covered += naive_low <= 0.8 <= naive_high
        widths.append((high - low) / (naive_high - naive_low))
    assert 88 <= covered <= 99
    assert naive_covered < 60
    assert np.median(widths) == pytest.approx(np.sqrt(length), rel=0.15)


def test_each_replicate_is_the_f1_with_every_token_counted_as_often_as_its_document() -> None:
    """Of some of the rows only, as in a contrast; documents keep the weights of their own numbers."""
    rng = np.random.default_rng(1)
    documents = np.sort(rng.choice([3, 4, 9, 20, 21, 57], 80))
    rows = np.sort(rng.choice(80, 50, replace=False))
    positive, decided = rng.random(50) < 0.4, rng.random(50) < 0.5
    replicates = Resampled(documents, seed=7).f1(rows, decided, positive)
    weights = document_weights(7, documents[rows])
    for replicate in range(0, len(replicates), 40):
        expected = f1_score(positive, decided, sample_weight=weights[replicate])
        assert replicates[replicate] == pytest.approx(expected, abs=1e-12)
