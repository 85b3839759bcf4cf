"""The embedder that needs nothing but the labels: words are near that keep the same company.

    X[label, word] = idf(word) where the word stands in the label
    company = X^T X without its diagonal: how often two words stand together       word vector = company[word] Q

Q are the leading right singular vectors of X, as in latent semantic analysis (Deerwester et al. 1990). A word's vector has length
1; a label's is the sum of its words' by their idf, made length 1. It knows what the labels themselves show: that ferry and boat
stand beside the same words, that the labeller wrote Brücke beside bridge. It knows nothing of a word that no label has, and in a
few hundred labels little of any. V itself in place of company V finds nothing in few labels: at full rank every word is alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from mohole.search.meaning import Vectors, unit
from mohole.search.words import WordTable, words

_WIDTH = 96
_EXTRA = 16
"""Columns more than are kept, so that the last ones kept are right."""
_ROUNDS = 4
_BLOCK = 1 << 16
_LEARNS_FROM = 200_000
"""Labels looked at, spread evenly: more do not make word vectors better, and each round passes over all of them."""
_TOO_COMMON = 0.2
"""Share of labels from which on a word says nothing about its company: a labeller's turn of phrase."""


class Company:
    """Satisfies `Embedder`."""

    least = 0.6

    def __init__(self, table: WordTable, columns: Mapping[str, NDArray[Any]]) -> None:
        """Args:
        columns: as `company_columns` gives them of this table, in memory or mapped.
        """
        self._vocabulary = table.vocabulary
        self._idf: NDArray[np.float32] = columns["company_idf"]
        self._idf_of_unknown = float(np.log1p(table.n_texts))
        self._word_vectors: NDArray[np.float32] = columns["company_vectors"]
        self.of_table = Vectors(columns["company_texts"])
        """The vectors of the texts it was learned from."""

    @classmethod
    def of(cls, table: WordTable) -> "Company":
        """Learned from this table's texts."""
        return cls(table, company_columns(table))

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text d"]:
        """One row for each text: shorter by the share of its words, by rarity, that two labels at least do not have."""
        rows = np.zeros((len(texts), self._word_vectors.shape[1]), dtype=np.float32)
        shares = np.zeros((len(texts), 1), dtype=np.float32)
        for i, text in enumerate(texts):
            said = set(words(text))
            known = sorted(number for word in said if (number := self._vocabulary.number(word)) is not None)
            weights = self._idf[known]
            rows[i] = weights @ self._word_vectors[known]
            n_unknown = len(said) - len(known)
            shares[i] = weights.sum() / max(weights.sum() + n_unknown * self._idf_of_unknown, 1e-9)
        return unit(rows) * shares


def company_columns(table: WordTable) -> dict[str, NDArray[Any]]:
    """What the words of a table's texts say of one another: `company_idf`, `company_vectors` (float32, of words), `company_texts`
    (float16, of texts)."""
    n_words = len(table.vocabulary)
    pairs = np.unique(table.text_of_place.astype(np.int64) * max(n_words, 1) + table.flat)  # said twice is said once
    texts, said = pairs // max(n_words, 1), pairs % max(n_words, 1)
    counts = np.bincount(said, minlength=n_words)
    idf = np.log1p(table.n_texts / np.maximum(counts, 1)).astype(np.float32)
    idf[(counts < 2) | (counts > max(_TOO_COMMON * table.n_texts, 2))] = 0.0
    kept = idf[said] > 0
    entries = (idf[said[kept]], (texts[kept], said[kept]))
    rows = sparse.csr_matrix(entries, shape=(table.n_texts, n_words), dtype=np.float32)
    learnt = rows[:: max(1, -(-table.n_texts // _LEARNS_FROM))]
    basis = _right_vectors(learnt)
    alone = np.asarray(learnt.multiply(learnt).sum(axis=0)).ravel()
    vectors = unit(learnt.T @ (learnt @ basis) - alone[:, None] * basis)
    blocks = (rows[start : start + _BLOCK] @ vectors for start in range(0, max(table.n_texts, 1), _BLOCK))
    of_texts = np.concatenate([unit(block).astype(np.float16) for block in blocks])
    return {"company_idf": idf, "company_vectors": vectors, "company_texts": of_texts}


def _right_vectors(rows: sparse.csr_matrix) -> Float[np.ndarray, "word d"]:
    """The leading right singular vectors, by subspace iteration from a fixed start (Halko et al. 2011)."""
    n_words = rows.shape[1]
    width = min(_WIDTH + _EXTRA, *rows.shape)
    if width == 0:
        return np.zeros((n_words, 1), dtype=np.float32)
    basis = np.random.default_rng(0).standard_normal((n_words, width)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
    small = np.linalg.eigh(np.asarray((image := rows @ basis).T @ image, dtype=np.float64))
    return np.asarray(basis @ small.eigenvectors[:, ::-1][:, :_WIDTH], dtype=np.float32)
